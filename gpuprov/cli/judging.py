"""Between the run and its report: compare what was measured, and remember it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from gpuprov.errors import GpuprovError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuprov.cli.again import Again
    from gpuprov.judge.run import Judged
    from gpuprov.results import HostReport, RunReport
    from gpuprov.store.history import History

#: What it means that there is no past.
WITHOUT = "What is bad only warns, as in a first run, and acknowledgements are not known"


def judged(
    report: RunReport, history_file: str | None, warn: Callable[[str], None], again: Again | None = None
) -> tuple[HostReport, ...]:
    """Return the reports of *report*, worsened by comparison; write what was measured to the history.

    again runs what is suspect once more. Nothing is opened when nothing was proved. A history that cannot be used costs
    the comparison with the past, never the report: warn gets a sentence.
    """
    if not any(host.checks for host in report.hosts):
        return report.hosts
    from gpuprov.store.history import History

    try:
        history = History(history_file or "")
    except GpuprovError as error:
        warn(f"judged without the history: {error.message}. {WITHOUT}")
        return _compared(report, None, again).reports
    try:
        return _with(history, report, warn, again)
    finally:
        history.close()


def _with(
    history: History, report: RunReport, warn: Callable[[str], None], again: Again | None
) -> tuple[HostReport, ...]:
    from gpuprov.judge.run import software
    from gpuprov.store.history import Value

    try:
        found = _compared(report, history, again)
    except GpuprovError as error:
        warn(f"judged without the history: {error.message}. {WITHOUT}")
        return _compared(report, None, again).reports
    values = [Value(m.host, m.uuid, m.metric, software(m), m.median) for m in found.good if m.uuid]
    try:
        history.record(report.run, time.time(), values, found.bad, found.judged)
    except GpuprovError as error:
        warn(f"this run is not remembered: {error.message}. The next run does not know its strikes")
    return found.reports


def _compared(report: RunReport, history: History | None, again: Again | None) -> Judged:
    from gpuprov.judge import run as judge
    from gpuprov.judge.specs import load
    from gpuprov.report.proof import host_verdict

    known = judge.Known()
    if history is not None:
        strikes = frozenset((host.host, *strike) for host in report.hosts for strike in history.strikes(host.host))
        known = judge.Known(history.past, history.first, strikes, _notes(history))
    specs = load()
    found = judge.judge(report.hosts, specs, known, host_verdict)
    stopped = any(host.outcome == "interrupted" for host in report.hosts)  # who stops a run wants no other one
    if again is None or not found.suspects or stopped:
        return found
    known = replace(known, again=judge.confirmed(report.hosts, again(found.suspects), found.suspects))
    return judge.judge(report.hosts, specs, known, host_verdict)


def _notes(history: History) -> dict[tuple[str, str, str], str]:
    """Return (host, check, device) -> note of every acknowledgement that still holds."""
    today = time.strftime("%Y-%m-%d")
    return {
        (one.host, one.name, one.device): f"acknowledged by {one.owner} until {one.until}: {one.reason}"
        for one in history.acknowledgements()
        if one.until >= today
    }
