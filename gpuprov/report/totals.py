"""Counting and grouping of reports: totals as in Ansible's recap, hosts by cause, the slowest tasks. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuprov.report.proof import advice

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gpuprov.results import HostReport, RunReport, TaskResult

#: What differs between hosts in sentences that mean the same.
_INCIDENTAL = re.compile(
    r"\b(?:0x[0-9a-f]+|(?:pid|process|port) \d+)\b|[\d.]+ (?:s|min|h|days) ago\b|/tmp/\S+|\b[0-9a-f]{12,}\b"
)

COLUMNS = ("ok", "changed", "unreachable", "failed", "skipped", "rescued", "ignored", "unknown")


def totals(host: HostReport) -> dict[str, int]:
    """Return how many tasks ended how. As in Ansible `ok` includes `changed`; `lost` is there only if any was.

    A failed task counts as rescued where a rescue took care of it, else as ignored.
    """
    counts = dict.fromkeys(COLUMNS, 0)
    lost = 0
    for task in host.tasks:
        if task.outcome == "lost":
            lost += 1
        elif task.outcome == "ignored":
            counts["rescued" if task.result.get("rescued") else "ignored"] += 1
        elif task.outcome in counts:
            counts[task.outcome] += 1
    counts["ok"] += counts["changed"]
    counts["unreachable"] = int(host.outcome == "unreachable")
    return {**counts, "lost": lost} if lost else counts


@dataclass(frozen=True, slots=True)
class Group:
    """Hosts with the same ending for the same reason. trouble is False when nothing is to be done.

    action is what their checks ask a person to do, "" for nothing.
    """

    outcome: str
    verdict: str
    cause: str
    hint: str
    hosts: tuple[str, ...]
    trouble: bool
    action: str = ""


_SEVERITY = ("refused", "failed", "lost", "unreachable", "interrupted", "unhealthy", "changed", "ok")


def label(host: HostReport) -> str:
    """Return the one word for a host: its outcome, or "unhealthy" when only its proof is bad."""
    if host.outcome in ("ok", "changed") and host.exit_code:
        return "unhealthy"
    return host.outcome


def groups(hosts: Iterable[HostReport]) -> list[Group]:
    """Return the hosts grouped by outcome and cause, the worst first, larger groups before smaller ones."""
    found: dict[tuple[str, str, str, str], list[HostReport]] = {}
    for host in hosts:
        key = (label(host), host.verdict, _INCIDENTAL.sub("#", host.cause), advice(host))
        found.setdefault(key, []).append(host)
    result = [
        Group(
            word, verdict, those[0].cause, those[0].hint, tuple(h.host for h in those), bool(those[0].exit_code), action
        )
        for (word, verdict, _, action), those in found.items()
    ]
    return sorted(result, key=lambda g: (_SEVERITY.index(g.outcome), -len(g.hosts), g.cause))


@dataclass(frozen=True, slots=True)
class Slow:
    """How long one task took over all hosts, in seconds."""

    name: str
    hosts: int
    median_s: float
    longest_s: float
    longest_host: str


def slowest(report: RunReport, count: int = 5, least_s: float = 0.5) -> list[Slow]:
    """Return the tasks with the longest single duration, no shorter than *least_s*."""
    runs: dict[str, tuple[TaskResult, list[tuple[float, str]]]] = {}
    for host in report.hosts:
        for task in host.tasks:
            runs.setdefault(task.id, (task, []))[1].append((task.duration_s, host.host))
    found = [_slow(task, sorted(times)) for task, times in runs.values()]
    return sorted((s for s in found if s.longest_s >= least_s), key=lambda s: -s.longest_s)[:count]


def _slow(task: TaskResult, times: Sequence[tuple[float, str]]) -> Slow:
    longest_s, host = times[-1]
    return Slow(qualified(task), len(times), times[len(times) // 2][0], longest_s, host)


def qualified(task: TaskResult) -> str:
    """Return the task's name with its role, as in "environment : CUDA paths"."""
    return f"{task.role} : {task.name}" if task.role else task.name
