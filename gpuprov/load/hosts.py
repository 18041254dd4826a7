"""The YAML layout of an inventory: groups with `hosts`, `children` and `vars`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from gpuprov.errors import Problem
from gpuprov.load.groups import DraftHost
from gpuprov.load.near import did_you_mean
from gpuprov.load.ranges import RangeSyntaxError, expand
from gpuprov.model import Variable
from gpuprov.source import Position, SourceDict, place_of, position_of

if TYPE_CHECKING:
    from gpuprov.load.groups import Draft, DraftGroup

_SECTIONS = ("hosts", "children", "vars")
_PORT = re.compile(r"(?P<name>[^:]+|\[[0-9A-Fa-f:.%]*::[0-9A-Fa-f:.%]*\]|.*\][^:]*):(?P<port>[0-9]+)\Z")
_IPV6 = re.compile(r"\[([0-9A-Fa-f.%]*:[0-9A-Fa-f:.%]*:[0-9A-Fa-f:.%]*)\]\Z")
_HOST = re.compile(r"[^\s\[\]{},&!~*?@/]+\Z")


def read_groups(data: Any, path: str, draft: Draft, problems: list[Problem]) -> None:
    """Add the groups of one inventory file to *draft*."""
    reader = _Reader(draft, problems)
    if not isinstance(data, SourceDict):
        at = position_of(data, Position(path))
        hint = "start with all: and below it hosts:, children: or vars:"
        problems.append(Problem("inventory-layout", "an inventory is a mapping of groups", at, hint))
        return
    for name, body in data.items():
        at = data.keys_at[name]
        if name in _SECTIONS:
            hint = f"write all: above it and indent {name}:"
            problems.append(Problem("inventory-layout", f"{name} stands where a group's name is expected", at, hint))
        elif name == "plugin":
            hint = "gpuprov reads inventories as files only"
            problems.append(Problem("inventory-plugin", "inventory plugins are not supported yet", at, hint))
        elif reader.name(name, at, "group"):
            reader.group(name, body, at)


class _Reader:
    def __init__(self, draft: Draft, problems: list[Problem]) -> None:
        self._draft = draft
        self._problems = problems

    def _wrong(self, code: str, message: str, at: Position | None, hint: str = "") -> None:
        self._problems.append(Problem(code, message, at, hint))

    def name(self, name: Any, at: Position, kind: str) -> bool:
        """Tell whether *name* may be a name; record a problem when not."""
        if not isinstance(name, str):
            self._wrong("inventory-name", f"the {kind} name {name} is not text", at, f'write "{name}" in quotes')
            return False
        if not _HOST.match(name):
            allowed = "spaces, brackets, braces, commas and any of & ! ~ * ? @ / are not allowed"
            self._wrong("inventory-name", f"{name!r} cannot be the name of a {kind}: {allowed}", at)
            return False
        return True

    def group(self, name: str, body: Any, at: Position) -> None:
        group = self._draft.group(name, at)
        if body is None:
            return
        if not isinstance(body, SourceDict):
            hint = "a group has hosts:, children: and vars:, each a mapping"
            self._wrong("inventory-layout", f"group {name} is not a mapping", position_of(body, at), hint)
            return
        for key, section in body.items():
            key_at = body.keys_at[key]
            if key not in _SECTIONS:
                self._unknown(name, key, key_at)
                continue
            if isinstance(section, str) and key != "vars":
                entry = SourceDict(key_at)
                entry[str(section)] = None
                entry.keys_at[str(section)] = position_of(section, key_at) or key_at
                section = entry  # noqa: PLW2901 - `hosts: gpu01` is short for a mapping of one
            if section is None:
                continue
            if not isinstance(section, SourceDict):
                hint = (
                    f"write each name with a colon: {_example(section)}" if key != "vars" else "write NAME: VALUE lines"
                )
                self._wrong(
                    "inventory-layout", f"{key} of group {name} is not a mapping", position_of(section, key_at), hint
                )
            elif key == "vars":
                group.settings.inventory.append(self._group_vars(group, section))
            elif key == "children":
                self._children(group, section)
            else:
                for pattern, variables in section.items():
                    self._hosts(group, pattern, variables, section.keys_at[pattern])

    def _unknown(self, group: str, key: Any, at: Position) -> None:
        hint = did_you_mean(key, _SECTIONS, f"a group goes under children:, a variable under vars: of {group}")
        self._wrong("inventory-key", f"{key} is no key of a group; allowed: hosts, children, vars", at, hint)

    def _group_vars(self, group: DraftGroup, section: SourceDict) -> dict[str, Variable]:
        settings = variables_of(section, f"vars of group {group.name}", self._problems)
        priority = settings.pop("ansible_group_priority", None)
        if priority is not None:
            try:
                group.priority = int(priority.value)
            except (TypeError, ValueError):
                message = f"ansible_group_priority is {priority.value!r}, not a whole number"
                self._wrong("inventory-priority", message, priority.position)
        return settings

    def _children(self, group: DraftGroup, section: SourceDict) -> None:
        for child, body in section.items():
            at = section.keys_at[child]
            if not self.name(child, at, "group"):
                continue
            self._draft.group(child, at)
            if child == "all":
                self._wrong("inventory-loop", "group all cannot be a child: it already contains every group", at)
            elif child == group.name or group.name in self._draft.descendants(child):
                message = f"group {child} cannot be below {group.name}, which is {child} itself or below it"
                self._wrong("inventory-loop", message, at)
            else:
                group.children[child] = None
            self.group(child, body, at)

    def _hosts(self, group: DraftGroup, pattern: Any, variables: Any, at: Position) -> None:
        names, port = self._names(pattern, at)
        if variables is not None and not isinstance(variables, SourceDict):
            hint = f"write the variables of {pattern} as NAME: VALUE lines below it"
            self._wrong(
                "inventory-layout", f"host {pattern} has a value that is no mapping", position_of(variables, at), hint
            )
            variables = None
        settings = variables_of(variables, "host vars", self._problems) if variables else {}
        if port is not None:
            settings.setdefault("ansible_port", Variable(port, "host name", at))
        for name in names:
            if self.name(name, at, "host"):
                host = self._draft.hosts.setdefault(name, DraftHost(name, at))
                group.hosts[name] = None
                if settings:
                    host.settings.inventory.append(settings)

    def _names(self, pattern: Any, at: Position) -> tuple[list[str], int | None]:
        if not isinstance(pattern, str):
            return [pattern], None
        port = None
        found = _PORT.match(pattern)
        if found:
            pattern, port = found["name"], int(found["port"])
        address = _IPV6.match(pattern)
        if address:
            return [address[1]], port
        try:
            names = expand(pattern)
        except RangeSyntaxError as error:
            self._wrong("inventory-range", str(error), at)
            return [], None
        if len(names) > 1 and ("-" in _inside(pattern) or "," in _inside(pattern)):
            hint = "write [01:16], or one line for each part"
            self._wrong("inventory-range", f"{pattern}: a range in an inventory is written with a colon", at, hint)
            return [], None
        return names, port


def variables_of(section: SourceDict, source: str, problems: list[Problem]) -> dict[str, Variable]:
    """Return the variables of a mapping; *source* says in words where it stands."""
    settings = {}
    for name, value in section.items():
        if isinstance(name, str):
            settings[name] = Variable(value, source, place_of(section, name))
        else:
            at = section.keys_at[name]
            problems.append(Problem("variable-name", f"the variable name {name} is not text", at))
    return settings


def _inside(pattern: str) -> str:
    return "".join(re.findall(r"\[([^\]]*)\]", pattern))


def _example(section: Any) -> str:
    first = section[0] if isinstance(section, list) and section and isinstance(section[0], str) else "NAME"
    return f"{first}: instead of - {first}"
