"""What the doctor found, as a person reads it: cause, the line that shows it, the command. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpuprov.report import clean
from gpuprov.report.ink import Ink, plural, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gpuprov.doctor.match import Finding
    from gpuprov.doctor.table import Table

#: Whom commands are for, as a person says it; the rest is everybody.
SYSTEM_NAMES = {"debian": "Debian, Ubuntu", "ubuntu": "Ubuntu", "redhat": "RHEL, Rocky, Alma", "suse": "SUSE"}


def render_findings(
    findings: Sequence[Finding],
    systems: Sequence[str] | None,
    ink: Ink,
    width: int,
    titles: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Yield the lines about *findings*. systems: names of the host's system; None: every variant is shown.

    titles: those of all rows that may be a reason, when *findings* are not all that was found.
    """
    titles = titles or {finding.row.id: finding.row.title for finding in findings}
    for index, finding in enumerate(findings):
        if index:
            yield ""
        row = finding.row
        yield f"{ink(row.severity, row.severity):<4}  {ink('bold', row.title)}  {ink('dim', row.id)}"
        yield from _evidence(finding, ink)
        if finding.because:
            yield "  " + wrapped(f"because of: {titles[finding.because]} ({finding.because})", width, "  ", 2)
            continue
        yield "  " + wrapped(finding.cause, width, "  ", 2)
        for name, commands in _parts(finding, systems):
            yield "  " + ink("bold", f"{name}:")
            for command in commands:
                yield "    " + (ink("dim", command) if command.startswith("#") else command)


def nothing_found(table: Table, lines: int) -> str:
    """Return what to say of text that fits no row."""
    return (
        f"no row of {len(table)} fits {'this line' if lines == 1 else f'these {lines} lines'}\n"
        "hint: paste the lines around the error too, or look at the host itself: gpuprov doctor INVENTORY HOST"
    )


def summary(findings: Sequence[Finding]) -> str:
    """Return one line that counts *findings*."""
    causes = sum(not finding.because for finding in findings)
    rest = len(findings) - causes
    return plural(causes, "finding") + (f", and {plural(rest, 'consequence')} of them" if rest else "")


def to_json(finding: Finding, systems: Sequence[str] | None = None) -> dict[str, Any]:
    """Return *finding* as JSON; fix has the host's own commands, or those of every system."""
    from gpuprov.doctor.match import commands_for

    row = finding.row
    fix: Any = {name: list(commands) for name, commands in finding.fix.items()}
    return {
        "id": row.id,
        "title": row.title,
        "severity": row.severity,
        "cause": finding.cause,
        "because": finding.because or None,
        "evidence": [{"source": e.source, "line": e.line, "times": e.times} for e in finding.evidence],
        "more_evidence": finding.more,
        "check": list(finding.check),
        "fix": list(commands_for(finding.fix, systems)) if systems is not None else fix,
        "sources": list(row.sources),
    }


def _evidence(finding: Finding, ink: Ink) -> Iterator[str]:
    for evidence in finding.evidence:
        times = f" ({evidence.times} times)" if evidence.times > 1 else ""
        source = "" if evidence.source == "text" else f"{evidence.source}: "
        yield "  " + ink("dim", f"| {source}{clean.line(evidence.line, 300)}{times}")
    if finding.more:
        yield "  " + ink("dim", f"| and {plural(finding.more, 'line')} more")


def _parts(finding: Finding, systems: Sequence[str] | None) -> Iterator[tuple[str, Sequence[str]]]:
    from gpuprov.doctor.match import commands_for

    yield "check", finding.check
    if systems is not None:
        yield "fix", commands_for(finding.fix, systems)
        return
    for system, commands in finding.fix.items():
        name = SYSTEM_NAMES.get(system, "" if len(finding.fix) == 1 else "others")
        yield f"fix, {name}" if name else "fix", commands
