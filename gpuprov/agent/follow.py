"""The front's second half: send a journal's lines while they come, and take "stop" from the controller."""

from __future__ import annotations

import os
import time

from gpuprov.agent.lock import holder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.agent.channel import Channel

#: Silence longer than this is filled with a beat: which task runs, since when.
BEAT_S = 2.0
#: Events that come closer together than this travel in one packet.
GATHER_S = 0.004
#: How often a journal is looked at when its runner is not our child.
POLL_S = 0.05
#: How much of a journal is read, and sent, at once.
PIECE_BYTES = 1 << 20
#: How every line begins; its number follows.
_BEGIN = b'{"t":"event","seq":'


def follow(channel: Channel, run: str, after: int, wake: int) -> None:
    """Send all events after number *after*, to the run's end or the runner's.

    wake is the pipe from our own runner, -1 when somebody else started it. Ends with a frame
    "gone" when the runner ended without saying so.
    """
    tail = _Tail(os.path.join(run, "journal"), after)
    last = time.monotonic()
    while True:
        stdin, woken = channel.pending(BEAT_S if wake >= 0 else POLL_S, wake)
        if stdin:
            for header, _ in channel.arrived():
                if header["t"] == "stop":
                    ask_to_stop(run)
        gone = _drained(wake) if wake >= 0 else not _alive(run)
        if woken and not gone:
            time.sleep(GATHER_S)
        while tail.read():
            if tail.lines:
                channel.send_lines(tail.lines)
                last = time.monotonic()
        if tail.ended:
            return
        if gone:
            channel.send({"t": "gone", "log": _log(run)})
            return
        if time.monotonic() - last >= BEAT_S:
            channel.send({"t": "beat", "current": _current(run)})
            last = time.monotonic()


def ask_to_stop(run: str) -> None:
    """Leave word for the runner: it looks before every task."""
    os.close(os.open(os.path.join(run, "stop"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


class _Tail:
    """Reads complete lines that a journal gained. ended: the newest one says that the run is over."""

    def __init__(self, path: str, after: int) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._rest: list[bytes] = []
        self._after = after
        self.lines: list[bytes] = []
        self.ended = False

    def read(self) -> bool:
        """Read one piece; lines has what it completed. Returns False at the end of the file."""
        data = os.read(self._fd, PIECE_BYTES)
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = b"".join([*self._rest, lines[0]])
            self._rest = []
            last = lines[-1][:200]
            self.ended = b'"kind":"RunFinished"' in last or b'"kind":"RunStopped"' in last
        self._rest.append(rest)
        self.lines = lines
        if self._after:
            self.lines = [line for line in lines if _number(line) > self._after]
            if self.lines:
                self._after = 0
        return bool(data)


def _number(line: bytes) -> int:
    return int(line[len(_BEGIN) : line.index(b",", len(_BEGIN))])


def _drained(wake: int) -> bool:
    """Empty the pipe; True when its other end was closed, that is: the runner ended."""
    try:
        while True:
            data = os.read(wake, 4096)
            if not data:
                return True
            if len(data) < 4096:
                return False
    except BlockingIOError:
        return False


def _alive(run: str) -> bool:
    owner, alive = holder(os.path.dirname(os.path.dirname(run)))
    return alive and owner.get("run") == os.path.basename(run)


def _current(run: str) -> str:
    """Return what the runner is doing: "task id<TAB>since" in UTC seconds."""
    try:
        with open(os.path.join(run, "current")) as f:
            return f.read(200).rstrip("\0 ")
    except OSError:
        return ""


def _log(run: str) -> str:
    """Return the end of what the runner wrote to its own log: empty but for a crash."""
    try:
        with open(os.path.join(run, "runner.log"), errors="replace") as f:
            return f.read()[-4000:]
    except OSError:
        return ""
