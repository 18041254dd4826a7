"""Run one module as another user: a child gives up ids and groups for good, and reports by a pipe."""

from __future__ import annotations

import json
import os
import signal
import sys

from gpuprov.agent.modules import base

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def perform_as(user: str, make: Callable[[], Any], call: base.Call, started: Callable[[], None]) -> dict[str, Any]:
    """Do what perform() does, as *user*. Raises ModuleError when there is no such user.

    started() is called here, in the parent, before the child has its first effect.
    """
    import pwd

    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        if call.check:
            raise base.NeedsEarlierChange("user %s does not exist yet" % user) from None
        raise base.ModuleError("there is no user %s to become" % user, code="become") from None
    said, say = os.pipe()
    heard, answer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(said)
            os.close(answer)
            _live_as(entry, call, make, say, heard)
        finally:
            os._exit(0)
    os.close(say)
    os.close(heard)
    try:
        done = _listen(said, answer, call, started)
    finally:
        os.close(answer)  # a child that still waits for an answer ends
        _, status = os.waitpid(pid, 0)
    if done is None:
        raise base.ModuleError("the task's process for user %s ended early (status %d)" % (user, status), code="become")
    return done


def _live_as(entry: Any, call: base.Call, make: Callable[[], Any], say: int, heard: int) -> None:
    """Be the child: give up all rights, then do the task and hand over what became of it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    kept = _keep_in_reach(call)
    _close_others({0, 1, 2, say, heard, *kept})
    _become(entry)
    call.output = lambda stream, line: _send(say, {"line": [stream, line]})

    def started() -> None:
        _send(say, {"started": True})
        if not os.read(heard, 1):
            os._exit(1)

    before = set(call.pending)
    done = _perform(make, started)
    _send(say, {"done": done, "pending": sorted(call.pending - before)})


def _close_others(kept: set[int]) -> None:
    """Close every descriptor of the runner's that the child has no business with: lock, journal, pipes."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:  # the listing's own
                continue


def _keep_in_reach(call: base.Call) -> set[int]:
    """Take along what only we may read: the agent's own code, and the task's files. Returns descriptors.

    The child holds them open, and names them by their descriptors: /proc/self/fd needs no right
    to the folders above, only to the file itself.
    """
    copies: dict[str, str] = {}
    kept: set[int] = set()
    for importer in sys.path_importer_cache.values():
        archive = getattr(importer, "archive", None)  # of a zip file's importer
        if archive is not None:
            if archive not in copies:
                fd = _copy_in_memory(archive)
                kept.add(fd)
                copies[archive] = "/proc/self/fd/%d" % fd
            importer.archive = copies[archive]  # type: ignore[union-attr]
    sent = [call.args.get("_blob") or {}, *(call.args.get("_tree") or [])]
    paths = {}
    for sha256 in {one["sha256"] for one in sent if one.get("sha256")}:
        try:
            fd = os.open(call.blob(sha256), os.O_RDONLY)
        except (OSError, base.ModuleError):
            continue  # not sent, since the host has it; else the task says what it misses
        os.fchmod(fd, 0o644)
        kept.add(fd)
        paths[sha256] = "/proc/self/fd/%d" % fd
    call.blob = lambda sha256: paths.get(sha256) or base._no_blob(sha256)
    return kept


def _copy_in_memory(path: str) -> int:
    fd = os.memfd_create(os.path.basename(path))
    with open(path, "rb") as f:
        view = memoryview(f.read())
    while view:
        view = view[os.write(fd, view) :]
    return fd


def _become(entry: Any) -> None:
    os.initgroups(entry.pw_name, entry.pw_gid)
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    # nothing of root's session: its TMPDIR, its bus, its sudo
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TZ") if name in os.environ}
    os.environ.clear()
    os.environ.update(kept, HOME=entry.pw_dir, USER=entry.pw_name, LOGNAME=entry.pw_name, SHELL=entry.pw_shell)
    try:
        os.chdir(entry.pw_dir)
    except OSError:
        os.chdir("/")


def _perform(make: Callable[[], Any], started: Callable[[], None]) -> dict[str, Any]:
    from gpuprov.agent.perform import crashed, failed, os_failure, perform

    try:
        return perform(make(), started)
    except base.NeedsEarlierChange as reason:
        return {"outcome": "unknown", "skip": str(reason)}
    except base.ModuleError as error:
        return failed(error)
    except OSError as error:
        return failed(os_failure(error))
    except Exception as bug:  # the parent must hear of it
        return crashed(bug)


def _send(fd: int, value: dict[str, Any]) -> None:
    view = memoryview(json.dumps(value, default=str).encode() + b"\n")
    while view:
        view = view[os.write(fd, view) :]


def _listen(said: int, answer: int, call: base.Call, started: Callable[[], None]) -> dict[str, Any] | None:
    """Relay the child's output, and answer it, until it hands over its result."""
    done = None
    with open(said, "rb") as lines:
        for line in lines:
            value = json.loads(line)
            if "line" in value:
                call.output(*value["line"])
            elif "started" in value:
                started()
                os.write(answer, b"!")
            else:
                done = value["done"]
                call.pending.update(value["pending"])
    return done
