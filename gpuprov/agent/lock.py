"""One run at a time on a host: a flock that lives as long as the runner, and who holds it.

The file names the run, so that a run which was interrupted (the lock is free, but the file was
never cleared) is found and told apart from one that is still going. A run that was still waiting
for its files has changed nothing: once its process is gone, nobody holds the host. Neither does a run that
only looks and measures, once its processes are gone.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: How long a lock is waited for whose owner is not known: somebody only looks at it.
LOOK_S = 0.25
#: How long an ended runner may take to tidy up before it lets go.
TIDY_S = 3.0
SIZE_BYTES = 1024


class Locked(Exception):
    """Another run holds the host. owner is what it wrote; alive tells whether its runner lives."""

    def __init__(self, owner: dict[str, Any], alive: bool) -> None:
        super().__init__(owner.get("run", "?"))
        self.owner = owner
        self.alive = alive


class Lock:
    """The host's lock file in *folder*. The descriptor may be inherited across fork."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "lock")
        self._fd = -1
        self._owner: dict[str, Any] = {}

    @property
    def held(self) -> bool:
        """Whether this process has the lock."""
        return self._fd >= 0

    def take(self, owner: dict[str, Any], force: bool = False) -> None:
        """Hold the host for *owner*. Raises Locked when a run holds it or was interrupted, OSError.

        force takes over from an interrupted run, never from a living one. A process of the same
        run that waits for files on a connection which nobody serves any more is ended.
        """
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._wait(fd, owner["run"])
            before = _owner(fd)
            mine = before.get("run") == owner["run"]
            if before.get("begun") and not mine and not force:
                _look_into(before)
            self._fd = fd
            begun, harmless = (mine and bool(before.get(key)) for key in ("begun", "harmless"))
            self._write(dict(owner, pid=os.getpid(), begun=begun, harmless=harmless))
        except BaseException:
            os.close(fd)
            self._fd = -1
            raise

    def _wait(self, fd: int, run: str) -> None:
        """Take the flock. Raises Locked when a runner has it and goes on."""
        started = time.monotonic()
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = _owner(fd)
            else:
                return
            if owner.get("run") == run and not owner.get("begun"):
                _end_waiting(owner.get("pid", 0), self.path)
            if time.monotonic() - started > (LOOK_S if owner else TIDY_S):
                raise Locked(owner, True)
            time.sleep(0.01)

    def begin(self, harmless: bool = False) -> None:
        """From now on the host changes: only this run, or a person, may give the lock up.

        harmless: it only looks and measures. Then the lock ends with its processes.
        """
        self._write(dict(self._owner, begun=True, harmless=harmless))

    def _write(self, owner: dict[str, Any]) -> None:
        # always the same length: whoever reads meanwhile sees the old or the new, never a mixture
        os.pwrite(self._fd, json.dumps(owner).encode().ljust(SIZE_BYTES), 0)
        self._owner = owner

    def let_go(self) -> None:
        """Close our descriptor; the lock stays with the process that inherited it."""
        os.close(self._fd)
        self._fd = -1

    def give_up(self) -> None:
        """Let go of a lock for a run that could not go on; one that had begun stays interrupted."""
        if not self._owner.get("begun"):
            self.clear()
        self.let_go()

    def clear(self) -> None:
        """The run is over: nobody owns the host any more. Others wait until we have let go."""
        os.ftruncate(self._fd, 0)


def holder(folder: str) -> tuple[dict[str, Any], bool]:
    """Return (owner, whether its runner lives); owner is empty when nobody holds the host."""
    try:
        fd = os.open(os.path.join(folder, "lock"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return {}, False
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _owner(fd), True
        owner = _owner(fd)
        return owner if owner.get("begun") else {}, False
    finally:
        os.close(fd)


def in_the_way(folder: str) -> tuple[dict[str, Any], bool]:
    """Return what holder does, but nobody for a run that was interrupted and had changed nothing."""
    owner, alive = holder(folder)
    if owner and not alive:
        try:
            _look_into(owner)
        except Locked as held:
            return held.owner, held.alive
        return {}, False
    return owner, alive


def _look_into(owner: dict[str, Any]) -> None:
    """Raise Locked unless the interrupted run of *owner* changes nothing and none of its processes is left.

    A proof is a process of its own, which may measure on for a while when its runner was killed.
    """
    goes_on = _proof_goes_on() if owner.get("harmless") else None
    if goes_on is not False:
        raise Locked(owner, bool(goes_on))


def _proof_goes_on() -> bool | None:
    """Say whether a proof runs on this host; None when that cannot be told."""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open("/proc/%s/cmdline" % name, "rb") as f:
                    words = f.read().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile
            except OSError:
                return None
            if any(one == b"-m" and two.startswith(b"gpuprov.proof") for one, two in zip(words, words[1:])):
                return True
    return False


def describe(owner: dict[str, Any], alive: bool) -> dict[str, str]:
    """Return the fault that says who holds the host."""
    since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(owner.get("since", 0)))
    who = "run %s of %s, since %s" % (owner.get("run"), owner.get("owner") or "somebody", since)
    who = who if owner else "another run"
    if alive:
        return {"code": "locked", "message": "the host is busy with %s" % who, "hint": "wait until it has ended"}
    return {
        "code": "interrupted-run",
        "message": "the host was left in the middle of %s" % who,
        "hint": "`gpuprov resume %s` goes on with it; `--take-over` gives it up" % owner.get("run"),
    }


def _end_waiting(pid: int, path: str) -> None:
    """End process *pid* if it really is the one that holds the lock file open."""
    folder = "/proc/%d/fd" % pid
    try:
        held = any(
            os.path.realpath(os.path.join(folder, name)) == os.path.realpath(path) for name in os.listdir(folder)
        )
        if held and pid != os.getpid():
            os.kill(pid, signal.SIGKILL)
    except OSError:
        pass  # it is gone


def _owner(fd: int) -> dict[str, Any]:
    try:
        owner = json.loads(os.pread(fd, 4 * SIZE_BYTES, 0) or b"{}")
    except ValueError:  # a power cut in the middle of a word: somebody was at work here
        return {"run": "?", "begun": True}
    return owner if isinstance(owner, dict) else {"run": "?", "begun": True}
