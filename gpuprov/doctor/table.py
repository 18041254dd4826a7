"""The table of symptoms: rows as values, made from YAML documents with everything that is wrong in them reported."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpuprov.errors import Problem
from gpuprov.source import Position, place_of, position_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "symptoms")
#: The files of the table in their order. A line that fits several rows is given to the first.
FILES = ("packages", "driver", "fabric", "hardware", "containers", "nccl", "cuda", "python", "torch", "system")
SEVERITIES = ("fail", "warn")
#: Whom a list of commands is for: ansible_distribution or ansible_os_family in lower case, else everybody.
SYSTEMS = ("debian", "ubuntu", "redhat", "suse", "any")
_KEYS = ("id", "title", "severity", "patterns", "host", "cause", "check", "fix", "explains", "sources")
_NEEDED = ("id", "title", "severity", "cause", "check", "fix", "sources")
_ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Condition:
    """What a host shows when it has the trouble: an expression, and a template that says what was seen."""

    when: str
    seen: str


@dataclass(frozen=True, slots=True)
class Row:
    """One trouble. cause and commands are templates over the named groups of the pattern that matched.

    fix: system -> commands; a command that starts with "#" is a remark. explains: ids of rows that are
    only consequences of this one.
    """

    id: str
    title: str
    severity: str
    patterns: tuple[re.Pattern[str], ...]
    host: tuple[Condition, ...]
    cause: str
    check: tuple[str, ...]
    fix: dict[str, tuple[str, ...]]
    explains: tuple[str, ...]
    sources: tuple[str, ...]
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """All rows, in the order in which they are tried."""

    rows: tuple[Row, ...]

    def __getitem__(self, row_id: str) -> Row:
        return next(row for row in self.rows if row.id == row_id)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def table_of(documents: Iterable[Any], problems: list[Problem]) -> Table:
    """Return the table that *documents* (lists of rows) make; what is wrong is appended to *problems*."""
    rows: dict[str, Row] = {}
    for document in documents:
        if not isinstance(document, list):
            problems.append(Problem("symptoms", "a file of symptoms is a list of rows", position_of(document)))
            continue
        for index, given in enumerate(document):
            row = _Reader(given, place_of(document, index), problems).row()
            if row is None:
                continue
            if row.id in rows:
                problems.append(Problem("symptoms", f"row {row.id} is there twice", row.position))
            rows[row.id] = row
    problems.extend(
        Problem("symptoms", f"{row.id} explains {other}, which is no other row", row.position)
        for row in rows.values()
        for other in row.explains
        if other not in rows or other == row.id
    )
    return Table(tuple(rows.values()))


class _Reader:
    """Reads one row."""

    def __init__(self, given: Any, position: Position | None, problems: list[Problem]) -> None:
        self._given = given
        self._position = position
        self._problems = problems
        self._count = len(problems)

    def row(self) -> Row | None:
        """Return the row, None when something is wrong with it."""
        if not isinstance(self._given, dict):
            self._wrong("a row is a mapping", self._position)
            return None
        for key in self._given:
            if key not in _KEYS:
                self._wrong(f"{key} is no key of a row; keys: {', '.join(_KEYS)}", place_of(self._given, key))
        for key in _NEEDED:
            if not self._given.get(key):
                self._wrong(f"the row lacks {key}", self._position)
        if len(self._problems) > self._count:
            return None
        row = self._made()
        return row if len(self._problems) == self._count else None

    def _made(self) -> Row:
        row_id = str(self._given["id"])
        if not _ID.fullmatch(row_id):
            self._wrong(f"the id {row_id} is not lower-case words with hyphens", place_of(self._given, "id"))
        if self._given["severity"] not in SEVERITIES:
            self._wrong(f"severity is {' or '.join(SEVERITIES)}", place_of(self._given, "severity"))
        patterns, host = tuple(self._patterns()), tuple(self._conditions())
        if not self._given.get("patterns") and not host:
            self._wrong("a row needs patterns or host", self._position)
        return Row(
            id=row_id,
            title=str(self._given["title"]),
            severity=str(self._given["severity"]),
            patterns=patterns,
            host=host,
            cause=" ".join(str(self._given["cause"]).split()),
            check=self._texts("check", self._given["check"]),
            fix=self._fix(),
            explains=self._texts("explains", self._given.get("explains", [])),
            sources=self._texts("sources", self._given["sources"]),
            position=self._position,
        )

    def _patterns(self) -> Iterator[re.Pattern[str]]:
        for index, text in enumerate(self._texts("patterns", self._given.get("patterns", []))):
            try:
                pattern = re.compile(text)
            except re.error as error:
                self._wrong(f"not a regular expression: {error}", place_of(self._given["patterns"], index))
                continue
            if pattern.match(""):
                self._wrong("a pattern that matches everything", place_of(self._given["patterns"], index))
            yield pattern

    def _conditions(self) -> Iterator[Condition]:
        given = self._given.get("host", [])
        for one in given if isinstance(given, list) else [given]:
            if not isinstance(one, dict) or set(one) != {"when", "seen"}:
                self._wrong("host is a list of {when: expression, seen: text}", place_of(self._given, "host"))
                continue
            yield Condition(str(one["when"]), str(one["seen"]))

    def _fix(self) -> dict[str, tuple[str, ...]]:
        given = self._given["fix"]
        if isinstance(given, list):
            given = {"any": given}
        if not isinstance(given, dict) or not set(given) <= set(SYSTEMS):
            allowed = ", ".join(SYSTEMS)
            self._wrong(f"fix is a list of commands, or one for each of {allowed}", place_of(self._given, "fix"))
            return {}
        return {str(system): self._texts("fix", commands) for system, commands in given.items()}

    def _texts(self, key: str, given: Any) -> tuple[str, ...]:
        if not isinstance(given, list) or not all(isinstance(one, str) and one.strip() for one in given):
            self._wrong(f"{key} is a list of texts", place_of(self._given, key))
            return ()
        return tuple(str(one) for one in given)

    def _wrong(self, message: str, position: Position | None) -> None:
        self._problems.append(Problem("symptoms", message, position))
