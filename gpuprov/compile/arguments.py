"""A task's arguments and environment on one host: rendered, or on their way to be rendered there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from gpuprov.agent.modules import load
from gpuprov.agent.modules.arguments import check
from gpuprov.compile.actions import ACTIONS, EXPRESSIONS, Work
from gpuprov.compile.deferred import quoted
from gpuprov.errors import Problem, SourceErrors
from gpuprov.source import place_of, plain
from gpuprov.templating.names import NONE, Names, condition_names, names_of
from gpuprov.templating.problem import TemplateProblem
from gpuprov.templating.values import OMIT, has_template

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuprov.compile.build import HostBuild
    from gpuprov.compile.prepare import Prepared
    from gpuprov.templating.renderer import Renderer


class Rendered(NamedTuple):
    """What a node, or a pass of its loop, gets. waiting and late are what of each is still a template."""

    args: dict[str, Any]
    environment: dict[str, Any]
    waiting: set[str]
    late: set[str]

    @property
    def defer(self) -> list[str]:
        """Which of the two hold templates."""
        return [*(["args"] if self.waiting else []), *(["environment"] if self.late else [])]

    def put_into(self, node: dict[str, Any], *, quote: bool) -> None:
        """Add them to *node*. *quote*: the host renders all of it, so what is known must survive that."""
        keep = quoted if quote else plain
        node["args"] = {k: plain(v) if k in self.waiting else keep(v) for k, v in self.args.items()}
        if self.environment:
            node["environment"] = {k: v if k in self.late else keep(v) for k, v in self.environment.items()}


class Arguments:
    """Renders the arguments of one task. Methods raise SourceErrors and TemplateProblem."""

    def __init__(self, build: HostBuild, prepared: Prepared) -> None:
        self._build = build
        self._prepared = prepared
        expressions = EXPRESSIONS.get(prepared.task.action, frozenset())
        self._expressions = {k: v for k, v in prepared.args.items() if k in expressions}
        self._texts = {k: v for k, v in prepared.args.items() if k not in expressions} if expressions else prepared.args

    def names(self) -> Names:
        """Return the names of all that is rendered."""
        found = names_of(self._texts) | names_of(list(self._prepared.place.environment))
        for value in self._expressions.values():
            for part in value if isinstance(value, list) else [value]:
                found = found | (condition_names(str(part)) if isinstance(part, str) else NONE)
        return found

    def rendered(self, renderer: Renderer, *, may_be_skipped: bool) -> Rendered:
        """Return them as far as *renderer* knows. *may_be_skipped*: undefined names are left to the host."""
        args, waiting = self._values(self._texts, renderer, may_be_skipped)
        action = self._prepared.task.action
        if action in ACTIONS:
            args.update((key, plain(value)) for key, value in self._expressions.items())
            ACTIONS[action](Work(self._prepared, args, waiting, renderer, self._build))
        if has_template(self._prepared.args):
            self._check(args)
        environment, late = self._environment(renderer, may_be_skipped)
        return Rendered(args, environment, waiting, late)

    def _values(
        self, values: Mapping[str, Any], renderer: Renderer, may_be_skipped: bool
    ) -> tuple[dict[str, Any], set[str]]:
        """Return *values* rendered as far as they are known, and the names of those that wait."""
        found: dict[str, Any] = {}
        waiting: set[str] = set()
        for key, value in values.items():
            if not has_template(value) and not has_template(key):
                found[key] = value
                continue
            names = names_of(value) | names_of(key)
            waits = self._build.waits(names, renderer)
            if not waits:
                try:
                    found.update(renderer.render({key: value}))
                except TemplateProblem as problem:
                    if problem.code != "undefined" or not may_be_skipped:
                        raise
                    waits = True  # a condition that waits may keep this from being asked for
            if waits:
                found[key] = value
                waiting.add(key)
                self._build.carry(names)
        return found, waiting

    def _check(self, args: Mapping[str, Any]) -> None:
        """Check what is known now against what the module declares; the host checks the rest."""
        task, written = self._prepared.task, self._prepared.args
        spec = load(task.action).SPEC
        if spec.get("any_name"):
            return
        _, wrong = check(spec, dict(args), has_template)
        problems = []
        for one in wrong:
            names = [one.name, *spec["args"].get(one.name, {}).get("aliases", ())]
            place = next((place_of(written, name) for name in names if name in written), None) or task.position
            problems.append(Problem(one.code, f"{task.action}: {one.message}", place, one.hint))
        if problems:
            raise SourceErrors(problems)

    def _environment(self, renderer: Renderer, may_be_skipped: bool) -> tuple[dict[str, Any], set[str]]:
        """Return the environment of all levels merged, and the names in it that wait."""
        found: dict[str, Any] = {}
        late: set[str] = set()
        for part in self._prepared.place.environment:
            mapping = renderer.render(part) if isinstance(part, str) else part
            if mapping is OMIT or mapping is None:
                continue
            if not isinstance(mapping, dict):
                task = self._prepared.task
                message = f"environment is a {type(mapping).__name__}, not a mapping of names to values"
                at = place_of(task.keywords, "environment") or task.position
                raise SourceErrors([Problem("environment", message, at)])
            values, waiting = self._values(mapping, renderer, may_be_skipped)
            found.update({str(k): plain(v) if k in waiting else _text(v) for k, v in values.items()})
            late = (late - set(values)) | waiting
        return found, late


def _text(value: Any) -> str:
    """Return the text that an environment variable with *value* has."""
    return "" if value is None else str(value)
