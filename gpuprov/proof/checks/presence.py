"""Are all GPUs there, and do they answer? The library, the count against PCI bus and inventory, lost and hung GPUs."""

from __future__ import annotations

import os

from gpuprov.proof.check import check
from gpuprov.proof.checks.each import Gpu, data_of, gpus_of, unread
from gpuprov.proof.checks.versions import pci_gpus
from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

#: Why NVML does not start: verdict, what it means, what helps.
FAILURES = {
    "DriverNotLoaded": ("fail", "the kernel module nvidia is not loaded", "reboot"),
    "LibRmVersionMismatch": (
        "fail",
        "the driver's library and its loaded kernel module have different versions: the driver was updated "
        "under a running kernel module",
        "reboot",
    ),
    "LibraryNotFound": ("fail", "libnvidia-ml.so.1 is not there: no driver is installed, or only half of it", "none"),
    "PynvmlMissing": ("unknown", "nvidia-ml-py cannot be used", "none"),
    "Hung": ("fail", "the driver hangs", "reboot"),
    "NoPermission": ("unknown", "this user may not open the device nodes /dev/nvidia*", "none"),
    "GpuIsLost": ("fail", "a GPU has fallen off the bus, and NVML does not start without it", "reboot"),
}


def library(context: Context, reading: Message) -> list[Message]:
    """Judge whether the library loads, starts, and answers."""
    name = "nvml.library"
    error = reading.get("error")
    if error is None:
        version = reading["library"].get("nvml")
        path = reading["library"].get("path") or "libnvidia-ml.so.1"
        return [check(name, "pass", f"NVML {_text(version)} answers ({path})", measured=version)]
    if error["error"] in ("LibraryNotFound", "DriverNotLoaded", "PynvmlMissing"):
        nothing = unread(name, context, reading)
        if nothing and nothing["verdict"] == "skip":
            return [nothing]
    verdict, why, action = FAILURES.get(error["error"], ("fail", "NVML does not start", "reboot"))
    reason = f"{why}: {error.get('text') or error['error']}"
    return [check(name, verdict, reason, measured=error["error"], action=action, data={"evidence": [reason]})]


def _text(value: object) -> str:
    return value if isinstance(value, str) else "of unknown version"


def count(context: Context, reading: Message) -> list[Message]:
    """Judge how many GPUs NVML has, by the PCI bus and by the inventory."""
    name = "nvml.count"
    wanted = context.expect.get("gpus")
    on_bus = pci_gpus(context.path("sys"))
    has = reading.get("count")
    if has is None:
        return [unread(name, context, reading) or check(name, "unknown", "NVML did not say how many GPUs it has")]
    missing = _not_listed(reading, on_bus)
    evidence = [f"PCI bus: {len(on_bus)}", f"NVML: {has}", f"inventory: {'says nothing' if wanted is None else wanted}"]
    data = {"evidence": evidence, "missing": missing[:16]}
    if wanted is not None and has != wanted:
        action = "none" if has > wanted else "reboot" if len(on_bus) >= wanted else "isolate"
        reason = f"{wanted} expected, NVML has {has}, the PCI bus {len(on_bus)}{_which(missing)}"
        verdict = "fail" if has < wanted else "warn"
        return [check(name, verdict, reason, measured=has, expected=wanted, unit="GPUs", action=action, data=data)]
    if has < len(on_bus) and has == _device_nodes(context):
        reason = f"NVML has {has} of the {len(on_bus)} GPUs on the PCI bus, as many as there are device nodes here: "
        reason += "a container that was given fewer"
        return [check(name, "warn", reason, has, len(on_bus), "GPUs", data=data)]
    if has < len(on_bus):
        reason = f"NVML has {has} of the {len(on_bus)} GPUs on the PCI bus{_which(missing)}"
        return [check(name, "fail", reason, has, len(on_bus), "GPUs", action="reboot", data=data)]
    if not has:
        return [check(name, "skip", "no NVIDIA GPU on the PCI bus", measured=0, unit="GPUs")]
    known = wanted if wanted is not None else (len(on_bus) or None)
    reason = f"NVML has {has} GPUs" if has != 1 else "NVML has 1 GPU"
    reason += f", the PCI bus {len(on_bus)}" if on_bus else "; this host shows no PCI bus"
    return [check(name, "pass", reason, measured=has, expected=known, unit="GPUs", data=data)]


def _device_nodes(context: Context) -> int:
    try:
        names = os.listdir(context.path("dev"))
    except OSError:
        return 0
    return sum(name.startswith("nvidia") and name[6:].isdigit() for name in names)


def _not_listed(reading: Message, on_bus: list[str]) -> list[str]:
    """Return the addresses on the PCI bus that no GPU of NVML's has given as its own."""
    listed = {gpu.address for gpu in gpus_of(reading)}
    return [address for address in on_bus if address not in listed]


def _which(missing: list[str]) -> str:
    return f"; without {', '.join(missing[:8])}" if missing else ""


def lost(context: Context, reading: Message) -> list[Message]:
    """Judge whether each GPU that NVML counts answers."""
    name = "gpu.lost"
    nothing = unread(name, context, reading)
    if nothing:
        return [nothing]
    gpus = gpus_of(reading)
    checks = [_lost(name, gpu) for gpu in gpus if gpu.lost and gpu.values and not gpu.hung]
    silent = [gpu for gpu in gpus if not gpu.values and not gpu.hung]
    checks += [check(name, "unknown", f"{gpu.device}: {gpu.lost}", device=gpu.device) for gpu in silent]
    fine = len(gpus) - len(checks) - sum(bool(gpu.hung) for gpu in gpus)
    if fine:
        checks.append(check(name, "pass", f"{fine} of {len(gpus)} GPUs answer", measured=fine, expected=len(gpus)))
    elif not checks:
        checks.append(check(name, "unknown", "no GPU answered: see gpu.hung"))
    return checks


#: What keeps NVML from a single GPU: verdict, what it means, what helps. Any other error is that of a lost one.
UNREACHED = {
    "ResetRequired": ("fail", "needs a reset before it does anything", "reset GPU"),
    "InsufficientPower": ("fail", "has no auxiliary power: look at its cables", "isolate"),
    "IrqIssue": ("fail", "gets no interrupts", "reboot"),
    "NoPermission": ("unknown", "may not be opened by this user, or in this container", "none"),
    "NotSupported": ("unknown", "answers no question at all", "none"),
    "PynvmlMissing": ("unknown", "was not asked", "none"),
    "LibraryNotFound": ("unknown", "was not asked", "none"),
}


def _lost(name: str, gpu: Gpu) -> Message:
    lost_on_the_bus = ("fail", "is lost, it does not answer on the bus", "reboot")
    verdict, what, action = UNREACHED.get(gpu.lost.rpartition(" ")[2], lost_on_the_bus)
    reason = f"{gpu.device}{f' ({gpu.address})' if gpu.address else ''} {what}: {gpu.lost}"
    return check(name, verdict, reason, measured=gpu.lost, device=gpu.device, action=action, data=data_of(gpu))


def hung(context: Context, reading: Message) -> list[Message]:
    """Judge whether each call to NVML returned."""
    name = "gpu.hung"
    nothing = unread(name, context, reading)
    if nothing:
        return [nothing]
    gpus = gpus_of(reading)
    stuck = [gpu for gpu in gpus if gpu.hung]
    checks = [
        check(
            name,
            "fail",
            f"{gpu.device} hangs: {gpu.hung} never returned, and whatever asks this GPU will hang with it",
            measured=gpu.hung,
            expected="returns",
            device=gpu.device,
            action="reboot",
            data=data_of(gpu, [f"{gpu.hung} was killed at its deadline"]),
        )
        for gpu in stuck
    ]
    if len(stuck) < len(gpus):
        reason = f"every call to NVML returned on {len(gpus) - len(stuck)} of {len(gpus)} GPUs"
        checks.append(check(name, "pass", reason, measured=len(gpus) - len(stuck), expected=len(gpus)))
    return checks


PARTS = (
    Part("nvml.library", "quick", "reading", library, "NVML: init, versions"),
    Part("nvml.count", "quick", "reading", count, "NVML's count, sysfs: the PCI bus, the inventory"),
    Part("gpu.lost", "quick", "reading", lost, "NVML: any error that says a GPU is gone"),
    Part("gpu.hung", "quick", "reading", hung, "NVML: a call that does not return"),
)
