"""Bad days for a lab host, from outside: what cannot be asked for with HostOptions."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

from gpuprov.errors import LabError
from gpuprov.lab.processes import Process, process_of, read_process

if TYPE_CHECKING:
    from gpuprov.lab.lab import Lab


def cut_power(lab: Lab, name: str) -> None:
    """End host *name* at once, as a power cut would; `Lab.up` starts it on what it had on disk."""
    init = _init(lab, name)
    init.kill()
    if not init.wait_gone(20):
        raise LabError(f"process {init.pid} of {name} does not end")


def freeze(lab: Lab, name: str) -> None:
    """Stop every process of host *name*: it accepts connections still, and never answers."""
    for process in processes_in(lab, name):
        process.kill(signal.SIGSTOP)


def thaw(lab: Lab, name: str) -> None:
    """Let the processes of a frozen host go on."""
    for process in processes_in(lab, name):
        process.kill(signal.SIGCONT)


def processes_in(lab: Lab, name: str) -> list[Process]:
    """Return all processes of host *name*, the one that it is known by first."""
    init = _init(lab, name)
    spaces = _pid_namespaces(init.pid)
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                if os.readlink(f"/proc/{entry}/ns/pid") in spaces:
                    found.append(process_of(int(entry)))
            except (FileNotFoundError, ProcessLookupError, PermissionError):  # it ended, or is none of ours
                continue
    return sorted(found, key=lambda process: process != init)


def _pid_namespaces(pid: int) -> set[str]:
    """Return the namespace of process *pid* and those of its children: nspawn's child is a host's systemd."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        processes = (str(pid), *f.read().split())
    found = set()
    for process in processes:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            found.add(os.readlink(f"/proc/{process}/ns/pid"))
    return found


def _init(lab: Lab, name: str) -> Process:
    init = read_process(lab.layout.host(name, "process"))
    if init is None or not init.is_alive():
        raise LabError(f"lab host {name} is not up", hint="gpuprov lab up")
    return init
