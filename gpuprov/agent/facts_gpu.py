"""Facts about NVIDIA GPUs, from the PCI bus and the kernel: before any driver is there."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.system import System

PCI = "/sys/bus/pci/devices"
NVIDIA = "0x10de"
#: A rehearsal host: its GPUs, if any, are simulated.
LAB = "/etc/gpuprov-lab"


def gather(system: System) -> dict[str, Any]:
    """Return {"gpus", "modules", "driver_version", "simulated", "glibc"}."""
    gpus = _gpus(system)
    return {
        "gpus": gpus,
        "gpu_count": len(gpus),
        "modules": {name: os.path.isdir("/sys/module/" + name) for name in ("nvidia", "nouveau", "nvidia_uvm")},
        "driver_version": system.read_text("/sys/module/nvidia/version").strip() or _proc_version(system),
        "simulated": os.path.exists(LAB),
        "glibc": _glibc(),
        "secure_boot": _secure_boot(system),
    }


def _gpus(system: System) -> list[dict[str, str]]:
    """Return the display and 3D controllers of NVIDIA, by bus address."""
    if not os.path.isdir(PCI):
        return []
    found = []
    for address in sorted(os.listdir(PCI)):
        folder = os.path.join(PCI, address)
        if system.read_text(folder + "/vendor").strip() != NVIDIA:
            continue
        kind = system.read_text(folder + "/class").strip()
        if kind.startswith("0x03"):
            driver = os.path.basename(os.readlink(folder + "/driver")) if os.path.islink(folder + "/driver") else ""
            device = system.read_text(folder + "/device").strip()
            found.append({"address": address, "device": device, "class": kind, "driver": driver})
    return found


def _proc_version(system: System) -> str:
    """Return the loaded driver's version by its own file: "NVRM version: NVIDIA ... Module  570.86.10  ..."."""
    for word in system.read_text("/proc/driver/nvidia/version").split():
        if word[:1].isdigit() and word.count(".") >= 1 and word.replace(".", "").isdigit():
            return word
    return ""


def _glibc() -> str:
    try:
        words = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
    except ValueError:
        return ""
    return words[1] if len(words) == 2 else ""


def _secure_boot(system: System) -> bool | None:
    """Say whether only signed kernel modules load; None where firmware does not tell."""
    path = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    try:
        return system.read(path)[-1:] == b"\x01"
    except OSError:
        return None
