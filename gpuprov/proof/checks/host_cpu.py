"""Processors: all on line, with the same microcode, at full clock, not throttled."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from gpuprov.proof.check import check
from gpuprov.proof.checks.host_files import (
    Absent,
    Untold,
    host_part,
    listed,
    names,
    needed,
    number,
    set_of,
    some,
    text,
    uptime_s,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

_CPUS = "/sys/devices/system/cpu/"
#: Drivers under which the governor powersave leaves the clock to the processor, which raises it when it has work.
_BY_ITSELF = ("intel_pstate", "amd-pstate-epp", "amd_pstate_epp")
_HWP = "powersave (HWP)"
#: Throttling now and then is how a package stays cool; this often it costs time.
THROTTLES_PER_HOUR_WARN = 10.0


class Online(NamedTuple):
    """Numbers of processors. siblings_off: hyper-threads were turned off on purpose."""

    present: int
    online: int
    offline: tuple[int, ...]
    siblings_off: bool
    expected: int | None


def read_online(context: Context) -> Online:
    """Return which processors are there and which of them work."""
    present, online = (set_of(needed(context, _CPUS + name)) for name in ("present", "online"))
    smt = text(context, _CPUS + "smt/control") or ""
    off = tuple(sorted(present - online))
    return Online(len(present), len(online), off, smt in ("off", "forceoff"), context.expect.get("cpus"))


def judge_online(found: Online) -> list[Message]:
    """Judge the number of processors on line. Pure."""
    name, wanted = "cpu.online", found.expected
    if wanted is not None and found.online < wanted:
        reason = f"{found.online} processors are on line, the inventory expects {wanted}"
        return [check(name, "fail", reason, found.online, wanted, "processors", action="isolate")]
    if found.offline and not found.siblings_off and wanted is None:
        reason = f"{some(len(found.offline), 'processor')} of {found.present} off line: {listed(found.offline)}"
        return [check(name, "warn", reason, found.online, found.present, "processors", action="monitor")]
    what = "hyper-threads were turned off" if found.siblings_off else "more are off line, which the inventory counts on"
    off = f"; {len(found.offline)} {what}" if found.offline else ""
    reason = f"{some(found.online, 'processor')} on line{off}"
    return [check(name, "pass", reason, found.online, found.present if wanted is None else wanted, "processors")]


def read_microcode(context: Context) -> dict[str, str]:
    """Return processor -> version of its microcode."""
    cpu, found = "", {}
    for line in needed(context, "/proc/cpuinfo").splitlines():
        key, _, value = (piece.strip() for piece in line.partition(":"))
        if key == "processor":
            cpu = value
        elif key == "microcode":
            found[cpu] = value
    if not found:
        raise Absent("/proc/cpuinfo tells no microcode: a virtual machine, or no x86 processor")
    return found


def judge_microcode(found: dict[str, str]) -> list[Message]:
    """Judge whether all processors have the same microcode. Pure."""
    counts = Counter(found.values())
    common = counts.most_common(1)[0][0]
    odd = [cpu for cpu, version in found.items() if version != common]
    if not odd:
        return [check("cpu.microcode", "pass", f"all {len(found)} processors have microcode {common}", common)]
    more = {"evidence": [f"{version}: {some(count, 'processor')}" for version, count in counts.most_common(8)]}
    reason = f"processors differ in microcode: {listed(odd)} have not {common}; an update was loaded in part"
    return [check("cpu.microcode", "warn", reason, sorted(counts), common, action="reboot", data=more)]


def read_governor(context: Context) -> Counter[str]:
    """Return how many processors have which governor: "powersave (HWP)" where the processor sets its clock itself."""
    found: Counter[str] = Counter()
    for cpu in sorted(set_of(needed(context, _CPUS + "online"))):
        top = f"{_CPUS}cpu{cpu}/cpufreq/"
        governor = text(context, top + "scaling_governor")
        if governor == "powersave" and (text(context, top + "scaling_driver") or "") in _BY_ITSELF:
            bias = text(context, top + "energy_performance_preference") or "default"
            governor = "powersave (power)" if bias == "power" else _HWP
        if governor is not None:
            found[governor] += 1
    if not found:
        raise Absent("no cpufreq in /sys: the firmware or the hypervisor sets the processors' clock")
    return found


def judge_governor(found: Counter[str]) -> list[Message]:
    """Judge the governors. Pure."""
    name, kinds = "cpu.governor", sorted(found)
    if kinds == ["performance"]:
        return [check(name, "pass", "all processors have the governor performance", "performance", "performance")]
    counts = ", ".join(f"{governor} on {count}" for governor, count in sorted(found.items()))
    if kinds == [_HWP]:
        reason = (
            "the processors set their clocks themselves (HWP or CPPC; powersave is the name of that), up to the highest"
        )
        return [check(name, "pass", f"{reason}; performance is steadier", counts, "performance")]
    reason = f"the processors' clock is not held up: governor {counts}; launches of kernels wait for it"
    return [check(name, "warn", reason, counts, "performance", action="monitor", data={"evidence": [counts]})]


class Throttled(NamedTuple):
    """Throttle events by processor since the start: the worst processor's, of its core and its package."""

    core: int
    package: int
    uptime_s: float


def read_throttled(context: Context) -> Throttled:
    """Return the largest throttle counters."""
    counts = throttle_counters(context)
    if not counts:
        raise Absent("no thermal_throttle in /sys: a virtual machine, or a processor that does not count")
    core, package = (max(v for k, v in counts.items() if k.startswith(kind)) for kind in ("core", "package"))
    return Throttled(core, package, uptime_s(context))


def throttle_counters(context: Context) -> dict[str, int]:
    """Return "core cpu0" and "package cpu0" -> count: the snapshot that `differences` compares."""
    found = {}
    for cpu in names(context, _CPUS):
        if cpu[:3] == "cpu" and cpu[3:].isdigit():
            for kind in ("core", "package"):
                count = number(context, f"{_CPUS}{cpu}/thermal_throttle/{kind}_throttle_count")
                if count is not None:
                    found[f"{kind} {cpu}"] = count
    if found and len({key.split()[0] for key in found}) < 2:
        raise Untold("thermal_throttle tells of cores or of packages only")
    return found


def judge_throttled(found: Throttled) -> list[Message]:
    """Judge throttling by its rate since the start. Pure."""
    worst = max(found.core, found.package)
    per_hour = worst / max(found.uptime_s / 3600.0, 1.0)
    verdict = "warn" if per_hour >= THROTTLES_PER_HOUR_WARN else "pass"
    reason = f"a processor was throttled by heat {worst} times since the start, {per_hour:.1f} an hour"
    more = {"evidence": [f"core {found.core}, package {found.package}"], "kind": "counter"}
    action = "none" if verdict == "pass" else "monitor"
    expected = f"< {THROTTLES_PER_HOUR_WARN:g}"
    return [check("cpu.throttled", verdict, reason, round(per_hour, 2), expected, "events/h", "", action, more)]


snapshot = throttle_counters


def differences(before: dict[str, int], after: dict[str, int]) -> list[Message]:
    """Judge what was counted during a run: heat under our own load is the host's cooling. Pure."""
    grown = {key: after[key] - before[key] for key in before if after.get(key, 0) > before[key]}
    if not grown:
        return []
    lines = [f"{key}: {before[key]} -> {after[key]}" for key in sorted(grown)]
    reason = f"processors were throttled by heat during this run: {listed(lines, 2)}"
    return [
        check(
            "cpu.throttled-now",
            "warn",
            reason,
            sum(grown.values()),
            0,
            "events",
            "",
            "monitor",
            {"evidence": lines[:8]},
        )
    ]


PARTS = (
    host_part("cpu.online", read_online, judge_online, _CPUS + "{present,online}"),
    host_part("cpu.microcode", read_microcode, judge_microcode, "/proc/cpuinfo"),
    host_part("cpu.governor", read_governor, judge_governor, _CPUS + "cpu*/cpufreq/scaling_governor"),
    host_part("cpu.throttled", read_throttled, judge_throttled, _CPUS + "cpu*/thermal_throttle/*_throttle_count"),
)
