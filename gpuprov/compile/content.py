"""The controller's files that plans carry: found the way Ansible finds them, hashed once."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gpuprov.model import RoleUse

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Blob:
    """A file that travels by its hash. mode has the permission bits."""

    path: str
    sha256: str
    size: int
    mode: int


class Content:
    """Reads files of the controller. Everything is read once while it does not change; thread-safe."""

    def __init__(self) -> None:
        self._blobs: dict[str, tuple[tuple[int, int, int], Blob]] = {}
        self._texts: dict[str, str] = {}
        self._lines: dict[str, list[str]] = {}
        self._found: dict[tuple[str, ...], str | None] = {}

    def blob(self, path: str) -> Blob:
        """Return a file's hash, size and mode. Raises OSError."""
        stat = os.stat(path)
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        known = self._blobs.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        digest = hashlib.sha256()
        with open(path, "rb") as f:
            while piece := f.read(_PIECE_BYTES):
                digest.update(piece)
        blob = Blob(path, digest.hexdigest(), stat.st_size, stat.st_mode & 0o7777)
        self._blobs[path] = (stamp, blob)
        return blob

    def text(self, path: str) -> str:
        """Return a text file. Raises OSError and UnicodeDecodeError."""
        text = self._texts.get(path)
        if text is None:
            with open(path, encoding="utf-8", newline="") as f:
                text = self._texts[path] = f.read()
        return text

    def lines(self, path: str) -> list[str]:
        """Return the lines of a text file to point at; none when it cannot be read."""
        lines = self._lines.get(path)
        if lines is None:
            try:
                with open(path, encoding="utf-8", errors="replace") as f:
                    lines = f.read().splitlines()
            except OSError:
                lines = []
            self._lines[path] = lines
        return lines

    def tree(self, folder: str) -> Iterator[tuple[str, Blob | None]]:
        """Yield (path below *folder*, file) of everything in it, sorted; None for a folder. Raises OSError."""
        for entry in sorted(os.scandir(folder), key=lambda e: e.name):
            if entry.is_dir():
                yield entry.name, None
                for name, blob in self.tree(entry.path):
                    yield f"{entry.name}/{name}", blob
            else:
                yield entry.name, self.blob(entry.path)

    def find(self, name: str, places: Sequence[str]) -> str | None:
        """Return the first of *places* that has *name*, joined with it; None when none has."""
        key = (name, *places)
        if key not in self._found:
            name = os.path.expanduser(name)
            paths = [name] if os.path.isabs(name) else [os.path.join(place, name) for place in places]
            self._found[key] = next((p for p in paths if os.path.exists(p)), None)
        return self._found[key]


def search_path(kind: str, role: RoleUse | None, playbook_dir: str) -> tuple[str, ...]:
    """Return the folders in which a relative src is looked for, first to last.

    *kind* is "files" or "templates".
    """
    below_role = [os.path.join(role.path, kind), role.path, os.path.join(role.path, "tasks")] if role else []
    return (*below_role, os.path.join(playbook_dir, kind), playbook_dir)


def searched(places: Sequence[str]) -> str:
    """Return a hint that says where was looked."""
    return "searched: " + ", ".join(dict.fromkeys(map(shown, places)))


def shown(path: str) -> str:
    """Return *path* as a person at this folder would write it."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
