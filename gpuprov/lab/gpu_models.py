"""Healthy simulated hosts: from "8xh100-sxm" and a name to the reading that NVML gives. Pure but for data/gpus.yaml.

A reading has the shape of gpuprov/proof/nvml/reading.py, with what NVML has beside the rows that the proof asks
for: each link's remote end, and "switches", the NVSwitches on the PCI bus. A value that is left out is NotSupported.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from functools import cache
from importlib.resources import files
from typing import Any

from gpuprov.errors import LabError

#: What the driver of simulated hosts calls itself.
DRIVER = "580.95.05"
CUDA = 13000
MOST_GPUS = 16
_WANTED = re.compile(r"(\d+)x([a-z0-9.-]+)", re.IGNORECASE)
_MIB = 1 << 20
_MAX_LINKS = 36
#: The compute capability since which GPUs tell how many degrees are left.
_WITH_MARGIN = (8, 9)
#: nvmlGpuTopologyLevel_t: below one host bridge, on one NUMA node, across nodes.
_BRIDGE, _SYSTEM = 30, 50
_P2P_OK, _P2P_CHIPSET, _P2P_NOT_SUPPORTED = 0, 1, 5
_REMOTE_GPU, _REMOTE_SWITCH = 0, 2

Values = dict[str, Any]


@cache
def models() -> dict[str, Values]:
    """Return the table of models by name."""
    table: dict[str, Values] = _table()["models"]
    return table


@cache
def _table() -> dict[str, Any]:
    import yaml  # the supervisor of a lab has none, and needs no model

    found: dict[str, Any] = yaml.safe_load(files("gpuprov.lab").joinpath("data/gpus.yaml").read_text(encoding="utf-8"))
    return found


def parse(wanted: str) -> tuple[int, str]:
    """Return how many GPUs of which model *wanted* ("8xh100-sxm") means. Raises LabError."""
    found = _WANTED.fullmatch(wanted.strip())
    if not found:
        raise LabError(f"{wanted!r} is no number and model of GPUs", hint="such as 8xh100-sxm")
    count, asked = int(found.group(1)), found.group(2).lower()
    by_spec = {model["spec"]: name for name, model in models().items()}
    name = asked if asked in models() else by_spec.get(asked, "")
    if not name:
        raise LabError(f"no simulated GPU is called {asked}", hint=f"there are {', '.join(sorted(models()))}")
    most = len(models()[name]["addresses"])
    if not 1 <= count <= most:
        raise LabError(f"a host has 1 to {most} GPUs of the model {name}, not {count}")
    return count, name


def healthy(wanted: str, host: str) -> Values:
    """Return the reading of a healthy, idle host called *host* with the GPUs *wanted*. Raises LabError."""
    count, name = parse(wanted)
    model = models()[name]
    switches = _switches(model)
    library = {"path": "", "simulated": True, "driver": DRIVER, "nvml": f"13.{DRIVER}", "cuda": CUDA}
    gpus = [
        {
            "index": index,
            "address": model["addresses"][index],
            "values": _values(model, index, host),
            "links": _links(model, index, count, switches),
            "peers": {str(peer): _peer(model, index, peer, count) for peer in range(index + 1, count)},
        }
        for index in range(count)
    ]
    return {"library": library, "error": None, "count": count, "gpus": gpus, "switches": switches}


def identity(host: str, index: int) -> tuple[str, str]:
    """Return serial and UUID of GPU *index* of *host*: always the same, and no other GPU's."""
    digest = hashlib.sha256(f"gpuprov simulated GPU {index} of {host}".encode()).digest()
    serial = f"1{int.from_bytes(digest[:8], 'big') % 10**12:012d}"
    return serial, f"GPU-{uuid.UUID(bytes=digest[8:24])}"


def _values(model: Values, index: int, host: str) -> Values:
    serial, its_uuid = identity(host, index)
    address = model["addresses"][index]
    values = {
        "name": model["name"],
        "uuid": its_uuid,
        "vbios": model["vbios"],
        "minor": index,
        "pci.address": f"0000{address}".upper(),
        "pci.device": int(model["device"] + "10de", 16),
        "pci.subsystem": int(model["subsystem"] + "10de", 16),
        "compute_capability": model["capability"],
        "persistence": 1,
        "compute_mode": 0,
        **_memory(model),
        **_running(model, index),
        "processes.compute": [],
        "processes.graphics": [],
    }
    if model.get("gsp", True):
        values["gsp_firmware"] = DRIVER
    if not model.get("geforce"):
        values |= {"serial": serial, "board_part": model["board_part"], "inforom": True, "recovery_action": 0}
        values |= {f"violation.{name}": 0 for name in ("power", "thermal", "reliability", "board_limit")}
        values |= {"clock.sm_application": model["clocks"]["sm"][1]}
        values |= {"clock.sm_application_default": model["clocks"]["sm"][1]}
    if model.get("mig"):
        values["mig"] = [0, 0]
    if model.get("fabric"):
        values |= {"fabric": 3, "fabric.status": 0}
    return {**values, **_pcie(model), **_ecc(model)}


def _memory(model: Values) -> Values:
    total, used, bar1 = (model[key] * _MIB for key in ("memory_mib", "reserved_mib", "bar1_mib"))
    return {
        "memory.total": total,
        "memory.free": total - used,
        "memory.used": used,
        "bar1.total": bar1,
        "bar1.used": 2 * _MIB,
    }


def _running(model: Values, index: int) -> Values:
    """Return what clocks, power and temperature say of an idle GPU; each is a little different."""
    idle_c, slowdown_c, shutdown_c, memory_c = model["temperature"]
    idle_w, most_w = model["power_w"]
    clocks, rests = model["clocks"], bool(model["pcie"] and model["pcie"]["rests"])
    values = {
        "utilization.gpu": 0,
        "utilization.memory": 0,
        "temperature": idle_c + index % 3,
        "temperature.slowdown": slowdown_c,
        "temperature.shutdown": shutdown_c,
        "power": idle_w * 1000 + 137 * index,
        "power.limit": most_w * 1000,
        "power.default": most_w * 1000,
        "power.enforced": most_w * 1000,
        "energy": 4_000_000_000 + 1_234_567 * index,
        "clock.sm": clocks["sm"][0],
        "clock.memory": clocks["memory"][0],
        "clock.sm_max": clocks["sm"][1],
        "clock.memory_max": clocks["memory"][1],
        "throttle": 1,  # idle
        "pstate": 8 if rests else 0,
    }
    if tuple(model["capability"]) >= _WITH_MARGIN:
        values |= {"temperature.margin": slowdown_c - 2 - values["temperature"], "temperature.slowdown_tlimit": -2}
    if memory_c is not None:
        values |= {"temperature.memory_max": memory_c, "temperature.memory": idle_c + 6 + index % 3}
    return values


def _pcie(model: Values) -> Values:
    link = model["pcie"]
    if link is None:  # joined to its CPU by C2C
        return {}
    return {
        "pcie.generation": 1 if link["rests"] else link["generation"],
        "pcie.generation_max": link["generation"],
        "pcie.width": link["width"],
        "pcie.width_max": link["width"],
        "pcie.replays": 0,
    }


def _ecc(model: Values) -> Values:
    if model["ecc"] == "none":
        return {}
    both = [(when, kind) for when in ("volatile", "aggregate") for kind in ("corrected", "uncorrected")]
    values: Values = {"ecc_mode": [1, 1], **{f"ecc.{when}.{kind}": 0 for when, kind in both}}
    values |= {f"ecc.{when}.dram.{kind}": 0 for when, kind in both}
    if model["ecc"] == "retire":
        return {**values, "retired.single_bit": [], "retired.double_bit": [], "retired.pending": 0}
    values |= {f"ecc.{when}.sram.{kind}": 0 for when, kind in both}
    return {**values, "remapped": [0, 0, False, False], "ecc.sram.threshold_exceeded": 0}


def _switches(model: Values) -> list[Values]:
    wanted = model.get("switches")
    if not wanted:
        return []
    return [{"address": f"0000:{0x05 + i:02x}:00.0", "device": wanted["device"]} for i in range(wanted["count"])]


def switches_of(reading: Values) -> list[Values]:
    """Return the NVSwitches of a host that was recorded: NVML does not tell of them, so by the model of its GPUs."""
    if "switches" in reading or not reading["gpus"]:
        return list(reading.get("switches", []))
    asked = reading["gpus"][0]["values"].get("pci.device")
    model = next((one for one in models().values() if int(one["device"] + "10de", 16) == asked), {})
    return _switches(model)


def _links(model: Values, index: int, count: int, switches: list[Values]) -> list[Values]:
    nvlink = model.get("nvlink")
    if not nvlink:
        return [{"state": {"error": "NotSupported"}} for _ in range(_MAX_LINKS)]
    ends = _mesh(index, count) if nvlink["to"] == "mesh" else [-1] * nvlink["links"]
    links = []
    for number, peer in enumerate(ends):
        link: Values = {"state": 1, "version": nvlink["version"]}
        link |= {f"errors.{name}": 0 for name in ("replay", "recovery", "crc_flit", "crc_data")}
        if peer >= 0:
            link |= {"remote": model["addresses"][peer], "remote_type": _REMOTE_GPU}
        elif switches:
            link |= {"remote": switches[number % len(switches)]["address"], "remote_type": _REMOTE_SWITCH}
        links.append(link)
    return links


def _mesh(index: int, count: int) -> list[int]:
    """Return the GPU that each link of GPU *index* leads to: a hybrid cube of eight, else shared among the others."""
    cube = _table()["mesh"]
    if count == len(cube):
        return [peer for peer, links in enumerate(cube[index]) for _ in range(links)]
    others = [peer for peer in range(count) if peer != index]
    return [others[number % len(others)] for number in range(sum(cube[0]))] if others else []


def _peer(model: Values, one: int, other: int, count: int) -> Values:
    nvlink = model.get("nvlink")
    joined = nvlink is not None and (nvlink["to"] != "mesh" or other in _mesh(one, count))
    half = (count + 1) // 2
    return {
        "ancestor": _BRIDGE if (one < half) == (other < half) else _SYSTEM,
        "p2p.read": _P2P_CHIPSET if model.get("geforce") else _P2P_OK,
        "p2p.nvlink": _P2P_OK if joined else _P2P_NOT_SUPPORTED,
    }
