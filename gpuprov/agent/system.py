"""The agent's one door to the operating system: processes, atomic files, users.

Standard library only, and of that only what starts fast: `subprocess`, `tempfile`, `shutil`
and `typing` together would double the agent's start-up time.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time

from gpuprov.agent.process import Finished, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

#: Modules that may have SHA-256; asking for one that is not there costs as much as hashing a small file.
_SHA256 = ("_sha2", "hashlib") if sys.version_info >= (3, 12) else ("_sha256", "hashlib")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class System:
    """Processes, files and users of this host. Blocking.

    deadline_at (monotonic seconds) bounds every command that is run meanwhile: a task's timeout.
    """

    def __init__(self) -> None:
        self.deadline_at: float | None = None

    def run(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: bytes = b"",
        timeout_s: float | None = None,
        on_line: Callable[[str, str], None] | None = None,
        umask: int | None = None,
    ) -> Finished:
        """Run *argv* to its end and return how it ended.

        The child has its own process group (killed as a whole at the deadline), none of our
        descriptors, PATH, LANG=C.UTF-8 and HOME plus *env*, and *stdin*. on_line gets
        ("stdout"|"stderr", line) while it runs. Raises OSError when it cannot be started.
        """
        limits = [limit for limit in (time.monotonic() + timeout_s if timeout_s else None, self.deadline_at) if limit]
        deadline = min(limits) if limits else None
        return run(list(argv), self.environment(env), cwd, stdin, deadline, on_line, umask)

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment that commands get: small, explicit, English."""
        env = {
            "PATH": os.environ.get("PATH") or PATH,
            "HOME": os.environ.get("HOME") or "/",
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
        }
        for name in ("USER", "LOGNAME", "SHELL", "TMPDIR"):
            if os.environ.get(name):
                env[name] = os.environ[name]
        if extra:
            env.update({str(k): str(v) for k, v in extra.items()})
        return env

    def which(self, name: str, path: str | None = None) -> str | None:
        """Return the full path of program *name*, or None."""
        if "/" in name:
            return name if os.access(name, os.X_OK) and not os.path.isdir(name) else None
        for folder in (path or os.environ.get("PATH") or PATH).split(":"):
            full = os.path.join(folder, name)
            if os.access(full, os.X_OK) and not os.path.isdir(full):
                return full
        return None

    def read(self, path: str, limit: int = -1) -> bytes:
        """Return the bytes of a file (at most *limit*). Raises OSError."""
        with open(path, "rb") as f:
            return f.read(limit)

    def read_text(self, path: str, default: str = "") -> str:
        """Return a small text file, or *default* when it cannot be read."""
        try:
            return self.read(path).decode("utf-8", "replace")
        except OSError:
            return default

    def sha256(self, path: str) -> str:
        """Return the SHA-256 of a file as hex. Raises OSError."""
        digest = new_sha256()
        with open(path, "rb") as f:
            while True:
                data = f.read(1 << 20)
                if not data:
                    return str(digest.hexdigest())
                digest.update(data)

    def replace(
        self,
        path: str,
        data: bytes | None = None,
        source: str | None = None,
        mode: int | None = None,
        uid: int = -1,
        gid: int = -1,
    ) -> None:
        """Put *data* (or a copy of file *source*) at *path* in one atomic step, on disk.

        An existing file keeps its owner, mode, ACL and SELinux label unless given here; where
        they cannot be carried to a new file, the content is still replaced atomically and the
        error is raised before. A symbolic link at *path* is replaced, not followed.
        """
        folder, name = os.path.split(path)
        try:
            old = os.lstat(path)
        except FileNotFoundError:
            old = None
        temporary = os.path.join(folder or ".", ".%s.gpuprov-%s" % (name[:100], os.urandom(6).hex()))
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                _fill(fd, data, source)
                _dress(fd, path, old, mode, uid, gid)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def _fill(fd: int, data: bytes | None, source: str | None) -> None:
    if source is None:
        view = memoryview(data or b"")
        while view:
            view = view[os.write(fd, view) :]
        return
    with open(source, "rb") as f:
        while True:
            piece = f.read(1 << 20)
            if not piece:
                return
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]


def _dress(fd: int, path: str, old: os.stat_result | None, mode: int | None, uid: int, gid: int) -> None:
    """Give the new file owner, ACL, label and mode: what was asked, else what the old one had."""
    if old is not None and stat.S_ISREG(old.st_mode):
        uid = old.st_uid if uid == -1 else uid
        gid = old.st_gid if gid == -1 else gid
        if mode is None:
            mode = stat.S_IMODE(old.st_mode)
    if uid != -1 or gid != -1:
        os.fchown(fd, uid, gid)
    if old is not None and stat.S_ISREG(old.st_mode):
        _copy_attributes(fd, path)
    if mode is None:
        mask = os.umask(0)
        os.umask(mask)
        mode = 0o666 & ~mask
    os.fchmod(fd, mode)


def _copy_attributes(fd: int, path: str) -> None:
    """Carry extended attributes (ACL, SELinux label, capabilities not) from *path* to *fd*."""
    try:
        names = os.listxattr(path)
    except OSError:
        return
    for name in names:
        if name == "security.capability":
            continue
        try:
            os.setxattr(fd, name, os.getxattr(path, name))
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENODATA):
                raise


def new_sha256() -> Any:
    """Return a SHA-256 object. CPython's own C code starts 3 ms faster than OpenSSL's."""
    for name in _SHA256:
        try:
            return __import__(name).sha256()
        except ImportError:
            continue
    raise ImportError("no SHA-256 in this Python")
