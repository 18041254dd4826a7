"""Filters that work on numbers, sizes, times and versions."""

from __future__ import annotations

import math
import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from gpuprov.templating.problem import TemplateProblem

if TYPE_CHECKING:
    from collections.abc import Callable


def log(value: float, base: float = 2.718281828459045) -> float:
    """Return the logarithm."""
    return math.log10(value) if base == 10 else math.log(value, base)


def root(value: float, base: float = 2) -> float:
    """Return the square root, or another."""
    return math.pow(value, 1.0 / base)


_SIZES = ("", "K", "M", "G", "T", "P", "E", "Z", "Y")


def human_readable(size: float, isbits: bool = False, unit: str | None = None) -> str:
    """Return a number of bytes (or bits) with a fitting unit."""
    suffix = "bits" if isbits else "Bytes"
    for power in range(len(_SIZES) - 1, -1, -1):
        if (unit is None and size >= 1024**power) or (unit is not None and unit.upper() == _SIZES[power]):
            scaled = float(size) / 1024**power
            return f"{scaled:.2f} {_SIZES[power] + (suffix[0] if power else suffix)}"
    return f"{float(size):.2f} {suffix}"


def human_to_bytes(size: Any, default_unit: str | None = None, isbits: bool = False) -> int:
    """Return the number of bytes (or bits) that "1.5 GB" stands for; units are powers of 1024."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([A-Za-z]*)\s*", str(size))
    unit = (found.group(2) if found else "") or (default_unit or "")
    letter = unit[:1].upper()
    if found is None or (letter not in _SIZES and letter != "B") or len(unit) > 4:
        raise TemplateProblem("{!r} is no size such as 10M or 1.5 GB{}".format(size, " (in bits)" if isbits else ""))
    return int(float(found.group(1)) * 1024 ** (0 if letter in ("", "B") else _SIZES.index(letter)) + 0.5)


def strftime(form: str, second: Any = None, utc: bool = False) -> str:
    """Return a time (now, or seconds since 1970) as text."""
    zone = timezone.utc if utc else None
    moment = datetime.now(zone) if second is None else datetime.fromtimestamp(float(second), zone)
    return moment.strftime(form)


def to_datetime(value: str, form: str = "%Y-%m-%d %H:%M:%S") -> datetime:
    """Return the time that a text stands for, to calculate with."""
    return datetime.strptime(value, form)


def version_key(value: Any) -> tuple[tuple[int, int, str], ...]:
    """Return a key to compare versions by, piece by piece: numbers after words."""
    pieces = re.findall(r"\d+|[a-zA-Z]+", str(value))
    return tuple((1, int(p), "") if p.isdigit() else (0, 0, p.lower()) for p in pieces)


def version_sort(value: Any, reverse: bool = False) -> list[Any]:
    """Return versions in their order: 1.9 before 1.10."""
    return sorted(value, key=version_key, reverse=reverse)


TABLE: dict[str, Callable[..., Any]] = {
    "human_readable": human_readable,
    "human_to_bytes": human_to_bytes,
    "log": log,
    "pow": math.pow,
    "root": root,
    "strftime": strftime,
    "to_datetime": to_datetime,
    "version_sort": version_sort,
}
