"""Disks: room, inodes, what has become read-only or is not mounted, NVMe drives, RAID, file servers that answer."""

from __future__ import annotations

import contextlib
import os
import re
from typing import NamedTuple

from gpuprov.proof.check import check
from gpuprov.proof.checks.host_files import (
    Absent,
    Untold,
    cut,
    host_part,
    in_container,
    listed,
    names,
    short,
    some,
    text,
)
from gpuprov.proof.checks.mounts import LOCAL, Mount, mounts, wanted
from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

#: Where the system itself writes: full, it cannot install a driver, keep a log, or start.
ROOT_LIKE = ("/", "/boot", "/etc", "/home", "/opt", "/tmp", "/usr", "/var")  # noqa: S108 - names of mounts
ROOT_WARN, ROOT_FAIL = 80.0, 85.0
OTHER_WARN = 95.0
#: Bytes with which nothing is full, whatever the percentage: the system's disk before a warning, before it fails,
#: other disks; and /boot, which takes a kernel with its modules at a time and is small.
PLENTY, ENOUGH, OTHER_PLENTY = 100e9, 20e9, 100e9
BOOT_PLENTY, BOOT_ENOUGH = 200e6, 50e6
#: Where engines and kubelet mount what belongs to containers: how full those are is their owners' affair.
_OF_CONTAINERS = re.compile(r"/(?:kubelet/(?:pods|plugins)|docker/(?:overlay2|volumes)|containers/storage|containerd)/")
INODES_WARN, INODES_FAIL = 90.0, 98.0


#: What a user mounted by FUSE for himself answers to everybody else, root included.
_CLOSED = " (a user's own mount?)"


class Space(NamedTuple):
    """How full a file system is, in percent of what ordinary users can have. inodes: None where it has no table."""

    point: str
    used: float
    free_bytes: int
    inodes: float | None


def read_space(context: Context) -> list[Space]:
    """Ask every local file system that can be written to; each device once, by its shortest path."""
    chosen: dict[str, Mount] = {}
    for mount in mounts(context):
        if mount.kind in LOCAL and not mount.read_only and not _of_a_container(mount):
            key = mount.source if mount.source.startswith("/") else mount.point
            if key not in chosen or len(mount.point) < len(chosen[key].point):
                chosen[key] = mount
    found = []
    for mount in chosen.values():
        with contextlib.suppress(Absent):  # unmounted since the table was read
            found.append(_space(context, mount.point))
    if not found:
        raise Untold("/proc/self/mounts has no local file system that can be written to")
    return sorted(found)


def _of_a_container(mount: Mount) -> bool:
    return bool(_OF_CONTAINERS.search(mount.point)) or (mount.kind == "overlay" and mount.point != "/")


def _space(context: Context, point: str) -> Space:
    try:
        told = os.statvfs(context.path(point))
    except FileNotFoundError:
        raise Absent(f"{point} is not there any more") from None
    except PermissionError as error:
        raise Untold(f"cannot ask the file system at {point}: {error.strerror}{_CLOSED}") from None
    except OSError as error:
        raise Untold(f"cannot ask the file system at {point}: {error.strerror}") from None
    used, usable = told.f_blocks - told.f_bfree, told.f_blocks - told.f_bfree + told.f_bavail
    inodes = 100.0 * (told.f_files - told.f_ffree) / told.f_files if told.f_files else None
    return Space(point, 100.0 * used / usable if usable else 0.0, told.f_bavail * told.f_frsize, inodes)


def root_like(point: str) -> bool:
    """Say whether the system itself writes there. Pure."""
    return point in ROOT_LIKE or point.startswith("/var/")


def judge_space(found: list[Space]) -> list[Message]:
    """Judge how full the file systems are; one check, of the worst. Pure."""
    graded = [(_grade(space), space.used, space) for space in found]
    return [_fullest("disk.space", graded, "full", f"< {ROOT_WARN:g}", _left)]


def judge_inodes(found: list[Space]) -> list[Message]:
    """Judge how many files may still be made. Pure."""
    counted = [space for space in found if space.inodes is not None]
    if not counted:
        return [check("disk.inodes", "skip", "no file system here has a table of inodes")]
    graded = []
    for space in counted:
        share = space.inodes or 0.0
        verdict = (
            "fail" if share >= INODES_FAIL and root_like(space.point) else "warn" if share >= INODES_WARN else "pass"
        )
        graded.append((verdict, share, space))
    return [_fullest("disk.inodes", graded, "full, counted in inodes", f"< {INODES_WARN:g}", lambda _: "")]


def _grade(space: Space) -> str:
    if not root_like(space.point):
        return "warn" if space.used >= OTHER_WARN and space.free_bytes < OTHER_PLENTY else "pass"
    plenty, enough = (BOOT_PLENTY, BOOT_ENOUGH) if space.point == "/boot" else (PLENTY, ENOUGH)
    if space.used >= ROOT_FAIL and space.free_bytes < enough:
        return "fail"
    return "warn" if space.used >= ROOT_WARN and space.free_bytes < plenty else "pass"


def _left(space: Space) -> str:
    return f", {space.free_bytes / 1e9:.1f} GB left"


def _fullest(name: str, graded: list[tuple[str, float, Space]], what: str, expected: str, tail: Any) -> Message:
    order = ("pass", "warn", "fail")
    graded = sorted(graded, key=lambda item: (-order.index(item[0]), -item[1]))
    verdict, share, worst = graded[0]
    more = {"evidence": [f"{space.point}: {used:.1f} %" for _, used, space in graded[:8]]}
    others = [space.point for grade, _, space in graded[1:] if grade != "pass"]
    reason = f"{worst.point} is {share:.1f} % {what}{tail(worst)}"
    reason += f"; {listed(others)} too" if others else ""
    action = "none" if verdict == "pass" else "monitor"
    return check(name, verdict, reason, round(share, 1), expected, "%", action=action, data=more)


class Table(NamedTuple):
    """What is mounted, and what should be (None: no /etc/fstab)."""

    mounted: list[Mount]
    wanted: list[Mount] | None


def read_table(context: Context) -> Table:
    """Return both tables of mounts."""
    if in_container(context):
        raise Absent("a container's mounts are made by its host, not by /etc/fstab")
    mounted, entries = mounts(context), wanted(context)
    points = {mount.point for mount in mounted}
    return Table(mounted, entries and [e if e.point in points else _real(context, e) for e in entries])


def _real(context: Context, entry: Mount) -> Mount:
    """Return an entry of /etc/fstab with its place as the kernel has it: /var/run is a link to /run."""
    root = os.path.realpath(context.root).rstrip("/")
    real = os.path.realpath(context.path(entry.point))
    return entry._replace(point=real[len(root) :] or "/") if real.startswith(root + "/") else entry


def judge_read_only(table: Table) -> list[Message]:
    """Judge what was to be written to and is read-only: a disk that failed. Pure."""
    should = {entry.point for entry in table.wanted or [] if not entry.read_only}
    bad = [m for m in table.mounted if m.read_only and m.point in should and m.kind in LOCAL]
    if not bad:
        return [check("disk.read-only", "pass", "no file system has become read-only", 0, 0, "mounts")]
    lines = [f"{mount.source} at {mount.point} ({mount.kind})" for mount in bad]
    reason = f"read-only, though /etc/fstab does not say so: {listed(lines)}; the kernel does this when a disk fails"
    return [check("disk.read-only", "fail", reason, len(bad), 0, "mounts", "", "isolate", {"evidence": lines[:8]})]


def judge_missing(table: Table) -> list[Message]:
    """Judge what /etc/fstab wants and is not mounted. Pure."""
    name = "disk.mounted"
    if table.wanted is None:
        return [check(name, "skip", "there is no /etc/fstab")]
    there = {mount.point for mount in table.mounted}
    missing = [entry for entry in table.wanted if entry.point not in there]
    if not missing:
        reason = f"all {some(len(table.wanted), 'mount')} of /etc/fstab are there"
        return [check(name, "pass", reason, 0, 0, "mounts")]
    needed_now = [entry for entry in missing if "nofail" not in entry.options]
    lines = [f"{entry.point} ({entry.source})" for entry in needed_now or missing]
    may = "" if needed_now else "; the start of the host was told not to wait for it (nofail)"
    reason = (
        f"/etc/fstab wants it, but it is not mounted: {listed(lines)}{may}; what is written there fills another disk"
    )
    verdict = "fail" if needed_now else "warn"
    return [check(name, verdict, reason, len(missing), 0, "mounts", "", "monitor", {"evidence": lines[:8]})]


class Drives(NamedTuple):
    """NVMe drives by name: their state as the kernel sees it. hot: those whose own alarm is on."""

    states: dict[str, str]
    hot: tuple[str, ...]
    expected: int | None


def read_drives(context: Context) -> Drives:
    """Return the NVMe drives' state. Wear and media errors are not in /sys: they need the drive's own log."""
    expected = context.expect.get("nvme_drives")
    drives = [name for name in names(context, "/sys/class/nvme") if re.fullmatch(r"nvme\d+", name)]
    if not drives and expected is None:
        raise Absent("no NVMe drive, and the inventory does not expect one")
    states = {drive: text(context, f"/sys/class/nvme/{drive}/state") or "" for drive in drives}
    return Drives(states, tuple(drive for drive in drives if _alarm(context, drive)), expected)


def _alarm(context: Context, drive: str) -> bool:
    top = f"/sys/class/nvme/{drive}/"
    monitors = [name for name in names(context, top) if name.startswith("hwmon")]
    inner = [f"{top}{name}/{n}" for name in monitors for n in names(context, top + name) if n.startswith("hwmon")]
    folders = [top + name for name in monitors] + inner
    return any(text(context, folder + "/temp1_alarm") == "1" for folder in folders)


def judge_drives(found: Drives) -> list[Message]:
    """Judge the NVMe drives. Pure."""
    name, count = "disk.nvme", len(found.states)
    sick = [f"{drive} is {state}" for drive, state in sorted(found.states.items()) if state not in ("live", "")]
    more = {"evidence": [f"{drive}: {state or 'state not told'}" for drive, state in sorted(found.states.items())][:16]}
    if found.expected is not None and count < found.expected:
        reason = f"{some(count, 'NVMe drive')} here, the inventory expects {found.expected}"
        return [check(name, "fail", reason, count, found.expected, "drives", "", "isolate", more)]
    if sick:
        return [check(name, "fail", f"NVMe drive {listed(sick)}", count, found.expected, "drives", "", "isolate", more)]
    if found.hot:
        reason = f"NVMe drive {listed(found.hot)} says that it is too hot"
        return [check(name, "warn", reason, count, found.expected, "drives", "", "monitor", more)]
    reason = f"{some(count, 'NVMe drive')}, none dead or too hot; wear and media errors are not in /sys"
    return [check(name, "pass", reason, count, found.expected, "drives", data=more)]


def read_raid(context: Context) -> str:
    """Return the kernel's table of software RAID."""
    found = text(context, "/proc/mdstat")
    if not found or not re.search(r"^md\S* : ", found, re.MULTILINE):
        raise Absent("no software RAID")
    return found


def judge_raid(table: str) -> list[Message]:
    """Judge software RAID by the kernel's table. Pure."""
    arrays = re.findall(r"^(md\S*) : (.*(?:\n[ \t]+.*)*)", table, re.MULTILINE)
    bad = []
    for array, lines in arrays:
        members = re.search(r"\[[U_]*_[U_]*\]", lines)
        if lines.startswith("inactive") and "external:" not in lines:  # the container of a firmware's RAID always is
            bad.append(f"{array} inactive")
        elif members:
            bad.append(f"{array} {members.group()}")
    if not bad:
        return [check("disk.raid", "pass", f"all {some(len(arrays), 'RAID array')} complete", 0, 0, "arrays")]
    reason = f"RAID runs without one of its disks: {listed(bad)}"
    return [check("disk.raid", "warn", reason, len(bad), 0, "arrays", "", "monitor", {"evidence": bad[:8]})]


def ask_servers(context: Context, report: Any) -> None:
    """Ask each network file system; one that does not answer holds this process, and the stage names it."""
    name = "disk.servers"
    report.stage("reading /proc/self/mounts")
    try:
        points = [mount.point for mount in mounts(context) if mount.network]
        of_users = {mount.point for mount in mounts(context) if mount.kind.startswith("fuse.")}
    except Untold as error:
        report.check(check(name, "unknown", str(error)))
        return
    answered = []
    for point in points:
        report.stage(f"waiting for the file server of {cut(point, 200)}")
        try:
            _space(context, point)
            answered.append(point)
        except Absent:
            continue
        except Untold as error:
            verdict = "skip" if str(error).endswith(_CLOSED) else "warn" if point in of_users else "fail"
            report.check(short(check(name, verdict, str(error), action="none" if verdict == "skip" else "monitor")))
            if verdict == "fail":
                return
    if answered:
        reason = f"{some(len(answered), 'network file system')} answered: {listed(answered)}"
        report.check(short(check(name, "pass", reason, len(answered), len(points), "mounts")))
    elif not points:
        report.check(check(name, "skip", "no network file system is mounted"))


PARTS = (
    host_part("disk.space", read_space, judge_space, "/proc/self/mounts, statvfs"),
    host_part("disk.inodes", read_space, judge_inodes, "/proc/self/mounts, statvfs"),
    host_part("disk.read-only", read_table, judge_read_only, "/proc/self/mounts, /etc/fstab"),
    host_part("disk.mounted", read_table, judge_missing, "/proc/self/mounts, /etc/fstab"),
    host_part("disk.nvme", read_drives, judge_drives, "/sys/class/nvme/*/state"),
    host_part("disk.raid", read_raid, judge_raid, "/proc/mdstat"),
    Part("disk.servers", "quick", "host", ask_servers, "statvfs of network file systems", 5.0),
)
