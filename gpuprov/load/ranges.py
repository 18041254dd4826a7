"""Host names with ranges: `gpu[01:16]` as inventories write them, `gpu[01-07,12]` as people read them."""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: More names than this from one text are a typing mistake.
MAX_NAMES = 100_000

_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_PART = re.compile(r"([0-9]+|[A-Za-z])(?:([:-])([0-9]+|[A-Za-z])(?::([1-9][0-9]*))?)?\Z")
_NUMBER = re.compile(r"[0-9]+")


class RangeSyntaxError(ValueError):
    """The text in brackets is no range; the message says why."""


def expand(text: str) -> list[str]:
    """Return every name that *text* stands for, in order; ends are inclusive.

    Understands `[01:16]`, `[01:16:2]` (a step), `[a:d]`, `[01-07,12]` and several brackets in one
    name. Leading zeros of the start are kept. Raises RangeSyntaxError.
    """
    found = _BRACKETS.search(text)
    if found is None:
        if "[" in text or "]" in text:
            raise RangeSyntaxError(f"a bracket of {text} has no partner")
        return [text]
    head, rest = text[: found.start()], expand(text[found.end() :])
    middle = [name for part in found[1].split(",") for name in _expand_part(part.strip(), found[0])]
    if len(middle) * len(rest) > MAX_NAMES:
        raise RangeSyntaxError(f"{text} stands for more than {MAX_NAMES} names")
    return [head + name + tail for name in middle for tail in rest]


def expand_all(text: str) -> list[str]:
    """Return every name of a comma-separated list such as `gpu[01-07,12],login1`: the inverse of `fold`."""
    return [name for part in split_outside_brackets(text, ",") for name in expand(part)]


def _expand_part(part: str, brackets: str) -> Iterable[str]:
    match = _PART.match(part)
    if match is None:
        raise RangeSyntaxError(f"{brackets} is no range; write [01:16], [a:d] or [01:16:2]")
    start, _, end, step = match.groups()
    if end is None:
        return [start]
    if start.isdigit() != end.isdigit():
        raise RangeSyntaxError(f"{brackets} mixes a number and a letter")
    if not start.isdigit():
        letters = string.ascii_letters
        first, last = letters.index(start), letters.index(end)
        if first > last:
            raise RangeSyntaxError(f"{brackets} runs backwards")
        return letters[first : last + 1 : int(step or 1)]
    return _numbers(start, end, int(step or 1), brackets)


def _numbers(start: str, end: str, step: int, brackets: str) -> Iterable[str]:
    first, last = int(start), int(end)
    if first > last:
        raise RangeSyntaxError(f"{brackets} runs backwards")
    if start[0] == "0" and len(start) > 1 and len(start) != len(end):
        raise RangeSyntaxError(f"both ends of {brackets} need the same number of digits, as in [01:16]")
    if (last - first) // step >= MAX_NAMES:
        raise RangeSyntaxError(f"{brackets} stands for more than {MAX_NAMES} names")
    width = len(start) if start[0] == "0" else 0
    return (str(number).zfill(width) for number in range(first, last + 1, step))


def split_outside_brackets(text: str, separators: str) -> list[str]:
    """Split *text* at any character of *separators* that is not in [ ]; parts are stripped, empty ones dropped."""
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        if character == "[":
            depth += 1
        elif character == "]":
            depth = max(0, depth - 1)
        elif character in separators and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that puts gpu2 before gpu10."""
    pieces = re.split(r"([0-9]+)", name)
    return tuple((1, int(p), p) if p.isdecimal() and p.isascii() else (0, 0, p) for p in pieces)


def fold(names: Iterable[str]) -> str:
    """Return *names* as a person writes them: `gpu[01-07,12],login1`. Sorted, every name once."""
    families: dict[tuple[str, str, bool], list[str]] = {}
    for name in sorted(set(names), key=natural_key):
        head, digits, tail = _split_number(name)
        families.setdefault((head, tail, bool(digits)), []).append(digits)
    return ",".join(
        head + (numbers[0] if len(numbers) == 1 else f"[{','.join(_runs(numbers))}]") + tail
        for (head, tail, _), numbers in families.items()
    )


def _split_number(name: str) -> tuple[str, str, str]:
    """Split at the last number of the first label (gpu01.dc2: 01), else (10.0.0.7) at the last number at all."""
    label = name.split(".", 1)[0]
    numbers = [] if label.isdigit() else list(_NUMBER.finditer(label))
    numbers = numbers or list(_NUMBER.finditer(name))
    if not numbers or "[" in name:
        return name, "", ""
    last = numbers[-1]
    return name[: last.start()], last[0], name[last.end() :]


def _runs(numbers: list[str]) -> Iterator[str]:
    """Yield `01-07` and `12` for sorted texts of numbers; a run never mixes widths of padded numbers."""
    index = 0
    while index < len(numbers):
        last = index
        while last + 1 < len(numbers) and _follows(numbers[index], numbers[last], numbers[last + 1]):
            last += 1
        yield numbers[index] if last == index else f"{numbers[index]}-{numbers[last]}"
        index = last + 1


def _follows(start: str, number: str, following: str) -> bool:
    padded = start[0] == "0" and len(start) > 1
    width = len(start) if padded else 0
    same = len(following) == width if padded else following[0] != "0"
    return same and int(following) == int(number) + 1
