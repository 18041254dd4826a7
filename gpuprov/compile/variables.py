"""Which value a variable has: every source in one order, weakest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gpuprov.model import Host, Play, RoleUse

#: Every source of variables, weakest first (docs/variables.md is this list, explained).
#: Facts and registered results are never templated; the others may be templates.
PRECEDENCE = (
    "role defaults",
    "inventory",  # all < parents < groups < host: load/ has merged them
    "facts",
    "play vars",
    "role vars",
    "block vars",
    "task vars",
    "registered results and set_fact",
    "role params",
    "extra vars",
)


@dataclass(frozen=True, slots=True)
class Layers:
    """The variables of one play, as tasks of one role (or of none) see them. The same for every host.

    below is weaker than the inventory, above is stronger than it and than facts.
    """

    below: Mapping[str, Any]
    above: Mapping[str, Any]
    extra: Mapping[str, Any]

    def merged(self, inventory: Mapping[str, Any]) -> dict[str, Any]:
        """Return all variables of a host with these *inventory* variables."""
        return {**self.below, **inventory, **self.above, **self.extra}

    def hides(self, fact: str) -> bool:
        """Say whether something stronger than facts has this name."""
        return fact in self.above or fact in self.extra


def layers_of(play: Play, role: RoleUse | None, extra: Mapping[str, Any]) -> Layers:
    """Return the variables of *play* for tasks of *role*: its own defaults and vars win over other roles'."""
    roles = [*play.roles, *([role] if role is not None else [])]
    below = _union(r.defaults for r in roles)
    above = {**play.variables, **_union(r.variables for r in roles)}
    return Layers(below, above, extra)


def inventory_variables(host: Host) -> dict[str, Any]:
    """Return a host's merged inventory variables, untemplated."""
    return {name: variable.value for name, variable in host.variables.items()}


def task_variables(
    inherited: Mapping[str, Any], own: Mapping[str, Any], params: Mapping[str, Any], extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a task sees beyond its play: block vars, task vars, role params. Extra vars stay the strongest."""
    found = {**inherited, **own, **params}
    return {name: value for name, value in found.items() if name not in extra} if extra else found


def _union(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for layer in layers:
        found.update(layer)
    return found
