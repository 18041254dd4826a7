"""Which plays need to know the stack that fits a host, and how they get it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

from gpuprov.compile.build import HostBuild
from gpuprov.compile.content import search_path
from gpuprov.compile.magic import RESOLVED
from gpuprov.compile.problems import Problems
from gpuprov.errors import SourceErrors
from gpuprov.templating.names import NONE, Names, condition_names, names_of, text_names
from gpuprov.templating.problem import TemplateProblem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from gpuprov.compile.build import Shared
    from gpuprov.compile.content import Content
    from gpuprov.compile.prepare import Prepared, PreparedPlay
    from gpuprov.compile.tags import Selection
    from gpuprov.model import Inventory
    from gpuprov.templating.renderer import Renderer

#: Variables that say how a host is reached and treated.
SETTINGS = ("ansible_", "gpuprov_")
#: What an inventory wants of a host's stack.
WANT = "gpuprov_stack"
#: torch's version as a variable of its own: the same wish.
TORCH = "gpuprov_torch_version"


class Stacks(Protocol):
    """Finds the stack that fits a host (gpuprov/stack, through the command line)."""

    def resolve(self, host: str, want: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the stack as playbooks see it. Raises RefusedError when none fits, SourceErrors for a wrong want."""


class HostStacks:
    """Which hosts of a playbook need to know their stack, and what it is. Thread-safe: only a cache changes."""

    def __init__(
        self, stacks: Stacks | None, shared: Shared, plays: Sequence[PreparedPlay], selection: Selection
    ) -> None:
        self._stacks = stacks
        self._shared = shared
        self._selection = selection
        self._named = stacks is not None and is_named(plays, shared.inventory, shared.extra, shared.content)
        self._wanted: dict[str, bool] = {}

    def wanted(self, host: str, plays: Sequence[PreparedPlay]) -> bool:
        """Say whether anything that is to run on *host*, which is in *plays*, names its stack."""
        if not self._named:
            return False
        found = self._wanted.get(host)
        if found is None:
            build = HostBuild(self._shared, self._shared.inventory.hosts[host], {}, frozenset())
            found = self._wanted[host] = any(
                self._selection.runs(task.place.tags) and reaches(build, play, task)
                for play in plays
                for task in play.tasks()
            )
        return found

    def of(self, host: str, plays: Sequence[PreparedPlay], facts: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the stack that fits *host*; None when nothing needs it. Raises RefusedError, SourceErrors."""
        if self._stacks is None or not self.wanted(host, plays):
            return None
        return self._stacks.resolve(host, self.want(host, plays, facts), facts)

    def want(self, host: str, plays: Sequence[PreparedPlay], facts: Mapping[str, Any]) -> Any:
        """Return what the inventory, or the first play that says so, wants of *host*'s stack; None for no wishes.

        Raises SourceErrors.
        """
        build = HostBuild(self._shared, self._shared.inventory.hosts[host], facts, frozenset())
        renderers = [build.renderer(play, None) for play in plays] or [build.settings_renderer({})]
        renderer = next((one for one in renderers if WANT in one), None)
        try:
            want = None if renderer is None else renderer.value(WANT)
            return self._with_torch(host, want, renderers[0])
        except TemplateProblem as problem:
            problems = Problems(self._shared.content)
            problems.template(problem, None)
            raise SourceErrors(problems.found.values()) from None

    def _with_torch(self, host: str, want: Any, renderer: Renderer) -> Any:
        """Return *want* with the version of torch that the inventory or the command line sets by itself."""
        named = TORCH in self._shared.extra or self._shared.inventory.hosts[host].value(TORCH) is not None
        if not named or not isinstance(want, dict | None) or "torch" in (want or {}):
            return want
        version = renderer.value(TORCH)
        return {**(want or {}), "torch": str(version)} if version else want


def play_settings(plays: Sequence[PreparedPlay]) -> dict[str, Any]:
    """Return the variables of *plays* that say how a host is treated; an earlier play's win."""
    variables: dict[str, Any] = {}
    for play in reversed(plays):
        variables.update(play.play.variables)
    return {name: value for name, value in variables.items() if name.startswith(SETTINGS)}


def is_named(plays: Iterable[PreparedPlay], inventory: Inventory, extra: Mapping[str, Any], content: Content) -> bool:
    """Say whether anything that hosts may be given names the resolved stack; most playbooks do not."""
    return any(RESOLVED in text for text in _all_texts(plays, inventory, extra, content))


def _all_texts(
    plays: Iterable[PreparedPlay], inventory: Inventory, extra: Mapping[str, Any], content: Content
) -> Iterator[str]:
    for host in inventory.hosts.values():
        for variable in host.variables.values():
            yield from _strings(variable.value)
    yield from _strings(dict(extra))
    for play in plays:
        yield from _strings(dict(play.play.variables))
        for role in play.play.roles:
            yield from _strings([dict(role.defaults), dict(role.variables), dict(role.params)])
        for task in play.tasks():
            yield from _strings([dict(task.variables), dict(task.args), dict(task.task.keywords)])
            yield from (str(condition.source) for condition in task.place.when)
            yield from _template_text(task, content)


def _strings(value: Any) -> Iterator[str]:
    """Yield every text in *value*, deep: expressions are no templates."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from (str(key), *_strings(item))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _template_text(task: Prepared, content: Content) -> Iterator[str]:
    """Yield the text of the file that a template task names, when it can be told and read."""
    source = task.args.get("src")
    if task.task.action != "template" or not isinstance(source, str) or "{" in source:
        return
    path = content.find(source, search_path("templates", task.role, os.path.dirname(task.task.position.path)))
    if path is not None:
        yield content.text(path)


def reaches(build: HostBuild, play: PreparedPlay, task: Prepared) -> bool:
    """Say whether *task* needs the resolved stack, itself or through the variables that it names."""
    renderer = build.renderer(play, task.role)
    if task.variables:
        renderer = renderer.child(templates=task.variables)
    return RESOLVED in build.deferral.reach(_names(task, build.content), renderer).all


def _names(task: Prepared, content: Content) -> Names:
    found = names_of(
        [dict(task.args), dict(task.task.keywords), list(task.place.environment), dict(task.place.nearest)]
    )
    conditions = [*task.place.when, *task.expressions]
    expressions = [c.source for c in conditions if isinstance(c.source, str)]
    expressions += [text for text in _listed(task.args.get("that")) if isinstance(text, str)]
    for text in expressions:
        found = found | _safely(condition_names, text)
    for text in _template_text(task, content):
        found = found | _safely(text_names, text)
    return found


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _safely(names: Any, text: Any) -> Names:
    """Return the names of *text*; what is no template is reported where tasks are compiled."""
    try:
        found: Names = names(str(text))
    except TemplateProblem:
        return NONE
    return found
