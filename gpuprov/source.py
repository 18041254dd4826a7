"""Values that remember where in a file they were written.

YAML text becomes plain strings, dicts and lists of these types, so that an error found much
later (a template, an argument, a variable) can still name its file, line and column. They
behave exactly like their base types: JSON, Jinja2 and `isinstance` see nothing special.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a text file; line and column count from 1."""

    path: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


class SourceStr(str):
    """A string from a file. `position` is that of its first character."""

    __slots__ = ("position",)
    position: Position

    def __new__(cls, value: str, position: Position) -> SourceStr:
        """Attach *position* to a copy of *value*."""
        self = super().__new__(cls, value)
        self.position = position
        return self


class SourceDict(dict[Any, Any]):
    """A mapping from a file; `keys_at` has the position of every key."""

    __slots__ = ("keys_at", "position")
    position: Position
    keys_at: dict[Any, Position]

    def __init__(self, position: Position) -> None:
        super().__init__()
        self.position = position
        self.keys_at = {}


class SourceList(list[Any]):
    """A sequence from a file; `items_at` has the position of every item."""

    __slots__ = ("items_at", "position")
    position: Position
    items_at: list[Position]

    def __init__(self, position: Position) -> None:
        super().__init__()
        self.position = position
        self.items_at = []


def position_of(value: object, default: Position | None = None) -> Position | None:
    """Return where *value* was written, or *default* when it does not say."""
    return getattr(value, "position", default)


def place_of(container: Any, key: Any) -> Position | None:
    """Return where `container[key]` was written; for a value that cannot say so (a number), where its key was.

    A list's key is the index. None when nothing is known.
    """
    if isinstance(container, SourceList):
        return container.items_at[int(key)]
    at = container.keys_at.get(key) if isinstance(container, SourceDict) else None
    return position_of(container[key], at) if key in container else at


def plain(value: Any) -> Any:
    """Return *value* with every source type replaced by its builtin (a deep copy)."""
    if isinstance(value, dict):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, SourceStr):
        return str(value)
    return value
