"""What `gpuprov top` shows: what hosts said of their GPUs, sick ones first, equal hosts folded into one row. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpuprov.load.ranges import fold
from gpuprov.report import clean
from gpuprov.report.ink import Ink, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Reasons for which a GPU's clocks are held down, of those that mean trouble (nvml.h, nvmlClocksThrottleReason*).
THROTTLE = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
#: A host that says nothing for so long is silent: its samples come every two seconds, hung calls are told after ten.
SILENT_S = 15.0
#: From this utilisation on a GPU counts as busy; hosts are folded with their like.
BUSY_PERCENT = 10
_GIB = 1 << 30
_HEAD = ("HOST", "GPU", "UTIL %", "MEMORY GiB", "TEMP C", "POWER W", "WHAT")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU in one sample. None: NVML does not tell. sick: why somebody should look, "" for a healthy one."""

    index: int
    name: str
    utilization: float | None = None
    memory_used: float | None = None
    memory_total: float | None = None
    temperature: float | None = None
    power_w: float | None = None
    limit_w: float | None = None
    processes: tuple[str, ...] | None = ()
    sick: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """What is known of one host. trouble: why there are no values, "" when there are; at: when it last spoke."""

    name: str
    gpus: tuple[Gpu, ...] = ()
    trouble: str = "connecting"
    unreachable: bool = False
    simulated: bool = False
    at: float = 0.0

    @property
    def sick(self) -> bool:
        """Whether somebody should look."""
        return bool(self.trouble) or any(gpu.sick for gpu in self.gpus)


@dataclass(frozen=True, slots=True)
class _Row:
    cells: tuple[str, ...]
    sick: bool = field(default=False)


def host_of(name: str, line: Mapping[str, Any], at: float) -> Host:
    """Return what a host's line says; whatever has another shape than it should is unknown."""
    hung = clean.line(line.get("hung"), 80)
    trouble = f"{hung} does not return: NVML hangs" if hung else clean.line(line.get("error"), 200)
    given = line.get("gpus")
    gpus = tuple(_gpu(one) for one in given[:64] if isinstance(one, dict)) if isinstance(given, list) else ()
    if not gpus and not trouble:
        trouble = "NVML has no GPU"
    return Host(name, gpus, trouble, simulated=line.get("simulated") is True, at=at)


def _gpu(one: Mapping[str, Any]) -> Gpu:
    power, limit = _number(one.get("power_mw")), _number(one.get("limit_mw"))
    return Gpu(
        index=int(clean.number(one.get("index"))),
        name=clean.line(one.get("name"), 60).removeprefix("NVIDIA ") or "?",
        utilization=_number(one.get("utilization")),
        memory_used=_number(one.get("memory_used")),
        memory_total=_number(one.get("memory_total")),
        temperature=_number(one.get("temperature")),
        power_w=None if power is None else power / 1000,
        limit_w=None if limit is None else limit / 1000,
        processes=_processes(one.get("processes")),
        sick=_sick(one),
    )


def _sick(one: Mapping[str, Any]) -> str:
    lost = clean.line(one.get("lost"), 60)
    if lost:
        return f"lost: {lost}"
    bits = one.get("throttle")
    found = [text for bit, text in THROTTLE.items() if isinstance(bits, int) and bits & bit]
    errors = _number(one.get("uncorrected"))
    if errors:
        found.insert(0, f"{errors:.0f} uncorrected ECC errors")
    return ", ".join(found)


def _processes(given: object) -> tuple[str, ...] | None:
    if not isinstance(given, list):
        return None
    return tuple(
        f"{clean.line(p.get('name'), 20) or '?'}({clean.number(p.get('pid')):.0f})"
        for p in given[:16]
        if isinstance(p, dict)
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def render(hosts: Sequence[Host], now: float, ink: Ink, width: int, height: int | None = None) -> str:
    """Return the table: as many lines as there are, at most *height* when that is given."""
    told = [_aged(host, now) for host in hosts]
    rows = _rows(told, None if height is None else max(1, height - 3))
    wide = [max(len(cells[at]) for cells in (_HEAD, *(row.cells for row in rows))) for at in range(len(_HEAD))]
    lines = [summary(told), ink("bold", _line(_HEAD, wide, width))]
    shown = rows if height is None else rows[: height - 3]
    lines += [
        ink("fail", _line(row.cells, wide, width)) if row.sick else _line(row.cells, wide, width) for row in shown
    ]
    if len(shown) < len(rows):
        lines.append(ink("dim", f"... and {plural(len(rows) - len(shown), 'row')} more: a higher window, or --limit"))
    return "\n".join(lines)


def _aged(host: Host, now: float) -> Host:
    if host.trouble or now - host.at <= SILENT_S:
        return host
    return Host(host.name, (), f"silent for {now - host.at:.0f} s", simulated=host.simulated, at=host.at)


def summary(hosts: Sequence[Host]) -> str:
    """Return the first line: how many there are, how busy, what is wrong."""
    gpus = [gpu for host in hosts for gpu in host.gpus]
    rates = [gpu.utilization for gpu in gpus if gpu.utilization is not None]
    watts = [gpu.power_w for gpu in gpus if gpu.power_w is not None]
    parts = [plural(len(hosts), "host"), plural(len(gpus), "GPU")]
    if rates:
        parts.append(f"{sum(rates) / len(rates):.0f} % used on average")
    if watts:
        parts.append(f"{sum(watts) / 1000:.1f} kW")
    sick = sum(bool(gpu.sick) for gpu in gpus)
    parts += [f"{plural(sick, 'sick GPU')}"] if sick else []
    silent = sum(bool(host.trouble) for host in hosts)
    parts += [f"{plural(silent, 'host')} without values"] if silent else []
    doubles = sum(host.simulated for host in hosts)
    return ("SIMULATED GPUs on " + plural(doubles, "host") + "   " if doubles else "") + ", ".join(parts)


def _rows(hosts: Sequence[Host], height: int | None) -> list[_Row]:
    """Return one row per GPU where that fits, else one per host, else one for all that are alike; sick ones first."""
    bad = [host for host in hosts if host.sick]
    good = [host for host in hosts if not host.sick]
    first = _troubles(bad) + [row for host in bad for row in _gpu_rows(host) if not host.trouble]
    each = [row for host in good for row in _gpu_rows(host)]
    room = None if height is None else height - len(first)
    if room is None or len(each) <= room:
        return first + each
    own = [_folded([host]) for host in good]
    if len(own) <= room:
        return first + own
    alike: dict[tuple[Any, ...], list[Host]] = {}
    for host in good:
        alike.setdefault(_likeness(host), []).append(host)
    return first + [_folded(group) for group in alike.values()]


def _troubles(hosts: Iterable[Host]) -> list[_Row]:
    """Return a row for each kind of trouble, with all the hosts that have it."""
    by_trouble: dict[str, list[str]] = {}
    for host in hosts:
        if host.trouble:
            by_trouble.setdefault(host.trouble, []).append(host.name)
    return [_Row((fold(names), "", "", "", "", "", why), True) for why, names in by_trouble.items()]


def _gpu_rows(host: Host) -> list[_Row]:
    rows = []
    for gpu in sorted(host.gpus, key=lambda g: (not g.sick, g.index)):
        running = "processes unknown" if gpu.processes is None else " ".join(gpu.processes)
        what = "  ".join(part for part in (gpu.sick, gpu.name, running) if part)
        power = _slash(gpu.power_w, gpu.limit_w)
        memory = _slash(_gib(gpu.memory_used), _gib(gpu.memory_total), 1)
        cells = (host.name, str(gpu.index), _shown(gpu.utilization), memory, _shown(gpu.temperature), power, what)
        rows.append(_Row(cells, bool(gpu.sick)))
    return rows


def _likeness(host: Host) -> tuple[Any, ...]:
    busy = sum((gpu.utilization or 0) >= BUSY_PERCENT for gpu in host.gpus)
    return (tuple(sorted({gpu.name for gpu in host.gpus})), len(host.gpus), busy, host.simulated)


def _folded(hosts: Sequence[Host]) -> _Row:
    """Return one row for hosts that are alike: from the least to the most that one of their GPUs has."""
    gpus = [gpu for host in hosts for gpu in host.gpus]
    jobs = sum(len(gpu.processes or ()) for gpu in gpus)
    what = f"{', '.join(sorted({gpu.name for gpu in gpus}))}  {jobs} process{'' if jobs == 1 else 'es'}"
    return _Row(
        (
            fold(host.name for host in hosts),
            f"{len(hosts)} x {len(hosts[0].gpus)}" if len(hosts) > 1 else f"all {len(hosts[0].gpus)}",
            _span(gpu.utilization for gpu in gpus),
            _span((_gib(gpu.memory_used) for gpu in gpus), 1),
            _span(gpu.temperature for gpu in gpus),
            _span(gpu.power_w for gpu in gpus),
            what,
        )
    )


def _span(values: Iterable[float | None], digits: int = 0) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "?"
    low, high = f"{min(known):.{digits}f}", f"{max(known):.{digits}f}"
    return low if low == high else f"{low}-{high}"


def _shown(value: float | None, digits: int = 0) -> str:
    return "?" if value is None else f"{value:.{digits}f}"


def _slash(value: float | None, most: float | None, digits: int = 0) -> str:
    return _shown(value, digits) + ("" if most is None else f" / {most:.0f}")


def _gib(value: float | None) -> float | None:
    return None if value is None else value / _GIB


def _line(cells: Sequence[str], wide: Sequence[int], width: int) -> str:
    last = len(cells) - 1
    words = [
        cell if at == last else cell.ljust(wide[at]) if at == 0 else cell.rjust(wide[at])
        for at, cell in enumerate(cells)
    ]
    return "  ".join(words).rstrip()[:width]
