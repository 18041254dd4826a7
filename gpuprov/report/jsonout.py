"""Reports as JSON and back: what `--json` prints, run.json and hosts/*.json hold. Pure.

Tasks and checks leave out what is empty; a missing key has the default of results.py. Beside the
values a document has what was derived from them (exit_code, totals, coverage) for readers that
are no Python; reading back derives it anew.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from gpuprov.errors import UsageError
from gpuprov.report.proof import coverage
from gpuprov.report.totals import totals
from gpuprov.results import REPORT_SCHEMA, Check, HostReport, RunReport, TaskResult

if TYPE_CHECKING:
    from collections.abc import Mapping

_TASK_KEYS = ("duration_s", "play", "role", "position", "item", "msg", "skip", "hint", "handler")
_CHECK_KEYS = ("unit", "reason", "device", "duration_s", "tier", "reads", "simulated", "data")


def to_json(report: RunReport, state: str = "finished") -> dict[str, Any]:
    """Return the document of *report*. state is "running" or "finished"."""
    return {
        "schema": report.schema,
        "version": report.version,
        "run": report.run,
        "state": state,
        "command": report.command,
        "inventory": report.inventory,
        "playbook": report.playbook,
        "check": report.check,
        "started_at": report.started_at,
        "duration_s": round(report.duration_s, 3),
        "exit_code": report.exit_code if state == "finished" else None,
        "options": dict(report.options),
        "warnings": list(report.warnings),
        "hosts": [host_to_json(h) for h in report.hosts],
    }


def host_to_json(host: HostReport) -> dict[str, Any]:
    """Return the document of one host's report."""
    return {
        "host": host.host,
        "outcome": host.outcome,
        "address": host.address,
        "cause": host.cause,
        "hint": host.hint,
        "verdict": host.verdict,
        "exit_code": host.exit_code,
        "totals": totals(host),
        "coverage": coverage(host.checks) if host.checks else "",
        "expected_gpus": host.expected_gpus,
        "found_gpus": host.found_gpus,
        "started_at": host.started_at,
        "duration_s": round(host.duration_s, 3),
        "simulated": host.simulated,
        "warnings": list(host.warnings),
        "stack": dict(host.stack),
        "refusal": dict(host.refusal),
        "facts": host.facts,
        "tasks": [_task(t) for t in host.tasks],
        "checks": [_check(c) for c in host.checks],
    }


def _task(task: TaskResult) -> dict[str, Any]:
    document: dict[str, Any] = {"id": task.id, "name": task.name, "action": task.action, "outcome": task.outcome}
    for key in _TASK_KEYS:
        value = getattr(task, key)
        if value:
            document[key] = value
    if task.result:
        document["result"] = task.result
    if task.diff:
        document["diff"] = list(task.diff)
    if task.items:
        document["items"] = [_task(i) for i in task.items]
    return document


def _check(check: Check) -> dict[str, Any]:
    document: dict[str, Any] = {"name": check.name, "verdict": check.verdict}
    if check.measured is not None:
        document["measured"] = check.measured
    if check.expected is not None:
        document["expected"] = check.expected
    for key in _CHECK_KEYS:
        value = getattr(check, key)
        if value:
            document[key] = value
    if check.action != "none":
        document["action"] = check.action
    return document


def from_json(document: Mapping[str, Any]) -> RunReport:
    """Return the report in *document*. Raises UsageError when this program cannot read it."""
    schema = document.get("schema")
    if schema != REPORT_SCHEMA:
        raise UsageError(
            f"the report has schema {schema!r}; this gpuprov reads schema {REPORT_SCHEMA}",
            hint="read it with the gpuprov that wrote it",
            code="report-schema",
        )
    try:
        hosts = tuple(host_from_json(h) for h in document["hosts"])
        report: RunReport = _known(RunReport, {**document, "hosts": hosts})
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"the report is damaged: {error}", code="report-damaged") from error
    return report


def host_from_json(document: Mapping[str, Any]) -> HostReport:
    """Return the host's report in *document*."""
    tasks = tuple(_task_from(t) for t in document.get("tasks", ()))
    checks = tuple(_known(Check, c) for c in document.get("checks", ()))
    report: HostReport = _known(HostReport, {**document, "tasks": tasks, "checks": checks})
    return report


def _task_from(document: Mapping[str, Any]) -> TaskResult:
    items = tuple(_task_from(i) for i in document.get("items", ()))
    task: TaskResult = _known(TaskResult, {**document, "items": items})
    return task


def _known(kind: type[Any], document: Mapping[str, Any]) -> Any:
    """Return a *kind* from the keys it has; keys of newer versions are ignored."""
    values = {f.name: document[f.name] for f in fields(kind) if f.name in document}
    return kind(**{k: tuple(v) if k in _TUPLES else v for k, v in values.items()})


_TUPLES = ("diff", "warnings")
