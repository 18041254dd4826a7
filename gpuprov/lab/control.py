"""What is said to a lab's supervisor, and how it is started and ended."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from gpuprov.errors import LabError
from gpuprov.lab.processes import read_process

if TYPE_CHECKING:
    from gpuprov.lab.layout import Layout

#: The folder that the package is imported from: a checkout, or site-packages.
CODE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); from gpuprov.lab import supervisor; "
    "supervisor.main(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))"
)
_GONE_TIMEOUT_S = 20.0


def start_supervisor(layout: Layout, lock: int) -> None:
    """Start the supervisor; return when it serves. *lock* is the descriptor of the lab's lock.

    A bare interpreter (no site, no environment) of its own: it stays for days, and must not
    hold what the starter holds. Raises LabError.
    """
    ready_r, ready_w = os.pipe()
    argv = [sys.executable, "-I", "-S", "-B", "-c", _PROGRAM, CODE, layout.state, str(ready_w), str(lock)]
    log = layout.path("supervisor.log")
    with open(log, "wb") as f:
        subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=f, stderr=f, pass_fds=(ready_w, lock), check=False)
    os.close(ready_w)
    with os.fdopen(ready_r, "rb") as f:
        if f.read() == b"ok":
            return
    with open(log, encoding="utf-8", errors="replace") as f:
        last = ([line for line in f.read().splitlines() if line.strip()] or ["it said nothing"])[-1]
    raise LabError(
        f"the lab did not start: {last.partition('Error: ')[2] or last}",
        hint="in a container, a lab needs one that was started privileged",
    )


def ask(layout: Layout, request: list[dict[str, Any]], timeout_s: float) -> dict[str, str]:
    """Have the supervisor start hosts; return the reasons of those that it could not start."""
    folder = os.open(layout.state, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(timeout_s)
            control.connect(f"/proc/self/fd/{folder}/control")  # a socket's path has room for 107 bytes
            control.sendall(json.dumps(request).encode() + b"\n")
            with control.makefile("rb") as f:
                answer = f.readline()
    except TimeoutError:
        raise LabError(
            f"not every host's sshd listened after {timeout_s:g} s", hint="gpuprov lab status shows which do"
        ) from None
    finally:
        os.close(folder)
    if not answer:
        raise LabError("the lab's supervisor ended", hint=f"{layout.path('supervisor.log')} may say why")
    failed: dict[str, str] = json.loads(answer)
    return failed


def end_processes(layout: Layout) -> None:
    """Kill the supervisor and every host, and wait until they are gone. Raises LabError."""
    _kill([layout.path("supervisor")])
    _wait_for_builders(layout)
    hosts = layout.path("hosts")
    names = os.listdir(hosts) if os.path.isdir(hosts) else []
    _kill([layout.host(name, "process") for name in names])


def _kill(files: list[str]) -> None:
    found = [process for process in map(read_process, files) if process is not None]
    for process in found:
        process.kill()
    for process in found:
        if not process.wait_gone(_GONE_TIMEOUT_S):
            raise LabError(f"process {process.pid} of the lab does not end")


def _wait_for_builders(layout: Layout) -> None:
    """Wait until what the supervisor had forked is gone too, or has become a host on the record."""
    try:
        fd = os.open(layout.path("running"), os.O_RDWR)
    except FileNotFoundError:
        return
    deadline = time.monotonic() + _GONE_TIMEOUT_S
    try:
        while not _is_free(fd):
            if time.monotonic() > deadline:
                raise LabError("a process that builds a lab host does not end")
            time.sleep(0.01)
    finally:
        os.close(fd)


def _is_free(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
