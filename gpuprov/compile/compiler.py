"""The compiler: a playbook, an inventory and one host's facts become that host's plan."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpuprov.compile.build import HostBuild, Shared
from gpuprov.compile.content import Content
from gpuprov.compile.magic import Groups, run_names
from gpuprov.compile.prepare import Prepared, PreparedBlock, PreparedPlay, prepare
from gpuprov.compile.problems import Problems
from gpuprov.compile.stacks import SETTINGS, HostStacks, Stacks, play_settings
from gpuprov.compile.tags import Selection
from gpuprov.compile.task import TaskCompiler
from gpuprov.errors import SourceErrors, UsageError
from gpuprov.source import plain
from gpuprov.templating.problem import TemplateProblem
from gpuprov.templating.values import has_template, truth
from gpuprov.wire import PROTOCOL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gpuprov.compile.actions import Wheels
    from gpuprov.model import Inventory, Playbook
    from gpuprov.templating.renderer import Renderer

    #: (inventory, pattern) -> names of hosts; load.patterns.select is one. May raise UsageError.
    Select = Callable[[Inventory, str], Iterable[str]]

_BECOME = ("ansible_become", "ansible_become_user")
_SECRET = re.compile(r"(?:^|_)(?:password|passwd|pass|secret|token|api_key|private_key)\Z")
#: Shorter values would hide innocent text wherever they occur.
_SECRET_LENGTH = 4


@dataclass(frozen=True, slots=True)
class Compiled:
    """A host's plan, the files it may need (sha256 -> path here, or content), what to warn about, its stack."""

    plan: dict[str, Any]
    files: Mapping[str, str | bytes]
    warnings: tuple[str, ...] = ()
    stack: Mapping[str, Any] | None = None


class Compiler:
    """Compiles plans. One for a run; its methods may be called from many threads."""

    def __init__(
        self,
        playbook: Playbook,
        inventory: Inventory,
        *,
        select: Select,
        run: str,
        extra_vars: Mapping[str, Any] | None = None,
        check: bool = False,
        diff: bool = False,
        tags: Iterable[str] | None = None,
        skip_tags: Iterable[str] | None = None,
        wheels: Wheels | None = None,
        stacks: Stacks | None = None,
        content: Content | None = None,
        verbosity: int = 0,
    ) -> None:
        self.run, self.check, self.diff = run, check, diff
        self._inventory = inventory
        self._extra = dict(extra_vars or {})
        self._selection = Selection.of(tags, skip_tags)
        self._plays = prepare(playbook, members_of(playbook, inventory, select), self._extra)
        names = run_names(inventory, playbook.path, run, check=check, diff=diff, verbosity=verbosity)
        names["groups"] = Groups(inventory)
        folder = os.path.dirname(os.path.abspath(playbook.path))
        self._shared = Shared(inventory, folder, content or Content(), wheels, names, self._extra)
        self._stacks = HostStacks(stacks, self._shared, self._plays, self._selection)

    def settings(self, host: str) -> dict[str, Any]:
        """Return the rendered `ansible_*` and `gpuprov_*` variables of *host*.

        Without facts: `gpuprov_*` variables that need them are left out. Raises SourceErrors.
        """
        build = HostBuild(self._shared, self._inventory.hosts[host], {}, frozenset())
        variables = play_settings(self._plays_of(host))
        renderer = build.settings_renderer(variables)
        problems = Problems(self._shared.content)
        found: dict[str, Any] = {}
        for name in [*build.inventory, *variables, *self._extra]:
            if not name.startswith(SETTINGS) or name in found:
                continue
            try:
                found[name] = plain(renderer.value(name))
            except TemplateProblem as problem:
                if not (name.startswith("gpuprov_") and problem.code == "undefined"):
                    problems.template(problem, None)
        if problems.found:
            raise SourceErrors(problems.found.values())
        return found

    def needs_root(self, host: str) -> bool:
        """Say whether a task for *host* runs as another user than the one who logs in.

        A `become` that is a template counts as yes.
        """
        own = self._inventory.hosts[host].value("ansible_become", self._extra.get("ansible_become"))
        own = self._extra.get("ansible_become", own)
        if own is not None:
            return has_template(own) or truth(own)
        for play in self._plays_of(host):
            for task in play.tasks():
                become = task.place.nearest.get("become")
                if become is not None and (has_template(become) or truth(become)) and self._runs(task):
                    return True
        return False

    def wants_stack(self, host: str) -> bool:
        """Say whether anything that is to run on *host* names the stack that fits it."""
        return self._stacks.wanted(host, self._plays_of(host))

    def stack_want(self, host: str, facts: Mapping[str, Any]) -> Any:
        """Return `gpuprov_stack` of *host*, None when nothing sets it. Raises SourceErrors."""
        return self._stacks.want(host, self._plays_of(host), facts)

    def learn(self, host: str, facts: Mapping[str, Any]) -> None:
        """Make the facts of *host* known to other hosts' `hostvars`; before any plan is compiled."""
        self._shared.known_facts[host] = facts

    def forget(self) -> None:
        """Forget all facts: no more plans are compiled."""
        self._shared.known_facts.clear()

    def plan(self, host: str, facts: Mapping[str, Any]) -> Compiled:
        """Return the plan of *host*. Pure but for reading files and asking for wheels.

        Raises SourceErrors for what only facts could reveal, RefusedError when no package or stack fits.
        """
        plays = self._plays_of(host)
        results = frozenset().union(*(play.defines for play in plays))
        stack = self._stacks.of(host, plays, facts)
        build = HostBuild(self._shared, self._inventory.hosts[host], facts, results, stack)
        compilation = _HostCompilation(build, self._selection)
        nodes = [compilation.play(play) for play in plays]
        if compilation.problems.found:
            raise SourceErrors(compilation.problems.found.values())
        plan: dict[str, Any] = {
            "protocol": PROTOCOL,
            "run": self.run,
            "host": host,
            "check": self.check,
            "diff": self.diff,
            "plays": nodes,
            "vars": {},
            "blobs": build.blobs,
            "jinja": compilation.jinja,
            "secrets": secrets(build.settings_renderer(_variables_of(plays))),
        }
        return Compiled(plan, build.files, stack=stack)

    def _plays_of(self, host: str) -> list[PreparedPlay]:
        return [play for play in self._plays if host in play.hosts]

    def _runs(self, task: Prepared) -> bool:
        return task.task.action != "meta" and self._selection.runs(task.place.tags)


def members_of(playbook: Playbook, inventory: Inventory, select: Select) -> list[list[str]]:
    """Return the hosts of each play; none for a pattern that matches nothing."""
    members = []
    for play in playbook.plays:
        try:
            members.append(list(select(inventory, play.hosts)))
        except UsageError:
            members.append([])
    return members


class _HostCompilation:
    """One call of Compiler.plan."""

    def __init__(self, build: HostBuild, selection: Selection) -> None:
        self.build = build
        self.problems = Problems(build.content)
        self.jinja = False
        self._selection = selection
        self._notified: set[str] = set()
        own = {**build.inventory, **build.shared.extra}
        self._become = {name: own[name] for name in _BECOME if name in own}

    def play(self, play: PreparedPlay) -> dict[str, Any]:
        """Return a play's node."""
        self._notified = set()
        nodes = self._nodes(play.nodes, play)
        handlers = [node for handler in play.handlers if (node := self._task(handler, play)) is not None]
        handlers = self._wanted(handlers)
        for node in (*nodes, *handlers):
            self.jinja = self.jinja or uses_templates(node)
        found: dict[str, Any] = {"id": play.id, "name": self._name(play), "nodes": nodes, "handlers": handlers}
        force = play.play.keywords.get("force_handlers")
        if force is not None and truth(force):
            found["force_handlers"] = True
        return found

    def _name(self, play: PreparedPlay) -> str:
        try:
            return str(self.build.renderer(play, None).render(play.play.name))
        except TemplateProblem:
            return str(play.play.name)

    def _wanted(self, handlers: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the handlers that a task or another wanted handler may notify."""
        wanted = set(self._notified)
        kept: list[dict[str, Any]] = []
        more = True
        while more:
            kept = [h for h in handlers if not wanted.isdisjoint([h["name"], *h.get("listen", ())])]
            before = len(wanted)
            wanted.update(name for handler in kept for name in handler.get("notify", ()))
            more = len(wanted) > before
        return kept

    def _nodes(self, nodes: Iterable[Prepared | PreparedBlock], play: PreparedPlay) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for node in nodes:
            if isinstance(node, PreparedBlock):
                found += self._block(node, play)
            else:
                task = self._task(node, play)
                found += [task] if task is not None else []
        return found

    def _block(self, block: PreparedBlock, play: PreparedPlay) -> list[dict[str, Any]]:
        """Return a block's node; its tasks themselves when it only passes its keywords on to them."""
        if not block.rescue and not block.always:
            return self._nodes(block.block, play)
        parts = {name: self._nodes(getattr(block, name), play) for name in ("block", "rescue", "always")}
        if not parts["block"] and not parts["always"]:
            return []
        name, at = block.source.keywords.get("name"), block.source.position
        return [{"kind": "block", "id": block.id, "name": str(name or ""), "position": str(at), **parts}]

    def _task(self, prepared: Prepared, play: PreparedPlay) -> dict[str, Any] | None:
        task = prepared.task
        if task.action == "meta":
            return self._meta(prepared, play)
        if not task.handler and not self._selection.runs(prepared.place.tags):
            return None
        renderer = self.build.renderer(play, prepared.role)
        node = TaskCompiler(self.build, prepared, renderer, self.problems, self._become).node()
        if node is not None and not task.handler:
            self._notified.update(node.get("notify", ()))
        return node

    @staticmethod
    def _meta(prepared: Prepared, play: PreparedPlay) -> dict[str, Any] | None:
        if not play.handlers:
            return None
        args = plain(prepared.args)
        return {"kind": "task", "id": prepared.id, "name": "flush handlers", "action": "meta", "args": args}


def uses_templates(node: Mapping[str, Any]) -> bool:
    """Say whether the host needs Jinja2 for *node*."""
    if node.get("kind") == "block":
        return any(uses_templates(n) for part in ("block", "rescue", "always") for n in node.get(part, ()))
    if any(node.get(key) for key in ("defer", "when", "loop", "until")):
        return True
    if any(isinstance(node.get(key), list) for key in ("changed_when", "failed_when")):
        return True
    if isinstance(node.get("ignore_errors"), str):
        return True
    if node["action"] != "assert":
        return False
    passes = [node, *node.get("items", ())]
    return any(_undecided(one["args"]) for one in passes if "that" in one.get("args", {}))


def _undecided(args: Mapping[str, Any]) -> bool:
    decided = args.get("_decided") or {}
    return any(isinstance(part, str) and part not in decided for part in args["that"])


def _variables_of(plays: Iterable[PreparedPlay]) -> dict[str, Any]:
    """Return the variables of plays and roles that have a name of a secret."""
    found: dict[str, Any] = {}
    for play in plays:
        for variables in (*(v for role in play.play.roles for v in (role.defaults, role.variables, role.params)),):
            found.update({k: v for k, v in variables.items() if _SECRET.search(k)})
        found.update({k: v for k, v in play.play.variables.items() if _SECRET.search(k)})
    return found


def secrets(renderer: Renderer) -> list[str]:
    """Return the values of variables whose names say that they are secret."""
    found = set()
    for name in renderer:
        if not _SECRET.search(name):
            continue
        try:
            value = renderer.value(name)
        except TemplateProblem:
            continue  # it is nowhere in the plan either, or rendering the plan has said so
        if isinstance(value, str) and len(value) >= _SECRET_LENGTH:
            found.add(value)
    return sorted(found)
