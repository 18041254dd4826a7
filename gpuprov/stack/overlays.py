"""Rows of an admin's own over those of the tables: added, or replacing what a row says. Pure."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

from gpuprov.errors import Problem
from gpuprov.source import place_of
from gpuprov.stack.tables import ROWS, Tables
from gpuprov.stack.versions import is_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class _Block(NamedTuple):
    """What an overlay has to say of a row. keys: what a row of a list goes by; none where names are the keys."""

    keys: tuple[str, ...]
    needed: tuple[str, ...]


OVERLAYS: Mapping[str, _Block] = {
    "archs": _Block(("cc",), ("arch", "open_modules", "toolkit_first")),
    "driver_branches": _Block(("branch",), ("status", "cuda_max")),
    "os": _Block(("id", "ver"), ("repo",)),
    "gpus": _Block((), ("name", "arch", "cc")),
    "torch": _Block((), ("py", "variants")),
    "toolkits": _Block((), ("driver_min_run",)),
    "distribution_drivers": _Block(("os", "ver"), ("driver",)),
    "kernel_build_floor": _Block(("kernel_ge", "branch"), ()),
}
_ABOUT = ("schema", "source", "as_of")
_KINDS = {str: "a text in quotes", int: "a whole number", bool: "true or false", list: "a list", dict: "a mapping"}
#: Fields whose texts are compared as versions.
_VERSIONS = ("driver_first", "toolkit_first", "toolkit_last", "cuda_max", "last_seen", "driver_min_run", "kernel_ge")
#: Fields that may be empty although no row of gpuprov's own is.
_OPTIONAL = ("gcc_max", "last_seen", "toolkit_first", "toolkit_last", "driver_first", "driver_max_known", "torch_first")


def overlaid(tables: Tables, value: Any, path: str, problems: list[Problem]) -> Tables:
    """Return *tables* with the rows of an overlay file; what is wrong with it is appended to *problems*.

    An overlay has the blocks' names and their rows; a row changes what it names of the one with the same key, or is
    added.
    """
    if not isinstance(value, dict):
        problems.append(Problem("tables", f"{path}: an overlay is a mapping of blocks, not {type(value).__name__}"))
        return tables
    blocks: dict[str, Any] = {}
    for block, given in value.items():
        if block in _ABOUT:
            continue
        if block not in OVERLAYS:
            problems.append(_unknown(f"there is no block {block!r} to overlay", block, OVERLAYS, value))
            continue
        name = ROWS.get(block, "list")
        rows = given.get(name) if isinstance(given, dict) else None
        wanted: type = list if OVERLAYS[block].keys else dict
        if not isinstance(rows, wanted):
            said = f"{block} needs {_KINDS[wanted]} under {name!r}"
            problems.append(Problem("tables", said, place_of(value, block)))
            continue
        known = tables.blocks[block]
        blocks[block] = {**known, name: _merged(block, known[name], rows, problems)}
    return Tables(tables.blocks.having(blocks), (*tables.overlays, path))


def _unknown(said: str, name: Any, allowed: Iterable[str], where: Any) -> Problem:
    near = get_close_matches(str(name), list(allowed), 1)
    said += f"; did you mean {near[0]!r}?" if near else ""
    return Problem("tables", said, getattr(where, "keys_at", {}).get(name), f"allowed: {', '.join(allowed)}")


def _merged(block: str, old: Any, new: Any, problems: list[Problem]) -> Any:
    known = list(old.values()) if isinstance(new, dict) else old
    fields: dict[str, set[type]] = {}
    for row in known:
        for name, item in row.items():
            fields.setdefault(name, set()).add(type(item))
    before = len(problems)
    for key, row in new.items() if isinstance(new, dict) else enumerate(new):
        if not isinstance(row, dict):
            problems.append(Problem("tables", f"a row of {block} is a mapping", place_of(new, key)))
        else:
            _check(row, block, fields, problems)
    if len(problems) > before:
        return old
    return (
        _merged_mapping(block, old, new, problems) if isinstance(new, dict) else _merged_list(block, old, new, problems)
    )


def _check(row: Mapping[str, Any], block: str, fields: Mapping[str, set[type]], problems: list[Problem]) -> None:
    """Compare a row's fields with those of the rows that are there, by name and by kind."""
    for name, item in row.items():
        if name not in fields:
            problems.append(_unknown(f"rows of {block} have no {name!r}", name, fields, row))
            continue
        kinds = [kind for kind in _KINDS if kind in fields[name]]
        empty = item is None and (name in _OPTIONAL or type(None) in fields[name])
        if empty or any(isinstance(item, kind) and isinstance(item, bool) == (kind is bool) for kind in kinds):
            if isinstance(item, str) and name in _VERSIONS and not is_version(item):
                said = f"{name}: {item!r} is not a version of dotted numbers"
                problems.append(Problem("tables", said, place_of(row, name)))
            continue
        said = f"{name}: {item!r} is not {' or '.join(_KINDS[kind] for kind in kinds)}"
        problems.append(Problem("tables", said, place_of(row, name)))


def _merged_mapping(block: str, old: Any, new: Any, problems: list[Problem]) -> dict[str, Any]:
    merged: dict[str, Any] = {**old}
    for name, row in new.items():
        if str(name) not in merged:
            _complete(block, row, OVERLAYS[block].needed, place_of(new, name), problems)
        merged[str(name)] = {**merged.get(str(name), {}), **row}
    return merged


def _merged_list(block: str, old: Any, new: Any, problems: list[Problem]) -> list[Any]:
    keys, needed = OVERLAYS[block]
    rows = list(old)
    for index, row in enumerate(new):
        named = keys[:1] if block == "kernel_build_floor" else keys  # a floor may be for every branch
        if not _complete(block, row, named, place_of(new, index), problems):
            continue
        same = [i for i, known in enumerate(rows) if all(known.get(name) == row.get(name) for name in keys)]
        for i in same:
            rows[i] = {**rows[i], **row}
        if not same and _complete(block, row, needed, place_of(new, index), problems):
            rows.append(row)
    return rows


def _complete(block: str, row: Mapping[str, Any], names: Iterable[str], at: Any, problems: list[Problem]) -> bool:
    missing = [name for name in names if name not in row]
    if missing:
        problems.append(Problem("tables", f"a row of {block} needs {' and '.join(missing)}", at))
    return not missing
