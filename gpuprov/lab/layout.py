"""Where a lab keeps what, and how its hosts are called."""

from __future__ import annotations

import os
from dataclasses import dataclass

#: Only root can start a lab, so its state has one place whoever asks.
DEFAULT_STATE = "/var/lib/gpuprov-lab"
DEFAULT_PORT = 2222
MAX_HOSTS = 1000
#: The file whose lock lets one process at a time change a lab: the first to come, the last to go.
LOCK = "gpuprov-lab.lock"
#: The other files right in the state folder.
FILES = (
    "id",
    "id.pub",
    "known_hosts",
    "ssh_config",
    "hosts.json",
    "lab.json",
    "supervisor",
    "supervisor.log",
    "control",
    "running",
)
#: The folder of a host that has what makes it a lab host; never managed by a play.
INSIDE = "/etc/gpuprov-lab"
#: A shell script that is run in a host's root before its first start, and removed.
FIRST_START = f"{INSIDE}/first-start"


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one lab. state is an absolute path without symbolic links."""

    state: str

    def path(self, *names: str) -> str:
        """Return the path of a file in the state folder."""
        return os.path.join(self.state, *names)

    def host(self, name: str, *names: str) -> str:
        """Return the folder of what is kept about host *name*, or a file in it."""
        return os.path.join(self.state, "hosts", name, *names)

    def layers(self, name: str, *names: str) -> str:
        """Return the folder of host *name*'s copy-on-write layers, or a path in it."""
        return os.path.join(self.state, "layers", name, *names)


def label_of(layout: Layout, name: str) -> str:
    """Return what simulated GPUs host *name* was given, "" for none."""
    try:
        with open(layout.host(name, "gpus", "wanted"), encoding="utf-8") as f:
            return f.read()
    except FileNotFoundError:
        return ""


def default_state() -> str:
    """Return the state folder: $GPUPROV_LAB_STATE, else DEFAULT_STATE."""
    return os.environ.get("GPUPROV_LAB_STATE") or DEFAULT_STATE


def host_name(index: int) -> str:
    """Return the name of host *index*, counted from 1: gpu01 ... gpu99, gpu100."""
    return f"gpu{index:02d}"


def host_index(name: str) -> int:
    """Return the index of a host's name. Raises ValueError for a name no lab host has."""
    digits = name.removeprefix("gpu")
    if not digits.isdecimal() or not 1 <= int(digits) <= MAX_HOSTS or host_name(int(digits)) != name:
        raise ValueError(f"{name} is not a lab host: they are called gpu01, gpu02 ... gpu{MAX_HOSTS}")
    return int(digits)
