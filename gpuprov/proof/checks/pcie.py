"""The PCIe link of each GPU: width, generation (under load: it rests when the GPU does), replays, AER."""

from __future__ import annotations

import math
import os
import re

from gpuprov.proof.checks import thermal
from gpuprov.proof.checks.each import Found, Gpu, each, minutes_up, virtual
from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

#: Replays in a minute, on one lane, that a bit error rate of 1e-12 gives, by generation.
REPLAYS_PER_MINUTE = {1: 0.15, 2: 0.3, 3: 0.48, 4: 0.96, 5: 1.92, 6: 3.84}


#: More lanes than this are a virtual port's, and no slot's.
_MOST_LANES = 16


def allowed(generation: int, lanes: int, minutes: float = 1.0) -> int | None:
    """Return how many replays a healthy link may have in *minutes*, None for a generation without a number. Pure."""
    rate = REPLAYS_PER_MINUTE.get(generation)
    return None if rate is None else max(1, math.ceil(rate * lanes * max(minutes, 1.0)))


def width(gpu: Gpu, context: Context) -> Found:
    """The link has all the lanes that this GPU can have in this slot."""
    lanes, most = gpu["pcie.width"], gpu["pcie.width_max"]
    wanted = context.expect.get("pcie_width")
    found = _enough(gpu, context, (lanes, most, wanted), f"{lanes} lanes", "max_link_width")
    if found:
        return found
    reason = f"has a PCIe link of {lanes} lanes, {wanted or most} are possible: seat it again, look at riser and slot"
    reason += "" if wanted else " (pcie_width in the inventory, if it is built so)"
    return Found("fail", lanes, reason, "isolate", wanted or most)


def generation(gpu: Gpu, context: Context) -> Found:
    """The link has its full speed, or rests because the GPU does."""
    found = generation_under_load(gpu, context)
    if found.verdict != "fail":
        return found
    busy = (gpu.get("utilization.gpu") or 0) > 0 and gpu.get("pstate") == 0
    if busy:
        return found
    most = found.expected
    reason = f"the link rests at a lower generation than {most} while the GPU does: judged under load"
    return Found("skip", found.measured, reason)


def generation_under_load(gpu: Gpu, context: Context) -> Found:
    """The link has its full speed."""
    now, most = gpu["pcie.generation"], gpu["pcie.generation_max"]
    wanted = context.expect.get("pcie_generation")
    found = _enough(gpu, context, (now, most, wanted), f"generation {now}", "max_link_speed")
    return found or _slow(now, wanted or most)


def _enough(gpu: Gpu, context: Context, numbers: tuple[int, int, int | None], said: str, limit: str) -> Found | None:
    """Return what a link comes to that is as good as it has to be, None for one that should be better.

    numbers: what it is, what the GPU can, what the inventory wants; limit: the slot's file with what that can.
    """
    now, most, wanted = numbers
    if now >= (wanted or most):
        return Found("pass", now, expected=wanted or most)
    if wanted:
        return None
    why = _not_seen(gpu, context)
    if why:
        return Found("skip", now, f"{said} of {most}: {why}")
    slot = slot_of(context, gpu.address, limit)
    if slot is not None and 0 < slot <= now:
        return Found("pass", now, f"{gpu.device} has {said}, its slot has no more", expected=slot)
    return None


#: GPUs that a CPU of NVIDIA's reaches by its own link: their PCIe carries next to nothing, and may be narrow.
_WITH_CPU = re.compile(r"\bG[HB]\d+")
#: What the kernel says of a port's highest speed, by generation.
_SPEEDS = {"2.5": 1, "5": 2, "5.0": 2, "8": 3, "8.0": 3, "16.0": 4, "32.0": 5, "64.0": 6}


def _not_seen(gpu: Gpu, context: Context) -> str:
    """Return why it cannot be told whether this GPU's link should be better, or need not, "" where it can."""
    if _WITH_CPU.search(str(gpu.get("name", ""))):
        return "the CPU reaches this GPU by NVLink-C2C, little goes over its PCIe link"
    if virtual(context):
        return "what its slot has is not seen from a virtual machine, only from its host"
    return ""


def slot_of(context: Context, address: str, what: str) -> int | None:
    """Return the most that the port above a GPU can: lanes, or generation; None where no port is to be seen."""
    device = os.path.realpath(context.path("sys/bus/pci/devices", address)) if address else ""
    try:
        with open(os.path.join(os.path.dirname(device), what), encoding="ascii", errors="replace") as f:
            word = f.read().split()[0]
    except (OSError, IndexError):
        return None
    if what == "max_link_speed":
        return _SPEEDS.get(word)
    return int(word) if word.isdigit() and 0 < int(word) <= _MOST_LANES else None


def _slow(now: int, most: int) -> Found:
    reason = (
        f"has a PCIe link of generation {now} under load, {most} is possible: it transfers at a fraction of its speed "
        "(pcie_generation in the inventory, if the firmware was told so)"
    )
    return Found("fail", now, reason, "isolate", most)


def replays(gpu: Gpu, context: Context) -> Found:
    """The link does not replay more often than noise explains, on average since the host is up."""
    count = gpu["pcie.replays"]
    up = minutes_up(context)
    most = allowed(gpu["pcie.generation_max"], gpu["pcie.width"], up or 1.0)
    if not count:
        return Found("pass", 0, expected=None if most is None else f"<= {most}")
    if up is None:
        return Found("unknown", count, f"has {count} PCIe replays, and /proc/uptime does not say in how long")
    if most is None:
        return Found("unknown", count, f"no rate of replays is known for PCIe generation {gpu['pcie.generation_max']}")
    if count > most:
        reason = f"has {count} PCIe replays in the {up:.0f} minutes that the host is up, noise explains {most}"
        return Found("warn", count, reason, "monitor", f"<= {most}")
    return Found("pass", count, expected=f"<= {most}")


#: What a device answers to whoever asks for what it does not have, as firmware and kernel do at the start: no fault.
_PROBED = ("UnsupReq",)
#: The kernel's error counters of a PCI device, worst first: file, verdict, action.
AER = (
    ("aer_dev_fatal", "fail", "isolate"),
    ("aer_dev_nonfatal", "warn", "monitor"),
)


def aer(gpu: Gpu, context: Context) -> Found:
    """The kernel has counted no PCIe error of this GPU, but for as many corrected ones as noise explains."""
    names = (*(row[0] for row in AER), "aer_dev_correctable")
    counts = {name: aer_total(context, gpu.address, name, _PROBED) for name in names}
    if not gpu.address or all(count is None for count in counts.values()):
        return Found("skip", None, "the kernel keeps no PCIe error counters (AER) of it, as in a virtual machine")
    told = [f"{name} {count}" for name, count in counts.items()]
    for name, verdict, action in AER:
        if counts[name]:
            words = "uncorrected fatal" if name == "aer_dev_fatal" else "uncorrected"
            return Found(verdict, counts[name], f"had {counts[name]} {words} PCIe errors (AER)", action, 0, told)
    count = counts["aer_dev_correctable"] or 0
    most = allowed(gpu["pcie.generation_max"], gpu["pcie.width"], minutes_up(context) or 1.0)
    if most is not None and count > most:
        reason = f"had {count} corrected PCIe errors (AER) since the host is up, noise explains {most}"
        return Found("warn", count, reason, "monitor", f"<= {most}", told)
    return Found("pass", count, expected=None if most is None else f"<= {most}")


def aer_total(context: Context, address: str, name: str, but: tuple[str, ...] = ()) -> int | None:
    """Return the total in one of the kernel's files of error counters, without those of *but*; None without a file."""
    try:
        with open(context.path("sys/bus/pci/devices", address, name), encoding="ascii", errors="replace") as f:
            counts = [line.split() for line in f]
    except OSError:
        return None
    numbers = {words[0]: int(words[1]) for words in counts if len(words) == 2 and words[1].isdigit()}
    total = [count for name, count in numbers.items() if name.startswith("TOTAL_")]
    if total:
        return max(0, total[0] - sum(numbers.get(one, 0) for one in but))
    return sum(count for one, count in numbers.items() if one not in but) if numbers else None


def under_load(context: Context, reading: Message) -> list[Message]:
    """Judge a reading that was taken while all GPUs had work: PCIe generation and width, throttling, temperature."""
    runs = (run_generation_under_load, each("pcie.width", width, "all lanes under load", "lanes"))
    return [item for run in (*runs, thermal.run_throttle, thermal.run_core) for item in run(context, reading)]


run_generation_under_load = each("pcie.generation", generation_under_load, "full PCIe generation under load")


PARTS = (
    Part("pcie.width", "quick", "reading", each("pcie.width", width, "all lanes", "lanes"), "NVML: PCIe width"),
    Part(
        "pcie.generation",
        "quick",
        "reading",
        each("pcie.generation", generation, "full PCIe generation"),
        "NVML: PCIe generation, performance state",
    ),
    Part(
        "pcie.replays",
        "quick",
        "reading",
        each("pcie.replays", replays, "no more PCIe replays than noise explains"),
        "NVML: replay counter, /proc/uptime",
    ),
    Part(
        "pcie.aer",
        "quick",
        "reading",
        each("pcie.aer", aer, "no PCIe errors (AER) that noise does not explain"),
        "sysfs: aer_dev_*, /proc/uptime",
    ),
)
