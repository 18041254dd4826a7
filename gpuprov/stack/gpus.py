"""Which GPU a PCI device id or a name stands for. An id that the tables do not have is never guessed. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from gpuprov.stack.model import Gpu

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuprov.stack.tables import Tables

_ID = re.compile(r"(?:10de:|0x)?([0-9a-f]{4})", re.IGNORECASE)
_ID_BEHIND = re.compile(r"\((?:10de:|0x)?([0-9a-f]{4})\)", re.IGNORECASE)
_MAKER = re.compile(r"\b(nvidia|tesla|geforce|quadro|gpu|hgx)\b", re.IGNORECASE)
#: What a short name means first.
_SEGMENTS = ("datacenter", "workstation", "consumer", "unknown", "mining", "mobile_workstation", "mobile_consumer")


def by_id(tables: Tables, device: str) -> Gpu | None:
    """Return the GPU with PCI device id *device* (four hex digits), or None when the tables do not have it."""
    key = device.lower().removeprefix("0x")
    row = tables.rows("gpus").get(key)
    return None if row is None else _gpu(key, row)


def is_no_gpu(tables: Tables, device: str) -> bool:
    """Say whether the id is that of something else of NVIDIA's (a CPU, a bridge)."""
    return device.lower().removeprefix("0x") in tables.blocks["not_gpus"]["ids"]


def by_name(tables: Tables, text: str) -> Gpu | None:
    """Return the GPU that a person means by *text*: an id, a name as in "RTX 4090", or a name with its id behind.

    Of several with that name, the one in data centres first, then the plainest name. None when there is none.
    """
    found = _ID_BEHIND.search(text)
    if found:
        return by_id(tables, found.group(1))
    names = _names(tables)
    words = _words(text)
    if not words:
        return None
    exact = [key for key, known in names if words in known]
    if not exact and (found := _ID.fullmatch(text.strip())) and by_id(tables, found.group(1)):
        return by_id(tables, found.group(1))
    within = exact or [key for key, known in names if any(set(words) <= set(one) for one in known)]
    best = min(within, key=lambda key: _rank(key, tables.rows("gpus")[key]), default=None)
    if best is None:
        best = next((k for k, row in tables.rows("gpus").items() if row.get("arch") == text.strip().lower()), None)
    return None if best is None else by_id(tables, best)


def _gpu(key: str, row: Mapping[str, Any]) -> Gpu:
    return Gpu(
        device=key,
        name=str(row.get("nv_name") or row["name"]).removeprefix("NVIDIA "),
        arch=row.get("arch"),
        cc=row.get("cc"),
        segment=str(row.get("seg", "unknown")),
        fabric=str(row.get("fabric", "")),
        min_branch=row.get("min_branch"),
        open_first={int(branch): str(version) for branch, version in row.get("open_first", {}).items()},
        absent_in=tuple(int(branch) for branch in row.get("absent_in", ())),
    )


def _names(tables: Tables) -> list[tuple[str, list[tuple[str, ...]]]]:
    if "gpu_names" not in tables.cached:
        tables.cached["gpu_names"] = [
            (key, [_words(str(n)) for n in (row["name"], row.get("nv_name"), *row.get("also", ())) if n])
            for key, row in tables.rows("gpus").items()
        ]
    found: list[tuple[str, list[tuple[str, ...]]]] = tables.cached["gpu_names"]
    return found


def _words(name: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[a-z0-9]+", _MAKER.sub(" ", name).lower()))


def _rank(key: str, row: Mapping[str, Any]) -> tuple[int, bool, int, str]:
    segment = row.get("seg", "unknown")
    place = _SEGMENTS.index(segment) if segment in _SEGMENTS else len(_SEGMENTS)
    return place, row.get("min_branch") is None, len(_words(str(row.get("nv_name") or row["name"]))), key
