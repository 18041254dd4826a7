"""Processes: stuck in the kernel, never reaped, too many of them, too many open files.

Waiting for a disk, a file server or a GPU that starts is state D, too, and may take seconds. Stuck is who stays in
state D for ten, and is on no processor between: looked at each second, and only while the first look's are still so.
Threads of the kernel are left to its own log: some of them wait in this state for as long as they live.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from gpuprov.proof.check import check
from gpuprov.proof.checks.host_files import Untold, host_part, listed, names, needed, some, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

#: How long a task has to be in state D without having run, and how often is looked.
STILL_S = 10.0
_LOOKS = 10
#: The flag of a thread of the kernel in its stat, where that is the ninth word.
_KERNEL_THREAD = 0x00200000
#: gpud's limits.
ZOMBIES_WARN, ZOMBIES_FAIL = 1000, 2000
FILES_WARN = 10_000_000
WARN_SHARE, FAIL_SHARE = 0.8, 0.95
#: More than this is no limit that anyone set (the kernel's default is the largest number it has).
_NO_LIMIT = 1 << 53
#: Kernel functions and processes of NVIDIA's driver.
_NVIDIA = ("nvidia", "nv_", "nvkms", "uvm_", "os_acquire_", "rm_")


class Stuck(NamedTuple):
    """A task that is stuck in the kernel. wchan: the kernel function, "" where it is not told."""

    pid: int
    tid: int
    name: str
    wchan: str


class _Seen(NamedTuple):
    state: str
    name: str
    started: str
    kernel: bool


def read_stuck(context: Context) -> list[Stuck]:
    """Return the tasks that are in state D now and in a second, and have not run between."""
    still = {task: (seen, _switches(context, task)) for task, seen in _sleeping(context).items()}
    for _ in range(_LOOKS):
        if not still:
            break
        time.sleep(STILL_S / _LOOKS)
        still = {task: was for task, was in still.items() if _as_it_was(context, task, was[1])}
    return [Stuck(pid, tid, seen.name, _wchan(context, pid, tid)) for (pid, tid, _), (seen, _) in still.items()]


def _as_it_was(context: Context, task: tuple[int, int, str], switches: str | None) -> bool:
    pid, tid, started = task
    seen = _seen(context, f"/proc/{pid}/task/{tid}/stat")
    same = seen is not None and seen.state == "D" and seen.started == started
    return same and switches is not None and switches == _switches(context, task)


def _sleeping(context: Context) -> dict[tuple[int, int, str], _Seen]:
    """Return the tasks in state D by process, thread and time of start."""
    found = {}
    for pid in _pids(context):
        for tid in names(context, f"/proc/{pid}/task"):
            seen = _seen(context, f"/proc/{pid}/task/{tid}/stat")
            mine = seen and (not seen.kernel or seen.name.startswith(_NVIDIA))
            if seen and mine and seen.state == "D" and tid.isdigit():
                found[(pid, int(tid), seen.started)] = seen
    return found


def _pids(context: Context) -> list[int]:
    found = [int(name) for name in names(context, "/proc") if name.isdigit()]
    if not found:
        raise Untold("/proc has no process")
    return found


def _seen(context: Context, path: str) -> _Seen | None:
    """Read a stat file: the name stands in brackets and may have some itself."""
    line = text(context, path)
    if not line:
        return None  # it has ended
    before, _, rest = line.rpartition(")")
    words = rest.split()
    if len(words) < 20:
        raise Untold(f"{path} is of another form: {line[:60]!r}")
    flags = int(words[6]) if words[6].isdigit() else 0
    return _Seen(words[0], before.partition("(")[2], words[19], bool(flags & _KERNEL_THREAD))


def _switches(context: Context, task: tuple[int, int, str]) -> str | None:
    """Return how often a task has left a processor, as the kernel says it; None when it has ended."""
    status = text(context, f"/proc/{task[0]}/task/{task[1]}/status")
    return None if status is None else "\n".join(s for s in status.splitlines() if "ctxt_switches" in s)


def _wchan(context: Context, pid: int, tid: int) -> str:
    try:
        found = text(context, f"/proc/{pid}/task/{tid}/wchan") or ""
    except Untold:
        return ""  # only those who may trace a process are told
    return "" if found == "0" else found


def judge_stuck(stuck: list[Stuck]) -> list[Message]:
    """Judge the tasks that are stuck in the kernel. Pure."""
    name, count = "processes.stuck", len(stuck)
    if not stuck:
        return [check(name, "pass", "no process is stuck in the kernel (state D)", 0, 0)]
    lines = [f"{s.name} (pid {s.pid}, thread {s.tid}) in {s.wchan or 'a place that is not told'}" for s in stuck]
    more = {"evidence": lines[:8]}
    theirs = [line for s, line in zip(stuck, lines) if s.name.startswith(_NVIDIA) or s.wchan.startswith(_NVIDIA)]
    if theirs:
        reason = (
            f"NVIDIA's driver holds {some(len(theirs), 'task')} in the kernel, SIGKILL does not end them: {theirs[0]}"
        )
        return [check(name, "fail", reason, count, 0, "tasks", action="reboot", data=more)]
    reason = f"{some(count, 'task')} did not leave the kernel for {STILL_S:g} s (state D): {listed(lines, 2)}"
    return [check(name, "warn", reason, count, 0, "tasks", action="monitor", data=more)]


class Zombies(NamedTuple):
    """How many processes are there, and the names of those that nobody has reaped."""

    processes: int
    names: tuple[str, ...]


def read_zombies(context: Context) -> Zombies:
    """Return the zombies."""
    pids = _pids(context)
    seen = [_seen(context, f"/proc/{pid}/stat") for pid in pids]
    return Zombies(len(pids), tuple(s.name for s in seen if s and s.state == "Z"))


def judge_zombies(found: Zombies) -> list[Message]:
    """Judge the number of zombies. Pure."""
    count = len(found.names)
    verdict = "fail" if count >= ZOMBIES_FAIL else "warn" if count >= ZOMBIES_WARN else "pass"
    common = sorted(set(found.names), key=lambda n: (-found.names.count(n), n))[:3]
    reason = f"{some(count, 'process')} of {found.processes} ended and not reaped"
    reason += f", most of them {listed(common)}" if verdict != "pass" else ""
    action = {"pass": "none", "warn": "monitor", "fail": "reboot"}[verdict]
    more = {"evidence": [f"{name}: {found.names.count(name)}" for name in common]}
    return [check("processes.zombies", verdict, reason, count, f"< {ZOMBIES_WARN}", "processes", "", action, more)]


def read_files(context: Context) -> tuple[int, int]:
    """Return how many files are open on the host, and how many may be."""
    words = needed(context, "/proc/sys/fs/file-nr").split()
    if len(words) != 3 or not all(word.isdigit() for word in words):
        raise Untold(f"/proc/sys/fs/file-nr is of another form: {' '.join(words)[:60]!r}")
    return int(words[0]), int(words[2])


def judge_files(found: tuple[int, int]) -> list[Message]:
    """Judge the number of open files. Pure."""
    used, most = found
    share = used / most if 0 < most < _NO_LIMIT else 0.0
    verdict = "fail" if share >= FAIL_SHARE else "warn" if share >= WARN_SHARE or used >= FILES_WARN else "pass"
    limit = f"of {most} that may be" if most < _NO_LIMIT else "(no limit is set)"
    action = "none" if verdict == "pass" else "monitor"
    reason = f"{used} files are open on the host {limit}"
    return [check("processes.open-files", verdict, reason, used, f"< {FILES_WARN}", "files", action=action)]


class Tasks(NamedTuple):
    """Tasks (threads) on the host, and the two limits that they share."""

    running: int
    pid_max: int
    threads_max: int


def read_tasks(context: Context) -> Tasks:
    """Return the number of tasks and what may be."""
    loadavg = needed(context, "/proc/loadavg").split()
    limits = [needed(context, f"/proc/sys/kernel/{name}") for name in ("pid_max", "threads-max")]
    count = loadavg[3].partition("/")[2] if len(loadavg) > 3 else ""
    if not (count.isdigit() and all(limit.isdigit() for limit in limits)):
        raise Untold(f"/proc/loadavg or a limit is of another form: {' '.join(loadavg)[:60]!r}, {limits}")
    return Tasks(int(count), int(limits[0]), int(limits[1]))


def judge_tasks(found: Tasks) -> list[Message]:
    """Judge the number of tasks against the lower of its limits. Pure."""
    most = min(found.pid_max, found.threads_max)
    share = found.running / most if most else 1.0
    verdict = "fail" if share >= FAIL_SHARE else "warn" if share >= WARN_SHARE else "pass"
    which = "kernel.pid_max" if found.pid_max <= found.threads_max else "kernel.threads-max"
    reason = f"{found.running} tasks run, {which} allows {most}"
    action = "none" if verdict == "pass" else "monitor"
    return [
        check("processes.tasks", verdict, reason, found.running, f"< {WARN_SHARE * most:.0f}", "tasks", action=action)
    ]


PARTS = (
    host_part("processes.stuck", read_stuck, judge_stuck, "/proc/*/task/*/stat, status, wchan", deadline_s=20.0),
    host_part("processes.zombies", read_zombies, judge_zombies, "/proc/*/stat"),
    host_part("processes.open-files", read_files, judge_files, "/proc/sys/fs/file-nr"),
    host_part("processes.tasks", read_tasks, judge_tasks, "/proc/loadavg, /proc/sys/kernel/pid_max, threads-max"),
)
