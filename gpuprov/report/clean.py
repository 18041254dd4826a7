"""Text and values from hosts, made safe to keep and to show: typed, capped, without terminal escapes.

Pure. Nothing here raises, whatever a host sends.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

#: Output kept of one task, in characters; the journal has all of it. The end says why something failed.
HEAD_CHARS, TAIL_CHARS = 1024, 3072
LINE_CHARS = 500
MAX_DEPTH = 6
MAX_KEYS = 64
MAX_LIST = 256

_ESCAPES = re.compile(
    "[\x1b\x9b](?:"
    r"(?:(?<=\x9b)|\[)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    "|[\\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)?"  # OSC and strings: titles, links, clipboard
    "|[ -/]*[0-~])?"
)
#: Control characters, invisible and direction-changing ones, and halves of surrogate pairs (not encodable).
_UNWANTED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
_SPACES = re.compile(r"[\t\n\r ]+")


def text(value: object, head: int = HEAD_CHARS, tail: int = TAIL_CHARS) -> str:
    """Return *value* as text that a terminal can show; only newlines and tabs survive of what is invisible.

    Longer text keeps its first *head* and last *tail* characters. Anything that is no string becomes "".
    """
    if not isinstance(value, str):
        return ""
    if len(value) > head + tail:
        left_out = f"... {len(value) - head - tail} characters left out, the journal has them ..."
        value = f"{value[:head]}\n{left_out}\n{value[len(value) - tail :]}"
    if value.isprintable():
        return value
    if "\x1b" in value or "\x9b" in value:
        value = _ESCAPES.sub("", value)
    return _UNWANTED.sub("", value.replace("\r\n", "\n").replace("\r", "\n"))


def line(value: object, limit: int = LINE_CHARS) -> str:
    """Return *value* as one line of at most *limit* characters."""
    if not isinstance(value, str):
        return ""
    cut = value[: 2 * limit]
    if not cut.isprintable():
        cut = _SPACES.sub(" ", text(cut, 2 * limit, 0)).strip()
    return cut if len(cut) <= limit else cut[: limit - 3] + "..."


def number(value: object, default: float = 0.0) -> float:
    """Return *value* when it is a finite number, else *default*."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return default
    try:
        as_float = float(value)
    except OverflowError:
        return default
    return as_float if math.isfinite(as_float) else default


class Budget:
    """What is left of the memory that one host may take, in bytes (estimated, generously)."""

    __slots__ = ("left",)

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, size: int) -> bool:
        """Take *size* bytes; False, and nothing taken, when there are not as many left."""
        if size > self.left:
            return False
        self.left -= size
        return True


def size_of(value: str) -> int:
    """Return about how many bytes of memory *value* takes."""
    return 56 + (len(value) if value.isascii() else 4 * len(value))


def plain(given: object, budget: Budget, depth: int = 0) -> Any:
    """Return *given* as JSON of bounded size; what does not fit into *budget* is left out (None).

    Numbers that JSON has no word for become text ("nan"); long series of numbers are thinned.
    """
    if given is None or isinstance(given, bool):
        return given
    if isinstance(given, str):
        kept = text(given)
        return kept if budget.take(size_of(kept)) else None
    if isinstance(given, int | float):
        return _plain_number(given, budget)
    if depth >= MAX_DEPTH or not budget.take(120):
        return None
    if isinstance(given, Mapping):
        return _mapping(given, budget, depth)
    if isinstance(given, list | tuple):
        kept_items = _numbers(given, budget)
        return [plain(v, budget, depth + 1) for v in given[:MAX_LIST]] if kept_items is None else kept_items
    return None


def _mapping(given: Mapping[Any, Any], budget: Budget, depth: int) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, item in given.items():
        if len(kept) >= MAX_KEYS:
            break
        name = line(key, 100)
        if name and budget.take(size_of(name)):
            kept[name] = plain(item, budget, depth + 1)
    return kept


def _plain_number(given: float, budget: Budget) -> float | int | str | None:
    if not budget.take(32):
        return None
    if isinstance(given, int):
        return given if -(2**63) <= given < 2**64 else None
    return given if math.isfinite(given) else str(given)


def _numbers(given: list[Any] | tuple[Any, ...], budget: Budget) -> list[Any] | None:
    """Return a long list of numbers thinned to MAX_LIST points (first and last kept), None when it is none."""
    if len(given) <= MAX_LIST or not all(type(v) in (int, float) for v in given):
        return None
    last = len(given) - 1
    picked = [given[round(i * last / (MAX_LIST - 1))] for i in range(MAX_LIST)]
    return [_plain_number(v, budget) for v in picked]
