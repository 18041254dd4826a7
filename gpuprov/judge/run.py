"""Judge a whole run: the checks of all hosts, compared with each other and the past. Only ever worsens. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gpuprov.judge import compare, votes
from gpuprov.judge.compare import Measured, Opinion
from gpuprov.wire.outcome import VERDICTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gpuprov.judge.specs import Specs
    from gpuprov.results import Check, HostReport

    #: (uuid, metric, software) -> earlier good values.
    Past = Callable[[str, str, str], Sequence[float]]
    #: (report, checks) -> the verdict and its sentence that the host would have with these checks.
    Verdict = Callable[[HostReport, tuple[Check, ...]], tuple[str, str]]

PROOF = "gpuprov_proof"
#: Host, name of the check, device.
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Known:
    """What was known before the run.

    past are the newest good values, first the oldest. acknowledged: who, with device "" for all of them, -> a note.
    again, of suspects that were run again at once: AGAIN, GONE or CLEARED (judge/votes.py).
    """

    past: Past = field(default=lambda *_: ())
    first: Past = field(default=lambda *_: ())
    strikes: frozenset[Key] = frozenset()
    acknowledged: Mapping[Key, str] = field(default_factory=dict)
    again: Mapping[Key, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judged:
    """The reports, worsened; which checks were judged, which are bad, whose bits are suspect; the good values."""

    reports: tuple[HostReport, ...]
    judged: frozenset[Key]
    bad: frozenset[Key]
    good: tuple[Measured, ...]
    suspects: frozenset[Key] = frozenset()


def judge(reports: Sequence[HostReport], specs: Specs, known: Known, verdict: Verdict) -> Judged:
    """Return *reports* with each measurement compared and each bit voted on. verdict adds a host's checks up."""
    measured = {(one.host, one.metric, one.device): one for report in reports for one in _measured(report)}
    others = _Others(list(measured.values()))
    suspects, voters = _voted(reports)
    bad: set[Key] = set()
    good: list[Measured] = []
    found = []
    for report in reports:
        checks = []
        for check in report.checks:
            key = (report.host, check.name, check.device)
            judged = check
            if key in measured:
                judged, is_bad = _compared(check, measured[key], others, specs, known)
                if is_bad:
                    bad.add(key)
                elif judged.verdict == "pass":
                    good.append(measured[key])
            if key in suspects and known.again.get(key) != votes.CLEARED:
                bad.add(key)
                judged = _suspected(judged, suspects[key], key, known)
            checks.append(_acknowledged(report.host, judged, known))
        found.append(_report(report, tuple(checks), verdict))
    return Judged(tuple(found), frozenset(measured) | voters, frozenset(bad), tuple(good), frozenset(suspects))


def confirmed(reports: Sequence[HostReport], again: Sequence[HostReport], suspects: Iterable[Key]) -> dict[Key, str]:
    """Return what a second look (*again*) says of each of the *suspects* of *reports*: AGAIN, GONE or CLEARED.

    Its new bits are compared with those that the others had. Who could not be run again is not in it.
    """
    new = {(report.host, check.name, check.device): check for report in again for check in report.checks}
    new = {key: new[key] for key in suspects if key in new}
    mixed = [
        replace(
            report, checks=tuple(new.get((report.host, check.name, check.device), check) for check in report.checks)
        )
        for report in reports
    ]
    found: dict[Key, str] = {}
    second = votes.grouped(_ballots(mixed))
    for group, digests in votes.grouped(_ballots(reports)).items():
        anew = {key: digest for key, digest in second.get(group, {}).items() if key in new}
        found.update(votes.second_look(digests, anew))
    return {**found, **{key: votes.AGAIN for key, check in new.items() if check.verdict == "fail"}}


def _measured(report: HostReport) -> list[Measured]:
    """Return what can be compared: measurements of real GPUs that the host itself calls no fail.

    CPUs share their speed with whatever else runs there.
    """
    versions = _versions(report)
    groups: dict[str, tuple[str, ...]] = {}
    found = []
    for check in report.checks:
        data = check.data
        numbers = (check.measured, data.get("p10"))
        if data.get("kind") != "measurement" or check.simulated or not check.device.startswith("cuda:"):
            continue
        if check.verdict not in ("pass", "warn") or not all(isinstance(number, int | float) for number in numbers):
            continue
        name, uuid = _device(check, versions)
        groups[name] = groups.get(name) or _group(name, versions)
        samples = tuple([float(s) for s in data.get("samples") or () if isinstance(s, (int, float))])
        one = Measured(
            host=report.host,
            device=check.device,
            uuid=uuid,
            metric=check.name,
            unit=check.unit,
            group=groups[name],
            median=float(check.measured),
            p10=float(data["p10"]),
            samples=samples or (float(check.measured),),
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


class _Others:
    """Whom a measurement is compared with: by metric, model and software, each group looked at once."""

    def __init__(self, everybody: Sequence[Measured]) -> None:
        groups: dict[tuple[str, ...], list[Measured]] = {}
        self._hosts: dict[tuple[str, ...], list[tuple[str, float]]] = {}
        for one in everybody:
            if one.group[0]:
                groups.setdefault((one.metric, *one.group), []).append(one)
                beside = self._hosts.setdefault((one.host, one.metric, *one.group), [])
                beside.append((one.device, one.value(one.median)))
        self._crowds: dict[tuple[str, ...], compare.Crowd] = {}
        for key, members in groups.items():
            self._crowds[key] = compare.crowd(members)
            for host in {one.host for one in members} if len(members) <= compare.FLEET_SMALL else ():
                elsewhere = [one for one in members if one.host != host]
                if len(elsewhere) > compare.FLEET_LEAST:
                    self._crowds[(host, *key)] = compare.crowd(elsewhere)

    def like(self, one: Measured) -> compare.Crowd | None:
        """Return the fleet beside *one*: a small one without its host, whose fault would be the spread."""
        key = (one.metric, *one.group)
        return self._crowds.get((one.host, *key)) or self._crowds.get(key)

    def on_its_host(self, one: Measured) -> list[float]:
        beside = self._hosts.get((one.host, one.metric, *one.group), ())
        return [value for device, value in beside if device != one.device]


def _compared(check: Check, one: Measured, others: _Others, specs: Specs, known: Known) -> tuple[Check, bool]:
    """Return the check with the four numbers beside it, and whether it is bad."""
    floor, why = specs.floor(specs.model(one.group[0]), one.metric)
    which = one.uuid, one.metric, software(one)
    opinions = (
        compare.by_floor(one, floor, why),
        compare.by_neighbours(one, others.on_its_host(one)),
        compare.by_fleet(one, others.like(one)),
        compare.by_past(one, *(of(*which) if one.uuid else () for of in (known.past, known.first))),
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


def _suspected(check: Check, why: str, key: Key, known: Known) -> Check:
    """Return the check of a suspect: what a second look confirmed fails in this run already."""
    if known.again.get(key) == votes.AGAIN:
        return _worse(check, "fail", f"{why}; confirmed when it was run again at once", "isolate")
    if key in known.again:
        why = f"{why}; not so when it was run again at once"
    return _struck(check, why, key in known.strikes, "isolate")


def _worse(check: Check, verdict: str, reason: str, action: str) -> Check:
    if VERDICTS.index(verdict) <= VERDICTS.index(check.verdict):
        return check
    return replace(check, verdict=verdict, reason=reason, action=action)


def _voted(reports: Sequence[HostReport]) -> tuple[dict[Key, str], frozenset[Key]]:
    """Return why, of all whose bits differ from those of the most; and all who had somebody to differ from."""
    suspects: dict[Key, str] = {}
    voters: set[Key] = set()
    for digests in votes.grouped(_ballots(reports)).values():
        if len(digests) > 1:
            suspects.update(votes.suspects(digests)[0])
            voters.update(digests)
    return suspects, frozenset(voters)


def _ballots(reports: Sequence[HostReport]) -> list[tuple[tuple[str, ...], Key, str]]:
    """Return (what was computed by which model and software, by whom, its bits) of real GPUs."""
    found = []
    for report in reports:
        versions = _versions(report)
        for check in report.checks:
            bits, of = check.data.get("bits"), check.data.get("bits_of")
            real = check.device.startswith("cuda:") and not check.simulated
            if real and isinstance(bits, str) and isinstance(of, str):
                group = (check.name, of, *_group(_device(check, versions)[0], versions))
                found.append((group, (report.host, check.name, check.device), bits))
    return found


def _acknowledged(host: str, check: Check, known: Known) -> Check:
    """Return a fail that a person knows of as a warning that says so."""
    keys = ((host, check.name, check.device), (host, check.name, ""))
    note = next((known.acknowledged[key] for key in keys if key in known.acknowledged), "")
    if not note or check.verdict != "fail":
        return check
    return replace(check, verdict="warn", reason=f"{check.reason} [{note}]", data={**check.data, "acknowledged": note})


def _report(report: HostReport, checks: tuple[Check, ...], verdict: Verdict) -> HostReport:
    """Return the report with these checks and what they add up to.

    A verdict that its own checks do not add up to has another reason, and is kept unless the new one is worse.
    """
    if checks == report.checks:
        return report
    (said, why), (now, sentence) = verdict(report, report.checks), verdict(report, checks)
    if report.verdict != said and report.verdict in VERDICTS and VERDICTS.index(now) <= VERDICTS.index(report.verdict):
        return replace(report, checks=checks)
    keeps = report.outcome not in ("ok", "changed") or (now, sentence) == (said, why)
    return replace(report, checks=checks, verdict=now, cause=report.cause if keeps else sentence)
