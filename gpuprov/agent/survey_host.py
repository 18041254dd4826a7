"""What the survey looks at: a root folder, the programs of the host, and a list of what could not be told.

Absent and unknown are kept apart here, so that no part has to think of it: what is not there is None, False
or empty; what cannot be read raises.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from gpuprov.agent.process import Finished
    from gpuprov.agent.system import System

#: What the kernel says where nothing is.
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO)
#: As many links as the kernel follows.
_MOST_LINKS = 40


class Untold(Exception):
    """Something cannot be told; str() is the reason."""


class Host:
    """A host, or a folder with the files of one. Links of such a folder stay inside of it.

    untold: key -> reason, filled by the parts. kept: what one part has read and others need again.
    """

    def __init__(self, system: System, root: str = "") -> None:
        self.system = system
        self.root = root.rstrip("/")
        self.untold: dict[str, str] = {}
        self.kept: dict[str, Any] = {}

    def read(self, path: str, limit: int = -1) -> bytes | None:
        """Return a file's bytes; None when there is no such file. Raises Untold when it cannot be read."""
        try:
            return self.system.read(self.at(path), limit)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise Untold("cannot read %s: %s" % (path, error.strerror)) from None

    def text(self, path: str, default: str = "") -> str:
        """Return a text file, or *default* when there is none. Raises Untold."""
        data = self.read(path)
        return default if data is None else data.decode("utf-8", "replace")

    def names(self, folder: str) -> list[str]:
        """Return the sorted names in a folder; none when there is no such folder. Raises Untold."""
        try:
            return sorted(os.listdir(self.at(folder)))
        except OSError as error:
            if error.errno in _ABSENT:
                return []
            raise Untold("cannot look into %s: %s" % (folder, error.strerror)) from None

    def exists(self, path: str) -> bool:
        """Say whether something is there, behind all links. Raises Untold."""
        return self.stat(path) is not None

    def stat(self, path: str) -> os.stat_result | None:
        """Return what is known of a path, behind all links; None when nothing is there. Raises Untold."""
        try:
            return os.stat(self.at(path))
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise Untold("cannot look at %s: %s" % (path, error.strerror)) from None

    def link(self, path: str) -> str | None:
        """Return where a symbolic link points to, as it is written; None when it is none. Raises Untold."""
        folder, name = os.path.split(path)
        try:
            return os.readlink(os.path.join(self.at(folder), name))
        except OSError as error:
            if error.errno in (*_ABSENT, errno.EINVAL):
                return None
            raise Untold("cannot read the link %s: %s" % (path, error.strerror)) from None

    def real(self, path: str) -> str:
        """Return *path* without symbolic links, as the host sees it."""
        return os.path.realpath(path) if not self.root else self.at(path)[len(self.root) :] or "/"

    def at(self, path: str) -> str:
        """Return the path here for a path of the host. Raises Untold when its links go in a circle."""
        if not self.root:
            return path
        done, todo, links = "", path.strip("/").split("/"), 0
        while todo:
            part = todo.pop(0)
            if part in ("", "."):
                continue
            if part == "..":
                done = os.path.dirname(done).rstrip("/")
                continue
            here = self.root + done + "/" + part
            if os.path.islink(here):
                links += 1
                if links > _MOST_LINKS:
                    raise Untold("cannot follow %s: too many links" % path)
                target = os.readlink(here)
                done = "" if target.startswith("/") else done
                todo = target.strip("/").split("/") + todo
            else:
                done += "/" + part
        return self.root + done

    def which(self, name: str, path: str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin") -> str:
        """Return the host's path of program *name*, or ""."""
        for folder in path.split(":"):
            full = os.path.join(folder, name)
            if os.access(self.at(full), os.X_OK) and not os.path.isdir(self.at(full)):
                return full
        return ""

    def run(self, argv: Sequence[str], timeout_s: float = 5.0) -> Finished:
        """Run a program to its end. Raises Untold when it cannot be started or is not in time."""
        try:
            done = self.system.run(argv, timeout_s=timeout_s)
        except OSError as error:
            raise Untold("cannot run %s: %s" % (argv[0], error.strerror)) from None
        if done.timed_out:
            raise Untold("%s did not end within %g s" % (argv[0], timeout_s))
        return done


def known(found: dict[str, Any], key: str) -> Any:
    """Return what an earlier part found. Raises Untold when it could not tell."""
    if key not in found:
        raise Untold("it depends on `%s`, which could not be told" % key)
    return found[key]
