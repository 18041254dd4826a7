"""The Linux calls that give a lab host its own view of the machine, through ctypes.

Thin wrappers: each raises OSError with the call's name in it. Blocking; some change the
calling process for good.
"""

from __future__ import annotations

import ctypes
import os

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE = 0x20, 0x1000, 0x4000, 0x40000, 0x80000
MNT_DETACH = 2

NEW_MOUNTS, NEW_UTS, NEW_IPC = 0x20000, 0x4000000, 0x8000000
NEW_USERS, NEW_PIDS = 0x10000000, 0x20000000

PR_SET_PDEATHSIG, PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER = 1, 23, 24, 36

#: Number of every capability that a host does without, from linux/capability.h.
#: What is left lets a host install, mount, become other users and reboot itself.
DROPPED_CAPABILITIES = {
    "LINUX_IMMUTABLE": 9,
    "NET_ADMIN": 12,
    "SYS_MODULE": 16,
    "SYS_RAWIO": 17,
    "SYS_PACCT": 20,
    "SYS_TIME": 25,
    "SYS_TTY_CONFIG": 26,
    "MKNOD": 27,
    "AUDIT_CONTROL": 30,
    "MAC_OVERRIDE": 32,
    "MAC_ADMIN": 33,
    "SYSLOG": 34,
    "WAKE_ALARM": 35,
    "BLOCK_SUSPEND": 36,
    "AUDIT_READ": 37,
    "PERFMON": 38,
    "BPF": 39,
    "CHECKPOINT_RESTORE": 40,
}

_SYS_ADMIN = 21

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str, subject: str = "") -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}", subject or None)
    return result


def _text(value: str | None) -> bytes | None:
    return None if value is None else os.fsencode(value)


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """Mount *source* on *target* in this process's mount namespace."""
    result = _libc.mount(_text(source), _text(target), _text(kind), ctypes.c_ulong(flags), _text(data))
    _check(result, f"mount {kind or source}", target)


def bind(source: str, target: str, flags: int = 0) -> None:
    """Show *source* (without its submounts) at *target*; *flags* such as MS_RDONLY take effect."""
    mount(source, target, None, MS_BIND)
    if flags:
        remount(target, flags)


def remount(target: str, flags: int) -> None:
    """Give the mount at *target* the *flags*, leaving its file system as it is for others."""
    kept = _locked_flags(target)
    mount("none", target, None, MS_REMOUNT | MS_BIND | flags | kept)


def _locked_flags(path: str) -> int:
    """Return the flags that *path*'s mount has now, as mount(2) wants them."""
    flags = os.statvfs(path).f_flag
    pairs = ((os.ST_RDONLY, MS_RDONLY), (os.ST_NOSUID, MS_NOSUID), (os.ST_NODEV, MS_NODEV), (os.ST_NOEXEC, MS_NOEXEC))
    return sum(ours for theirs, ours in pairs if flags & theirs)


def unmount(target: str) -> None:
    """Detach *target* and all below it at once; it goes when its last user has gone."""
    _check(_libc.umount2(_text(target), MNT_DETACH), "umount", target)


def pivot_root(new_root: str) -> None:
    """Make *new_root*, a mount point, the root of this mount namespace; the old root is let go."""
    os.chdir(new_root)
    _check(_libc.pivot_root(b".", b"."), "pivot_root", new_root)
    unmount(".")
    os.chdir("/")


def unshare(flags: int) -> None:
    """Leave the namespaces of *flags* (NEW_*) for new ones."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def join(fd: int, kind: int) -> None:
    """Enter the namespace that *fd* is open on; NEW_PIDS takes effect for children."""
    _check(_libc.setns(fd, kind), "setns")


def prctl(option: int, value: int) -> int:
    """Set or ask a property of this process; return the answer."""
    return _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


def drop_capabilities(also_admin: bool) -> None:
    """Take DROPPED_CAPABILITIES out of the bounding set: no program started from here has them.

    also_admin: SYS_ADMIN too, for a host without a user namespace that would confine it.
    """
    for number in (*DROPPED_CAPABILITIES.values(), *([_SYS_ADMIN] if also_admin else [])):
        if _libc.prctl(PR_CAPBSET_READ, ctypes.c_ulong(number), 0, 0, 0) == 1:
            prctl(PR_CAPBSET_DROP, number)
