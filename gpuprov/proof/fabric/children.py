"""Processes of ranks: forked, watched, killed as a group. Standard library; nothing here waits for them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import time

from gpuprov.proof.fabric.lines import Lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

#: A process is in the kernel for moments all the time; in all of so many looks only when it is stuck there.
LOOKS = 5
LOOK_S = 0.02
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


class Child:
    """One forked process and our end of the socket to it. ended is its exit status as os.waitpid has it."""

    def __init__(self, name: str, run: Callable[[Lines], None]) -> None:
        ours, theirs = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _be_child(name, run, Lines(theirs), parent)
        theirs.close()
        self.lines = Lines(ours)
        self.ended: int | None = None

    def reap(self) -> bool:
        """Say whether it has ended. Never waits."""
        if self.ended is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.ended = status
        return self.ended is not None

    def kill(self) -> None:
        """Kill it and all that it started."""
        if self.ended is None:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:  # so young that it has no group yet; not reaped, so the number is still its own
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)

    def stuck(self) -> str:
        """Return why it cannot go on ("is stopped", "waits in the kernel"), "" when it can."""
        states = set()
        for _ in range(LOOKS):
            states.add(_state(self.pid))
            if states - {"D"}:
                break
            time.sleep(LOOK_S)
        if states <= {"T", "t"}:
            return "is stopped"
        return "waits in the kernel and does not come back" if states == {"D"} else ""

    def how(self) -> str:
        """Return how it ended, in words."""
        assert self.ended is not None
        if os.WIFSIGNALED(self.ended):
            number = os.WTERMSIG(self.ended)
            names = {one.value: one.name for one in signal.Signals}
            return f"killed by {names.get(number, f'signal {number}')}"
        return f"ended with exit code {os.WEXITSTATUS(self.ended)}"


def _state(pid: int) -> str:
    """Return the kernel's letter for what a process does, "" when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            return f.read().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def _be_child(name: str, run: Callable[[Lines], None], lines: Lines, parent: int) -> None:
    """Become the child; never returns."""
    code = 1
    try:
        os.setsid()
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)  # what ps and top show
        if os.getppid() != parent:
            os._exit(1)
        run(lines)
        code = 0
    except BaseException:  # nothing may get past here: above is the parent's stack
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
