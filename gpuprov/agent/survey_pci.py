"""Survey: what of NVIDIA is on the PCI bus, by numbers; no driver and no lspci needed.

NVSwitches of A100 and H100 boards are NVIDIA's bridges. The switches of B200 and B300 boards cannot be seen;
what can is a ConnectX-7 that manages them, told from a network card by its vital product data.
"""

from __future__ import annotations

import os

from gpuprov.agent.survey_host import Host, Untold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PCI = "/sys/bus/pci/devices"
NVIDIA, MELLANOX = "10de", "15b3"
#: Classes of GPUs: VGA and 3D controllers.
GPU_CLASSES = ("0300", "0302")
#: pciutils/pciids, 2026-08: NVSwitch of A100 boards and of H100 boards; both are of class 0680.
_SWITCHES = ("1af1", "22a3")
_BRIDGE = "0680"
#: NVIDIA/gpu-driver-container, 2026-08: what the vital product data of a managing ConnectX-7 says.
_MANAGES_SWITCHES = b"SW_MNG"


def devices(host: Host, found: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - one signature for all parts
    """Return {"pci", "nvswitches", "nvlink5_bridges"}."""
    if not host.exists("/sys/bus"):
        raise Untold("sysfs is not mounted")
    mine: list[dict[str, Any]] = []
    bridges: list[str] = []
    unread: list[str] = []
    for address in host.names(PCI):
        vendor = _number(host, address, "vendor")
        if vendor == NVIDIA:
            mine.append(_device(host, address, vendor))
        elif vendor == MELLANOX and not host.exists("%s/%s/physfn" % (PCI, address)):
            try:
                if _MANAGES_SWITCHES in (host.read("%s/%s/vpd" % (PCI, address)) or b""):
                    bridges.append(address)
                    mine.append(_device(host, address, vendor))
            except Untold as error:
                unread.append(str(error))
    switches = [d["address"] for d in mine if d["device"] in _SWITCHES and d["class"] == _BRIDGE]
    answer: dict[str, Any] = {"pci": mine, "nvswitches": switches}
    if unread:
        host.untold["nvlink5_bridges"] = unread[0]
    if bridges or not unread:
        answer["nvlink5_bridges"] = bridges
    return answer


def gpus(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the GPUs among the devices that were found."""
    return [d for d in found.get("pci", ()) if d["vendor"] == NVIDIA and d["class"] in GPU_CLASSES]


def _device(host: Host, address: str, vendor: str) -> dict[str, Any]:
    driver = host.link("%s/%s/driver" % (PCI, address))
    return {
        "address": address,
        "vendor": vendor,
        "device": _number(host, address, "device"),
        "class": _number(host, address, "class"),
        "subsystem_vendor": _number(host, address, "subsystem_vendor"),
        "subsystem_device": _number(host, address, "subsystem_device"),
        "driver": os.path.basename(driver) if driver else None,
    }


def _number(host: Host, address: str, name: str) -> str:
    """Return an attribute as four hexadecimal digits: 0x10de as 10de, class 0x030200 as 0302."""
    text = host.text("%s/%s/%s" % (PCI, address, name)).strip().lower()
    return text[2:6] if text.startswith("0x") else text


def is_vgpu(config: bytes) -> bool:
    """Say whether a device is a virtual GPU, by its configuration space. Raises Untold when that is cut off.

    NVIDIA/gpu-feature-discovery: NVIDIA's hypervisor gives it a vendor-specific capability that says "VF".
    """
    if len(config) < 256:
        raise Untold("only root can read the whole configuration space of a PCI device")
    if not config[0x06] & 0x10:  # no capabilities
        return False
    at, seen = config[0x34] & 0xFC, set()
    while at >= 0x40 and at not in seen:
        seen.add(at)
        if config[at] == 0x09 and config[at + 3 : at + 5] == b"VF":
            return True
        at = config[at + 1] & 0xFC
    return False
