"""Groups while an inventory is being read: who is in whom, which settings each has, and in which order they count."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpuprov.errors import Problem

if TYPE_CHECKING:
    from gpuprov.model import Variable
    from gpuprov.source import Position


@dataclass(slots=True)
class Settings:
    """Variables of one group or host by where they were set. Each list is weakest first."""

    inventory: list[dict[str, Variable]] = field(default_factory=list)
    beside_inventory: list[dict[str, Variable]] = field(default_factory=list)
    beside_playbook: list[dict[str, Variable]] = field(default_factory=list)

    def layers(self) -> list[dict[str, Variable]]:
        """Return everything that is set here, weakest first."""
        return [*self.inventory, *self.beside_inventory, *self.beside_playbook]


@dataclass(slots=True)
class DraftGroup:
    """One group; hosts and children are ordered sets."""

    name: str
    position: Position | None = None
    hosts: dict[str, None] = field(default_factory=dict)
    children: dict[str, None] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    priority: int = 1


@dataclass(slots=True)
class DraftHost:
    """One host as read so far."""

    name: str
    position: Position | None = None
    settings: Settings = field(default_factory=Settings)


@dataclass(slots=True)
class Draft:
    """An inventory being read. Groups and hosts are in the order in which the files name them."""

    groups: dict[str, DraftGroup] = field(default_factory=lambda: {n: DraftGroup(n) for n in ("all", "ungrouped")})
    hosts: dict[str, DraftHost] = field(default_factory=dict)

    def group(self, name: str, position: Position | None) -> DraftGroup:
        """Return group *name*, made now if it is new."""
        group = self.groups.setdefault(name, DraftGroup(name, position))
        group.position = group.position or position
        return group

    def descendants(self, name: str) -> set[str]:
        """Return the names of all groups below *name*, without itself."""
        seen: set[str] = set()
        queue = [name]
        while queue:
            for child in self.groups[queue.pop()].children:
                if child not in seen:
                    seen.add(child)
                    queue.append(child)
        return seen

    def parents(self) -> dict[str, list[str]]:
        """Return, for each group, the groups that have it as a direct child."""
        found: dict[str, list[str]] = {name: [] for name in self.groups}
        for group in self.groups.values():
            for child in group.children:
                found[child].append(group.name)
        return found


def finish_groups(draft: Draft, problems: list[Problem]) -> None:
    """Put groups without a parent under `all`, hosts without a group into `ungrouped`; report clashing names."""
    everything, ungrouped = draft.groups["all"], draft.groups["ungrouped"]
    for name, parents in draft.parents().items():
        if name != "all" and not parents:
            everything.children[name] = None
    grouped = {h for g in draft.groups.values() if g is not everything and g is not ungrouped for h in g.hosts}
    members = [h for h in draft.hosts if h not in grouped]
    ungrouped.hosts.clear()
    ungrouped.hosts.update(dict.fromkeys(members))
    for name, host in draft.hosts.items():
        if name in draft.groups:
            message = f"{name} is the name of a host and of a group, so patterns would be ambiguous"
            problems.append(Problem("inventory-name-clash", message, host.position, "rename one of them"))


def merge_order(draft: Draft) -> dict[str, tuple[int, int, str]]:
    """Return every group's rank: a greater one wins. Depth counts first, then priority, then the name."""
    parents = draft.parents()
    depths: dict[str, int] = {"all": 0}

    def depth(name: str) -> int:
        if name not in depths:
            depths[name] = 1 + max((depth(parent) for parent in parents[name]), default=0)
        return depths[name]

    return {name: (depth(name), group.priority, name) for name, group in draft.groups.items()}
