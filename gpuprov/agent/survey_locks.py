"""Survey: whether another program holds the package manager's locks. They are looked at, never taken."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from gpuprov.agent.survey_host import Host, Untold
from gpuprov.agent.survey_packages import family

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_APT = (
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/lock",
    "/var/lib/apt/lists/lock",
    "/var/cache/apt/archives/lock",
)
_RPM = ("/var/lib/rpm/.rpm.lock", "/usr/lib/sysimage/rpm/.rpm.lock", "/run/dnf/rpmtransaction.lock")
#: Files with the number of the process that works with the packages.
_PID_FILES = (
    "/var/lib/dnf/rpmdb_lock.pid",
    "/var/cache/dnf/metadata_lock.pid",
    "/var/cache/dnf/download_lock.pid",
    "/run/zypp.pid",
)
#: struct flock of 64-bit Linux: type, whence, start, length, pid.
_FLOCK = "hhqqi4x"
_INTERPRETERS = ("python", "platform-python", "perl", "sh", "bash", "dash")


def package_lock(host: Host, found: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - one signature for all parts
    """Return {"package_lock": {"path", "pid", "program"}, or None when nobody holds one}."""
    apt = family(host) == "apt"
    for path in _APT if apt else _RPM:
        pid = _holder(host, path, fcntl.F_WRLCK if apt else fcntl.F_RDLCK)  # reading rpm's database disturbs nobody
        if pid is not None:
            return {"package_lock": _described(host, path, pid)}
    for path in () if apt else _PID_FILES:
        text = host.text(path).strip()
        if text.isdigit() and host.exists("/proc/" + text):
            return {"package_lock": _described(host, path, int(text))}
    return {"package_lock": None}


def _holder(host: Host, path: str, kind: int) -> int | None:
    """Return the process that would keep us from locking *path*; 0 for one outside of this container."""
    try:
        fd = os.open(host.at(path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise Untold("cannot look at the lock %s: %s" % (path, error.strerror)) from None
    try:
        asked = struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)
        answer = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    finally:
        os.close(fd)
    return None if answer[0] == fcntl.F_UNLCK else max(0, answer[4])


def _described(host: Host, path: str, pid: int) -> dict[str, Any]:
    return {"path": path, "pid": pid or None, "program": _program(host, pid) if pid else None}


def _program(host: Host, pid: int) -> str | None:
    """Return the name of a process's program, or of the script that an interpreter runs."""
    words = [os.path.basename(word) for word in host.text("/proc/%d/cmdline" % pid).split("\0") if word]
    if len(words) > 1 and words[0].rstrip("0123456789.") in _INTERPRETERS:
        scripts = [word for word in words[1:] if not word.startswith("-")]
        words = scripts or words
    return (words[0] if words else host.text("/proc/%d/comm" % pid).strip()) or None
