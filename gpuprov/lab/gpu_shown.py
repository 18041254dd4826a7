"""What a host with simulated GPUs shows, as files: NVML's profile, PCI functions, driver versions, kernel log. Pure.

Paths are below the folder that a host has as /etc/gpuprov-lab/simulated; root.py mounts parts of it where the
kernel shows such things: pci at /sys/bus/pci/devices, module over /sys/module, driver at /proc/driver.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpuprov.lab.gpu_profile import profile

if TYPE_CHECKING:
    from collections.abc import Mapping

_VENDOR = 0x10DE
_SPEED = {1: "2.5", 2: "5.0", 3: "8.0", 4: "16.0", 5: "32.0", 6: "64.0"}
_AER = {
    "aer_dev_correctable": (*("RxErr", "BadTLP", "BadDLLP", "Rollover", "Timeout", "NonFatalErr"), "TOTAL_ERR_COR"),
    "aer_dev_nonfatal": ("Undefined", "DLP", "TLP", "CmpltTO", "CmpltAbrt", "UnsupReq", "TOTAL_ERR_NONFATAL"),
    "aer_dev_fatal": ("Undefined", "DLP", "TLP", "CmpltTO", "CmpltAbrt", "UnsupReq", "TOTAL_ERR_FATAL"),
}
#: The modules that are "loaded" beside nvidia itself.
_MODULES = ("nvidia_uvm", "nvidia_modeset")
#: Where a host has this folder.
INSIDE_SIMULATED = "/etc/gpuprov-lab/simulated"


@dataclass
class Shown:
    """A simulated host: its reading, and what its kernel says beside NVML. Made fresh by `healthy_shown`, then changed.

    profile_lines come last in the profile, so that they win. pci: PCI address -> file -> text. log: (seconds since
    boot, text). driver is the version of the kernel module that is loaded.
    """

    reading: dict[str, Any]
    driver: str
    pci: dict[str, dict[str, str]] = field(default_factory=dict)
    profile_lines: list[str] = field(default_factory=list)
    log: list[tuple[float, str]] = field(default_factory=list)
    fabric_manager: bool = False


def healthy_shown(reading: Mapping[str, Any], nodes: int = 1) -> Shown:
    """Return what a host shows whose NVML gives *reading*, on a machine of so many NUMA nodes."""
    own: dict[str, Any] = copy.deepcopy(dict(reading))
    driver = own["library"].get("driver")
    shown = Shown(own, driver if isinstance(driver, str) else "", fabric_manager=bool(own.get("switches")))
    count = len(own["gpus"])
    for number, gpu in enumerate(own["gpus"]):
        if gpu.get("address"):
            shown.pci[gpu["address"]] = _gpu_files(gpu["values"], number * nodes // count)
    for switch in own.get("switches", []):
        identity = {"vendor": "0x10de", "device": f"0x{switch['device']}", "class": "0x068000"}
        shown.pci[switch["address"]] = {**identity, "numa_node": "0", "driver": "nvidia-nvswitch"}
    shown.log = [
        (0.0, "Linux version 6.8.0 (simulated: the log of a gpuprov lab host)"),
        (4.2, f"NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  {shown.driver}  Release Build"),
    ]
    return shown


def _gpu_files(values: Mapping[str, Any], node: int) -> dict[str, str]:
    device, subsystem = (_number(values.get(f"pci.{name}")) for name in ("device", "subsystem"))
    display = "GeForce" in str(values.get("name"))
    files = {
        "vendor": f"0x{device & 0xFFFF or _VENDOR:04x}",
        "device": f"0x{device >> 16:04x}",
        "subsystem_vendor": f"0x{subsystem & 0xFFFF:04x}",
        "subsystem_device": f"0x{subsystem >> 16:04x}",
        "class": "0x030000" if display else "0x030200",
        "revision": "0xa1",
        "numa_node": str(node),
        "power_state": "D0",
        "driver": "nvidia",
    }
    return {**files, **link_files(values), **{name: aer_text(name, 0) for name in _AER}}


def link_files(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the kernel's files on a PCIe link of which NVML says *values*; none for a GPU without one."""
    now, most = (_number(values.get(f"pcie.generation{end}")) for end in ("", "_max"))
    lanes, possible = (_number(values.get(f"pcie.width{end}")) for end in ("", "_max"))
    if not most or not possible:
        return {}
    return {
        "current_link_speed": f"{_SPEED.get(now, 'Unknown')} GT/s PCIe",
        "max_link_speed": f"{_SPEED.get(most, 'Unknown')} GT/s PCIe",
        "current_link_width": str(lanes),
        "max_link_width": str(possible),
    }


def aer_text(name: str, count: int) -> str:
    """Return one of the kernel's files of PCIe error counters: all errors are bad packets of the transaction layer."""
    kinds = _AER[name]
    bad = kinds[1] if name == "aer_dev_correctable" else "TLP"
    return "\n".join(f"{kind} {count if kind in (bad, kinds[-1]) else 0}" for kind in kinds)


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def files_of(shown: Shown) -> dict[str, str]:
    """Return all files of a host, by their path in its folder; links (below `driver` of a function) as "-> target"."""
    extra = "".join(f"{line}\n" for line in shown.profile_lines)
    files = {
        "gpus": profile(shown.reading) + extra,
        "kmsg": "".join(f"[{at_s:12.6f}] {text}\n" for at_s, text in shown.log),
        "driver-version": f"{shown.driver}\n",
        "driver/nvidia/version": f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {shown.driver}  "
        "Release Build  (simulated GPUs of a gpuprov lab host)\n",
        "fabric-manager": "run\n" if shown.fabric_manager else "\n",
        "module/nvidia/initstate": "live\n",
        "module/nvidia/refcnt": "1\n",
        "module/nvidia/version": f"-> {INSIDE_SIMULATED}/driver-version",
    }
    files |= {f"module/{name}/initstate": "live\n" for name in _MODULES}
    for address, its in shown.pci.items():
        files |= {f"pci/{address}/{name}": f"{text}\n" for name, text in its.items() if name != "driver"}
        files[f"pci/{address}/driver"] = f"-> ../../../bus/pci/drivers/{its['driver']}"
    return files
