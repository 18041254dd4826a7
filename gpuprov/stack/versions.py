"""Versions as NVIDIA, CUDA and torch write them: dotted numbers. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

_DOTTED = re.compile(r"\d+(?:\.\d+)*")


@lru_cache(maxsize=4096)
def key(version: str) -> tuple[int, ...]:
    """Return *version* as numbers to compare. Raises ValueError when it is no dotted number."""
    if not _DOTTED.fullmatch(version):
        raise ValueError(f"{version!r} is not a version of dotted numbers")
    return tuple(int(part) for part in version.split("."))


def is_version(text: str) -> bool:
    """Say whether *text* is a dotted number."""
    return _DOTTED.fullmatch(text) is not None


def leading(text: object) -> str | None:
    """Return the dotted number that *text* begins with: "6.8.0" of "6.8.0-45-generic"; None when there is none."""
    found = _DOTTED.match(str(text).strip())
    return found.group() if found else None


@lru_cache(maxsize=16384)
def older(one: str, other: str) -> bool:
    """Say whether *one* is older than *other*; "580" is as new as "580.0"."""
    left, right = key(one), key(other)
    width = max(len(left), len(right))
    return left + (0,) * (width - len(left)) < right + (0,) * (width - len(right))


def major(version: str) -> int:
    """Return the first number: a driver's branch, CUDA's major version."""
    return key(version)[0]


def series(version: str) -> str:
    """Return the first two numbers: "12.8" of "12.8.1"."""
    return ".".join(version.split(".")[:2])


def within(version: str, start: str) -> bool:
    """Say whether *version* is *start* or one of its releases: "2.9.1" is within "2.9", "2.90" is not."""
    numbers = key(start)
    return key(version)[: len(numbers)] == numbers
