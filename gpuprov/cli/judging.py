"""Between the run and its report: compare what was measured, and remember it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpuprov.results import HostReport, RunReport


def judged(report: RunReport, history_file: str | None) -> tuple[HostReport, ...]:
    """Return the reports of *report*, worsened by comparison; write what was measured to the history.

    Nothing is opened when nothing was proved. Raises GpuprovError when the history cannot be read.
    """
    if not any(host.checks for host in report.hosts):
        return report.hosts
    from gpuprov.judge import run as judge
    from gpuprov.judge.specs import load
    from gpuprov.report.proof import host_verdict
    from gpuprov.store.history import History, Value

    history = History(history_file or "")
    try:
        hosts = [host.host for host in report.hosts]
        strikes = frozenset((host, *strike) for host in hosts for strike in history.strikes(host))
        known = judge.Known(history.past, strikes, _notes(history))
        found = judge.judge(report.hosts, load(), known, host_verdict)
        values = [Value(m.host, m.uuid, m.metric, judge.software(m), m.median) for m in found.good if m.uuid]
        history.record(report.run, time.time(), values, found.bad, found.judged)
        return found.reports
    finally:
        history.close()


def _notes(history: Any) -> dict[tuple[str, str, str], str]:
    """Return (host, check, device) -> note of every acknowledgement that still holds."""
    today = time.strftime("%Y-%m-%d")
    return {
        (one.host, one.name, one.device): f"acknowledged by {one.owner} until {one.until}: {one.reason}"
        for one in history.acknowledgements()
        if one.until >= today
    }
