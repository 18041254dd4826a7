"""Runs the measuring in child processes that cannot hang the run.

A driver that hangs takes every process that asks it something with it. So the asking is done in
children: each has its own process group, dies with us, sends its findings as JSON lines, and is
killed as a group at its deadline: that of the step which it is in, or of the whole run. What it had sent
until then is kept.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time

from gpuprov.proof.check import check, finite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gpuprov.proof.check import Message

    Send = Callable[[Message], None]

#: How long a killed process gets to be gone. One that sleeps in the kernel never goes.
GONE_S = 5.0
_PR_SET_PDEATHSIG = 1


class _Child:
    __slots__ = (
        "deadline_s",
        "device",
        "ends_at",
        "err",
        "key",
        "last_error",
        "lines",
        "out",
        "pid",
        "stage",
        "status",
    )

    def __init__(self, key: Any, pid: int, out: int, err: int) -> None:
        self.key = key
        self.pid = pid
        self.deadline_s = 0.0
        self.ends_at = float("inf")
        self.out = out
        self.err = err
        self.lines = b""
        self.stage = "starting"
        self.device = ""
        self.last_error = ""
        self.status: int | None = None


class Supervisor:
    """Starts measuring processes and hands their messages on until all have ended.

    run(key, send) is called in process *key* (a number or text); on_message gets what it sends, here. on_message
    may `start` further ones. A message {"kind": "stage", "text", "device", "deadline_s"} says what comes now and, when
    it has a deadline, how long that may take. on_bad_end(key, gone, stage) is told of each process that did not end
    well; gone is False for one that hangs in the kernel.
    """

    def __init__(
        self,
        run: Callable[[Any, Send], None],
        on_message: Send,
        deadline_s: float,
        on_bad_end: Callable[[Any, bool, str], None] | None = None,
    ) -> None:
        self._run = run
        self._on_message = on_message
        self._on_bad_end = on_bad_end
        self._deadline_s = deadline_s
        self._ends_at = time.monotonic() + deadline_s
        self._children: list[_Child] = []

    def start(self, key: Any) -> None:
        """Start measuring process *key*."""
        out_r, out_w = os.pipe()
        err_r, err_w = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _be_child(self._run, key, parent, out_w, err_w)
        os.close(out_w)
        os.close(err_w)
        for fd in (out_r, err_r):
            os.set_blocking(fd, False)
        self._children.append(_Child(key, pid, out_r, err_r))

    def wait(self) -> None:
        """Hand messages on until every process has ended or a deadline has passed.

        A process that did not end by itself, and well, gives a check that says so. May be called again after
        further processes were started.
        """
        try:
            while any(child.status is None for child in self._children):
                self._turn()
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill what still runs, with everything that it started, and close the pipes."""
        for child in self._children:
            if child.status is None:
                _kill_group(child.pid)
                _reap(child, GONE_S)
            for fd in (child.out, child.err):
                if fd >= 0:
                    os.close(fd)
            child.out = child.err = -1

    def _turn(self) -> None:
        running = [child for child in self._children if child.status is None]
        now = time.monotonic()
        overdue = [child for child in running if now >= min(child.ends_at, self._ends_at)]
        if overdue:
            for child in overdue:
                self._overdue(child)
            return
        left = min(self._ends_at, *(child.ends_at for child in running)) - now
        poll = select.poll()
        for child in running:
            for fd in (child.out, child.err):
                if fd >= 0:
                    poll.register(fd, select.POLLIN)
        poll.poll(min(left, 0.2) * 1000)
        for child in running:
            ended = _reap(child, 0.0)
            self._read(child)
            if ended:
                self._ended(child)

    def _read(self, child: _Child) -> None:
        data, child.out = _drain(child.out)
        *lines, child.lines = (child.lines + data).split(b"\n")
        for line in lines:
            message = json.loads(line.decode("utf-8"))
            if message["kind"] == "stage":
                child.stage, child.device = message["text"], message["device"]
                if message.get("deadline_s"):
                    child.deadline_s = message["deadline_s"]
                    child.ends_at = time.monotonic() + child.deadline_s
            else:
                self._on_message(message)
        data, child.err = _drain(child.err)
        text = data.decode("utf-8", "backslashreplace")
        sys.stderr.write(text)
        child.last_error = next((s.strip() for s in reversed(text.splitlines()) if s.strip()), child.last_error)

    def _overdue(self, child: _Child) -> None:
        _kill_group(child.pid)
        gone = _reap(child, GONE_S)
        self._read(child)
        limit_s = child.deadline_s if child.ends_at < self._ends_at else self._deadline_s
        reason = f"did not end within {limit_s:g} s ({child.stage}); its process group was killed"
        if not gone:
            child.status = -1
            reason += ", but it does not go away: the driver hangs in the kernel"
        self._unwell(child, "fail", reason, "reset GPU" if gone else "reboot", gone)

    def _ended(self, child: _Child) -> None:
        assert child.status is not None
        if os.WIFSIGNALED(child.status):
            number = os.WTERMSIG(child.status)
            if number == signal.SIGKILL:
                reason = f"was killed ({child.stage}) by a person or for want of memory: see the kernel log"
                self._unwell(child, "unknown", reason, "none")
            else:
                self._unwell(child, "fail", f"was killed by {_signal_name(number)} ({child.stage})", "reset GPU")
        elif os.WEXITSTATUS(child.status):
            how = f"ended with exit code {os.WEXITSTATUS(child.status)}"
            self._unwell(child, "unknown", f"{how} ({child.stage}): {child.last_error[:300]}", "none")

    def _unwell(self, child: _Child, verdict: str, reason: str, action: str, gone: bool = True) -> None:
        on_gpu = child.device.startswith("cuda")
        found = check(
            "process",
            verdict,
            f"the measuring process {reason}",
            measured=child.stage,
            expected="ends by itself",
            device=child.device,
            action=action if on_gpu or action == "reboot" else "none",
        )
        self._on_message(dict(found, kind="check"))
        if self._on_bad_end is not None:
            self._on_bad_end(child.key, gone, child.stage)


def _be_child(run: Callable[[Any, Send], None], key: Any, parent: int, out: int, err: int) -> None:
    """Become measuring process *key*; never returns."""
    code = 1
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        os.dup2(err, 1)  # whatever a library prints is no message
        os.dup2(err, 2)
        # The parent's objects may write elsewhere.
        sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        run(key, lambda message: _send(out, message))
        code = 0
    except BaseException:  # nothing may get past here: above is the parent's stack
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _send(fd: int, message: Message) -> None:
    view = memoryview(json.dumps(finite(message), allow_nan=False).encode("ascii") + b"\n")
    while view:
        view = view[os.write(fd, view) :]


def _drain(fd: int) -> tuple[bytes, int]:
    """Return what can be read now, and *fd*, or -1 when it has ended and was closed."""
    data = b""
    while fd >= 0:
        try:
            piece = os.read(fd, 65536)
        except BlockingIOError:
            break
        if not piece:
            os.close(fd)
            fd = -1
        data += piece
    return data, fd


def _reap(child: _Child, patience_s: float) -> bool:
    """Wait at most *patience_s* for *child* to end; say whether it has."""
    until = time.monotonic() + patience_s
    while True:
        pid, status = os.waitpid(child.pid, os.WNOHANG)
        if pid:
            child.status = status
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(0.01)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        # It ended, or is so young that it has no group of its own yet; not reaped, so the number is still its own.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
