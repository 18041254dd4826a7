"""How network cards reach GPUs' memory, and whether the host knows its own name."""

from __future__ import annotations

import os
import re
import socket
from typing import NamedTuple

from gpuprov.proof.check import check
from gpuprov.proof.checks.host_files import Absent, gpus, host_part, listed, names, needed, text, there
from gpuprov.proof.checks.host_network import NO_CARD, SLOW_CARDS, TOP, for_rdma

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

#: GPUDirect RDMA without nvidia_peermem: DMA-BUF, from this kernel on with NVIDIA's open modules.
_DMABUF_KERNEL = (5, 12)


class Peer(NamedTuple):
    """What GPUDirect RDMA needs. peermem and gdrdrv: whether the module is loaded."""

    peermem: bool
    gdrdrv: bool
    open_modules: bool
    release: str


def read_peer(context: Context) -> Peer:
    """Return what lets network cards reach GPUs' memory."""
    if not names(context, TOP):
        raise Absent(NO_CARD)
    if not for_rdma(context):
        raise Absent(SLOW_CARDS)
    if not gpus(context):
        raise Absent("no NVIDIA GPU on the PCI bus")
    if not there(context, "/sys/module/nvidia"):
        raise Absent("the NVIDIA driver is not loaded")
    peermem, old, gdr = (there(context, f"/sys/module/{m}") for m in ("nvidia_peermem", "nv_peer_mem", "gdrdrv"))
    old = old or there(context, "/sys/module/efa_nv_peermem")
    version = text(context, "/proc/driver/nvidia/version") or ""
    return Peer(peermem or old, gdr, "Open Kernel Module" in version, needed(context, "/proc/sys/kernel/osrelease"))


def judge_peer(found: Peer) -> list[Message]:
    """Judge whether network cards can reach GPUs' memory. Pure."""
    name, gdr = "ib.peermem", f"; gdrdrv (GDRCopy) is {'' if found.gdrdrv else 'not '}loaded"
    if found.peermem:
        return [check(name, "pass", f"nvidia_peermem is loaded{gdr}", "nvidia_peermem", "nvidia_peermem or DMA-BUF")]
    numbers = tuple(int(piece) for piece in re.findall(r"\d+", found.release)[:2])
    if found.open_modules and numbers >= _DMABUF_KERNEL:
        reason = (
            f"the driver's open kernel modules on Linux {found.release} give network cards GPU memory by DMA-BUF{gdr}"
        )
        return [check(name, "pass", reason, "DMA-BUF", "nvidia_peermem or DMA-BUF")]
    reason = "nvidia_peermem is not loaded: network cards reach GPUs by way of the host's memory; modprobe it"
    return [check(name, "warn", reason, "none", "nvidia_peermem or DMA-BUF", action="monitor")]


def read_hostname(context: Context) -> tuple[str, list[str], str]:
    """Return the host's name, the addresses that it resolves to, and why to none."""
    if os.path.realpath(context.root) != "/":
        raise Absent("this is a folder, not a running host: names are not resolved for it")
    name = socket.gethostname()
    try:
        return name, sorted({str(item[4][0]) for item in socket.getaddrinfo(name, None)}), ""
    except OSError as error:
        return name, [], error.strerror or str(error)


def judge_hostname(found: tuple[str, list[str], str]) -> list[Message]:
    """Judge whether the host knows its own name. Pure."""
    name, addresses, why = found
    if not addresses:
        reason = f"the host's own name {name} does not resolve ({why}): what starts jobs by it waits or fails"
        return [check("network.hostname", "warn", reason, measured=name, action="monitor")]
    here = all(address.startswith("127.") or address == "::1" for address in addresses)
    only = "; gloo and others that listen where it points need an interface named to reach other hosts" if here else ""
    reason = f"the host's own name {name} resolves to {listed(addresses)}{only}"
    return [check("network.hostname", "pass", reason, measured=addresses[:8])]


PARTS = (
    host_part("ib.peermem", read_peer, judge_peer, "/sys/module, /proc/driver/nvidia/version"),
    host_part("network.hostname", read_hostname, judge_hostname, "the host's own name"),
)
