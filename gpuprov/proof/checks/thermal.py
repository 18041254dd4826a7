"""Why clocks are held down, bit by bit, and how far temperatures are from where they will be. Pure."""

from __future__ import annotations

import re

from gpuprov.proof.checks.each import Found, Gpu, each
from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.parts import Context

#: NVML's reasons for lower clocks: bit, name, verdict, action. Idle and the power cap are what a healthy GPU says.
REASONS = (
    (0x1, "idle", "pass", "none"),
    (0x2, "application clocks", "pass", "none"),
    (0x4, "software power cap", "pass", "none"),
    (0x8, "hardware slowdown", "fail", "isolate"),
    (0x10, "sync boost", "pass", "none"),
    (0x20, "software thermal slowdown", "warn", "monitor"),
    (0x40, "hardware thermal slowdown", "fail", "isolate"),
    (0x80, "hardware power brake", "fail", "isolate"),
    (0x100, "display clocks", "pass", "none"),
    (0x200, "board limit", "warn", "monitor"),
    (0x400, "reliability limit", "pass", "none"),
)
_KNOWN = sum(bit for bit, _, _, _ in REASONS)
#: Degrees below the slowdown threshold.
FAIL_MARGIN_C = 2
WARN_MARGIN_C = 8
#: Of cards with fans of their own, which let them warm up to a target some degrees below the threshold.
DESKTOP_MARGIN_C = 4
_DESKTOP = re.compile(r"(?i)geforce|titan|quadro|\brtx\b")
#: Memory may be as hot as its limit says, and is close to it in hard work.
MEMORY_MARGINS_C = (0, 5)


def reasons(mask: int) -> list[tuple[str, str, str]]:
    """Return name, verdict and action of each bit that is set; bits that nobody knows yet are shown, not dropped."""
    found = [(name, verdict, action) for bit, name, verdict, action in REASONS if mask & bit]
    unknown = mask & ~_KNOWN
    while unknown:
        bit = unknown & -unknown
        found.append((f"a reason unknown to gpuprov ({bit:#x})", "warn", "monitor"))
        unknown ^= bit
    return found


def throttle(gpu: Gpu, context: Context) -> Found:  # noqa: ARG001 - one shape for all judges
    """Nothing but idleness, wishes and the power cap holds the clocks down."""
    mask = gpu["throttle"]
    found = reasons(mask)
    told = ", ".join(name for name, _, _ in found) or "none"
    for verdict in ("fail", "warn"):
        bad = [(name, action) for name, its, action in found if its == verdict]
        if bad:
            names = " and ".join(name for name, _ in bad)
            return Found(verdict, told, f"runs slower than it could: {names}", bad[0][1], expected="no slowdown")
    return Found("pass", told)


def core(gpu: Gpu, context: Context) -> Found:  # noqa: ARG001 - one shape for all judges
    """The GPU is well below the temperature at which it slows itself down.

    GPUs from Ada on may tell no threshold, only how many degrees are left, and at how many they slow down.
    """
    now = gpu["temperature"]
    limit, left, at = (gpu.get(f"temperature.{key}") for key in ("slowdown", "margin", "slowdown_tlimit"))
    if limit is None and left is not None and at is not None:
        limit = now + left - at
    limit = gpu["temperature.slowdown"] if limit is None else limit
    wide = DESKTOP_MARGIN_C if _DESKTOP.search(str(gpu.get("name", ""))) else WARN_MARGIN_C
    return _margin(now, limit, "slows itself down", (FAIL_MARGIN_C, wide))


def memory(gpu: Gpu, context: Context) -> Found:  # noqa: ARG001 - one shape for all judges
    """The memory is well below its highest temperature."""
    limit = gpu["temperature.memory_max"]
    now = gpu["temperature.memory"]
    if not now:
        return Found("skip", None, "this model does not measure the temperature of its memory (0 C)")
    return _margin(now, limit, "slows its memory down", MEMORY_MARGINS_C)


def _margin(now: int, limit: int, what: str, margins: tuple[int, int]) -> Found:
    margin, (fails, warns) = limit - now, margins
    expected = f"< {limit - warns}"
    reason = f"is at {now} C and {what} at {limit} C"
    if margin <= fails:
        return Found("fail", now, f"{reason}: look at fans, air and heat sink", "isolate", expected)
    if margin <= warns:
        return Found("warn", now, reason, "monitor", expected)
    return Found("pass", now, expected=expected)


run_throttle = each("gpu.throttle", throttle, "nothing slows them down")
run_core = each("gpu.temperature", core, "well below the slowdown threshold", "C")
run_memory = each("gpu.memory_temperature", memory, "memory below its limit", "C")

PARTS = (
    Part("gpu.throttle", "quick", "reading", run_throttle, "NVML: reasons for lower clocks"),
    Part("gpu.temperature", "quick", "reading", run_core, "NVML: temperature, slowdown threshold"),
    Part("gpu.memory_temperature", "quick", "reading", run_memory, "NVML: memory temperature, its limit"),
)
