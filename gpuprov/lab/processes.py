"""Processes named so that a reused pid is never mistaken for one of ours."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Process:
    """A process: its pid, and when it started in clock ticks since the machine's boot."""

    pid: int
    started: int

    def is_alive(self) -> bool:
        """Say whether it runs; a zombie does not."""
        return _started(self.pid) == self.started

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal, if it is still there."""
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:  # the pid cannot be reused while we hold the descriptor and the start time matches
            if self.is_alive():
                signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(fd)

    def wait_gone(self, timeout_s: float) -> bool:
        """Wait for it to end; say whether it did."""
        deadline = time.monotonic() + timeout_s
        while self.is_alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def __str__(self) -> str:
        return f"{self.pid} {self.started}"


def process_of(pid: int) -> Process:
    """Return the running process *pid*. Raises ProcessLookupError."""
    started = _started(pid)
    if started is None:
        raise ProcessLookupError(f"no process {pid}")
    return Process(pid, started)


def read_process(path: str) -> Process | None:
    """Return the process that the file at *path* names, or None when there is no such file."""
    try:
        with open(path, encoding="ascii") as f:
            pid, started = f.read().split()
    except (FileNotFoundError, ValueError):  # an empty file: its writer was killed in between
        return None
    return Process(int(pid), int(started))


def start_time(stat: bytes) -> int | None:
    """Return when a process started, by the content of its /proc/PID/stat; None for a zombie."""
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _started(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            return start_time(f.read())
    except (FileNotFoundError, ProcessLookupError):
        return None
