"""Trees of the file system: making, walking and removing them without following links."""

from __future__ import annotations

import errno
import os
import stat
import time

from gpuprov.agent.modules.attributes import lstat
from gpuprov.agent.modules.base import ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from gpuprov.agent.modules.attributes import Attributes


def folders_above(path: str) -> list[str]:
    """Return the nearest existing thing above *path* and, after it, the missing folders between them."""
    missing = []
    folder = os.path.dirname(path)
    while not os.path.lexists(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    return [folder, *reversed(missing)]


def make_folders(path: str, wanted: Attributes) -> None:
    """Make the folder *path* and those above it that are missing, all with the wanted attributes."""
    for folder in [*folders_above(path)[1:], path]:
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            continue
        os.lchown(folder, wanted.uid, wanted.gid)
        os.chmod(folder, wanted.new_mode(directory=True))


def walk(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield everything below the folder *path* with its lstat; links are yielded, not followed."""
    stack = [path]
    while stack:
        folder = stack.pop()
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                yield entry.path, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)


def remove(path: str) -> None:
    """Remove *path* and all within, never through a link. Raises ModuleError when something is in the way."""
    found = lstat(path)
    if found is None:
        return
    try:
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(path)
            return
        # Names relative to open folders: nobody can swap a folder for a link meanwhile.
        for _folder, folders, files, fd in os.fwalk(path, topdown=False, follow_symlinks=False):
            for name in files:
                os.unlink(name, dir_fd=fd)
            for name in folders:
                linked = stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
                (os.unlink if linked else os.rmdir)(name, dir_fd=fd)
        os.rmdir(path)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise ModuleError("%s is or contains a mount point" % path, "unmount it first", code="busy") from None
        raise


def unlike(path: str, target: str) -> bool:
    """Say whether *path* is not a link to *target*."""
    return not os.path.islink(path) or os.readlink(path) != target


def times_of(args: dict[str, Any], found: os.stat_result) -> tuple[int, int] | None:
    """Return the (atime, mtime) in ns that touch sets on what was *found*; None when both are preserved."""
    access = _time(args, "access_time", found.st_atime_ns)
    modified = _time(args, "modification_time", found.st_mtime_ns)
    return None if access is None and modified is None else (access or found.st_atime_ns, modified or found.st_mtime_ns)


def _time(args: dict[str, Any], name: str, now_ns: int) -> int | None:
    text = args.get(name) or "now"
    if text == "preserve":
        return None
    if text == "now":
        return time.time_ns()
    try:
        wanted = int(time.mktime(time.strptime(text, args[name + "_format"]))) * 1_000_000_000
    except ValueError:
        raise ModuleError("%s is %r, which is not of the format %s" % (name, text, args[name + "_format"])) from None
    return now_ns if now_ns == wanted else wanted


def fill_home(path: str, skeleton: str, uid: int, gid: int, mode: int) -> None:
    """Make the folder *path* as a copy of *skeleton*, everything owned by uid and gid. Raises OSError."""
    folder = folders_above(path)
    for missing in folder[1:]:
        os.mkdir(missing, 0o755)
    os.mkdir(path, 0o700)
    for source, found in walk(skeleton) if os.path.isdir(skeleton) else ():
        target = os.path.join(path, os.path.relpath(source, skeleton))
        if stat.S_ISDIR(found.st_mode):
            os.mkdir(target, 0o700)
        elif stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(source), target)
        elif stat.S_ISREG(found.st_mode):
            with open(source, "rb") as f, open(target, "xb") as g:
                g.write(f.read())
        else:
            continue
        os.lchown(target, uid, gid)
        if not stat.S_ISLNK(found.st_mode):
            os.chmod(target, stat.S_IMODE(found.st_mode))
    os.chown(path, uid, gid)
    os.chmod(path, mode)
