"""What the doctor found on a fleet: each trouble once, with the hosts that have it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpuprov.doctor.match import commands_for, systems
from gpuprov.load.ranges import fold
from gpuprov.report import clean
from gpuprov.report.findings import render_findings
from gpuprov.report.ink import Ink, plural, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gpuprov.doctor.host import Examined
    from gpuprov.doctor.match import Finding


@dataclass(frozen=True, slots=True)
class Patient:
    """One host and what was found on it."""

    host: str
    facts: Mapping[str, Any]
    examined: Examined

    @property
    def systems(self) -> tuple[str, ...]:
        """The names under which commands for this host stand."""
        return systems(self.facts)


def render(patients: Sequence[Patient], ink: Ink, width: int) -> Iterator[str]:
    """Yield the lines about all *patients*."""
    for group in _groups(patients):
        patient, finding = group[0]
        hosts = [one.host for one, _ in group]
        yield ink("bold", f"{fold(hosts)}  ({plural(len(hosts), 'host')})")
        titles = {one.row.id: one.row.title for one in patient.examined.findings}
        for line in render_findings([finding], patient.systems, ink, width - 2, titles):
            yield f"  {line}"
        yield ""
    yield from _untold(patients, ink, width)
    yield from _summary(patients)


def _groups(patients: Sequence[Patient]) -> list[list[tuple[Patient, Finding]]]:
    """Return findings that are the same on several hosts together: causes first, then those of most hosts."""
    groups: dict[tuple[Any, ...], list[tuple[Patient, Finding]]] = {}
    for patient in patients:
        for finding in patient.examined.findings:
            commands = commands_for(finding.fix, patient.systems)
            key = (finding.row.id, finding.because, finding.cause, finding.check, commands)
            groups.setdefault(key, []).append((patient, finding))
    return sorted(groups.values(), key=lambda g: (bool(g[0][1].because), g[0][1].row.severity != "fail", -len(g)))


def _untold(patients: Sequence[Patient], ink: Ink, width: int) -> Iterator[str]:
    """Yield what could not be told, and of how many rows that is the whole reason: unknown is not well."""
    gaps: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for patient in patients:
        for one in patient.examined.untold:
            gaps.setdefault((one.what, one.rows), []).append(patient.host)
    if not gaps:
        return
    yield ink("unknown", "could not be told")
    for (what, rows), hosts in gaps.items():
        about = f" ({', '.join(rows) if len(rows) <= 4 else plural(len(rows), 'row')})" if rows else ""
        yield "  " + wrapped(f"{fold(hosts)}: {clean.line(what)}{about}", width, "    ", 2)
    yield ""


def _summary(patients: Sequence[Patient]) -> Iterator[str]:
    well = [p.host for p in patients if not p.examined.findings]
    if well:
        yield f"nothing found: {fold(well)}  ({plural(len(well), 'host')})"
    sick = len(patients) - len(well)
    partly = sum(bool(p.examined.untold) for p in patients)
    said = f"{plural(len(patients), 'host')}: {sick} with findings, {len(well)} without"
    yield said + (f"; of {partly} not everything could be told" if partly else "")
