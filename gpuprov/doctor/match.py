"""Text against the table: which line means which trouble, and what to do about it there."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gpuprov.templating.problem import TemplateProblem
from gpuprov.templating.renderer import Renderer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gpuprov.doctor.table import Row, Table

#: A line is matched up to here; errors say what they are early, and patterns must stay quick.
LINE_CHARS = 2000
#: Text of up to so many lines was pasted, and may be broken where the terminal was; a log is not.
PASTED_LINES = 2000
#: Lines of evidence that are kept of one finding; how many there were is said.
EVIDENCE_LINES = 5
#: What text from a log may put into a command: nothing that a shell would read as more than a word.
_PLAIN = re.compile(r"[A-Za-z0-9_.+:/@=~-]{1,120}")
#: What differs between two lines that say the same: when, and in which process.
_STAMP = re.compile(
    r"^(?:\[[ \d.]+\] ?"  # [ 7321.204231]: the kernel's
    r"|\d{4}-\d\d-\d\d[T ][\d:.,+Z-]+ ?"
    r"|(?:[A-Z][a-z]{2} )?[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d )+"  # Nov 25 08:00:01: syslog's
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One line that made a row match. source is where it was found ("text", "kernel", "dkms", "facts")."""

    source: str
    line: str
    times: int = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """One trouble that was found. fix: system -> commands, with what is known of it filled in.

    more counts the lines that are not kept. because names the row that explains this one, when found too.
    """

    row: Row
    cause: str
    check: tuple[str, ...]
    fix: Mapping[str, tuple[str, ...]]
    evidence: tuple[Evidence, ...]
    more: int = 0
    because: str = ""


def diagnose(table: Table, lines: Iterable[str], source: str = "text") -> list[Finding]:
    """Return what *lines* show, causes first. One line is given to the first row that fits."""
    return ranked(list(matches(table, lines, source).values()))


def matches(table: Table, lines: Iterable[str], source: str) -> dict[str, Finding]:
    """Return row id -> finding for *lines*; a row that is only met over a line break counts, too."""
    seen: dict[str, tuple[str, int]] = {}
    for given in lines:
        line = " ".join(given.split())[:LINE_CHARS]
        if line:
            key = _STAMP.sub("", line)
            first, times = seen.get(key, (line, 0))
            seen[key] = (first, times + 1)
    found: dict[str, Finding] = {}
    unmatched: list[str] = []
    for line, times in seen.values():
        hit = _first(table, line)
        if hit is None:
            unmatched.append(line)
        else:
            _keep(found, *hit, Evidence(source, line, times))
    if len(unmatched) > PASTED_LINES:
        return found
    for one, two in pairwise(unmatched):  # a terminal breaks what it shows, and so do mails
        hit = _first(table, f"{one} {two}")
        if hit is not None:
            _keep(found, *hit, Evidence(source, f"{one} {two}"))
    return found


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Return *findings* with causes before what they explain, fails before warnings."""
    found = {finding.row.id: finding for finding in findings}
    for finding in list(found.values()):
        for other in finding.row.explains:
            if other in found and not found[other].because:
                found[other] = replace(found[other], because=finding.row.id)
    return sorted(found.values(), key=lambda f: (bool(f.because), f.row.severity != "fail"))


def filled(row: Row, values: Mapping[str, str], evidence: tuple[Evidence, ...]) -> Finding:
    """Return *row* as a finding, its templates rendered with *values*. What is not known stays a word in capitals."""
    renderer = Renderer({}, values)

    def text(template: str) -> str:
        try:
            return str(renderer.render(template))
        except TemplateProblem as problem:
            raise AssertionError(f"row {row.id}: {problem}") from problem  # a mistake in the table: its test says so

    return Finding(
        row=row,
        cause=text(row.cause),
        check=tuple(map(text, row.check)),
        fix={system: tuple(map(text, commands)) for system, commands in row.fix.items()},
        evidence=evidence,
    )


def _first(table: Table, line: str) -> tuple[Row, dict[str, str]] | None:
    for row in table:
        for pattern in row.patterns:
            met = pattern.search(line)
            if met:
                return row, _values(met)
    return None


def _values(met: re.Match[str]) -> dict[str, str]:
    """Return the named groups that are plain words: they end up in commands that a person will paste."""
    return {name: text for name, text in met.groupdict().items() if text and _PLAIN.fullmatch(text)}


def _keep(found: dict[str, Finding], row: Row, values: dict[str, str], evidence: Evidence) -> None:
    before = found.get(row.id)
    if before is None:
        found[row.id] = filled(row, values, (evidence,))
    elif len(before.evidence) < EVIDENCE_LINES:
        found[row.id] = replace(before, evidence=(*before.evidence, evidence))
    else:
        found[row.id] = replace(before, more=before.more + evidence.times)


def systems(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names under which commands for a host with *facts* may stand, the narrowest first."""
    names = (str(facts.get("distribution", "")).lower(), str(facts.get("os_family", "")).lower(), "any")
    return tuple(dict.fromkeys(name for name in names if name))


def commands_for(fix: Mapping[str, tuple[str, ...]], names: Iterable[str]) -> tuple[str, ...]:
    """Return the commands for a host of these systems; () when the table has none for it."""
    return next((fix[name] for name in names if name in fix), ())
