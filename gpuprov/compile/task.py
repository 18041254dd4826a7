"""One task of one host, as a node of its plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpuprov.compile.actions import ACTIONS, SHARED
from gpuprov.compile.arguments import Arguments
from gpuprov.compile.conditions import Conditions, Decision
from gpuprov.compile.inherit import listed
from gpuprov.compile.keywords import Keywords
from gpuprov.compile.passes import Passes
from gpuprov.compile.prepare import is_constant
from gpuprov.errors import SourceErrors
from gpuprov.templating.names import NONE
from gpuprov.templating.problem import TemplateProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gpuprov.compile.build import HostBuild
    from gpuprov.compile.prepare import Prepared
    from gpuprov.compile.problems import Problems
    from gpuprov.templating.renderer import Renderer


class TaskCompiler:
    """Compiles one task for one host; used once. What is wrong goes to *problems*.

    become has the host's variables that win over the keywords of that name.
    """

    def __init__(
        self, build: HostBuild, prepared: Prepared, renderer: Renderer, problems: Problems, become: Mapping[str, Any]
    ) -> None:
        self._build = build
        self._prepared = prepared
        self._task = prepared.task
        self._problems = problems
        self._become = become
        self._renderer = renderer.child(templates=prepared.variables) if prepared.variables else renderer
        self._keywords = Keywords(build, prepared, self._renderer)
        self._conditions = Conditions(build, prepared)
        self._failed = False
        build.begin_task(prepared.stale)

    def node(self) -> dict[str, Any] | None:
        """Return the task's node, None after a problem."""
        if self._prepared.constant is not None:
            return self._shared(self._prepared.constant)
        node = self._head()
        decision = self._try(lambda: self._conditions.when(self._prepared.place.when, self._renderer)) or Decision()
        skip = decision.skip or self._too_quiet()
        if skip:
            node["skip"] = skip
        else:
            self._try(lambda: self._body(node, decision))
            self._carry(node)
        if self._failed:
            return None
        if self._build.task_files:
            node["files"] = list(dict.fromkeys(self._build.task_files))
        self._share(node)
        return node

    def _too_quiet(self) -> str:
        """Return why a `debug` with a verbosity above the run's says nothing, "" when it speaks."""
        if self._task.action != "debug":
            return ""
        wanted = self._task.args.get("verbosity", 0)
        given = self._build.shared.run_names["ansible_verbosity"]
        return f"shown with -{'v' * wanted} only" if isinstance(wanted, int) and wanted > given else ""

    def _try(self, work: Callable[[], Any]) -> Any:
        """Return what *work* returns; what it raises about the input is noted, and the task has failed then."""
        try:
            return work()
        except TemplateProblem as problem:
            self._problems.template(problem, self._task.position, problem.path)
        except SourceErrors as error:
            for one in error.problems:
                self._problems.add(one.code, one.message, one.position, one.hint, one.context)
        self._failed = True
        return None

    def _shared(self, node: dict[str, Any]) -> dict[str, Any] | None:
        """Return the node that is the same for every host, but for who runs it."""
        self._build.files.update(self._prepared.files)
        self._build.blobs.update(self._prepared.blobs)
        if not self._become:
            return node
        become = self._try(lambda: self._keywords.become(self._become))
        own = {key: value for key, value in node.items() if key not in ("become", "become_user")}
        return None if self._failed else {**own, **become}

    def _share(self, node: dict[str, Any]) -> None:
        """Keep the node for all hosts, when it is the same for all of them."""
        action = self._task.action
        if self._become or (action in ACTIONS and action not in SHARED) or not is_constant(self._prepared):
            return
        sent = self._build.task_files
        self._prepared.files = {sha256: self._build.files[sha256] for sha256 in sent}
        self._prepared.blobs = {sha256: self._build.blobs[sha256] for sha256 in sent}
        self._prepared.constant = node

    def _head(self) -> dict[str, Any]:
        """Return what every task has, skipped or not."""
        prepared, task = self._prepared, self._task
        node: dict[str, Any] = {
            "kind": "task",
            "id": prepared.id,
            "name": self._keywords.name(),
            "action": task.action,
            "position": str(task.position),
        }
        if prepared.role is not None:
            node["role"] = prepared.role.name
        if prepared.place.tags:
            node["tags"] = sorted(prepared.place.tags)
        if task.keywords.get("register"):
            node["register"] = str(task.keywords["register"])
        if task.keywords.get("listen") is not None:
            node["listen"] = [str(topic) for topic in listed(task.keywords["listen"])]
        node.update(self._try(lambda: self._keywords.become(self._become)) or {})
        node.update(self._try(self._keywords.inherited) or {})
        return node

    def _body(self, node: dict[str, Any], decision: Decision) -> None:
        """Add what only a task that may run has."""
        if decision.waiting:
            node["when"] = list(decision.waiting)
        if self._prepared.notify:
            names = [str(self._keywords.value("notify", name)) for name in self._prepared.notify]
            node["notify"] = [self._handler_name(name) for name in names]
        self._judgements(node)
        arguments = Arguments(self._build, self._prepared)
        if self._prepared.loop is not None:
            passes = Passes(self._build, self._prepared.loop, self._renderer)
            if self._prepared.loop.pause is not None:
                node["pause_s"] = self._keywords.number("pause", self._prepared.loop.pause)
            passes.put_into(node, arguments, self._conditions, decision)
            return
        found = arguments.rendered(self._renderer, may_be_skipped=bool(decision.waiting))
        found.put_into(node, quote=bool(found.defer))
        if found.defer:
            node["defer"] = found.defer

    def _judgements(self, node: dict[str, Any]) -> None:
        """Add changed_when, failed_when and until. What names the result waits for it."""
        prepared = self._prepared
        if prepared.changed_when:
            node["changed_when"] = self._conditions.all_hold(prepared.changed_when, self._renderer)
        if prepared.failed_when:
            node["failed_when"] = self._conditions.all_hold(prepared.failed_when, self._renderer)
        until = self._conditions.all_hold(prepared.until, self._renderer)
        if until is True and (prepared.until or self._task.keywords.get("retries") is None):
            return
        if until is not True:  # retries alone: until it succeeds
            node["until"] = until or ["false"]
        if self._task.keywords.get("retries") is not None:
            node["retries"] = int(self._keywords.number("retries", self._task.keywords["retries"]))
        if self._task.keywords.get("delay") is not None:
            node["delay_s"] = self._keywords.number("delay", self._task.keywords["delay"])

    def _handler_name(self, name: str) -> str:
        """Return a notified name without the role before it (`role : handler`)."""
        role, colon, handler = name.partition(" : ")
        roles = [self._prepared.role.name] if self._prepared.role is not None else []
        return handler if colon and (role in roles or not roles) else name

    def _carry(self, node: dict[str, Any]) -> None:
        """Add the variables that the host needs to decide and render what waits."""
        need = self._build.need
        if need is NONE or self._failed:
            return
        skip = self._prepared.loop.names if self._prepared.loop is not None else frozenset()
        found = self._try(lambda: self._build.deferral.carried(need, self._renderer, self._prepared.stale, skip))
        if found:
            node["vars"] = found
