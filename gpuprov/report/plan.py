"""What a check run found, as `gpuprov plan` shows it: hosts with the same plan together. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuprov.load.ranges import fold
from gpuprov.report.ink import Ink, plural, wrapped
from gpuprov.report.lines import unified
from gpuprov.report.stack import render_stacks
from gpuprov.wire import outcome as o

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuprov.results import HostReport, RunReport, TaskResult

#: (outcome, its heading), in the order in which a person wants to know.
HEADINGS = {
    o.FAILED: "would fail",
    o.CHANGED: "would change",
    o.UNKNOWN: "cannot be told before the run",
    o.SKIPPED: "would be skipped, or is not run in check mode",
}
#: Tasks that only look are no part of a plan.
QUIET_ACTIONS = ("debug", "assert", "setup", "gather_facts", "set_fact", "stat", "meta")

Entry = tuple[str, str, str]  # heading, task, reason


def render_plan(report: RunReport, *, ink: Ink | None = None, width: int = 120, diff: bool = False) -> str:
    """Return stacks, refusals, and the plan of every host, hosts with the same one once.

    diff: with the differences of files.
    """
    ink = ink or Ink(False)
    found: dict[tuple[Entry, ...], list[HostReport]] = {}
    for host in report.hosts:
        if host.outcome not in (o.UNREACHABLE, o.REFUSED, o.LOST):
            found.setdefault(tuple(_entries(host)), []).append(host)
    parts = ["\n".join(_group(entries, hosts, ink, width, diff)) for entries, hosts in found.items()]
    stacks = render_stacks(report.hosts, ink=ink, width=width)
    if stacks:
        parts.insert(0, stacks)
    return "\n\n".join(parts)


def _entries(host: HostReport) -> Iterator[Entry]:
    for task in host.tasks:
        if task.outcome in HEADINGS and (task.action not in QUIET_ACTIONS or task.outcome == o.FAILED):
            yield task.outcome, _title(task), task.skip or (task.msg if task.outcome == o.FAILED else "")


def _title(task: TaskResult) -> str:
    return f"{task.role} : {task.name}" if task.role else task.name


def _group(entries: tuple[Entry, ...], hosts: list[HostReport], ink: Ink, width: int, diff: bool) -> Iterator[str]:
    unchanged = sum(task.outcome == o.OK for task in hosts[0].tasks)
    yield ink("bold", f"{fold(h.host for h in hosts)}  ({plural(len(hosts), 'host')})")
    if not any(outcome != o.SKIPPED for outcome, _, _ in entries):
        yield "  nothing would change"
    for outcome, heading in HEADINGS.items():
        tasks = [(title, reason) for found, title, reason in entries if found == outcome]
        if not tasks:
            continue
        yield "  " + ink(outcome, f"{heading}: {plural(len(tasks), 'task')}")
        if outcome == o.SKIPPED:
            yield from _by_reason(tasks, width)
            continue
        for title, reason in tasks:
            text = f"{title}: {reason}" if reason else title
            yield "    " + wrapped(text, width, "      ", 4)
            if diff and outcome == o.CHANGED:
                yield from _differences(hosts[0], title)
    yield f"  as it should be: {plural(unchanged, 'task')}"


def _by_reason(tasks: list[tuple[str, str]], width: int) -> Iterator[str]:
    """Yield each reason once, with the tasks that it is about."""
    reasons: dict[str, list[str]] = {}
    for title, reason in tasks:
        reasons.setdefault(reason, []).append(title)
    for reason, titles in reasons.items():
        yield "    " + wrapped(f"{reason or 'no reason given'}: {', '.join(titles)}", width, "      ", 4)


def _differences(host: HostReport, title: str) -> Iterator[str]:
    for task in host.tasks:
        if _title(task) == title:
            for one in (task, *task.items):
                for change in one.diff:
                    yield from ("      " + line for line in unified(change))
