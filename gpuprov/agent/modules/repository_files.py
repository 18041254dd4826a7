"""What repositories of apt and dnf have in common: files, rivals, putting in place and away."""

from __future__ import annotations

import os
import re

from gpuprov.agent.modules.base import ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.modules.base import Call

#: What a source that is set aside is called: package managers pass files with other endings over.
ASIDE = ".set-aside-by-gpuprov"


class Repository:
    """One repository's files on the host. Subclasses know their spelling and how to try it."""

    #: Where the key is.
    keyring = ""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.args: dict[str, Any] = call.args
        self.name: str = call.args["name"]
        if not re.match(r"^[A-Za-z0-9][A-Za-z0-9_-]*$", self.name):
            raise ModuleError("name is %r; letters, digits, - and _ are allowed" % self.name)

    def files(self, keyring: bytes | None) -> dict[str, bytes | None]:
        """Return path -> content of all that belongs to it; None for a key that is not known yet."""
        raise NotImplementedError

    def all_paths(self) -> list[str]:
        """Return every file that it may have had."""
        raise NotImplementedError

    def rivals(self) -> list[str]:
        """Return other files that name the same repository."""
        raise NotImplementedError

    def unread(self) -> list[str]:
        """Return what of its index the host does not have."""
        raise NotImplementedError

    def attempt(self, keyring: bytes) -> None:
        """Read its index apart from the host's settings. Raises ModuleError; changes nothing."""
        raise NotImplementedError

    def read_index(self) -> None:
        """Read its index for the host. Raises ModuleError."""
        raise NotImplementedError

    def put(self, keyring: bytes) -> None:
        """Write its files and read its index. Raises ModuleError, OSError."""
        files = self.files(keyring)
        for path, data in files.items():
            assert data is not None
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            self.call.system.replace(path, data=data, mode=0o644)
        for path in self.all_paths():
            if path not in files and os.path.exists(path):
                os.unlink(path)
        self.read_index()

    def remove(self) -> None:
        """Take its files away."""
        for path in self.all_paths():
            if os.path.exists(path):
                os.unlink(path)

    def set_rivals_aside(self) -> list[str]:
        """Rename the other files that name it, so that they do not count; return them."""
        found = self.rivals()
        for path in found:
            os.rename(path, path + ASIDE)
        return found


def discard(folder: str) -> None:
    """Remove a folder in which a repository was tried."""
    import shutil

    shutil.rmtree(folder)


def same_url(one: str, other: str) -> bool:
    """Say whether two URLs are the same repository."""
    return one.rstrip("/").lower() == other.rstrip("/").lower()


def host_of(url: str) -> str:
    """Return the host of a URL, "" for a local one."""
    match = re.match(r"^[a-z+]+://(?:[^/@]*@)?([^/:]+)", url)
    return match.group(1) if match else ""
