"""Files that travelled here, by content hash: what the host already has is never sent again."""

from __future__ import annotations

import errno
import os

from gpuprov.agent.modules import MODULES, base, load
from gpuprov.agent.system import new_sha256
from gpuprov.wire.frames import FrameError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.channel import Channel
    from gpuprov.agent.system import System


class StopAsked(Exception):
    """The controller asked to stop while files were on their way."""


class Blobs:
    """The store under <home>/blobs, and the optional layers beside the bundle."""

    def __init__(self, home: str, system: System) -> None:
        self.folder = os.path.join(home, "blobs")
        self._layers = os.path.join(home, "bundle")
        self._system = system

    def path(self, sha256: str) -> str:
        """Return where blob *sha256* lies, or would."""
        return os.path.join(self.folder, os.path.basename(sha256))

    def missing(self, plan: dict[str, Any]) -> list[str]:
        """Return the hashes of the files that *plan* really needs and that are not here."""
        if not plan.get("blobs"):
            return []
        wanted: dict[str, None] = {}
        for play in plan["plays"]:
            for node in [*tasks(play["nodes"]), *play["handlers"]]:
                if node.get("files") and not node.get("skip"):
                    check = node.get("check_mode", plan.get("check", False))
                    wanted.update(dict.fromkeys(self._needs(node, check)))
        return [sha256 for sha256 in wanted if not self._whole(sha256, plan["blobs"].get(sha256))]

    def expect_space(self, missing: list[str], plan: dict[str, Any]) -> None:
        """Raise OSError when the files that are *missing* cannot fit, before they are sent."""
        size = sum(plan["blobs"][sha256] for sha256 in missing)
        space = os.statvfs(os.path.dirname(self.folder))
        free = space.f_bavail * space.f_frsize
        if size > free:
            sentence = "%d MiB of files do not fit, %d MiB are free" % (size >> 20, free >> 20)
            raise OSError(errno.ENOSPC, sentence, self.folder)

    def _whole(self, sha256: str, size: int | None) -> bool:
        """Say whether a file is here; it is synced before it gets its name, so its size tells enough."""
        try:
            return os.stat(self.path(sha256)).st_size == size
        except OSError:
            return False

    def _needs(self, node: dict[str, Any], check: bool) -> list[str]:
        """Ask the module what it lacks; a task whose arguments are not final yet needs all it names."""
        if node["action"] not in MODULES or "args" in node.get("defer", ()):
            return list(node["files"])
        module = load(node["action"])
        ask = getattr(module, "needs", base.needs)
        if check:
            ask = getattr(module, "needs_in_check_mode", ask)
        own = node.get("args", {})
        calls = [i.get("args", own) for i in node["items"] if not i.get("skip")] if "items" in node else [own]
        try:
            return [sha256 for args in calls for sha256 in ask(args, self._system)]
        except OSError:  # the task itself will say what is wrong on this host
            return list(node["files"])

    def has_layer(self, name: str, sha256: str) -> bool:
        """Say whether the zip of an optional layer is here and intact; one that is not is removed."""
        path = self.layer(name, sha256)
        try:
            if self._system.sha256(path) == sha256:
                return True
            os.unlink(path)
        except OSError:
            pass  # it is not here, or cannot be read: it is sent
        return False

    def layer(self, name: str, sha256: str) -> str:
        """Return where the zip of a layer lies."""
        return os.path.join(self._layers, "%s-%s.zip" % (name, os.path.basename(sha256)))

    def receive(self, channel: Channel, missing: list[str], layers: list[str], digests: dict[str, str]) -> None:
        """Take blob frames until everything that was asked for is here. Raises OSError, StopAsked."""
        os.makedirs(self.folder, 0o700, exist_ok=True)
        targets = {sha256: self.path(sha256) for sha256 in missing}
        targets.update({digests[name]: self.layer(name, digests[name]) for name in layers})
        while targets:
            header, body = _next(channel)
            if header["t"] != "blob" or header.get("sha256") not in targets:
                raise FrameError("expected a file, got frame %r" % header["t"])
            self._receive_one(channel, header, body, targets.pop(header["sha256"]))

    def _receive_one(self, channel: Channel, header: dict[str, Any], body: bytes, path: str) -> None:
        digest = new_sha256()
        temporary = "%s.%s" % (path, os.urandom(6).hex())
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        wanted, failed = header["sha256"], None
        try:
            while True:
                digest.update(body)
                try:
                    view = memoryview(body if failed is None else b"")
                    while view:
                        view = view[os.write(fd, view) :]
                except OSError as error:  # read the rest off the channel, then say it
                    failed = OSError(error.errno, error.strerror, path)
                if header.get("last"):
                    break
                header, body = _next(channel)
            if failed is None:
                os.fdatasync(fd)
            if failed is not None or digest.hexdigest() != wanted:
                raise failed or OSError(errno.EIO, "the file arrived damaged", path)
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        finally:
            os.close(fd)


def _next(channel: Channel) -> tuple[dict[str, Any], bytes]:
    header, body = channel.receive()
    if header["t"] == "stop":
        raise StopAsked
    return header, body


def tasks(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return all task nodes of a tree of nodes, in order."""
    found: list[dict[str, Any]] = []
    for node in nodes:
        if node.get("kind") == "block":
            for part in ("block", "rescue", "always"):
                found += tasks(node.get(part, []))
        else:
            found.append(node)
    return found
