"""What the input files mean: Inventory, Host, Playbook, Play, Role, Task. Frozen values.

Everything here is still *authored*: templates are not rendered, loops not expanded. compile/
turns it, with one host's variables and facts, into a wire Plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuprov.source import Position


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable's value and who set it.

    source names the layer in words ("group_vars of gpus", "host vars"); position is the
    file, line and column of the value, None for built-in ones.
    """

    value: Any
    source: str
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """A group of the inventory. hosts and children are in file order, direct members only."""

    name: str
    hosts: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    variables: Mapping[str, Variable] = field(default_factory=dict)
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class Host:
    """One machine. variables are merged: all < parents < groups < host, as in Ansible.

    overridden has, per variable, the settings that lost, strongest first.
    groups are all groups it is in (ancestors too), sorted by name, without "all".
    """

    name: str
    groups: tuple[str, ...] = ()
    variables: Mapping[str, Variable] = field(default_factory=dict)
    overridden: Mapping[str, tuple[Variable, ...]] = field(default_factory=dict)
    position: Position | None = None

    def value(self, name: str, default: Any = None) -> Any:
        """Return the raw (untemplated) value of variable *name*."""
        found = self.variables.get(name)
        return default if found is None else found.value


@dataclass(frozen=True, slots=True)
class Inventory:
    """The whole fleet. hosts are in file order; groups always has "all" and "ungrouped"."""

    hosts: Mapping[str, Host]
    groups: Mapping[str, Group]
    path: str

    def members(self, group: str) -> tuple[str, ...]:
        """Return the names of all hosts of *group* and its descendants, in inventory order."""
        seen: set[str] = set()
        names: set[str] = set()
        queue = [group]
        while queue:
            name = queue.pop()
            if name in seen or name not in self.groups:
                continue
            seen.add(name)
            names.update(self.groups[name].hosts)
            queue.extend(self.groups[name].children)
        return tuple(h for h in self.hosts if h in names)


@dataclass(frozen=True, slots=True)
class Task:
    """One task as written. action is the short module name ("copy").

    args are the module's arguments (free form under "_raw_params"); keywords are the other
    task keywords (when, loop, register ...) as written, `name` and tags included. Both hold
    source types, so `position_of` works on their strings. role is the RoleUse it came with.
    """

    action: str
    args: Mapping[str, Any]
    keywords: Mapping[str, Any]
    position: Position
    role: RoleUse | None = None
    handler: bool = False

    @property
    def name(self) -> str:
        """The name as written (maybe a template), or the action."""
        return str(self.keywords.get("name") or self.action)


@dataclass(frozen=True, slots=True)
class Block:
    """A block of tasks with its rescue and always parts."""

    block: tuple[Task | Block, ...]
    rescue: tuple[Task | Block, ...]
    always: tuple[Task | Block, ...]
    keywords: Mapping[str, Any]
    position: Position
    role: RoleUse | None = None


@dataclass(frozen=True, slots=True)
class RoleUse:
    """A role as one play uses it. params are the variables given beside the role's name.

    path is the role's folder; its files/ and templates/ are searched first.
    """

    name: str
    path: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    keywords: Mapping[str, Any] = field(default_factory=dict)
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class Play:
    """One play.

    nodes are pre_tasks, roles' tasks, tasks and post_tasks in running order, with a
    `meta: flush_handlers` task where Ansible flushes. handlers has the roles' too.
    roles lists every RoleUse (dependencies first), without those of a private include_role;
    variables are `vars_files` over `vars`.
    """

    name: str
    hosts: str
    nodes: tuple[Task | Block, ...]
    handlers: tuple[Task, ...]
    roles: tuple[RoleUse, ...]
    variables: Mapping[str, Any]
    keywords: Mapping[str, Any]
    position: Position


@dataclass(frozen=True, slots=True)
class Playbook:
    """A playbook file with everything that it includes statically."""

    path: str
    plays: tuple[Play, ...]
