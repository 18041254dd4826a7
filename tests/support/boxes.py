"""Healthy hosts that are not eight H100s on bare metal: what NVML and the kernel say there, and nothing is wrong with.

Made up from what these models and hosts are known to answer; none was recorded on such a host.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from tests.support.readings import NOT_SUPPORTED, geforce, gpu, reading

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEPRECATED = {"error": "Deprecated"}
GUEST = {"proc/cpuinfo": "processor : 0\nflags : fpu tsc hypervisor\n"}


class Box(NamedTuple):
    """A host: its reading, files below its root, and what its inventory expects."""

    says: str
    reading: Callable[[], dict]
    files: Mapping[str, str] = MappingProxyType({})
    expect: Mapping[str, object] = MappingProxyType({})


def without(its: dict, *keys: str, error: dict = NOT_SUPPORTED) -> dict:
    """Return the GPU without an answer to the questions whose keys begin so."""
    for key in its["values"]:
        if key.startswith(keys):
            its["values"][key] = error
    return its


def linked(its: dict, up: int, of: int) -> dict:
    """Return the GPU with so many of its links up."""
    link = its["links"][0] if its["links"] else gpu()["links"][0]
    its["links"] = [dict(link, state=int(number < up)) for number in range(of)]
    return its


def cards(*up: int, name: str = "NVIDIA A100 80GB PCIe", of: int = 12) -> dict:
    """Return a host with a card for each number of links that are up."""
    return reading(*(without(linked(gpu(index, name=name), count, of), "fabric") for index, count in enumerate(up)))


def sliced() -> dict:
    """Return A100s of which four have MIG on: those have turned their NVLinks off and count no utilisation."""
    its = [without(linked(gpu(i, name="NVIDIA A100-SXM4-80GB"), 12, 12), "fabric") for i in range(8)]
    for one in its[4:]:
        one["values"]["mig"] = [1, 1]
        linked(without(one, "utilization"), 0, 12)
    whole = reading(*its)
    for one in whole["gpus"]:
        for other, peer in one["peers"].items():
            if int(other) >= 4:
                peer["p2p.read"] = NOT_SUPPORTED
    return whole


def blackwell(*, name: str = "NVIDIA B200", count: int = 8) -> dict:
    """Return GPUs whose links sleep at rest and count errors in another way, under a driver that gave questions up."""
    its = [gpu(index, name=name) for index in range(count)]
    for one in its:
        without(one, "clock.sm_application", "retired", error=DEPRECATED)
        for link in one["links"]:
            link.update({key: NOT_SUPPORTED for key in link if key.startswith("errors.")}, state=2)
    return reading(*its)


def mesh_guest() -> dict:
    """Return four of the eight V100s of a cube mesh."""
    ups = (4, 4, 5, 5)
    its = [without(linked(gpu(i, name="Tesla V100-SXM2-16GB"), up, 6), "fabric", "mig") for i, up in enumerate(ups)]
    return reading(*its)


def workstation() -> dict:
    """Return two 4090s of two makers, and a small card for the screens."""
    its = [geforce(0), geforce(1), geforce(2)]
    its[1]["values"].update({"pci.subsystem": 0x40E51458, "vbios": "95.02.3C.40.A1", "power.limit": 480_000})
    its[2]["values"].update({"name": "NVIDIA T400 4GB", "memory.total": 4 << 30, "pci.device": 0x1FF210DE})
    its[2]["values"]["power.limit"] = NOT_SUPPORTED
    for one in its:
        one["values"]["power.default"] = one["values"]["power.enforced"] = one["values"]["power.limit"]
    screens = [
        {"pid": 2101, "memory": 1300 << 20, "name": "Xorg"},
        {"pid": 2203, "memory": 900 << 20, "name": "gnome-shell"},
    ]
    its[0]["values"].update({"persistence": 0, "processes.graphics": screens, "memory.used": 2600 << 20})
    its[0]["values"].update({"temperature": 83, "temperature.slowdown": 90})  # its fan aims at 83
    return reading(*its)


def unprotected() -> dict:
    """Return T4s with ECC off: what is not counted is not supported."""
    its = [
        without(gpu(i, name="Tesla T4", links=0, ecc_mode=[0, 0]), "ecc.", "remapped", "fabric", "mig") for i in (0, 1)
    ]
    for one in its:
        one["values"].update({"retired.single_bit": [], "retired.double_bit": [], "retired.pending": 0})
        without(one, "temperature.memory")
        one["links"] = [{"state": NOT_SUPPORTED}] * 18
    return reading(*its)


def watched() -> dict:
    """Return H100s that a display server without a display and a watching daemon have open."""
    its = [gpu(i) for i in range(8)]
    for one in its:
        one["values"]["processes.graphics"] = [{"pid": 1999, "memory": 4 << 20, "name": "Xorg"}]
        one["values"]["processes.compute"] = [{"pid": 77, "memory": 30 << 20, "name": "nv-hostengine"}]
    return reading(*its)


def station() -> dict:
    """Return the A100s of a station, and the GPU that drives its screens and has less of everything."""
    its = [without(gpu(i, name="NVIDIA A100-SXM4-80GB"), "fabric") for i in range(4)]
    screen = geforce(4)
    screen["values"].update({"name": "NVIDIA DGX Display", "memory.total": 4 << 30, "vbios": "94.07.5E.00.01"})
    return reading(*its, without(screen, "gsp_firmware", "power.limit"))


def guest() -> dict:
    """Return GPUs of a virtual machine: half the lanes, an older generation than the card's, and no way to the slot."""
    its = [
        gpu(i, name="NVIDIA L40S", links=0, pcie__width=8, pcie__generation=3, pcie__generation_max=4) for i in (0, 1)
    ]
    for one in its:
        one["values"].update({"utilization.gpu": 97, "pstate": 0})
        without(one, "fabric", "mig", "temperature.memory")
        one["links"] = [{"state": NOT_SUPPORTED}] * 18
    return reading(*its)


def grace(name: str = "NVIDIA GH200 480GB") -> dict:
    """Return the GPU of a Grace Hopper: a narrow PCIe link, NVLinks to nobody."""
    its = gpu(0, name=name, pcie__width=1, pcie__width_max=16, pcie__generation=4, utilization__gpu=90)
    its["values"]["memory.used"] = 40 << 30  # the kernel's page cache
    return reading(without(linked(its, 0, 18), "fabric"))


BOXES = {
    "vm": Box("two L40S in a virtual machine", guest, GUEST),
    "gh200": Box("a Grace Hopper", grace),
    "slot of 8 lanes": Box(
        "a card in a slot that has eight lanes of generation 4",
        lambda: reading(gpu(0, pcie__width=8, pcie__generation=4, utilization__gpu=90)),
        {
            "sys/devices/pci0000:00/max_link_width": "8\n",
            "sys/devices/pci0000:00/max_link_speed": "16.0 GT/s PCIe\n",
            "sys/devices/pci0000:00/0000:1b:00.0/aer_dev_nonfatal": "UnsupReq 3\nTOTAL_ERR_NONFATAL 3\n",
        },
    ),
    "workstation": Box("two 4090s of two makers and a small card for the screens", workstation),
    "ecc off": Box("T4s with ECC off, as the inventory says", unprotected, expect={"ecc": False}),
    "services": Box("an idle host whose GPUs services have open", watched, expect={"idle": True, "gpus": 8}),
    "station": Box("A100s, and a GPU for the screens", station),
    "no bridges": Box("four cards that bridges could join, and none is there", lambda: cards(0, 0, 0, 0)),
    "one bridge of two": Box("four cards of which bridges join two", lambda: cards(12, 12, 0, 0)),
    "h100-nvl": Box(
        "cards whose bridges use 12 of 18 links", lambda: cards(12, 12, 12, 12, name="NVIDIA H100 NVL", of=18)
    ),
    "mig": Box("half of the GPUs sliced, as the inventory says", sliced, expect={"mig": "any"}),
    "b200": Box("links asleep, application clocks given up by the driver", blackwell),
    "mesh in a vm": Box("four GPUs of a cube mesh of eight in a virtual machine", mesh_guest, GUEST),
}
