"""Memory: all of it there, enough free, error counters, swap, huge pages."""

from __future__ import annotations

from typing import NamedTuple

from gpuprov.proof.check import check
from gpuprov.proof.checks.host_files import (
    Absent,
    Untold,
    host_part,
    listed,
    meminfo,
    names,
    number,
    set_of,
    text,
    uptime_s,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

GIB = float(1 << 30)
_NODES = "/sys/devices/system/node/"
_EDAC = "/sys/devices/system/edac/mc/"
#: A DIMM of 32 is 3.1 %; what the kernel keeps for itself is not counted where sysfs tells of blocks.
TOTAL_TOLERANCE = 0.03
AVAILABLE_WARN = 0.05
SWAP_WARN_BYTES = 1 << 30
#: With so much memory available, what was swapped out is what lies idle.
SWAP_IDLE_FREE = 0.2
#: Corrected errors are what ECC is for; so many a day is a DIMM that will not live long.
CORRECTED_PER_DAY_WARN = 100.0
_HUGE_SHARE_WARN = 0.5


class Total(NamedTuple):
    """installed: by sysfs' blocks of memory where it has them, else what the kernel has left after its own."""

    installed: int
    by_blocks: bool
    expected_gb: float | None


def read_total(context: Context) -> Total:
    """Return how much memory the host has. GPUs' memory that is a NUMA node of its own is not counted."""
    total = meminfo(context)["MemTotal"]
    expected = context.expect.get("memory_gb")
    size = text(context, "/sys/devices/system/memory/block_size_bytes")
    with_cpus = text(context, _NODES + "has_cpu")
    if not size or not with_cpus:
        return Total(total, False, expected)
    blocks = 0
    for node in set_of(with_cpus):
        blocks += sum(n[:6] == "memory" and n[6:].isdigit() for n in names(context, f"{_NODES}node{node}"))
    try:
        installed = blocks * int(size, 16)
    except ValueError:
        raise Untold(f"block_size_bytes is no number: {size[:40]!r}") from None
    return Total(installed, True, expected) if blocks else Total(total, False, expected)


def judge_total(found: Total) -> list[Message]:
    """Judge the amount of memory against what the inventory expects. Pure."""
    name, measured = "memory.total", round(found.installed / GIB, 1)
    how = "" if found.by_blocks else ", less what the kernel keeps for itself"
    if found.expected_gb is None:
        reason = f"{measured:g} GiB of memory{how}; the inventory does not say how much there should be"
        return [check(name, "pass", reason, measured=measured, unit="GiB")]
    off = measured / found.expected_gb - 1.0
    expected = f"{found.expected_gb:g} +- {TOTAL_TOLERANCE:.0%}"
    if off < -TOTAL_TOLERANCE:
        reason = f"{measured:g} GiB of memory{how}, {-off:.1%} less than the inventory expects: is a DIMM missing?"
        return [check(name, "fail", reason, measured, expected, "GiB", action="isolate")]
    if off > TOTAL_TOLERANCE:
        reason = f"{measured:g} GiB of memory{how}, {off:.1%} more than the inventory expects: is the inventory right?"
        return [check(name, "warn", reason, measured, expected, "GiB")]
    return [check(name, "pass", f"{measured:g} GiB of memory{how}, as expected", measured, expected, "GiB")]


def judge_available(found: dict[str, int]) -> list[Message]:
    """Judge how much memory a new job could have. Pure."""
    name = "memory.available"
    if "MemAvailable" not in found:
        return [check(name, "unknown", "/proc/meminfo has no MemAvailable")]
    share = found["MemAvailable"] / max(found["MemTotal"], 1)
    verdict = "pass" if share >= AVAILABLE_WARN else "warn"
    reason = f"{found['MemAvailable'] / GIB:.1f} of {found['MemTotal'] / GIB:.1f} GiB of memory are available"
    reason += "" if verdict == "pass" else ": the next allocation may kill a process"
    action = "none" if verdict == "pass" else "monitor"
    return [check(name, verdict, reason, round(share * 100, 1), f">= {AVAILABLE_WARN:.0%}", "%", action=action)]


def judge_swap(found: dict[str, int]) -> list[Message]:
    """Judge whether memory was moved to a disk. Pure."""
    name, total = "memory.swap", found.get("SwapTotal")
    if total is None or "SwapFree" not in found:
        return [check(name, "skip", "this kernel has no swap")]
    used = total - found["SwapFree"]
    much, free = used > SWAP_WARN_BYTES, found.get("MemAvailable", 0) / max(found["MemTotal"], 1)
    verdict = "warn" if much and free < SWAP_IDLE_FREE else "pass"
    reason = f"{used / GIB:.1f} of {total / GIB:.1f} GiB swap are in use" if total else "there is no swap"
    reason += f" while {free:.0%} of the memory are available" if much else ""
    reason += ": jobs that need those pages wait for a disk" if verdict == "warn" else ""
    reason += ": pages that nobody has needed for long" if much and verdict == "pass" else ""
    action = "none" if verdict == "pass" else "monitor"
    return [check(name, verdict, reason, round(used / GIB, 2), "<= 1", "GiB", action=action)]


class Edac(NamedTuple):
    """Errors that the memory controllers counted since the start, and the modules that had some."""

    corrected: int
    uncorrected: int
    controllers: int
    modules: tuple[str, ...]
    uptime_s: float


def edac_counters(context: Context) -> dict[str, int]:
    """Return "mc0 ce" -> count: the snapshot that `differences` compares."""
    found = {}
    for controller in _controllers(context):
        for kind in ("ce", "ue"):
            count = number(context, f"{_EDAC}{controller}/{kind}_count")
            if count is not None:
                found[f"{controller} {kind}"] = count
    return found


def _controllers(context: Context) -> list[str]:
    return [name for name in names(context, _EDAC) if name[:2] == "mc" and name[2:].isdigit()]


def read_edac(context: Context) -> Edac:
    """Return the error counters of the memory controllers."""
    counts = edac_counters(context)
    if not counts:
        raise Absent("no memory controller reports errors to the kernel (EDAC): a virtual machine, or no driver for it")
    sums = {kind: sum(v for k, v in counts.items() if k.endswith(kind)) for kind in (" ce", " ue")}
    controllers = _controllers(context)
    modules = tuple(line for controller in controllers for line in _modules(context, controller))
    return Edac(sums[" ce"], sums[" ue"], len(controllers), modules, uptime_s(context))


def _modules(context: Context, controller: str) -> list[str]:
    """Return a line for each memory module that had errors."""
    lines = []
    for name in names(context, _EDAC + controller):
        if name.startswith(("dimm", "rank")) and name[4:].isdigit():
            top = f"{_EDAC}{controller}/{name}/"
            ce, ue = (number(context, f"{top}dimm_{kind}_count") or 0 for kind in ("ce", "ue"))
            if ce or ue:
                label = text(context, top + "dimm_label") or name
                lines.append(f"{label} ({controller}/{name}): {ce} corrected, {ue} uncorrected")
    return lines


def judge_edac(found: Edac) -> list[Message]:
    """Judge the error counters: uncorrected at once, corrected by their rate. Pure."""
    name, more = "memory.errors", {"evidence": list(found.modules[:8]), "corrected": found.corrected}
    where = f": {listed(found.modules, 2)}" if found.modules else ""
    if found.uncorrected:
        reason = f"{found.uncorrected} memory errors since the start could not be corrected{where}"
        return [check(name, "fail", reason, found.uncorrected, 0, "uncorrected errors", "", "isolate", more)]
    per_day = found.corrected / max(found.uptime_s / 86400.0, 1.0)
    verdict = "warn" if per_day >= CORRECTED_PER_DAY_WARN else "pass"
    reason = f"{found.corrected} corrected memory errors since the start, {per_day:.1f} a day, none uncorrected{where}"
    action = "none" if verdict == "pass" else "monitor"
    expected = f"< {CORRECTED_PER_DAY_WARN:g} a day"
    return [check(name, verdict, reason, round(per_day, 2), expected, "corrected errors/day", "", action, more)]


snapshot = edac_counters


def differences(before: dict[str, int], after: dict[str, int]) -> list[Message]:
    """Judge what the memory controllers counted during a run. Pure."""
    grown = {key: after[key] - before[key] for key in before if after.get(key, 0) > before[key]}
    if not grown:
        return []
    lines = [f"{key}: {before[key]} -> {after[key]}" for key in sorted(grown)]
    bad = any(key.endswith(" ue") for key in grown)
    reason = f"memory errors were counted during this run: {listed(lines, 2)}"
    verdict, action = ("fail", "isolate") if bad else ("warn", "monitor")
    return [
        check(
            "memory.errors-now", verdict, reason, sum(grown.values()), 0, "errors", "", action, {"evidence": lines[:8]}
        )
    ]


def judge_huge_pages(found: dict[str, int]) -> list[Message]:
    """Judge the reserve of huge pages: what lies idle there, nobody else can have. Pure."""
    name, count = "memory.huge-pages", found.get("HugePages_Total")
    if count is None:
        return [check(name, "skip", "this kernel has no huge pages")]
    idle = found.get("HugePages_Free", 0) * found.get("Hugepagesize", 0)
    share = idle / max(found["MemTotal"], 1)
    if share <= _HUGE_SHARE_WARN:
        reserved = count * found.get("Hugepagesize", 0) / GIB
        return [check(name, "pass", f"{reserved:.1f} GiB are reserved as huge pages", round(reserved, 2), unit="GiB")]
    reason = (
        f"{idle / GIB:.1f} GiB, {share:.0%} of the memory, are huge pages that nobody uses and nobody else can have"
    )
    return [check(name, "warn", reason, round(share * 100, 1), "<= 50", "%", action="monitor")]


def read_transparent(context: Context) -> str:
    """Return the mode of transparent huge pages."""
    found = text(context, "/sys/kernel/mm/transparent_hugepage/enabled")
    if found is None:
        raise Absent("this kernel has no transparent huge pages")
    chosen = [word[1:-1] for word in found.split() if word[:1] == "[" and word[-1:] == "]"]
    if len(chosen) != 1:
        raise Untold(f"transparent_hugepage/enabled is of another form: {found[:40]!r}")
    return chosen[0]


def judge_transparent(mode: str) -> list[Message]:
    """Tell the mode; it is compared between hosts, not judged. Pure."""
    return [check("memory.transparent-huge-pages", "pass", f"transparent huge pages: {mode}", measured=mode)]


PARTS = (
    host_part("memory.total", read_total, judge_total, _NODES + "node*/memory*, /proc/meminfo"),
    host_part("memory.available", meminfo, judge_available, "/proc/meminfo"),
    host_part("memory.swap", meminfo, judge_swap, "/proc/meminfo"),
    host_part("memory.errors", read_edac, judge_edac, _EDAC + "mc*/{ce,ue}_count, dimm*"),
    host_part("memory.huge-pages", meminfo, judge_huge_pages, "/proc/meminfo"),
    host_part(
        "memory.transparent-huge-pages", read_transparent, judge_transparent, "/sys/kernel/mm/transparent_hugepage"
    ),
)
