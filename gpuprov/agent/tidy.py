"""What a host does not need any more: files of finished plans, old runs, the agent's older versions.

Called by the runner, under the host's lock, after the end of the run is told.
"""

from __future__ import annotations

import os
import stat
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Runs whose folders stay on the host.
KEEP_RUNS = 20
#: Files of plans that never succeeded, and the agent's versions that nobody used, stay this long.
KEEP_S = 7 * 24 * 3600.0
#: How often the host looks for them.
EVERY_S = 24 * 3600.0


def tidy(home: str, plan: dict[str, Any], run: str, succeeded: bool, in_use: list[str]) -> None:
    """Remove what is old. in_use: hashes of the bundle and the layers of this run."""
    if succeeded and plan.get("blobs"):
        # what the files were for is now where it belongs
        for sha256 in plan["blobs"]:
            remove(os.path.join(home, "blobs", os.path.basename(sha256)))
    _prune_runs(os.path.join(home, "runs"), os.path.basename(run))
    stamp = os.path.join(home, "tidied")
    now = time.time()
    if abs(now - _changed_at(stamp)) < EVERY_S:
        return
    os.close(os.open(stamp, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    os.utime(stamp)
    _remove_old(os.path.join(home, "blobs"), now, list(plan.get("blobs") or ()))
    _remove_old(os.path.join(home, "bundle"), now, in_use)


def _prune_runs(folder: str, current: str) -> None:
    """Remove the oldest runs, by this host's own clock: ids are made by other machines' clocks."""
    names = os.listdir(folder)
    if len(names) <= KEEP_RUNS:
        return
    paths = [os.path.join(folder, name) for name in names if name != current]
    paths.sort(key=_changed_at, reverse=True)
    for path in paths[KEEP_RUNS - 1 :]:
        remove(path)


def _remove_old(folder: str, now: float, in_use: list[str]) -> None:
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        path = os.path.join(folder, name)
        if any(digest in name for digest in in_use):
            os.utime(path)
        elif abs(now - _changed_at(path)) > KEEP_S:
            remove(path)


def _changed_at(path: str) -> float:
    try:
        return os.lstat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def remove(path: str) -> None:
    """Remove a file or a whole folder, if it is there. Follows no symbolic link."""
    try:
        kind = os.lstat(path).st_mode
        if stat.S_ISDIR(kind):
            for name in os.listdir(path):
                remove(os.path.join(path, name))
            os.rmdir(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        return
