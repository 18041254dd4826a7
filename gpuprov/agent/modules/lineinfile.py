"""The module `lineinfile`: one line of a text file."""

from __future__ import annotations

from gpuprov.agent.modules import attributes
from gpuprov.agent.modules.base import ModuleError
from gpuprov.agent.modules.textfile import ARGS, TextFile, compiled, insert, lines_of, place, to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from typing import Any

SPEC: dict[str, Any] = {
    "summary": "One line of a text file.",
    "args": {
        "line": {"type": "str", "aliases": ["value"], "doc": "The line, without its end."},
        "regexp": {
            "type": "str",
            "aliases": ["regex"],
            "doc": "Pattern of the line to replace (the last match) or remove.",
        },
        "search_string": {"type": "str", "doc": "Text in the line to replace or remove, instead of regexp."},
        "backrefs": {"type": "bool", "default": False, "doc": r"line may use \1 of regexp; no match: no change."},
        "firstmatch": {"type": "bool", "default": False, "doc": "The first match counts, not the last."},
        **ARGS,
    },
    "exclusive": [["regexp", "search_string"], ["insertafter", "insertbefore"]],
    "unsupported": {**attributes.UNSUPPORTED, "encoding": "files are edited as bytes; line is written as UTF-8"},
    "returns": {
        "msg": "line added, line replaced, or how many lines were removed.",
        "found": "absent: how many lines matched.",
        "backup": "The copy of the old file, or empty.",
    },
}


class LineInFile(TextFile):
    """One line of a text file, there or not."""

    def edit(self, data: bytes) -> tuple[bytes, str, dict[str, Any]]:
        """Return the content with, or without, the line."""
        edit = _Edit(self.args)
        lines = lines_of(data)
        if self.args["state"] == "present":
            return b"".join(edit.put_in(lines)), edit.msg, {}
        kept = edit.leave_out(lines)
        removed = len(lines) - len(kept)
        return b"".join(kept), "%d line(s) removed" % removed if removed else "", {"found": removed}


class _Edit:
    """The change that the arguments ask for, as a function of a file's lines. msg says what it did."""

    def __init__(self, args: dict[str, Any]) -> None:
        self.msg = ""
        self._args = args
        self._regexp = compiled("regexp", args.get("regexp"))
        text, line = args.get("search_string"), args.get("line")
        self._search = None if text is None else to_bytes(text)
        if line is None and (args["state"] == "present" or (self._regexp is None and self._search is None)):
            raise ModuleError("line is missing")
        if args["backrefs"] and self._regexp is None:
            raise ModuleError("backrefs needs regexp; search_string has no groups to refer to")
        self._line = b"" if line is None else to_bytes(line)

    def leave_out(self, lines: list[bytes]) -> list[bytes]:
        """Return the lines that do not match."""
        if self._regexp is None and self._search is None:
            return [line for line in lines if not self._is_line(line)]
        return [line for line in lines if not self._matches(line)]

    def put_in(self, lines: list[bytes]) -> list[bytes]:
        """Return the lines with the line in the place of the one that matches, or where a new one goes."""
        at = self._chosen(lines)
        if at is None and self._args["backrefs"]:
            return lines
        match = self._regexp.search(lines[at]) if at is not None and self._regexp is not None else None
        if at is None:
            at = next((number for number in reversed(range(len(lines))) if self._is_line(lines[number])), None)
        if at is None:
            self.msg = "line added"
            return insert(lines, place(self._args, lines), [self._line + b"\n"])
        new = match.expand(self._line) if match is not None and self._args["backrefs"] else self._line
        new += b"" if new.endswith(b"\n") else b"\n"
        self.msg = "" if lines[at] == new else "line replaced"
        return [*lines[:at], new, *lines[at + 1 :]]

    def _chosen(self, lines: list[bytes]) -> int | None:
        """Return the number of the line that regexp or search_string chooses."""
        numbers = [number for number, line in enumerate(lines) if self._matches(line)]
        return None if not numbers else numbers[0] if self._args["firstmatch"] else numbers[-1]

    def _matches(self, line: bytes) -> re.Match[bytes] | bool | None:
        if self._regexp is not None:
            return self._regexp.search(line)
        return self._search is not None and self._search in line

    def _is_line(self, line: bytes) -> bool:
        return line.rstrip(b"\r\n") == self._line


MODULE = LineInFile
