"""The recap: what a person reads at the end of a run, grouped so that 400 hosts fit on a screen. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from gpuprov.load.ranges import fold
from gpuprov.report.exits import meaning
from gpuprov.report.ink import Ink, plural, seconds, wrapped
from gpuprov.report.proof import busy, coverage
from gpuprov.report.totals import COLUMNS, groups, slowest, totals
from gpuprov.wire.outcome import VERDICTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gpuprov.results import Check, HostReport, RunReport


#: Up to so many checks that were skipped for one reason are named; of more the number is told.
NAMED_SKIPS = 4


def recap(
    report: RunReport, folder: str | None = None, *, ink: Ink | None = None, width: int = 120, names: bool = False
) -> str:
    """Return the recap of *report*. folder is where report.html is; names: name all checks that were skipped."""
    ink = ink or Ink(False)
    parts = [
        _heading(report, ink, width),
        "\n".join(_totals(report.hosts, ink, width)),
        "\n".join(_slowest(report, ink, width)),
        "\n".join(_proof(report.hosts, ink, width, names)),
        "\n".join(_warnings(report, ink, width)),
        "\n".join(_troubles(report.hosts, ink, width)),
        "\n".join(_ending(report, folder, ink, width)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(report: RunReport, ink: Ink, width: int) -> str:
    mode = " (check mode: nothing was changed)" if report.check else ""
    text = f"PLAY RECAP {plural(len(report.hosts), 'host')}, {seconds(report.duration_s)}{mode} "
    return ink("bold", text + "*" * max(3, min(width, 100) - len(text)))


def _totals(hosts: Iterable[HostReport], ink: Ink, width: int) -> Iterator[str]:
    """Yield a line as in Ansible's recap per group of hosts with the same numbers."""
    found: dict[tuple[tuple[str, int], ...], list[str]] = {}
    worst: dict[tuple[tuple[str, int], ...], str] = {}
    for host in hosts:
        key = tuple(totals(host).items())
        found.setdefault(key, []).append(host.host)
        if key not in worst or host.exit_code:
            worst[key] = host.outcome
    labels = {key: fold(names) for key, names in found.items()}
    pad = 3 if width >= 116 else 1
    room = width - sum(len(name) + pad + 2 for name in COLUMNS) - 13
    column = max((len(text) for text in labels.values() if len(text) <= room), default=0)
    for key in sorted(found, key=lambda k: (worst[k] not in ("ok", "changed"), labels[k])):
        cells = (ink(name if n else "", f"{name}={n}") + " " * (pad - len(str(n))) for name, n in key)
        label, space = ink(worst[key], labels[key]), " " * (column - len(labels[key]))
        tail = ink("dim", f"  {plural(len(found[key]), 'host')}") if len(found[key]) > 1 else ""
        if len(labels[key]) > room and tail:  # a single host stays on the line of its numbers, for grep
            yield f"{label}{tail}"
            label, space, tail = "", " " * column, ""
        yield f"{label}{space} : {' '.join(cells).rstrip()}{tail}"


def _slowest(report: RunReport, ink: Ink, width: int) -> Iterator[str]:
    found = slowest(report)
    if found:
        yield ink("bold", "Slowest tasks")
    for slow in found:
        where = f", on {slow.longest_host}" if len(report.hosts) > 1 else ""
        median = f", median {seconds(slow.median_s)}" if slow.hosts > 1 else ""
        yield f"  {seconds(slow.longest_s):>10}  " + wrapped(f"{slow.name}{where}{median}", width, " " * 14, 14)


def _proof(hosts: Iterable[HostReport], ink: Ink, width: int, every_name: bool) -> Iterator[str]:
    """Yield what was checked, checks with the same answers together."""
    proved = [h for h in hosts if h.checks]
    if not proved:
        return
    every = tuple(c for h in proved for c in h.checks)
    yield ink("bold", "Proof") + wrapped(f"  {plural(len(proved), 'host')}, {coverage(every)}", width, "  ", 5)
    if any(h.simulated for h in proved):
        count = plural(sum(h.simulated for h in proved), "host")
        yield ink("unhealthy", f"  SIMULATED hardware on {count}: nothing here is about real GPUs")
    rows: dict[tuple[tuple[tuple[str, int], ...], str], list[str]] = {}
    for name, checks in _by_name(every).items():
        rows.setdefault((_verdicts(checks), _why(checks)), []).append(name)
    ordered = sorted(rows.items(), key=lambda row: -max(VERDICTS.index(v) for v, _ in row[0][0]))
    for (counts, why), names in ordered:
        words = "  ".join(ink(v, f"{v} {n}") for v, n in counts)
        used = 4 + len("  ".join(f"{v} {n}" for v, n in counts))
        only_skipped = [verdict for verdict, _ in counts] == ["skip"]
        many = only_skipped and len(names) > NAMED_SKIPS and not every_name
        what = f"{len(names)} checks (-v names them)" if many else ", ".join(names)
        yield f"  {words}  " + wrapped(f"{what}{f': {why}' if why else ''}", width, "    ", used)
    for sentence in dict.fromkeys(str(c.data["proves"]) for c in every if c.data.get("proves")):
        yield ink("dim", "  " + wrapped(sentence, width, "  ", 2))


def _by_name(checks: Iterable[Check]) -> dict[str, list[Check]]:
    found: dict[str, list[Check]] = {}
    for check in checks:
        found.setdefault(check.name, []).append(check)
    return found


def _verdicts(checks: list[Check]) -> tuple[tuple[str, int], ...]:
    """Return (verdict, how often), the worst first."""
    counts = Counter(c.verdict for c in checks)
    return tuple((v, counts[v]) for v in reversed(VERDICTS) if counts[v])


def _why(checks: list[Check]) -> str:
    """Return the reasons of what did not pass, the most frequent ones."""
    reasons = Counter(c.reason for c in checks if c.verdict != "pass" and c.reason)
    return "; ".join(reason for reason, _ in reasons.most_common(2))


def _warnings(report: RunReport, ink: Ink, width: int) -> Iterator[str]:
    for text in report.warnings:
        yield ink("warning", wrapped(f"warning: {text}", width, "  "))
    found: dict[str, list[str]] = {}
    for host in report.hosts:
        for text in host.warnings:
            found.setdefault(text, []).append(host.host)
    for text, names in list(found.items())[:20]:
        yield ink("warning", wrapped(f"warning: {fold(names)}: {text}", width, "  "))
    if len(found) > 20:
        yield ink("warning", f"{len(found) - 20} more warnings are in the report")


def _troubles(hosts: Iterable[HostReport], ink: Ink, width: int) -> Iterator[str]:
    """Yield what went wrong, the same trouble of many hosts once: `gpu[01-07,12]: apt lock held by ...`."""
    for group in groups(hosts):
        if not group.trouble:
            continue
        indent = " " * 12
        text = f"{fold(group.hosts)}: {group.cause or 'no reason given'}"
        yield ink(group.outcome, f"{group.outcome:<12}") + wrapped(text, width, indent, 12)
        if group.action:
            yield indent + wrapped(f"action: {group.action}", width, indent, 12)
        if group.hint:
            yield ink("dim", indent + wrapped(f"hint: {group.hint}", width, indent, 12))


def _ending(report: RunReport, folder: str | None, ink: Ink, width: int) -> Iterator[str]:
    used = busy(report.hosts)
    if used:
        count = plural(sum(map(len, used.values())), "GPU")
        text = f"{fold(list(used))}: {count} in use and not put under load (--load-busy measures beside jobs)"
        yield ink("warning", f"{'not measured':<14}") + wrapped(text, width, " " * 14, 14)
    if folder is not None:
        yield f"report  {folder}/report.html"
    code = report.exit_code
    word = "ok" if code == 0 else "unhealthy" if code == 3 else "failed"
    but = ", as far as it was measured" if used and code == 0 and not report.check else ""
    simulated = " (SIMULATED hardware)" if any(h.simulated for h in report.hosts) else ""
    yield ink(word, f"exit {code}") + f"  {meaning(code, check=report.check)}{but}{simulated}"
