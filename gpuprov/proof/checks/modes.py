"""How GPUs are set up: persistence, MIG, compute mode, clocks, power limit, and who uses them."""

from __future__ import annotations

import os
import re

from gpuprov.proof.checks.each import CANNOT, Found, Gpu, each
from gpuprov.proof.nvml.reading import HOST_PIDS
from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.check import Message
    from gpuprov.proof.checks.each import Run
    from gpuprov.proof.parts import Context

COMPUTE_MODES = {0: "default", 1: "exclusive_thread", 2: "prohibited", 3: "exclusive_process"}
#: Programs that have GPUs open for others and are no job, by the 15 characters that the kernel keeps of a name:
#: display servers and desktops, NVIDIA's own daemons, those that watch GPUs. The server of MPS is none of them: NVML
#: lists it in place of its clients, which are jobs.
SERVICES = (
    *("Xorg", "X", "Xwayland", "gnome-shell", "gdm-x-session", "gdm-wayland-ses", "gnome-session-b", "sddm"),
    *("kwin_wayland", "kwin_x11", "plasmashell", "lightdm", "weston", "mutter", "cosmic-comp", "sway", "Hyprland"),
    *("nvidia-persiste", "nv-fabricmanage", "nv-hostengine", "dcgm-exporter", "nvsm_core", "gpud"),
)
#: GPUs whose memory is a NUMA node of the host, in which the kernel keeps pages of its own.
_COHERENT = re.compile(r"\bG[HB]\d+")
#: Memory that a GPU without processes may hold: the driver's own, and its page tables.
IDLE_MEMORY_FRACTION = 0.05
_GIB = 1 << 30


def persistence(gpu: Gpu, context: Context) -> Found:  # noqa: ARG001 - one shape for all judges
    """The driver keeps the GPU initialised between jobs."""
    if gpu["persistence"]:
        return Found("pass", "on", expected="on")
    if gpu.get("processes.graphics"):
        return Found("pass", "off", f"{gpu.device} has persistence mode off, and a display server keeps it ready")
    reason = "has persistence mode off: each job waits for its start, and settings are lost between jobs"
    return Found("warn", "off", reason, "none", "on")


def mig(gpu: Gpu, context: Context) -> Found:
    """MIG is on or off as the inventory says, or either ("any"); where it says nothing, off."""
    current, pending = (bool(value) for value in gpu["mig"])
    state = {True: "on", False: "off"}
    wanted = context.expect.get("mig")
    if current != pending:
        reason = f"has MIG {state[current]} until the next reset, then {state[pending]}"
        return Found("warn", state[current], reason, "reset GPU", state[pending])
    if wanted == "any" or current == bool(wanted):
        return Found("pass", state[current], expected=wanted if wanted == "any" else state[current])
    verdict = "warn" if wanted is None else "fail"
    said = "nobody said that it should (mig: true or any in the inventory)"
    if wanted is not None:
        said = f"{state[bool(wanted)]} is wanted"
    reason = (
        f"has MIG {state[current]}, {said}: measurements see a slice of the GPU" if current else f"has MIG off, {said}"
    )
    return Found(verdict, state[current], reason, "none", state[bool(wanted)])


def compute_mode(gpu: Gpu, context: Context) -> Found:
    """Who may use the GPU: everybody, unless the inventory says otherwise."""
    code = gpu["compute_mode"]
    has = COMPUTE_MODES.get(code, f"code {code}")
    wanted = context.expect.get("compute_mode") or "default"
    if has == wanted:
        return Found("pass", has, expected=wanted)
    reason = f"has compute mode {has}, {wanted} is wanted"
    reason += "" if context.expect.get("compute_mode") else " (compute_mode in the inventory, if it is meant)"
    verdict = "fail" if has == "prohibited" or context.expect.get("compute_mode") else "warn"
    return Found(
        verdict,
        has,
        f"{reason}: {'no program can use it' if has == 'prohibited' else 'one at a time can use it'}",
        expected=wanted,
    )


def clocks(gpu: Gpu, context: Context) -> Found:  # noqa: ARG001 - one shape for all judges
    """Nobody has set the application clocks below their default; the boost above it is the GPU's own affair."""
    now, default, most = gpu["clock.sm_application"], gpu["clock.sm_application_default"], gpu["clock.sm_max"]
    if now < default:
        reason = f"has application clocks of {now} MHz, {default} is the default: nvidia-smi -rac"
        return Found("warn", now, reason, "none", default)
    note = f"{gpu.device}: application clock {now} MHz, highest {most} MHz" if now < most else ""
    return Found("pass", now, note, expected=f">= {default}")


def power(gpu: Gpu, context: Context) -> Found:
    """The power limit is the default, or what the inventory wants, and nothing else enforces a lower one."""
    limit, default = gpu["power.limit"] / 1000, gpu["power.default"] / 1000
    wanted = float(context.expect.get("power_limit_w") or default)
    enforced = gpu.get("power.enforced")
    if abs(limit - wanted) >= 1:
        word = "below" if limit < wanted else "above"
        whose = "the wanted" if context.expect.get("power_limit_w") else "its default"
        reason = f"has a power limit of {limit:g} W, {word} {whose} {wanted:g} W"
        reason += "" if context.expect.get("power_limit_w") else " (power_limit_w in the inventory, if it is meant)"
        return Found("warn", limit, reason, "none", wanted)
    if enforced is not None and limit - enforced / 1000 >= 1:
        reason = f"is held to {enforced / 1000:g} W although its limit is {limit:g} W: look at its power supply"
        return Found("warn", enforced / 1000, reason, "monitor", wanted)
    return Found("pass", limit, expected=wanted)


def processes(gpu: Gpu, context: Context) -> Found:
    """No process holds the GPU after its death; no process at all where the inventory wants it idle."""
    its = [*gpu["processes.compute"], *(gpu.get("processes.graphics") or [])]
    told = [f"pid {item['pid']}{_named(item)}: {_mib(item['memory'])}" for item in its]
    if _pids_are_ours(context):
        dead = [
            one["pid"] for one in its if not (one.get("name") or os.path.exists(context.path("proc", str(one["pid"]))))
        ]
        if dead:
            reason = f"is held by processes that are gone: {', '.join(map(str, dead[:8]))}"
            return Found("warn", len(its), reason, "reset GPU", "none", told)
    held = _held(gpu, its)
    if not its and held:
        if not _pids_are_ours(context):
            return Found(
                "pass", 0, f"{gpu.device} has {held / _GIB:.1f} GiB in use by others that are not seen from here"
            )
        reason = f"has {held / _GIB:.1f} GiB in use although no process uses it: memory of a dead process"
        return Found("warn", 0, reason, "reset GPU", "none")
    jobs = [one for one in its if not _service(one)]
    if jobs and context.expect.get("idle"):
        return Found("warn", len(jobs), f"is in use by {len(jobs)} processes, it should be idle", "none", 0, told)
    return Found("pass", len(its), f"{gpu.device} is in use by {len(its)} processes" if its else "")


def _service(process: Message) -> bool:
    return process.get("name") in SERVICES


def _named(process: Message) -> str:
    return f" ({process['name']})" if process.get("name") else ""


def _held(gpu: Gpu, its: list[Message]) -> int:
    """Return how much memory is in use that neither an idle driver nor services explain, 0 where it is little."""
    used, total = gpu.get("memory.used"), gpu.get("memory.total")
    if used is None or not total or _COHERENT.search(str(gpu.get("name", ""))):
        return 0
    explained = sum(one["memory"] for one in its if _service(one) and isinstance(one.get("memory"), int))
    held = int(used - explained)
    return held if held > max(_GIB, total * IDLE_MEMORY_FRACTION) else 0


def use(gpu: Gpu) -> tuple[str, str]:
    """Return who uses this GPU, and why that cannot be told: both "" when nobody does. Pure.

    Jobs are not loaded unless asked, nor is what may have one. Display servers and daemons are no jobs.
    """
    its = [*(gpu.get("processes.compute") or []), *(gpu.get("processes.graphics") or [])]
    jobs = [one for one in its if not _service(one)]
    if jobs:
        return "process " + ", ".join(dict.fromkeys(str(one["pid"]) for one in jobs[:4])), ""
    if _held(gpu, its):
        return "somebody (memory)", ""
    if gpu.lost:
        return "", gpu.lost
    for key in ("processes.compute", "processes.graphics"):
        value = gpu.values.get(key, {"error": "NotAsked"})
        error = value.get("error") if isinstance(value, dict) else ""
        if error and not (key == "processes.graphics" and error in CANNOT):  # without graphics there is no such list
            return "", f"NVML does not tell its processes ({key}: {error})"
    return "", ""


def _pids_are_ours(context: Context) -> bool:
    try:
        return os.readlink(context.path("proc/self/ns/pid")) == HOST_PIDS
    except OSError:
        return False


def _mib(memory: object) -> str:
    return f"{memory >> 20} MiB" if isinstance(memory, int) else "memory unknown"


def _part(name: str, run: Run, reads: str) -> Part:
    return Part(name, "quick", "reading", run, reads)


PARTS = (
    _part("gpu.persistence", each("gpu.persistence", persistence, "persistence mode is on"), "NVML: persistence mode"),
    _part("gpu.mig", each("gpu.mig", mig, "MIG is as wanted"), "NVML: MIG mode"),
    _part(
        "gpu.compute_mode", each("gpu.compute_mode", compute_mode, "compute mode is as wanted"), "NVML: compute mode"
    ),
    _part(
        "gpu.clocks", each("gpu.clocks", clocks, "application clocks not lowered", "MHz"), "NVML: application clocks"
    ),
    _part("gpu.power", each("gpu.power", power, "power limit is as wanted", "W"), "NVML: power limits"),
    _part("gpu.processes", each("gpu.processes", processes, "nobody holds them who is gone"), "NVML: processes, /proc"),
)
