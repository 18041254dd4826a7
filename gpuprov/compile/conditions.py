"""A task's conditions on one host: decided now where that is possible, else left to the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gpuprov.templating.conditions import condition_source
from gpuprov.templating.names import condition_names
from gpuprov.templating.problem import TemplateProblem

if TYPE_CHECKING:
    from gpuprov.compile.build import HostBuild
    from gpuprov.compile.inherit import Condition
    from gpuprov.compile.prepare import Prepared
    from gpuprov.templating.names import Names
    from gpuprov.templating.renderer import Renderer

#: A task's, block's or role's variable that may say in words why its condition is false.
SKIP_REASON = "gpuprov_skip_reason"


class Decision(NamedTuple):
    """What is known of a `when`. skip: why the task does not run, "" when it may.

    waiting: what the host has to decide. by_pass: parts that name a variable of the task's loop.
    """

    skip: str = ""
    waiting: tuple[str, ...] = ()
    by_pass: tuple[Condition, ...] = ()


class Conditions:
    """Decides conditions of one task on one host. All methods raise TemplateProblem."""

    def __init__(self, build: HostBuild, prepared: Prepared) -> None:
        self._build = build
        self._loop_names = prepared.loop.names if prepared.loop is not None else frozenset()

    def when(self, parts: tuple[Condition, ...], renderer: Renderer, *, inside: bool = False) -> Decision:
        """Decide *parts*, in order, up to the first that does not hold. *inside*: in a pass of the task's loop."""
        waiting: list[str] = []
        by_pass: list[Condition] = []
        for part in parts:
            if not isinstance(part.source, str):
                if not part.source:
                    return Decision("when: false")
                continue
            names = condition_names(str(part.source))
            if not inside and self.names_pass(names, renderer):
                by_pass.append(part)
                continue
            waits = self._build.waits(names, renderer)
            try:
                if not waits and not renderer.test(part.source):
                    return Decision(self._why(part, renderer))
            except TemplateProblem as problem:
                if problem.code != "undefined" or not (waiting or by_pass):
                    raise
                waits = True  # an earlier part may keep this from being asked for
            if waits:
                waiting.append(self.left_to_host(part))
        return Decision("", tuple(waiting), tuple(by_pass))

    def all_hold(self, parts: tuple[Condition, ...], renderer: Renderer) -> bool | list[str]:
        """Return whether *parts* hold, or those of them that the host has to decide after the task."""
        left: list[str] = []
        for part in parts:
            if not isinstance(part.source, str):
                if not part.source:
                    return False
                continue
            names = condition_names(str(part.source))
            if self._build.waits(names, renderer) or self.names_pass(names, renderer):
                left.append(self.left_to_host(part))
            elif not renderer.test(part.source):
                return False
        return left or True

    def left_to_host(self, part: Condition) -> str:
        """Return *part* for the host, and note what it needs there."""
        self._build.carry(condition_names(str(part.source)))
        return condition_source(str(part.source))

    def names_pass(self, names: Names, renderer: Renderer) -> bool:
        """Say whether *names* reach a variable of the task's own loop."""
        if not self._loop_names:
            return False
        return not self._loop_names.isdisjoint(self._build.deferral.reach(names, renderer).all)

    def _why(self, part: Condition, renderer: Renderer) -> str:
        """Return why a false condition skips the task: what gpuprov_skip_reason says, if it says anything."""
        if SKIP_REASON in renderer and not self._build.waits(condition_names(SKIP_REASON), renderer):
            said = renderer.value(SKIP_REASON)
            if said:
                return str(said)
        return f"when: {part.source} is false"
