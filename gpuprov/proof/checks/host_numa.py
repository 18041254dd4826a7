"""NUMA: where GPUs and network cards hang, whether every socket has memory, and who moves pages."""

from __future__ import annotations

from typing import NamedTuple

from gpuprov.proof.check import check
from gpuprov.proof.checks.each import virtual
from gpuprov.proof.checks.host_files import Absent, Untold, gpus, host_part, listed, names, needed, number, set_of, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

_NODES = "/sys/devices/system/node/"


class Devices(NamedTuple):
    """nodes: of how many nodes with processors the host is made. of: "GPU 0000:1b:00.0" -> node, -1 unknown."""

    nodes: int
    of: dict[str, int]
    guest: bool = False


def _with_cpus(context: Context) -> set[int]:
    found = text(context, _NODES + "has_cpu")
    if found is None:
        raise Absent("this kernel has no NUMA")
    return set_of(found)


def read_nodes(context: Context) -> dict[int, int]:
    """Return node -> bytes of memory, of the nodes that have processors (a GPU's memory may be a node, too)."""
    found = {}
    for node in sorted(_with_cpus(context)):
        path = f"{_NODES}node{node}/meminfo"
        words = next((line.split() for line in needed(context, path).splitlines() if " MemTotal:" in line), [])
        if len(words) != 5 or not words[3].isdigit():
            raise Untold(f"{path} has no MemTotal")
        found[node] = int(words[3]) * 1024
    return found


def judge_nodes(found: dict[int, int]) -> list[Message]:
    """Judge whether every node with processors has memory. Pure."""
    name, sizes = "numa.memory", [round(size / (1 << 30), 1) for size in found.values()]
    empty = [node for node, size in found.items() if not size]
    more = {"evidence": [f"node {node}: {size / (1 << 30):.1f} GiB" for node, size in found.items()][:8]}
    if empty:
        reason = (
            f"the processors of node {listed(empty)} have no memory of their own: DIMMs are missing or in wrong slots"
        )
        return [check(name, "warn", reason, sizes[:16], "memory on each", "GiB", "", "monitor", more)]
    reason = f"each of {len(found)} NUMA nodes has memory" if len(found) > 1 else "the host is one NUMA node"
    return [check(name, "pass", reason, sizes[:16], "memory on each", "GiB", data=more)]


def read_devices(context: Context) -> Devices:
    """Return the node of each GPU and each InfiniBand or RoCE card."""
    found = {}
    for address in gpus(context):
        found[f"GPU {address}"] = _node(context, f"/sys/bus/pci/devices/{address}/numa_node")
    for card in names(context, "/sys/class/infiniband"):
        found[card] = _node(context, f"/sys/class/infiniband/{card}/device/numa_node")
    if not found:
        raise Absent("neither an NVIDIA GPU nor an InfiniBand or RoCE card is here")
    return Devices(len(_with_cpus(context)), found, virtual(context))


def _node(context: Context, path: str) -> int:
    node = number(context, path)
    return -1 if node is None else node


def judge_devices(found: Devices) -> list[Message]:
    """Judge whether the firmware tells where the devices hang. Pure."""
    name = "numa.devices"
    if found.nodes < 2:
        return [check(name, "pass", "the host is one NUMA node: every device is near", measured=found.nodes)]
    lost = [device for device, node in found.of.items() if node < 0]
    more = {"evidence": [f"{device}: node {node}" for device, node in found.of.items()][:16]}
    if lost and found.guest:
        reason = f"this virtual machine was not told the NUMA node of {listed(lost)} (-1): only its host knows"
        return [check(name, "skip", reason, len(lost), 0, "devices", data=more)]
    if lost:
        reason = (
            f"the NUMA node of {listed(lost)} is unknown (-1): processes cannot be kept near; the firmware has to tell"
        )
        return [check(name, "warn", reason, len(lost), 0, "devices", "", "monitor", more)]
    used = sorted(set(found.of.values()))
    return [check(name, "pass", f"{len(found.of)} devices on NUMA nodes {listed(used)}", 0, 0, "devices", data=more)]


def read_balancing(context: Context) -> int:
    """Return the mode of automatic NUMA balancing, of hosts that have GPUs and several nodes."""
    if len(_with_cpus(context)) < 2:
        raise Absent("the host is one NUMA node: nothing is balanced")
    if not gpus(context):
        raise Absent("no NVIDIA GPU on the PCI bus")
    mode = number(context, "/proc/sys/kernel/numa_balancing")
    if mode is None:
        raise Absent("this kernel has no automatic NUMA balancing")
    return mode


def judge_balancing(mode: int) -> list[Message]:
    """Judge automatic NUMA balancing. Pure."""
    name = "numa.balancing"
    if not mode:
        return [check(name, "pass", "automatic NUMA balancing is off", mode, 0)]
    reason = (
        "automatic NUMA balancing is on: it unmaps pages to see who uses them, and stalls what feeds the GPUs; "
        "sysctl kernel.numa_balancing=0"
    )
    return [check(name, "warn", reason, mode, 0, action="monitor")]


PARTS = (
    host_part("numa.memory", read_nodes, judge_nodes, _NODES + "node*/meminfo"),
    host_part("numa.devices", read_devices, judge_devices, "numa_node of GPUs and network cards"),
    host_part("numa.balancing", read_balancing, judge_balancing, "/proc/sys/kernel/numa_balancing"),
)
