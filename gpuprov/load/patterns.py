"""Ansible's host patterns: `all`, `a:&b:!c`, `g[0:3]`, `~regex`, globs; and `--limit`."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

from gpuprov.errors import Problem, UsageError
from gpuprov.load.near import did_you_mean
from gpuprov.load.ranges import RangeSyntaxError, expand, fold, split_outside_brackets

if TYPE_CHECKING:
    from gpuprov.model import Inventory
    from gpuprov.source import Position

_SUBSCRIPT = re.compile(r"(?P<base>.+)\[(?:(?P<index>-?[0-9]+)|(?P<start>[0-9]+)[:-](?P<end>[0-9]*))\]\Z")

_RANGE = re.compile(r"\[[^\]]*[:,][^\]]*\]")


class PatternError(UsageError):
    """A pattern that cannot be understood, or names what the inventory does not have."""

    code = "pattern"


def select(inventory: Inventory, pattern: str, limit: str | None = None) -> list[str]:
    """Return the names of the hosts that *pattern* and *limit* both select.

    Reads the files that *limit* names (`@FILE`). Raises PatternError when either has an unknown
    name, or when nothing is left.
    """
    hosts = matching(inventory, pattern)
    if limit is not None:
        limited = set(matching(inventory, ",".join(_limit_terms(limit))))
        hosts = [name for name in hosts if name in limited]
    if not hosts:
        asked = f"{pattern} with --limit {limit}" if limit is not None else pattern
        raise PatternError(
            f"no host matches {asked}",
            hint=f"{inventory.path} has {len(inventory.hosts)} hosts; see gpuprov inventory list",
        )
    return hosts


def matching(inventory: Inventory, pattern: str) -> list[str]:
    """Return the names of the hosts that *pattern* selects, maybe none, each once, in Ansible's order.

    Raises PatternError for a name that the inventory does not have. Pure.
    """
    terms = _split(pattern, inventory)
    plain = [t for t in terms if t[0] not in "&!"] or ["all"]
    hosts: dict[str, None] = {}
    for term in plain:
        hosts.update(dict.fromkeys(_term(inventory, term)))
    for term in (t for t in terms if t[0] == "&"):
        wanted = set(_term(inventory, term[1:]))
        hosts = {name: None for name in hosts if name in wanted}
    for term in (t for t in terms if t[0] == "!"):
        for name in _term(inventory, term[1:]):
            hosts.pop(name, None)
    return list(hosts)


def check_hosts(inventory: Inventory, pattern: str, position: Position | None) -> list[Problem]:
    """Return what is wrong with a play's `hosts:`; a template in it is left for later. Pure."""
    if "{{" in pattern:
        return []
    try:
        matching(inventory, pattern)
    except PatternError as error:
        return [Problem("hosts-unknown", error.message, position, error.hint)]
    return []


def _limit_terms(limit: str) -> list[str]:
    terms: list[str] = []
    for term in split_outside_brackets(limit, ","):
        if not term.startswith("@"):
            terms.append(term)
            continue
        try:
            with open(term[1:], encoding="utf-8") as f:
                lines = [line.split("#", 1)[0].strip() for line in f]
        except (OSError, UnicodeDecodeError) as error:
            raise PatternError(f"the --limit file {term[1:]} cannot be read: {error}") from error
        found = [line for line in lines if line]
        if not found:
            raise PatternError(f"the --limit file {term[1:]} names no host", hint="one pattern on each line")
        terms += found
    return terms


def _split(pattern: str, inventory: Inventory) -> list[str]:
    """Split at commas and colons, but not inside brackets, an IPv6 address or a regular expression."""
    if "{{" in pattern:
        raise PatternError(f"the host pattern {pattern} is a template, which is not supported yet", hint="use --limit")
    terms: list[str] = []
    for part in split_outside_brackets(pattern, ","):
        if part.lstrip("&!") in inventory.hosts:
            terms.append(part)
        elif part.lstrip("&!").startswith("~"):
            terms += [piece for piece in re.split(r":(?=[&!])", part) if piece]
        else:
            terms += split_outside_brackets(part, ":")
    if not terms:
        raise PatternError("the host pattern is empty", hint='"all" selects every host')
    lone = next((t for t in terms if t in ("&", "!")), None)
    if lone:
        raise PatternError(f"{lone} in {pattern} has no name behind it")
    return terms


def _term(inventory: Inventory, term: str) -> list[str]:
    """Return the hosts of one pattern without its & or !."""
    if term in inventory.hosts:
        return [term]
    if term.startswith("~"):
        return _search(inventory, _regex(term[1:]))
    found = _SUBSCRIPT.match(term)
    if found and _names_groups(inventory, found["base"]):
        return _slice(_glob(inventory, found["base"]), found)
    if _RANGE.search(term) or (found and not any(c in term for c in "*?")):
        return _range(inventory, term)
    return _glob(inventory, term)


def _regex(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise PatternError(f"~{text} is no regular expression: {error}") from error


def _names_groups(inventory: Inventory, base: str) -> bool:
    return base in inventory.groups or any(c in base for c in "*?")


def _glob(inventory: Inventory, pattern: str) -> list[str]:
    if pattern in inventory.groups:
        return _members(inventory, pattern)
    if not any(c in pattern for c in "*?["):
        raise _unknown(inventory, pattern)
    return _search(inventory, re.compile(fnmatch.translate(pattern)))


def _search(inventory: Inventory, regex: re.Pattern[str]) -> list[str]:
    groups = [name for name in inventory.groups if regex.match(name)]
    found = dict.fromkeys(host for group in groups for host in _members(inventory, group))
    found.update(dict.fromkeys(name for name in inventory.hosts if regex.match(name)))
    return list(found)


def _members(inventory: Inventory, group: str) -> list[str]:
    """Return a group's hosts: its own first, then those of its children, level by level."""
    found: dict[str, None] = {}
    level, seen = [group], {group}
    while level:
        for name in level:
            found.update(dict.fromkeys(inventory.groups[name].hosts))
        below = [child for name in level for child in inventory.groups[name].children]
        level = [name for name in dict.fromkeys(below) if name not in seen]
        seen.update(level)
    return list(found)


def _slice(hosts: list[str], found: re.Match[str]) -> list[str]:
    """Return the hosts at a subscript; the end is inclusive, an index beyond the last is an error."""
    if found["index"] is not None:
        index = int(found["index"])
        if not -len(hosts) <= index < len(hosts):
            raise PatternError(f"{found[0]} is out of range: {found['base']} has {len(hosts)} hosts, counted from 0")
        return [hosts[index]]
    start = int(found["start"])
    end = int(found["end"]) if found["end"] else len(hosts) - 1
    return hosts[start : end + 1]


def _range(inventory: Inventory, term: str) -> list[str]:
    """Return the hosts that a range such as gpu[01:07] or gpu[01-07,12] names."""
    try:
        names = expand(term)
    except RangeSyntaxError as error:
        raise PatternError(str(error)) from error
    missing = [name for name in names if name not in inventory.hosts]
    if missing:
        raise _unknown(inventory, fold(missing))
    return names


def _unknown(inventory: Inventory, name: str) -> PatternError:
    shape = _shape(name)
    relatives = [host for host in inventory.hosts if _shape(host) == shape]
    qualified = [host for host in inventory.hosts if host.split(".", 1)[0] == name]
    if qualified:
        hint = f"did you mean {qualified[0]}?"
    elif relatives:
        hint = f"{inventory.path} has {fold(relatives)}"
    elif name in ("localhost", "127.0.0.1"):
        hint = "add localhost with ansible_connection: local to the inventory"
    else:
        groups = ", ".join(group for group in inventory.groups if group != "ungrouped")
        known = [*inventory.groups, *inventory.hosts]
        hint = did_you_mean(name, known, f"{inventory.path} has the groups {groups}", most=3)
    return PatternError(f"{name} is neither a host nor a group of {inventory.path}", hint=hint)


def _shape(name: str) -> str:
    """Return *name* with every number or range of numbers replaced: what gpu07 and gpu[01-08] share."""
    return re.sub(r"\[[0-9,:-]+\]|[0-9]+", "#", name)
