"""Readings of GPU hosts as gpuprov.proof.nvml.reading makes them, healthy ones, to be made sick by tests."""

from __future__ import annotations

import copy
from pathlib import Path

from gpuprov.proof.nvml import calls

NOT_SUPPORTED = {"error": "NotSupported"}

#: One H100 SXM at rest.
H100 = {
    "name": "NVIDIA H100 80GB HBM3",
    "vbios": "96.00.89.00.01",
    "board_part": "692-2G520-0200-000",
    "gsp_firmware": "580.95.05",
    "pci.device": 0x233010DE,
    "pci.subsystem": 0x16C110DE,
    "compute_capability": [9, 0],
    "persistence": 1,
    "compute_mode": 0,
    "mig": [0, 0],
    "ecc_mode": [1, 1],
    "memory.total": 81559 << 20,
    "memory.free": 81000 << 20,
    "memory.used": 559 << 20,
    "bar1.total": 128 << 30,
    "bar1.used": 1 << 20,
    "utilization.gpu": 0,
    "utilization.memory": 0,
    "temperature": 31,
    "temperature.slowdown": 87,
    "temperature.shutdown": 90,
    "temperature.memory_max": 95,
    "temperature.memory": 40,
    "temperature.margin": 56,
    "temperature.slowdown_tlimit": -2,
    "power": 70_000,
    "power.limit": 700_000,
    "power.default": 700_000,
    "power.enforced": 700_000,
    "energy": 10**9,
    "clock.sm": 345,
    "clock.memory": 2619,
    "clock.sm_max": 1980,
    "clock.memory_max": 2619,
    "clock.sm_application": 1980,
    "clock.sm_application_default": 1980,
    "throttle": 0x1,
    "pstate": 0,
    "pcie.generation": 5,
    "pcie.generation_max": 5,
    "pcie.width": 16,
    "pcie.width_max": 16,
    "pcie.replays": 0,
    "remapped": [0, 0, 0, 0],
    "retired.single_bit": NOT_SUPPORTED,
    "retired.double_bit": NOT_SUPPORTED,
    "retired.pending": NOT_SUPPORTED,
    "processes.compute": [],
    "processes.graphics": [],
    "fabric": 3,
    "fabric.status": 0,
    "recovery_action": 0,
    "inforom": True,
    "ecc.sram.threshold_exceeded": 0,
}
LINK = {"state": 1, "version": 7, "errors.replay": 0, "errors.recovery": 0, "errors.crc_flit": 0, "errors.crc_data": 0}
#: What a GeForce has an answer to; it has none to the rest.
_GEFORCE = "uuid vbios minor pci. compute_capability persistence compute_mode memory. bar1. utilization. power clock."
_GEFORCE += " temperature temperature.slowdown temperature.shutdown throttle pstate pcie. processes."


def gpu(index: int = 0, links: int = 18, **values: object) -> dict:
    """Return a healthy H100, but for *values*: dots in their keys are written as two underscores."""
    address = f"0000:{0x1B + 16 * index:02x}:00.0"
    own = {"uuid": f"GPU-{index:08d}", "serial": f"16530{index}", "minor": index, "pci.address": address}
    its = dict(copy.deepcopy(H100), **own)
    for row in calls.GPU:
        its.setdefault(row[0], 0)  # counters
    its.update({key.replace("__", "."): value for key, value in values.items()})
    return {
        "index": index,
        "address": address,
        "values": its,
        "links": [dict(LINK) for _ in range(links)],
        "peers": {},
    }


def geforce(index: int = 0) -> dict:
    """Return a healthy RTX 4090: NotSupported wherever a data-centre GPU has more."""
    its = gpu(index, links=0, name="NVIDIA GeForce RTX 4090")
    words = _GEFORCE.split()
    for key in its["values"]:
        known = key == "name" or any(key == word or (word.endswith(".") and key.startswith(word)) for word in words)
        if not known and not key.startswith(("power", "clock.")):
            its["values"][key] = NOT_SUPPORTED
    for key in ("power.default", "clock.sm_application", "clock.sm_application_default"):
        its["values"][key] = NOT_SUPPORTED
    its["links"] = [{"state": NOT_SUPPORTED}] * 18
    return its


def reading(*gpus: dict, **changes: object) -> dict:
    """Return a Reading of a host with these GPUs, eight healthy H100s by default."""
    its = list(gpus) or [gpu(index) for index in range(8)]
    for one in its:
        later = [other for other in its if other["index"] > one["index"]]
        nvlink = 0 if one["links"] and "error" not in str(one["links"][0]["state"]) else 5
        one["peers"] = one["peers"] or {
            str(other["index"]): {"ancestor": 50, "p2p.read": nvlink and 2, "p2p.nvlink": nvlink} for other in later
        }
    library = {"path": "/usr/lib/libnvidia-ml.so.1", "simulated": False, "driver": "580.95.05", "nvml": "13.580.95.05"}
    found = {"library": dict(library, cuda=13000), "error": None, "count": len(its), "gpus": its}
    return dict(found, **changes)


class Host:
    """A folder that stands for the root of a host."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def write(self, path: str, text: str | bytes) -> Path:
        """Write a file, with its folders."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    def pci(self, address: str, kind: str = "0x030200", vendor: str = "0x10de", above: str = "") -> Path:
        """Make a PCI device; *above* is the path of bridges that it hangs under."""
        real = self.root / "sys/devices/pci0000:00" / above / address
        real.mkdir(parents=True, exist_ok=True)
        (real / "class").write_text(kind + "\n")
        (real / "vendor").write_text(vendor + "\n")
        entry = self.root / "sys/bus/pci/devices" / address
        entry.parent.mkdir(parents=True, exist_ok=True)
        entry.symlink_to(real)
        return real

    def healthy(self, gpus: int = 8, minutes: float = 600.0) -> Host:
        """Make what a healthy host of the default reading has."""
        for index in range(gpus):
            self.pci(gpu(index)["address"])
        self.write("proc/uptime", f"{minutes * 60:.2f} 1.0\n")
        self.write("sys/module/nvidia/version", "580.95.05\n")
        return self
