"""The module `blockinfile`: lines between two marker lines."""

from __future__ import annotations

from gpuprov.agent.modules import attributes
from gpuprov.agent.modules.base import ModuleError
from gpuprov.agent.modules.textfile import ARGS, TextFile, insert, lines_of, place, to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC: dict[str, Any] = {
    "summary": "A block of lines between two marker lines of a text file.",
    "args": {
        "block": {"type": "str", "default": "", "aliases": ["content"], "doc": "The lines. Empty: remove the block."},
        "marker": {"type": "str", "default": "# {mark} ANSIBLE MANAGED BLOCK", "doc": "The marker lines."},
        "marker_begin": {"type": "str", "default": "BEGIN", "doc": "{mark} of the first one."},
        "marker_end": {"type": "str", "default": "END", "doc": "{mark} of the last one."},
        "append_newline": {"type": "bool", "default": False, "doc": "An empty line after a block."},
        "prepend_newline": {"type": "bool", "default": False, "doc": "An empty line before a block."},
        **ARGS,
    },
    "exclusive": [["insertafter", "insertbefore"]],
    "unsupported": {**attributes.UNSUPPORTED, "encoding": "files are edited as bytes; block is written as UTF-8"},
    "returns": {
        "msg": "Block inserted, Block removed, or empty.",
        "backup": "The copy of the old file, or empty.",
    },
}


class BlockInFile(TextFile):
    """The lines between two markers, there or not."""

    def edit(self, data: bytes) -> tuple[bytes, str, dict[str, Any]]:
        """Return the content with, or without, the block."""
        first, last = self._marker("marker_begin"), self._marker("marker_end")
        lines = lines_of(data)
        numbers = [_last(lines, first), _last(lines, last)]
        block = self._block(first, last)
        if None in numbers:
            at = place(self.args, lines)
            text = b"".join(insert(lines, at, self._spaced(lines, at, at, block)) if block else lines)
        else:
            start, end = sorted(number for number in numbers if number is not None)
            spaced = self._spaced(lines, start, end + 1, block) if block else []
            text = b"".join([*lines[:start], *spaced, *lines[end + 1 :]])
        msg = "" if text == data else "Block inserted" if block else "Block removed"
        return text, msg, {}

    def _marker(self, name: str) -> bytes:
        marker: str = self.args["marker"]
        if "{mark}" not in marker:
            raise ModuleError("marker is %r, which has no {mark}: the block could not be found again" % marker)
        return to_bytes(marker.replace("{mark}", self.args[name]))

    def _block(self, first: bytes, last: bytes) -> list[bytes]:
        text: str = self.args["block"]
        if self.args["state"] == "absent" or not text:
            return []
        return [first + b"\n", *lines_of(to_bytes(text if text.endswith("\n") else text + "\n")), last + b"\n"]

    def _spaced(self, lines: list[bytes], start: int, end: int, block: list[bytes]) -> list[bytes]:
        """Return the block with the empty lines that it is to have around it."""
        if self.args["prepend_newline"] and start > 0 and lines[start - 1].strip():
            block = [b"\n", *block]
        if self.args["append_newline"] and end < len(lines) and lines[end].strip():
            block = [*block, b"\n"]
        return block


def _last(lines: list[bytes], marker: bytes) -> int | None:
    numbers = [number for number, line in enumerate(lines) if line.rstrip(b"\r\n") == marker]
    return numbers[-1] if numbers else None


MODULE = BlockInFile
