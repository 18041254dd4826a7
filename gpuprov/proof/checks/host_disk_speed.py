"""How fast the disk of the scratch folder writes and reads a file, one after the other.

It tells a disk that is dying or a path that is slow, not what a good one can do: 64 MiB, one file, one process.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from gpuprov.proof.check import check, measurement
from gpuprov.proof.checks.host_files import Untold
from gpuprov.proof.checks.mounts import mounts
from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

BYTES = 64 << 20
REPEATS = 3
_BLOCK = 4 << 20
#: So much has to be free, or nothing is written.
LEAST_FREE_BYTES = 2 << 30
_IN_MEMORY = ("tmpfs", "ramfs")


class Speeds(NamedTuple):
    """MB/s of each repeat. same: what was read is what was written."""

    write: list[float]
    read: list[float]
    same: bool


def why_not(context: Context) -> str:
    """Return why the disk is not measured, "" for no reason. Raises Untold."""
    folder = os.path.realpath(context.scratch) if context.scratch else ""
    if not folder:
        return "there is no scratch folder to write to"
    on = max(
        (m for m in mounts(context) if (folder + "/").startswith(m.point.rstrip("/") + "/")), key=lambda m: len(m.point)
    )
    if on.kind in _IN_MEMORY:
        return f"the scratch folder is in memory ({on.kind} at {on.point}), TMPDIR names another"
    told = os.statvfs(folder)
    free = told.f_bavail * told.f_frsize
    if free < LEAST_FREE_BYTES:
        return f"only {free / 1e9:.1f} GB are free at {on.point}: nothing is written there"
    return ""


def measure(folder: str, size: int = BYTES, repeats: int = REPEATS) -> Speeds:
    """Write a file to the disk and read it from there, several times. Raises OSError."""
    path = os.path.join(folder, "disk-speed")
    block = os.urandom(min(_BLOCK, size))
    write, read, same = [], [], True
    try:
        for _ in range(repeats):
            write.append(size / 1e6 / _written_s(path, block, size))
            seconds, equal = _read_s(path, block)
            read.append(size / 1e6 / seconds)
            same = same and equal
    finally:
        if os.path.exists(path):
            os.unlink(path)
    return Speeds(write, read, same)


def _written_s(path: str, block: bytes, size: int) -> float:
    started = time.monotonic()
    with open(path, "wb", buffering=0) as f:
        for _ in range(size // len(block)):
            f.write(block)
        os.fsync(f.fileno())
    return time.monotonic() - started


def _read_s(path: str, block: bytes) -> tuple[float, bool]:
    """Read with the kernel's cache of the file dropped, as far as the kernel heeds the advice."""
    with open(path, "rb", buffering=0) as f:
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        seconds, same = 0.0, True
        while True:
            started = time.monotonic()
            piece = f.read(len(block))
            seconds += time.monotonic() - started
            if not piece:
                return max(seconds, 1e-9), same
            same = same and piece == block


def judge(speeds: Speeds) -> list[Message]:
    """Return both measurements; data that came back changed fail, whatever the speed. Pure."""
    what = f"{BYTES >> 20} MiB in one file, {REPEATS} times"
    verdict, action = ("pass", "none") if speeds.same else ("fail", "isolate")
    spoiled = "" if speeds.same else "; what was read is not what was written"
    write = measurement("disk.write", speeds.write, "MB/s", "higher", f"wrote {what}, each brought to the disk (fsync)")
    read = f"read {what}, not from memory as far as the kernel lets us choose{spoiled}"
    return [write, measurement("disk.read", speeds.read, "MB/s", "higher", read, verdict=verdict, action=action)]


def run(context: Context, report: Any) -> None:
    """Measure, unless there is a reason not to."""
    report.stage("writing to the scratch folder's disk")
    try:
        reason = why_not(context)
        found = [] if reason else judge(measure(context.scratch))
    except (OSError, Untold) as error:
        report.check(check("disk.speed", "unknown", f"the disk could not be measured: {error}"))
        return
    for item in found or [check("disk.speed", "skip", reason)]:
        report.check(item)


PARTS = (Part("disk.speed", "nightly", "host", run, "a file of 64 MiB in the scratch folder", deadline_s=30.0),)
