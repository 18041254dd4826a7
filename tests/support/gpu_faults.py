"""Faults of GPU hosts as data: what is put in, and the one check that has to find it.

A fault changes keys of what NVML says ("gpu.3.pcie.width": 8; an error is "!GpuIsLost"), files of the host (None
removes one), or what the inventory expects. Keys are those of the simulated library's profiles.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.support.readings import gpu

#: The GPU that gets sick, as NVML and as the PCI bus name it. Not the first: nothing is to depend on that.
SICK = 3
GPU = f"gpu:{SICK}"
PCI = gpu(SICK)["address"]
KMSG = "etc/gpuprov-lab/kmsg"
BRIDGE = "0000:10:00.0"
SWITCH = "0000:c1:00.0"


@dataclass(frozen=True)
class Fault:
    """One fault. says: what it is, in words. device: where it is found ("" for the host as a whole)."""

    says: str
    check: str
    verdict: str
    action: str
    nvml: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str | bytes | None] = field(default_factory=dict)
    expect: dict[str, Any] = field(default_factory=dict)
    device: str = GPU
    under_load: bool = False
    also: tuple[str, ...] = ()


def _nvml(says: str, key: str, value: object, check: str, verdict: str, action: str, **more: Any) -> Fault:
    return Fault(says, check, verdict, action, {f"gpu.{SICK}.{key}": value}, **more)


def _log(says: str, text: str, check: str, verdict: str, action: str, device: str = PCI) -> Fault:
    return Fault(says, check, verdict, action, files={KMSG: f"[ 4211.000000] {text}\n"}, device=device)


def _xid(code: int, text: str, verdict: str, action: str, says: str) -> Fault:
    return _log(f"XID {code}: {says}", f"NVRM: Xid (PCI:{PCI[:-2]}): {code}, {text}", "xid", verdict, action)


def _host(says: str, check: str, verdict: str, action: str, files: dict[str, Any], device: str = "") -> Fault:
    return Fault(says, check, verdict, action, files=files, device=device)


def _start(says: str, error: str, verdict: str, action: str, *also: str) -> Fault:
    return Fault(says, "nvml.library", verdict, action, {"system": f"!{error}"}, device="", also=also)


_ACS_ON = bytes(0x100) + (0x000D | 1 << 16).to_bytes(4, "little") + bytes(2) + (0x1D).to_bytes(2, "little") + bytes(64)
_RESET = "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)"

FAULTS = (
    Fault("a GPU has fallen off the bus", "gpu.lost", "fail", "reboot", {f"gpu.{SICK}": "!GpuIsLost"}),
    Fault("a GPU needs a reset", "gpu.lost", "fail", "reset GPU", {f"gpu.{SICK}": "!ResetRequired"}),
    Fault("a GPU has no auxiliary power", "gpu.lost", "fail", "isolate", {f"gpu.{SICK}": "!InsufficientPower"}),
    _nvml("a call to NVML never returns", "temperature", "!HANG", "gpu.hung", "fail", "reboot"),
    _start("NVML never starts", "HANG", "fail", "reboot"),
    _start("the kernel module is not loaded", "DriverNotLoaded", "fail", "reboot"),
    _start("library and kernel module do not match", "LibRmVersionMismatch", "fail", "reboot", "driver.versions"),
    Fault("NVML has fewer GPUs than the bus", "nvml.count", "fail", "reboot", {f"gpu.{SICK}": "!Missing"}, device=""),
    _host(
        "the library was updated, the kernel module not",
        "driver.versions",
        "fail",
        "reboot",
        {"sys/module/nvidia/version": "570.86.15\n"},
    ),
    Fault(
        "another driver than was resolved",
        "driver.expected",
        "fail",
        "reboot",
        expect={"versions": {"driver": "590.44.01"}},
        device="",
    ),
    _nvml("uncorrected memory errors", "ecc.volatile.uncorrected", 2, "ecc.uncorrected", "fail", "reset GPU"),
    _nvml("SRAM errors above the GPU's threshold", "ecc.sram.threshold_exceeded", 1, "ecc.sram", "fail", "isolate"),
    _nvml("a few SRAM errors in its life", "ecc.aggregate.sram.uncorrected", 2, "ecc.sram", "warn", "monitor"),
    _nvml("ECC off on one GPU", "ecc_mode", [0, 0], "ecc.mode", "fail", "reset GPU", also=("gpus.alike",)),
    _nvml("a row waits to be remapped", "remapped", [0, 1, 1, 0], "memory.remapped", "fail", "reset GPU"),
    _nvml("a row could not be remapped", "remapped", [0, 9, 0, 1], "memory.remapped", "fail", "isolate"),
    _nvml("a corrupted InfoROM", "inforom", "!CorruptedInforom", "gpu.inforom", "fail", "isolate"),
    _nvml("the driver asks for a reset", "recovery_action", 1, "gpu.recovery", "fail", "reset GPU"),
    _nvml("the driver asks for a reboot", "recovery_action", 2, "gpu.recovery", "fail", "reboot"),
    _nvml("8 PCIe lanes of 16", "pcie.width", 8, "pcie.width", "fail", "isolate"),
    _nvml(
        "PCIe generation 3 of 5 under load", "pcie.generation", 3, "pcie.generation", "fail", "isolate", under_load=True
    ),
    _nvml("many PCIe replays", "pcie.replays", 10**6, "pcie.replays", "warn", "monitor"),
    _host(
        "a fatal PCIe error (AER)",
        "pcie.aer",
        "fail",
        "isolate",
        {f"sys/bus/pci/devices/{PCI}/aer_dev_fatal": "TLP 1\nTOTAL_ERR_FATAL 1\n"},
        GPU,
    ),
    _nvml("an NVLink down", "link.4.state", 0, "nvlink.links", "fail", "reset GPU"),
    _nvml("an NVLink that replays", "link.4.errors.replay", 9, "nvlink.errors", "warn", "monitor"),
    _nvml("not in the NVLink fabric", "fabric", 1, "nvlink.fabric", "fail", "reset GPU"),
    _host("no fabric manager", "fabric.manager", "fail", "reset GPU", {"proc/77/comm": None}),
    _nvml("peer transfers switched off", "peer.5.p2p.read", 4, "gpu.peers", "warn", "reboot", device=""),
    _nvml("a power brake", "throttle", 0x88, "gpu.throttle", "fail", "isolate"),
    _nvml("a hardware thermal slowdown", "throttle", 0x48, "gpu.throttle", "fail", "isolate"),
    _nvml("a software thermal slowdown", "throttle", 0x20, "gpu.throttle", "warn", "monitor"),
    _nvml("a reason for lower clocks that is new", "throttle", 0x10000, "gpu.throttle", "warn", "monitor"),
    _nvml("1 C below the slowdown threshold", "temperature", 86, "gpu.temperature", "fail", "isolate"),
    _nvml("7 C below the slowdown threshold", "temperature", 80, "gpu.temperature", "warn", "monitor"),
    _nvml("hot memory", "temperature.memory", 95, "gpu.memory_temperature", "fail", "isolate"),
    _nvml("persistence mode off", "persistence", 0, "gpu.persistence", "warn", "none"),
    _nvml("MIG on", "mig", [1, 1], "gpu.mig", "warn", "none"),
    _nvml("compute mode prohibited", "compute_mode", 2, "gpu.compute_mode", "fail", "none"),
    _nvml("application clocks lowered", "clock.sm_application", 1200, "gpu.clocks", "warn", "none"),
    _nvml("a lower power limit is enforced", "power.enforced", 350_000, "gpu.power", "warn", "monitor"),
    _nvml("another VBIOS", "vbios", "96.00.30.00.01", "gpus.alike", "warn", "none"),
    _nvml("less memory", "memory.total", 64 << 30, "gpus.alike", "fail", "isolate"),
    _nvml("a temperature that NVML does not give", "temperature", "!Unknown", "gpu.temperature", "unknown", "none"),
    _xid(79, "GPU has fallen off the bus.", "fail", "reboot", "fallen off the bus"),
    _xid(48, "DBE (double bit error) ECC Error", "fail", "reset GPU", "double bit error"),
    _xid(
        119, "Timeout after 6s of waiting for RPC response from GPU3 GSP!", "fail", "reset GPU", "GSP does not answer"
    ),
    _xid(31, "pid=4242, name=python, Ch 00000010, MMU Fault", "warn", "restart job", "page fault of a job"),
    _xid(154, _RESET, "fail", "reset GPU", "the driver asks for a reset"),
    _log(
        "a fatal SXid of an NVSwitch",
        f"nvidia-nvswitch0: SXid (PCI:{SWITCH}): 20034, Fatal, Link 30 LTSSM Fault Up",
        "sxid",
        "fail",
        "reboot",
        SWITCH,
    ),
    Fault("the kernel's log cannot be read", "xid", "unknown", "none", files={KMSG: None}, device="", also=("sxid",)),
    Fault(
        "the kernel's log has lost its beginning",
        "xid",
        "unknown",
        "none",
        files={KMSG: None, "dev/kmsg": "6,812,5140900,-;usb 1-1: new device\n"},
        device="",
        also=("sxid",),
    ),
    _host(
        "a profiler for every program",
        "gpu.environment",
        "warn",
        "restart job",
        {"etc/environment": "CUDA_PROFILE=1\n"},
    ),
    _host("ACS redirects on", "pcie.acs", "warn", "none", {f"sys/bus/pci/devices/{BRIDGE}/config": _ACS_ON}),
    _nvml(
        "uncorrected memory errors under load",
        "ecc.volatile.uncorrected",
        1,
        "load.ecc.uncorrected",
        "fail",
        "reset GPU",
        under_load=True,
    ),
    _nvml(
        "rows remapped under load",
        "remapped",
        [0, 1, 0, 0],
        "load.memory.remapped",
        "fail",
        "reset GPU",
        under_load=True,
    ),
    _nvml("PCIe replays under load", "pcie.replays", 500, "load.pcie.replays", "warn", "monitor", under_load=True),
    _nvml(
        "NVLink recoveries under load",
        "link.4.errors.recovery",
        1,
        "load.nvlink.errors",
        "warn",
        "monitor",
        under_load=True,
    ),
    _nvml(
        "held down by heat under load",
        "violation.thermal",
        5 * 10**9,
        "load.violation.thermal",
        "warn",
        "monitor",
        under_load=True,
    ),
    Fault(
        "a GPU is lost under load", "load.gpu.lost", "fail", "reboot", {f"gpu.{SICK}": "!GpuIsLost"}, under_load=True
    ),
    Fault(
        "XID 31 under our own load",
        "load.xid",
        "fail",
        "isolate",
        files={KMSG: f"[ 4211.0] NVRM: Xid (PCI:{PCI[:-2]}): 31, pid=1\n"},
        device=PCI,
        under_load=True,
    ),
)
