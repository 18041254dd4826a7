"""The kernel: how it is tainted, its IOMMU mode, how long it runs, whether a reboot is due, nouveau."""

from __future__ import annotations

import os
from typing import NamedTuple

from gpuprov.proof.check import check
from gpuprov.proof.checks.host_files import (
    Absent,
    Untold,
    gpus,
    host_part,
    is_guest,
    listed,
    names,
    needed,
    some,
    span,
    text,
    there,
    uptime_s,
    whole,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context


class Taint(NamedTuple):
    """A bit of /proc/sys/kernel/tainted that says something about health (the kernel's tainted-kernels.rst)."""

    bit: int
    verdict: str
    action: str
    means: str


#: Others are no matter of health: proprietary (0), staging (10), out of tree (12), unsigned (13), live-patched (15);
#: out of specification (2) is what late microcode and tools that write a processor's registers leave behind.
TAINTS = (
    Taint(1, "warn", "monitor", "a module was loaded by force"),
    Taint(3, "warn", "monitor", "a module was removed by force"),
    Taint(4, "warn", "monitor", "a processor reported a machine check"),
    Taint(5, "fail", "reboot", "a page of memory was found corrupted"),
    Taint(7, "fail", "reboot", "the kernel has oopsed and goes on with what is left of it"),
    Taint(14, "warn", "monitor", "a processor was stuck in the kernel (soft lockup)"),
)


def read_taint(context: Context) -> int:
    """Return the taint mask."""
    path = "/proc/sys/kernel/tainted"
    return whole(needed(context, path), path)


def judge_taint(mask: int) -> list[Message]:
    """Judge the taint mask by its bits. Pure."""
    bad = [taint for taint in TAINTS if mask >> taint.bit & 1]
    found = []
    for taint in bad:
        evidence = {"evidence": [f"/proc/sys/kernel/tainted is {mask}: bit {taint.bit} is set"]}
        reason = f"since it started, {taint.means}; the kernel log has the details"
        found.append(check("kernel.taint", taint.verdict, reason, mask, 0, action=taint.action, data=evidence))
    good = "the kernel is not tainted" if not mask else f"no bit of the taint mask {mask} is a sign of a fault"
    return found or [check("kernel.taint", "pass", good, measured=mask)]


class Iommu(NamedTuple):
    """modes: GPU -> type of its IOMMU group, "" where it has none. peers: others reach its memory."""

    modes: dict[str, str]
    guest: bool
    machine: str
    peers: bool


def read_iommu(context: Context) -> Iommu:
    """Return the IOMMU group type of each GPU."""
    addresses = gpus(context)
    if not addresses:
        raise Absent("no NVIDIA GPU on the PCI bus")
    modes = {a: text(context, f"/sys/bus/pci/devices/{a}/iommu_group/type") or "" for a in addresses}
    peers = len(addresses) > 1 or bool(names(context, "/sys/class/infiniband"))
    return Iommu(modes, is_guest(context), os.uname().machine, peers)


def judge_iommu(found: Iommu) -> list[Message]:
    """Judge whether the GPUs' transfers are translated. Pure."""
    name, kinds = "kernel.iommu", sorted({mode or "none" for mode in found.modes.values()})
    translated = [address for address, mode in found.modes.items() if mode.startswith("DMA")]
    if not translated:
        reason = f"the GPUs' transfers are not translated by an IOMMU (group type: {', '.join(kinds)})"
        return [check(name, "pass", reason, measured=kinds, expected="identity or none")]
    if found.guest or found.machine != "x86_64":
        where = "in a virtual machine" if found.guest else f"on {found.machine}"
        return [check(name, "pass", f"an IOMMU translates the GPUs' transfers, as is usual {where}", measured=kinds)]
    if not found.peers:
        reason = "an IOMMU translates the transfers of the only GPU, which has no peer that this could slow down"
        return [check(name, "pass", reason, measured=kinds)]
    reason = (
        f"an IOMMU translates the transfers of {some(len(translated), 'GPU')}: peer-to-peer may be slow or hang; "
        "boot with iommu=pt, or turn it off in the firmware"
    )
    more = {"evidence": [f"{address}: {found.modes[address]}" for address in translated[:8]]}
    return [check(name, "warn", reason, kinds, "identity or none", action="monitor", data=more)]


def judge_uptime(seconds: float) -> list[Message]:
    """Tell how long the kernel runs; for the judge, who sees hosts that reboot by themselves. Pure."""
    return [check("kernel.uptime", "pass", f"the kernel runs for {span(seconds)}", measured=seconds, unit="s")]


def read_reboot_pending(context: Context) -> list[str] | None:
    """Return the packages that want a reboot, None when none does."""
    marker = "/run/reboot-required"
    if not there(context, marker):
        if not there(context, "/var/lib/dpkg"):
            raise Absent("only packages of Debian and its kin say that they want a reboot")
        return None
    return sorted(set((text(context, marker + ".pkgs") or "").split()))


def judge_reboot_pending(packages: list[str] | None) -> list[Message]:
    """Judge the marker that the system's packages leave. Pure."""
    name = "kernel.reboot-pending"
    if packages is None:
        return [check(name, "pass", "no package has asked for a reboot", measured=False, expected=False)]
    by = f" by {listed(packages)}" if packages else ""
    reason = f"/run/reboot-required is there: a reboot was asked for{by}"
    return [
        check(name, "warn", reason, measured=True, expected=False, action="reboot", data={"evidence": packages[:8]})
    ]


class Modules(NamedTuple):
    """Which kernel modules that drive GPUs are loaded, and which GPUs nouveau has."""

    nouveau: bool
    nvidia: bool
    taken: tuple[str, ...]


def read_modules(context: Context) -> Modules:
    """Look whether nouveau is loaded beside nvidia."""
    addresses = gpus(context)
    if not addresses:
        raise Absent("no NVIDIA GPU on the PCI bus")
    taken = tuple(a for a in addresses if _driver(context, a) == "nouveau")
    return Modules(there(context, "/sys/module/nouveau"), there(context, "/sys/module/nvidia"), taken)


def _driver(context: Context, address: str) -> str:
    path = f"/sys/bus/pci/devices/{address}/driver"
    try:
        return os.path.basename(os.readlink(context.path(path)))
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise Untold(f"cannot read the link {path}: {error.strerror}") from None


def judge_modules(found: Modules) -> list[Message]:
    """Judge who drives the GPUs. Pure."""
    name = "kernel.nouveau"
    if not found.nouveau:
        return [check(name, "pass", "nouveau is not loaded", measured=False, expected=False)]
    if found.taken:
        reason = f"nouveau drives {listed(found.taken)}: CUDA cannot use what it has"
        return [check(name, "fail", reason, True, False, action="reboot", data={"evidence": list(found.taken[:8])})]
    beside = " beside nvidia" if found.nvidia else ""
    reason = f"nouveau is loaded{beside}, and drives no GPU now: deny it, or the next start may give it one"
    return [check(name, "warn", reason, True, False, action="monitor")]


PARTS = (
    host_part("kernel.taint", read_taint, judge_taint, "/proc/sys/kernel/tainted"),
    host_part("kernel.iommu", read_iommu, judge_iommu, "/sys/bus/pci/devices/*/iommu_group/type"),
    host_part("kernel.uptime", uptime_s, judge_uptime, "/proc/uptime"),
    host_part("kernel.reboot-pending", read_reboot_pending, judge_reboot_pending, "/run/reboot-required"),
    host_part("kernel.nouveau", read_modules, judge_modules, "/sys/module, /sys/bus/pci/devices/*/driver"),
)
