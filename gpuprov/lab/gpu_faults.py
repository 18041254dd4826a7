"""What can be wrong with simulated GPUs, as a table; and what a host with some of it shows. Pure.

A fault changes what NVML says of one GPU (or, with a key that begins with "system", of the library), what the
kernel's PCI files say of it, the kernel's log, the loaded driver, or the fabric manager.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpuprov.errors import LabError
from gpuprov.lab.gpu_profile import spelled
from gpuprov.lab.gpu_shown import aer_text, healthy_shown, link_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpuprov.lab.gpu_shown import Shown

#: The version of a kernel module that the library does not fit.
OLD_DRIVER = "570.86.15"


@dataclass(frozen=True)
class Of:
    """A number made of the GPU's own value of *key*."""

    key: str
    factor: float = 1.0
    plus: int = 0


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    nvml: key below the GPU's -> value; "" is the whole GPU, "system" the library, "link.*.state" each second link.
    A GPU that has no such value (no NVLink, no spare rows) cannot have the fault; keys in *adds* need not be there.
    aer: counts in the PCI function's error files. log: the kernel's lines, with {pci}, {driver}, {old}, {switch}.
    """

    says: str
    nvml: Mapping[str, Any] = field(default_factory=dict)
    adds: tuple[str, ...] = ()
    aer: Mapping[str, int] = field(default_factory=dict)
    log: tuple[str, ...] = ()
    driver: str = ""
    fabric_manager: bool = True


def _xid(code: int, text: str) -> str:
    return f"NVRM: Xid (PCI:{{pci}}): {code}, {text}"


_LOST = _xid(79, "pid='<unknown>', name=<unknown>, GPU has fallen off the bus.")
_API_MISMATCH = (
    "NVRM: API mismatch: the client has the version {driver}, but NVRM: this kernel module has the version {old}."
)

FAULTS: Mapping[str, Fault] = {
    "gpu-lost": Fault(
        "a GPU has fallen off the bus: every call of NVML for it fails", {"": "!GpuIsLost"}, ("",), log=(_LOST,)
    ),
    "gpu-missing": Fault("NVML does not count a GPU that the PCI bus has", {"": "!Missing"}, ("",)),
    "nvml-hang": Fault("NVML never returns when the temperature is asked for", {"temperature": "!HANG"}),
    "nvml-start-hang": Fault("NVML never starts", {"system": "!HANG"}),
    "driver-mismatch": Fault(
        "the library is newer than the kernel module that is loaded",
        {"system": "!LibRmVersionMismatch"},
        log=(_API_MISMATCH,),
        driver=OLD_DRIVER,
    ),
    "driver-not-loaded": Fault("the kernel module is not loaded", {"system": "!DriverNotLoaded"}),
    "ecc-uncorrected": Fault(
        "uncorrected memory errors since the driver was loaded",
        {
            "ecc.volatile.uncorrected": 2,
            "ecc.volatile.dram.uncorrected": 2,
            "ecc.aggregate.uncorrected": 2,
            "ecc.aggregate.dram.uncorrected": 2,
        },
        log=(_xid(48, "pid=4242, name=python3, DBE (double bit error) ECC Error"),),
    ),
    "ecc-corrected-flood": Fault(
        "memory errors that ECC corrects, by the million",
        {
            "ecc.volatile.corrected": 60_000_000,
            "ecc.volatile.dram.corrected": 60_000_000,
            "ecc.aggregate.corrected": 60_000_000,
            "ecc.aggregate.dram.corrected": 60_000_000,
        },
    ),
    "ecc-off": Fault("ECC is switched off", {"ecc_mode": [0, 0]}),
    "remap-pending": Fault(
        "a row of memory waits for a reset to be replaced",
        {"remapped": [0, 1, 1, 0]},
        log=(_xid(63, "Row Remapper: New row (0x0000001a2b3c) marked for remapping, reset gpu to activate."),),
    ),
    "remap-failed": Fault(
        "a row of memory could not be replaced",
        {"remapped": [0, 9, 0, 1]},
        log=(_xid(64, "Row Remapper: Failed to remap row 0x0000001a2b3c"),),
    ),
    "retired-pages": Fault(
        "64 pages of memory are retired, one more waits (GPUs before Ampere)",
        {"retired.double_bit": [0x1A000 + 0x1000 * page for page in range(64)], "retired.pending": 1},
    ),
    "pcie-width": Fault("8 PCIe lanes of 16", {"pcie.width": 8}),
    "pcie-generation": Fault(
        "a PCIe link of generation 3 or less, while the GPU is busy",
        {"pcie.generation": Of("pcie.generation_max", plus=-2), "utilization.gpu": 97, "pstate": 0, "throttle": 0},
    ),
    "pcie-replays": Fault(
        "PCIe transfers that are repeated again and again",
        {"pcie.replays": 1_000_000},
        aer={"aer_dev_correctable": 1_000_000},
    ),
    "pcie-fatal": Fault("a fatal PCIe error", aer={"aer_dev_fatal": 1}),
    "nvlink-down": Fault(
        "every second NVLink of a GPU is down",
        {"link.*.state": 0},
        log=(_xid(74, "pid='<unknown>', name=<unknown>, NVLink: fatal error detected on link 0"),),
    ),
    "nvlink-errors": Fault(
        "an NVLink that replays and recovers", {"link.0.errors.replay": 812, "link.0.errors.recovery": 9}
    ),
    "fabric-stuck": Fault("a GPU never gets into the NVLink fabric", {"fabric": 2}),
    "fabric-manager-off": Fault("the fabric manager does not run", fabric_manager=False),
    "throttle-hw": Fault("the hardware slows a GPU down", {"throttle": 0x8, "clock.sm": Of("clock.sm_max", 0.25)}),
    "throttle-thermal": Fault(
        "the hardware slows a hot GPU down", {"throttle": 0x48, "temperature": Of("temperature.slowdown", plus=1)}
    ),
    "power-brake": Fault("the power supply brakes a GPU", {"throttle": 0x88, "clock.sm": Of("clock.sm_max", 0.25)}),
    "hot": Fault(
        "a GPU is 1 C below the temperature at which it slows down",
        {"temperature": Of("temperature.slowdown", plus=-1)},
    ),
    "power-limit-low": Fault(
        "half the power is allowed",
        {"power.limit": Of("power.default", 0.5), "power.enforced": Of("power.default", 0.5)},
    ),
    "persistence-off": Fault("persistence mode is off", {"persistence": 0}),
    "mig-on": Fault("MIG is on", {"mig": [1, 1]}),
    "compute-mode": Fault("compute mode is prohibited", {"compute_mode": 2}),
    "vbios-differs": Fault("another VBIOS than the other GPUs", {"vbios": "96.00.30.00.01"}),
    "inforom": Fault("the InfoROM is corrupted", {"inforom": "!CorruptedInforom"}),
    "reset-required": Fault(
        "the driver asks for a reset",
        {"recovery_action": 1},
        log=(_xid(154, "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)"),),
    ),
    "stray-process": Fault(
        "a process that nobody started for this run holds memory of a GPU",
        {
            "processes.compute": [{"pid": 4_194_000, "memory": 32 << 30}],
            "memory.used": Of("memory.total", 0.4),
            "memory.free": Of("memory.total", 0.6),
        },
    ),
    "xid-13": Fault(
        "XID 13: a job's own exception",
        log=(_xid(13, "pid=4242, name=python3, Graphics Exception: ESR 0x404600=0x80000002"),),
    ),
    "xid-31": Fault("XID 31: a job's page fault", log=(_xid(31, "pid=4242, name=python3, Ch 00000010, MMU Fault"),)),
    "xid-48": Fault(
        "XID 48: a double bit error", log=(_xid(48, "pid=4242, name=python3, DBE (double bit error) ECC Error"),)
    ),
    "xid-63": Fault(
        "XID 63: a row was replaced",
        log=(_xid(63, "Row Remapper: New row (0x0000001a2b3c) marked for remapping, reset gpu to activate."),),
    ),
    "xid-79": Fault("XID 79: a GPU had fallen off the bus", log=(_LOST,)),
    "xid-119": Fault(
        "XID 119: the GPU's own processor does not answer",
        log=(_xid(119, "pid=4242, name=python3, Timeout after 6s of waiting for RPC response from GPU0 GSP!"),),
    ),
    "sxid": Fault(
        "a fatal error of an NVSwitch",
        log=("nvidia-nvswitch0: SXid (PCI:{switch}): 20034, Fatal, Link 30 LTSSM Fault Up",),
    ),
}


def shown_with(reading: Mapping[str, Any], faults: Sequence[Mapping[str, Any]], nodes: int = 1) -> Shown:
    """Return what the host of a healthy *reading* shows with faults (kind, gpu, at_s of each). Raises LabError."""
    shown = healthy_shown(reading, nodes)
    for fault in faults:
        _put_in(shown, FAULTS[fault["kind"]], fault["kind"], fault["gpu"], fault["at_s"])
    return shown


def _put_in(shown: Shown, fault: Fault, kind: str, index: int, at_s: float) -> None:
    gpu = next((one for one in shown.reading["gpus"] if one["index"] == index), None)
    if gpu is None:
        raise LabError(f"there is no GPU {index}: the host has {len(shown.reading['gpus'])}")
    for key, value in fault.nvml.items():
        if key == "system":
            shown.profile_lines.append(f"system {value}")
            continue
        for full in _keys(gpu, key, key in fault.adds, kind):
            told = _number(gpu["values"], value) if isinstance(value, Of) else value
            shown.profile_lines.append(f"gpu.{index}.{full} {spelled(told)}".replace(". ", " "))
            if full.startswith("pcie."):
                gpu["values"][full] = told
    _kernel(shown, fault, gpu, at_s)


def _kernel(shown: Shown, fault: Fault, gpu: Mapping[str, Any], at_s: float) -> None:
    """Change what the host's kernel shows beside NVML."""
    files = shown.pci.get(gpu["address"], {})
    files.update(link_files(gpu["values"]) if "current_link_width" in files else {})
    files.update({name: aer_text(name, count) for name, count in fault.aer.items()})
    switch = next((one["address"] for one in shown.reading.get("switches", [])), None)
    for line in fault.log:
        if "{switch}" in line and switch is None:
            raise LabError("this host has no NVSwitch that could say so")
        words = {"pci": gpu["address"].rpartition(".")[0], "driver": shown.driver, "old": OLD_DRIVER, "switch": switch}
        shown.log.append((at_s, line.format(**words)))
    if not fault.fabric_manager and switch is None:
        raise LabError("this host has no NVSwitch, so that it needs no fabric manager")
    shown.driver = fault.driver or shown.driver
    shown.fabric_manager = shown.fabric_manager and fault.fabric_manager


def _keys(gpu: Mapping[str, Any], key: str, adds: bool, kind: str) -> list[str]:
    """Return the keys that *key* means on this GPU. Raises LabError where it has none."""
    links = [(number, link) for number, link in enumerate(gpu.get("links", [])) if link.get("state") in (0, 1)]
    if key.startswith("link.*."):
        found = [f"link.{number}.{key[7:]}" for number, _ in links[::2]]
    elif key.startswith("link."):
        _, number, name = key.split(".", 2)
        found = [key] if any(int(number) == one and name in link for one, link in links) else []
    else:
        has = gpu["values"].get(key)
        found = [key] if adds or not (has is None or (isinstance(has, dict) and "error" in has)) else []
    if not found:
        raise LabError(f"{gpu['values'].get('name', 'this GPU')} cannot have {kind}: its NVML has no {key or 'GPU'}")
    return found


def _number(values: Mapping[str, Any], wanted: Of) -> int:
    base = values.get(wanted.key)
    if not isinstance(base, int):
        raise LabError(f"{values.get('name', 'this GPU')} has no {wanted.key} to go by")
    return int(base * wanted.factor) + wanted.plus
