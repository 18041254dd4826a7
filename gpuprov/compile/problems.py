"""Template problems as problems of the input: in which file, which line, which column."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpuprov.compile.content import shown
from gpuprov.errors import Problem
from gpuprov.source import Position, position_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpuprov.compile.content import Content
    from gpuprov.templating.problem import TemplateProblem

#: How far below the start of a YAML value its words are looked for, when its line ends were folded.
_REACH = 200


@dataclass(slots=True)
class Problems:
    """Collects problems, each once."""

    content: Content
    found: dict[tuple[str, Position | None, str], Problem] = field(default_factory=dict)

    def add(
        self, code: str, message: str, position: Position | None, hint: str = "", context: Iterable[str] = ()
    ) -> None:
        """Note a problem."""
        self.found.setdefault((code, position, message), Problem(code, message, position, hint, tuple(context)))

    def template(
        self, problem: TemplateProblem, position: Position | None, path: str = "", context: Iterable[str] = ()
    ) -> None:
        """Note what a template met. *path*: it is that of a template file, not a text at *position*."""
        via = [f"on the way: variable {name}" for name in problem.via]
        if path:
            context = (*context, f"used by {position}") if position is not None else context
            position = self.place_in_file(path, problem.token, problem.lineno)
        elif problem.source is not None:
            position = self.place(problem.source, position, problem.token, problem.lineno)
        self.add(problem.code, problem.message, position, problem.hint, [*via, *context])

    def place_in_file(self, path: str, token: str, lineno: int | None) -> Position:
        """Return where *token* is in a file, from line *lineno* on."""
        first = (lineno or 1) - 1
        lines = self.content.lines(path)
        found = _search(lines, token, first, 0, 1 if lineno else len(lines))
        return Position(shown(path), *found) if found else Position(shown(path), first + 1)

    def place(
        self, source: str, default: Position | None, token: str = "", lineno: int | None = None
    ) -> Position | None:
        """Return where *token*, in line *lineno* of text *source*, is in the file that it is from."""
        at = position_of(source, default)
        if at is None:
            return None
        lines = self.content.lines(at.path)
        start = at.line - 1
        if not 0 <= start < len(lines):
            return at
        opening = lines[start][at.column - 1 :].lstrip("!&*abcdefghijklmnopqrstuvwxyz ")
        block = opening.startswith(("|", ">"))
        first = start + (1 if block else 0) + ((lineno or 1) - 1 if opening.startswith("|") else 0)
        column = 0 if first > start else at.column - 1
        found = _search(
            lines, token or _first_brace(source, lineno), first, column, source.count("\n") + _lines_of(source)
        )
        return Position(at.path, *found) if found else at


def _lines_of(source: str) -> int:
    return min(_REACH, 2 + len(source) // 20)


def _first_brace(source: str, lineno: int | None) -> str:
    """Return the start of the template in the line that is wrong, to point at."""
    lines = source.splitlines()
    line = lines[lineno - 1] if lineno and lineno <= len(lines) else source
    braces = re.search(r"\{[{%#]-?\s*\S+", line)
    return braces.group() if braces else ""


def _search(lines: list[str], token: str, first: int, column: int, count: int) -> tuple[int, int] | None:
    """Return (line, column), from 1, of word *token* at or after a place, in at most *count* lines."""
    if not token:
        return None
    edge = r"(?<!\w)" if re.match(r"\w", token) else ""
    word = re.compile(edge + re.escape(token) + (r"(?!\w)" if re.search(r"\w$", token) else ""))
    for index in range(first, min(first + max(count, 1), len(lines))):
        found = word.search(lines[index], column if index == first else 0)
        if found:
            return index + 1, found.start() + 1
    return None
