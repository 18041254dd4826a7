"""The cgroups of booted hosts: a folder for the lab, and one for each host below it, in cgroup v2.

A booted host sees a cgroup v2 only, whatever the machine's systemd uses: it is mounted anew in
the host's own mount namespace, so this works without any knowledge of the machine's mounts.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from gpuprov.lab.boot import trial
from gpuprov.lab.syscalls import MS_PRIVATE, MS_REC, NEW_MOUNTS, mount, unshare

if TYPE_CHECKING:
    from gpuprov.lab.layout import Layout

MOUNT = "/sys/fs/cgroup"


def show() -> None:
    """Put the machine's cgroup v2 at MOUNT, in the mount namespace of this process."""
    mount("cgroup2", MOUNT, "cgroup2")


def enter(layout: Layout, name: str) -> None:
    """Move this process to a fresh cgroup of host *name*; MOUNT has been made by `show`."""
    folder = os.path.join(MOUNT, _lab(layout), name)
    _remove(folder)
    os.makedirs(folder)
    with open(os.path.join(folder, "cgroup.procs"), "w", encoding="ascii") as f:
        f.write("0")


def remove(layout: Layout) -> str:
    """Remove the lab's cgroups, whose processes have ended; return "" or why that failed."""

    def work() -> None:
        unshare(NEW_MOUNTS)
        mount("none", "/", None, MS_REC | MS_PRIVATE)
        show()
        _remove(os.path.join(MOUNT, _lab(layout)))

    return trial(work)


def _lab(layout: Layout) -> str:
    # of the state folder, which is the lab's for sure: a block of addresses may be another's by now
    return f"gpuprov-lab-{hashlib.sha256(layout.state.encode()).hexdigest()[:12]}"


def _remove(folder: str) -> None:
    for path, _, _ in os.walk(folder, topdown=False):
        os.rmdir(path)
