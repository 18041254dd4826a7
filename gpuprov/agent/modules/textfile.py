"""What the modules that edit text files share: read, edit in memory, compare, replace."""

from __future__ import annotations

import os
import re

from gpuprov.agent.modules import attributes
from gpuprov.agent.modules.attributes import Attributes, lstat
from gpuprov.agent.modules.base import Change, ModuleError, State, absent
from gpuprov.agent.modules.content import BACKUP, VALIDATE, check_folder, difference, not_planned, put
from gpuprov.agent.modules.tree import make_folders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ARGS: dict[str, Any] = {
    "path": {"type": "path", "required": True, "aliases": ["dest", "destfile", "name"], "doc": "The file."},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present", "doc": "absent: remove."},
    "insertafter": {"type": "str", "doc": "Where something new goes: EOF or after the last line that matches."},
    "insertbefore": {"type": "str", "doc": "Where something new goes: BOF or before the last line that matches."},
    "create": {"type": "bool", "default": False, "doc": "Make the file, and its folder, when it is missing."},
    "backup": BACKUP,
    "validate": VALIDATE,
    **attributes.ARGS,
}


class TextFile(State):
    """A text file of which a part is managed. Subclasses have `edit`."""

    _written: bytes | None = None
    _backup = ""
    _msg = ""

    def edit(self, data: bytes) -> tuple[bytes, str, dict[str, Any]]:
        """Return the file's wanted content, what was done in words, and more return keys. Pure."""
        raise NotImplementedError

    def probe(self) -> Change:
        """Edit the file in memory and compare."""
        path = attributes.path(self.args["path"]).rstrip("/")
        self.path = os.path.realpath(path) if os.path.islink(path) else path
        not_planned(self.call, self.path)
        found = lstat(self.path)
        self.before = self._read(found)
        self.wanted = Attributes(self.call)
        self.after, msg, more = self.edit(self.before or b"")
        change = Change()
        if self.before is None and self.args["state"] == "absent":
            msg = "file not present"
        elif self._written is not None and self.before == self._written:
            self._warn_of_growth(msg)
        elif self.after != self.before:
            change.differences.append("content")
            self._msg = msg
        change.differences += [] if found is None else self.wanted.differences(found)
        if change.differences and self.call.check:
            self.call.pending.add(self.path)
        if change.differences and self.call.diff:
            change.diff = self._diff(found)
        change.result = {"msg": self._msg or msg, "backup": self._backup, **more}
        return change

    def converge(self, change: Change) -> None:
        """Replace the file by its edited copy."""
        if "content" in change.differences:
            folder = os.path.dirname(self.path)
            if self.before is None and not os.path.isdir(folder):
                make_folders(folder, Attributes(self.call, "%04o" % attributes.DIRECTORY_MODE))
            self._backup = put(self.call, self.path, self.wanted, data=self.after).get("backup_file", "")
            self._written = self.after
        self.wanted.apply(self.path)

    def _read(self, found: os.stat_result | None) -> bytes | None:
        if found is not None:
            if os.path.isdir(self.path):
                raise ModuleError("%s is a directory" % self.path, code="is-a-directory")
            return self.system.read(self.path)
        if self.args["state"] == "present":
            if not self.args["create"]:
                hint = "create: true makes it"
                raise absent(self.call, "%s does not exist" % self.path, hint, code="file-missing", rc=257)
            if os.path.lexists(os.path.dirname(self.path)):
                check_folder(self.call, self.path)
        return None

    def _diff(self, found: os.stat_result | None) -> list[dict[str, Any]]:
        parts = [difference(self.path, self.before, self.after)] if self.after != self.before else []
        if found is not None and self.wanted.differences(found):
            before, after = self.wanted.describe(found, False), self.wanted.describe(found, True)
            parts.append({"before_header": self.path, "after_header": self.path, "before": before, "after": after})
        return parts

    def _warn_of_growth(self, msg: str) -> None:
        """A second edit of what was just written changes it again: as in Ansible, but said."""
        if self.after != self.before:
            self.call.warnings.append("every run will change %s again: %s" % (self.path, msg))


def lines_of(data: bytes) -> list[bytes]:
    r"""Return the lines with their ends; only \n ends a line."""
    return re.findall(rb"[^\n]*\n|[^\n]+", data)


def to_bytes(text: str) -> bytes:
    """Return *text* as it is written to files."""
    return text.encode("utf-8", "surrogateescape")


def compiled(name: str, pattern: str | None) -> re.Pattern[bytes] | None:
    """Return argument *name* as a pattern for lines. Raises ModuleError."""
    if pattern is None:
        return None
    try:
        return re.compile(to_bytes(pattern))
    except re.error as error:
        raise ModuleError("%s %r is no regular expression: %s" % (name, pattern, error)) from None


def place(args: dict[str, Any], lines: list[bytes]) -> int:
    """Return before which line something new goes, by insertafter and insertbefore."""
    after, before = args.get("insertafter"), args.get("insertbefore")
    if after == "BOF" or before == "BOF":
        return 0
    if after in (None, "EOF") and before in (None, "EOF"):
        return len(lines)
    pattern = compiled("insertafter" if after else "insertbefore", after or before)
    assert pattern is not None
    numbers = [number for number, line in enumerate(lines) if pattern.search(line)]
    if not numbers:
        return len(lines)
    at = numbers[0] if args.get("firstmatch") else numbers[-1]
    return at + 1 if after else at


def insert(lines: list[bytes], at: int, new: list[bytes]) -> list[bytes]:
    """Return *lines* with *new* before line *at*; a last line without an end gets one."""
    if at >= len(lines) and lines and not lines[-1].endswith((b"\n", b"\r")):
        lines = [*lines[:-1], lines[-1] + b"\n"]
    return [*lines[:at], *new, *lines[at:]]
