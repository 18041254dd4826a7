"""What would stop a plan in the middle, looked at before it is sent: read-only, full, busy."""

from __future__ import annotations

import os

from gpuprov.agent.lock import describe, in_the_way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Below this much free space, a journal and a few files may not fit.
LEAST_FREE_BYTES = 4 * 1024 * 1024
#: Folders that a provisioning plan writes to; all of them on ordinary systems.
TARGETS = ("/etc", "/usr", "/var")


def preflight(home: str) -> list[dict[str, Any]]:
    """Return faults with "severity": "refuse" or "warn". Has no effect."""
    found: list[dict[str, Any]] = []
    owner, alive = in_the_way(home)
    if owner:
        found.append(dict(describe(owner, alive), severity="refuse", run=owner.get("run", "")))
    space = os.statvfs(home)
    if space.f_bavail * space.f_frsize < LEAST_FREE_BYTES or (space.f_files and not space.f_favail):
        message = f"the file system of {home} is full ({space.f_bavail * space.f_frsize // 1024} KiB free)"
        found.append({"code": "disk-full", "message": message, "hint": "free some space there", "severity": "refuse"})
    for target in TARGETS:
        if os.statvfs(target).f_flag & os.ST_RDONLY:
            found.append(
                {
                    "code": "read-only",
                    "message": f"{target} is mounted read-only",
                    "hint": "remount it, or leave this host out: image-based systems are not provisioned by packages",
                    "severity": "refuse",
                }
            )
    return found
