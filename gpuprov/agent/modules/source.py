"""Where a file's content comes from: given text, a file that travelled, a file on the host."""

from __future__ import annotations

import json
import os
import stat
import sys
import time

from gpuprov.agent.modules.base import ModuleError
from gpuprov.agent.system import new_sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.modules.base import Call

#: (device, inode, size, mtime, ctime) -> SHA-256 of what this process has read already.
_HASHES: dict[tuple[int, int, int, int, int], str] = {}
#: A file whose change time is younger could change again without a trace in it.
_SETTLED_NS = 50_000_000
#: From here on OpenSSL's SHA-256, five times as fast, is worth loading.
_LARGE_BYTES = 1536 * 1024


class Source:
    """A file's content. data or path or, for what travelled, sha256 is known; mode may be."""

    __slots__ = ("_call", "_path", "data", "mode", "sha256", "size")

    def __init__(
        self,
        data: bytes | None = None,
        path: str | None = None,
        sha256: str = "",
        size: int = 0,
        mode: int | None = None,
        call: Call | None = None,
    ) -> None:
        self.data = data
        self._path = path
        self.sha256 = sha256
        self.size = size
        self.mode = mode
        self._call = call

    @property
    def path(self) -> str | None:
        """The file with the content; None for given text. Raises ModuleError when it did not travel."""
        if self._path is None and self.data is None:
            assert self._call is not None
            self._path = self._call.blob(self.sha256)
        return self._path

    def same_as(self, path: str, found: os.stat_result) -> bool:
        """Say whether the regular file *path* has this content. Raises OSError when it cannot be read."""
        if not stat.S_ISREG(found.st_mode) or found.st_size != self.size:
            return False
        if self.data is not None:
            with open(path, "rb") as f:
                return f.read() == self.data
        if not self.sha256:
            assert self._path is not None
            return same_files(self._path, path)
        return sha256(path, found) == self.sha256

    def read(self, call: Call) -> bytes:
        """Return the content for --diff; a note when check mode was not sent the file."""
        if self.data is not None:
            return self.data
        try:
            path = self.path
        except ModuleError:
            return b"(%d bytes that were not sent)\n" % self.size
        assert path is not None
        return call.system.read(path)

    def verify(self, checksum: str | None) -> None:
        """Raise ModuleError unless the content has this SHA-1."""
        if checksum and _sha1(self.data, self.path) != checksum.lower():
            raise ModuleError("the file's SHA-1 is not the checksum %s" % checksum, code="checksum-mismatch")


def inline(content: Any) -> Source:
    """Return given text as a source; a mapping or list becomes JSON."""
    if isinstance(content, (dict, list)):
        content = json.dumps(content)
    data = content if isinstance(content, bytes) else str(content).encode("utf-8", "surrogateescape")
    return Source(data=data, size=len(data))


def travelled(call: Call | None, blob: dict[str, Any]) -> Source:
    """Return a file that travels with the plan, by its hash."""
    return Source(sha256=blob["sha256"], size=blob["size"], mode=blob.get("mode"), call=call)


def remote(path: str) -> Source:
    """Return a file of this host. Raises OSError, ModuleError."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise ModuleError("src %s is not a regular file" % path, code="not-a-file")
    return Source(path=path, size=found.st_size, mode=stat.S_IMODE(found.st_mode))


def same_files(one: str, other: str) -> bool:
    """Say whether two files of the same size have the same content. Raises OSError."""
    with open(one, "rb") as a, open(other, "rb") as b:
        while True:
            piece = a.read(1 << 20)
            if piece != b.read(1 << 20):
                return False
            if not piece:
                return True


def sha256(path: str, found: os.stat_result) -> str:
    """Return a file's SHA-256, read once per process while the file stays as it was *found*."""
    key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    digest = _HASHES.get(key)
    if digest is None:
        digest = _digest(path, found.st_size)
        if time.time_ns() - found.st_ctime_ns > _SETTLED_NS:
            _HASHES[key] = digest
    return digest


def _digest(path: str, size: int) -> str:
    state = new_sha256()
    if size > _LARGE_BYTES:
        import hashlib

        state = hashlib.sha256()
    with open(path, "rb") as f:
        while True:
            piece = f.read(1 << 18)
            if not piece:
                return str(state.hexdigest())
            state.update(piece)


def sha1(path: str) -> str:
    """Return the SHA-1 of a file, Ansible's `checksum`. Raises OSError."""
    return _sha1(None, path)


def _sha1(data: bytes | None, path: str | None) -> str:
    import hashlib

    # Python 3.8 has no usedforsecurity; a host in FIPS mode has a newer one.
    options: dict[str, Any] = {"usedforsecurity": False} if sys.version_info >= (3, 9) else {}
    state = hashlib.sha1(**options)  # noqa: S324 - Ansible's `checksum` key is SHA-1
    if data is not None:
        state.update(data)
        return state.hexdigest()
    assert path is not None
    with open(path, "rb") as f:
        while True:
            piece = f.read(1 << 20)
            if not piece:
                return state.hexdigest()
            state.update(piece)
