"""Turn a YAML parser's complaint into one sentence that says what to change."""

from __future__ import annotations

import re
from typing import Any

from gpuprov.errors import Problem
from gpuprov.source import Position

_UNQUOTED_TEMPLATE = re.compile(r"(?::|-)\s+(\{\{.*)$")
_QUOTED_THEN_MORE = re.compile(r"""(?::|-)\s+("[^"]*"|'[^']*')\s*[^\s#,\]}:]""")
_NO_SPACE = re.compile(r"^\s*(?:- )?([A-Za-z_][\w.]*):[^\s:/\\]")

_INDENT = "items of one list or mapping start in the same column; compare with the lines above"

#: Part of the parser's message -> code, our sentence, hint. The first match counts.
_KNOWN = (
    (
        "mapping values are not allowed",
        "yaml-colon",
        "a second ': ' on this line, or a line indented deeper than the one above",
        "quote the value if the colon belongs to it",
    ),
    ("found unexpected end of stream", "yaml-unclosed", "a quoted text is never closed", "add the closing quote"),
    ("found unknown escape character", "yaml-escape", "an unknown \\ escape in double quotes", "use single quotes"),
    ("did not find expected hexdecimal", "yaml-escape", "a \\x or \\u escape without its digits", "use single quotes"),
    ("did not find expected ',' or ']'", "yaml-unclosed", "a list in [ ] is not closed or lacks a comma", ""),
    ("did not find expected ',' or '}'", "yaml-unclosed", "a mapping in { } is not closed or lacks a comma", ""),
    ("could not find expected ':'", "yaml-colon", "a line without ': ' among the keys of a mapping", ""),
    ("did not find expected key", "yaml-indent", "this line fits neither the mapping above nor a new one", _INDENT),
    ("did not find expected '-'", "yaml-indent", "this line fits neither the list above nor a new one", _INDENT),
    ("block sequence entries are not allowed", "yaml-indent", "a list item is not allowed here", _INDENT),
    ("did not find expected <document start>", "yaml-indent", "text after the end of the document", _INDENT),
    ("control characters are not allowed", "yaml-character", "a control character, which YAML does not allow", ""),
)


def explain_syntax(error: Any, text: str, path: str) -> Problem:
    """Return the Problem for PyYAML's *error* (a YAMLError) in *text*."""
    lines = text.splitlines() or [""]
    said, place, began = _parts(error, text)
    if "unexpected end of stream" in said or "expected ','" in said:
        place = began
    line, column = min(place[0], len(lines) - 1), place[1]
    at = Position(path, line + 1, column + 1)
    special = _unquoted_template(lines, line, began[0], path) or _misused_character(lines[line], column, said, at)
    if special is not None:
        return special
    for number in (line, line - 1):
        missing = _NO_SPACE.match(lines[number]) if number >= 0 else None
        if missing and "mapping values" in said:
            where = Position(path, number + 1, missing.end(1) + 1)
            return Problem("yaml-colon", f"no space after {missing[1]}:", where, f"write {missing[1]}: VALUE")
    for part, code, message, hint in _KNOWN:
        if part in said:
            return Problem(code, message, at, hint)
    return Problem("yaml-syntax", f"not valid YAML: {said}", at)


def _parts(error: Any, text: str) -> tuple[str, tuple[int, int], tuple[int, int]]:
    """Return what the parser said, where, and where the construct around it began."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        before = text[: getattr(error, "position", 0)]
        place = before.count("\n"), len(before) - before.rfind("\n") - 1
        return str(getattr(error, "reason", error)), place, place
    start = error.context_mark or mark
    return str(error.problem), (mark.line, mark.column), (start.line, start.column)


def _unquoted_template(lines: list[str], line: int, began: int, path: str) -> Problem | None:
    for number in (line, began, line - 1):
        found = _UNQUOTED_TEMPLATE.search(lines[number]) if 0 <= number < len(lines) else None
        if found:
            return unquoted_template(Position(path, number + 1, found.start(1) + 1), found[1])
    return None


def unquoted_template(at: Position, text: str) -> Problem:
    """Return the Problem for a value that starts with two braces at *at*; *text* is the rest of its line."""
    end = text.rfind("}}")
    more = text[end + 2 : end + 3] not in ("", " ", ",", "]", "}")
    shown = (text if more or end < 0 else text[: end + 2]).strip().replace('"', "'")
    message = "a value that starts with {{ must be quoted, else YAML reads a mapping"
    return Problem("yaml-unquoted-template", message, at, f'write "{shown}"')


def _misused_character(line: str, column: int, said: str, at: Position) -> Problem | None:
    indent = line[: len(line) - len(line.lstrip())]
    if line[column : column + 1] == "\t" or "\t" in indent:
        where = Position(at.path, at.line, line.index("\t") + 1)
        return Problem("yaml-tab", "a tab where YAML allows only spaces", where, "indent with spaces")
    if "cannot start any token" in said:
        found = line[column : column + 1]
        return Problem("yaml-character", f"a value cannot start with {found}", at, "put the value in quotes")
    if "control characters" not in said and _QUOTED_THEN_MORE.search(line):
        return Problem("yaml-quote", "text after a closing quote", at, "put the whole value in quotes")
    return None
