"""The module `stat`: what is at a path."""

from __future__ import annotations

import os
import stat

from gpuprov.agent.modules import attributes
from gpuprov.agent.modules.base import Action, ModuleError
from gpuprov.agent.modules.content import not_planned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC: dict[str, Any] = {
    "summary": "What is at a path.",
    "args": {
        "path": {"type": "path", "required": True, "aliases": ["dest", "name"], "doc": "The path."},
        "follow": {"type": "bool", "default": False, "doc": "Look at what a link points to."},
        "get_checksum": {"type": "bool", "default": True, "doc": "Return the checksum of a regular file."},
        "checksum_algorithm": {
            "type": "str",
            "choices": ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"],
            "default": "sha1",
            "aliases": ["checksum", "checksum_algo"],
            "doc": "Algorithm of the checksum.",
        },
        "get_attributes": {
            "type": "bool",
            "default": True,
            "aliases": ["attr", "attributes"],
            "doc": "Return chattr flags.",
        },
        "get_mime": {
            "type": "bool",
            "default": False,
            "aliases": ["mime", "mime_type", "mime-type"],
            "doc": "Return mimetype and charset by the program file. Ansible's default is true; it costs a process.",
        },
    },
    "unsupported": {"get_selinux_context": "use a command task with stat -c %C"},
    "returns": {"stat": "exists, mode, isdir, isreg, islnk, size, uid, gid, pw_name, checksum, mtime, ..."},
}
#: ioctl that reads a file's flags, and the flags' letters and names.
_GET_FLAGS = 0x80086601
_FLAGS = (
    (0x00000001, "s", "secdel"),
    (0x00000002, "u", "undelete"),
    (0x00000008, "S", "synchronous"),
    (0x00000010, "i", "immutable"),
    (0x00000020, "a", "append"),
    (0x00000040, "d", "nodump"),
    (0x00000080, "A", "noatime"),
    (0x00000004, "c", "compressed"),
    (0x00001000, "I", "indexed"),
    (0x00004000, "j", "journalled"),
    (0x00008000, "t", "notailmerge"),
    (0x00010000, "D", "dirsync"),
    (0x00020000, "T", "topdir"),
    (0x00080000, "e", "extents"),
    (0x00800000, "C", "nocow"),
)


class Stat(Action):
    """What is at a path; absence is an answer, too."""

    reads = True

    def run(self) -> dict[str, Any]:
        """Return {"stat": {...}}. Raises ModuleError when it cannot be told."""
        path = attributes.path(self.args["path"]).rstrip("/") or "/"
        not_planned(self.call, path)
        try:
            found = os.stat(path) if self.args["follow"] else os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return {"changed": False, "stat": {"exists": False}}
        result = {"exists": True, "path": path, **describe(found)}
        access = {"readable": os.R_OK, "writeable": os.W_OK, "executable": os.X_OK}
        result.update({name: os.access(path, right) for name, right in access.items()})
        if stat.S_ISLNK(found.st_mode):
            result["lnk_source"], result["lnk_target"] = os.path.realpath(path), os.readlink(path)
        if stat.S_ISREG(found.st_mode) and self.args["get_checksum"] and result["readable"]:
            result["checksum"] = checksum(path, self.args["checksum_algorithm"])
        if self.args["get_attributes"] and (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            result.update(_flags(path))
        if self.args["get_mime"]:
            result.update(self._mime(path))
        return {"changed": False, "stat": result}

    def _mime(self, path: str) -> dict[str, str]:
        try:
            done = self.system.run(["file", "--mime-type", "--mime-encoding", "-b", path])
        except FileNotFoundError:
            raise ModuleError("get_mime needs the program file", "install the package file") from None
        kind, _, charset = done.out.strip().partition("; charset=")
        return {"mimetype": kind or "unknown", "charset": charset or "unknown"}


def describe(found: os.stat_result) -> dict[str, Any]:
    """Return Ansible's keys of a stat result."""
    mode = found.st_mode
    names = {"r": "r", "w": "w", "x": "x"}
    bits = {
        "%s%s" % (names[letter], who): bool(mode & (bit << shift))
        for who, shift in (("usr", 6), ("grp", 3), ("oth", 0))
        for letter, bit in (("r", 4), ("w", 2), ("x", 1))
    }
    return {
        "mode": "%04o" % stat.S_IMODE(mode),
        "isdir": stat.S_ISDIR(mode),
        "ischr": stat.S_ISCHR(mode),
        "isblk": stat.S_ISBLK(mode),
        "isreg": stat.S_ISREG(mode),
        "isfifo": stat.S_ISFIFO(mode),
        "islnk": stat.S_ISLNK(mode),
        "issock": stat.S_ISSOCK(mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
        "pw_name": attributes.user_name(found.st_uid),
        "gr_name": attributes.group_name(found.st_gid),
        "size": found.st_size,
        "inode": found.st_ino,
        "dev": found.st_dev,
        "device_type": found.st_rdev,
        "nlink": found.st_nlink,
        "atime": found.st_atime,
        "mtime": found.st_mtime,
        "ctime": found.st_ctime,
        "blocks": found.st_blocks,
        "block_size": found.st_blksize,
        "isuid": bool(mode & stat.S_ISUID),
        "isgid": bool(mode & stat.S_ISGID),
        **bits,
    }


def checksum(path: str, algorithm: str) -> str:
    """Return a file's checksum as hex. Raises OSError."""
    import hashlib

    digest = hashlib.new(algorithm)
    with open(path, "rb") as f:
        while True:
            piece = f.read(1 << 20)
            if not piece:
                return digest.hexdigest()
            digest.update(piece)


def _flags(path: str) -> dict[str, Any]:
    """Return the flags that lsattr shows; nothing where the file system has none."""
    import fcntl
    import struct

    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        value = struct.unpack("l", fcntl.ioctl(fd, _GET_FLAGS, struct.pack("l", 0)))[0]
    except OSError:
        return {}
    finally:
        os.close(fd)
    present = [(letter, name) for bit, letter, name in _FLAGS if value & bit]
    return {"attr_flags": "".join(letter for letter, _ in present), "attributes": [name for _, name in present]}


MODULE = Stat
