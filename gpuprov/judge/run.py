"""Judge a whole run: the checks of all hosts, compared with each other and the past. Only ever worsens. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gpuprov.judge import compare, votes
from gpuprov.judge.compare import Measured, Opinion
from gpuprov.wire.outcome import VERDICTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpuprov.judge.specs import Specs
    from gpuprov.results import Check, HostReport

    #: (uuid, metric, software) -> earlier good values.
    Past = Callable[[str, str, str], Sequence[float]]

PROOF = "gpuprov_proof"


@dataclass(frozen=True, slots=True)
class Known:
    """What was known before the run.

    strikes are (host, check, device); acknowledged: the same, with device "" for all of them, -> a note.
    """

    past: Past = field(default=lambda *_: ())
    strikes: frozenset[tuple[str, str, str]] = frozenset()
    acknowledged: Mapping[tuple[str, str, str], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judged:
    """The reports, worsened; which checks were judged and which are bad: (host, check, device); the good values."""

    reports: tuple[HostReport, ...]
    judged: frozenset[tuple[str, str, str]]
    bad: frozenset[tuple[str, str, str]]
    good: tuple[Measured, ...]


def judge(reports: Sequence[HostReport], specs: Specs, known: Known) -> Judged:
    """Return *reports* with each measurement compared and each bit voted on."""
    measured = {(one.host, one.metric, one.device): one for report in reports for one in _measured(report)}
    suspects = _suspects(reports)
    bad: set[tuple[str, str, str]] = set()
    good: list[Measured] = []
    found = []
    for report in reports:
        checks = []
        for check in report.checks:
            key = (report.host, check.name, check.device)
            judged = check
            if key in measured and check.verdict in ("pass", "warn"):
                judged, is_bad = _compared(check, measured[key], list(measured.values()), specs, known)
                if is_bad:
                    bad.add(key)
                elif judged.verdict == "pass":
                    good.append(measured[key])
            if key in suspects:
                bad.add(key)
                judged = _struck(judged, suspects[key], key in known.strikes, "isolate")
            checks.append(_acknowledged(report.host, judged, known))
        found.append(_report(report, tuple(checks)))
    return Judged(tuple(found), frozenset(measured) | frozenset(suspects), frozenset(bad), tuple(good))


def _measured(report: HostReport) -> list[Measured]:
    """Return what can be compared: measurements of real GPUs. Those of CPUs share them with whatever runs there."""
    versions = _versions(report)
    found = []
    for check in report.checks:
        data = check.data
        numbers = (check.measured, data.get("p10"))
        if data.get("kind") != "measurement" or check.simulated or not check.device.startswith("cuda:"):
            continue
        if not all(isinstance(number, int | float) for number in numbers):
            continue
        name, uuid = _device(check, versions)
        samples = tuple(float(s) for s in data.get("samples") or () if isinstance(s, int | float)) or (check.measured,)
        one = Measured(
            host=report.host,
            device=check.device,
            uuid=uuid,
            metric=check.name,
            unit=check.unit,
            group=_group(name, versions),
            median=float(check.measured),
            p10=float(data["p10"]),
            samples=samples,
            lower_is_better=data.get("better") == "lower",
        )
        found.append(one)
    return found


def _versions(report: HostReport) -> Mapping[str, Any]:
    for task in report.tasks:
        versions = task.result.get("versions") if task.action == PROOF else None
        if isinstance(versions, Mapping):
            return versions
    return {}


def _device(check: Check, versions: Mapping[str, Any]) -> tuple[str, str]:
    """Return (model's name, UUID) of the check's device."""
    index = check.device.partition(":")[2]
    devices = versions.get("devices")
    for one in devices if isinstance(devices, list) else ():
        if isinstance(one, Mapping) and str(one.get("index")) == index:
            return str(one.get("name") or ""), str(check.data.get("uuid") or one.get("uuid") or "")
    return "", str(check.data.get("uuid") or "")


def _group(name: str, versions: Mapping[str, Any]) -> tuple[str, ...]:
    return (name, *(str(versions.get(key)) for key in ("driver", "cuda", "cudnn", "torch")))


def _compared(check: Check, one: Measured, everybody: list[Measured], specs: Specs, known: Known) -> tuple[Check, bool]:
    """Return the check with the four numbers beside it, and whether it is bad."""
    same = [other for other in everybody if other.metric == one.metric and other is not one and one.group[0]]
    like = [other for other in same if other.group == one.group]
    floor, why = specs.floor(specs.model(one.group[0]), one.metric)
    opinions = (
        compare.by_floor(one, floor, why),
        compare.by_neighbours(one, [other for other in like if other.host == one.host]),
        compare.by_fleet(one, like),
        compare.by_past(one, known.past(one.uuid, one.metric, software(one)) if one.uuid else ()),
    )
    verdict = compare.verdict_of(opinions)
    judged = replace(check, data={**check.data, "judged": {o.source: _number(o) for o in opinions}})
    if verdict == "pass":
        return judged, False
    reason = f"{one.median:.4g} {one.unit}: {_sentence(opinions)}"
    if verdict == "warn":
        return _worse(judged, "warn", reason, "monitor"), False
    struck = (one.host, one.metric, one.device) in known.strikes
    return _struck(judged, reason, struck, "isolate"), True


def software(one: Measured) -> str:
    """Return model and software as one text: only values with the same are compared over time."""
    return " / ".join(one.group)


def _number(opinion: Opinion) -> dict[str, Any]:
    return {"against": opinion.against, "verdict": opinion.verdict, "why": opinion.why}


def _sentence(opinions: Sequence[Opinion]) -> str:
    """Return all four numbers as a person reads them, those that accuse first."""
    ordered = sorted(opinions, key=lambda one: -compare.ORDER.index(one.verdict))
    return "; ".join(
        f"{one.source} {one.against:.4g} ({one.why})" if one.against is not None else f"no {one.source} ({one.why})"
        for one in ordered
    )


def _struck(check: Check, reason: str, struck: bool, action: str) -> Check:
    """Return the check as bad: a fail at the second run in a row, a warning at the first."""
    if struck:
        return _worse(check, "fail", f"{reason}; as in the run before", action)
    return _worse(check, "warn", f"{reason}; first strike, the next run decides", "monitor")


def _worse(check: Check, verdict: str, reason: str, action: str) -> Check:
    if VERDICTS.index(verdict) <= VERDICTS.index(check.verdict):
        return check
    return replace(check, verdict=verdict, reason=reason, action=action)


def _suspects(reports: Sequence[HostReport]) -> dict[tuple[str, str, str], str]:
    """Return (host, check, device) -> why, of all whose bits differ from those of the most."""
    ballots = []
    for report in reports:
        versions = _versions(report)
        for check in report.checks:
            bits, of = check.data.get("bits"), check.data.get("bits_of")
            if (
                isinstance(bits, str)
                and isinstance(of, str)
                and not check.simulated
                and check.device.startswith("cuda:")
            ):
                name, _ = _device(check, versions)
                ballots.append(
                    ((check.name, of, *_group(name, versions)), (report.host, check.name, check.device), bits)
                )
    found: dict[tuple[str, str, str], str] = {}
    for digests in votes.grouped(ballots).values():
        found.update(votes.suspects(digests)[0])
    return found


def _acknowledged(host: str, check: Check, known: Known) -> Check:
    """Return a fail that a person knows of as a warning that says so."""
    keys = ((host, check.name, check.device), (host, check.name, ""))
    note = next((known.acknowledged[key] for key in keys if key in known.acknowledged), "")
    if not note or check.verdict != "fail":
        return check
    return replace(check, verdict="warn", reason=f"{check.reason} [{note}]", data={**check.data, "acknowledged": note})


def _report(report: HostReport, checks: tuple[Check, ...]) -> HostReport:
    """Return the report with these checks, whose verdict it takes when that is worse, or when fails are known of."""
    if checks == report.checks:
        return report
    worst = max((check for check in checks), key=lambda check: VERDICTS.index(check.verdict))
    before = max((VERDICTS.index(check.verdict) for check in report.checks), default=0)
    said = VERDICTS.index(report.verdict) if report.verdict in VERDICTS else -1
    if VERDICTS.index(worst.verdict) > said or (said == before and VERDICTS.index(worst.verdict) < before):
        where = f" on {worst.device}" if worst.device else ""
        cause = f"{worst.name}{where}: {worst.reason}" if worst.verdict in ("fail", "unknown", "warn") else ""
        keeps = report.outcome not in ("ok", "changed")
        return replace(report, checks=checks, verdict=worst.verdict, cause=report.cause if keeps else cause)
    return replace(report, checks=checks)
