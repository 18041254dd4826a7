"""Facts about the machine: processors, memory, what it runs in, its default route."""

from __future__ import annotations

import os
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.system import System

#: What the DMI calls a virtual machine -> Ansible's virtualization_type.
_HYPERVISORS = (
    ("KVM", "kvm"),
    ("QEMU", "kvm"),
    ("VMware", "VMware"),
    ("VirtualBox", "virtualbox"),
    ("Amazon EC2", "kvm"),
    ("Google Compute Engine", "kvm"),
    ("OpenStack", "openstack"),
    ("Microsoft Corporation", "VirtualPC"),
)


_NUMBER = re.compile(r"^processor\s*:\s*(\d+)$", re.MULTILINE)
_SOCKET = re.compile(r"^physical id\s*:\s*(\d+)$", re.MULTILINE)
_CORES = re.compile(r"^cpu cores\s*:\s*(\d+)$", re.MULTILINE)
_VENDOR = re.compile(r"^vendor_id\s*:\s*(.+)$", re.MULTILINE)
_MODEL = re.compile(r"^(?:model name|Processor|cpu)\s*:\s*(.+)$", re.MULTILINE)


def processor(cpuinfo: str) -> dict[str, Any]:
    """Return the facts in the text of /proc/cpuinfo; on a large host it has 10,000 lines."""
    numbers = _NUMBER.findall(cpuinfo)
    sockets = len(set(_SOCKET.findall(cpuinfo))) or 1
    cores = _first(_CORES, cpuinfo)
    per_socket = int(cores) if cores else max(1, len(numbers) // sockets)
    names = [name for name in (_first(_VENDOR, cpuinfo), _first(_MODEL, cpuinfo)) if name]
    return {
        "processor": [part for number in numbers for part in (number, *names)],
        "processor_count": sockets,
        "processor_cores": per_socket,
        "processor_threads_per_core": max(1, len(numbers) // (sockets * per_socket)),
        "processor_vcpus": len(numbers),
        "processor_nproc": len(os.sched_getaffinity(0)),
    }


def _first(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match.group(1).strip() if match else ""


def memory(system: System) -> dict[str, Any]:
    """Return memory and swap in MiB, and how long the host is up."""
    kib = {}
    for line in system.read_text("/proc/meminfo").splitlines():
        key, _, value = line.partition(":")
        kib[key] = int(value.split()[0])
    names = (
        ("memtotal_mb", "MemTotal"),
        ("memfree_mb", "MemFree"),
        ("swaptotal_mb", "SwapTotal"),
        ("swapfree_mb", "SwapFree"),
    )
    found: dict[str, Any] = {name: kib[key] // 1024 for name, key in names if key in kib}
    uptime = system.read_text("/proc/uptime").split()
    return {**found, "uptime_seconds": int(float(uptime[0]))} if uptime else found


def virtualization(system: System, found: dict[str, Any], cpuinfo: str) -> tuple[str, str]:
    """Return Ansible's virtualization_type and role, by the container's marks, the DMI and the processor."""
    container = _container(system)
    if container:
        return container, "guest"
    described = "%s %s" % (found.get("system_vendor", ""), found.get("product_name", ""))
    for text, kind in _HYPERVISORS:
        if text in described:
            return kind, "guest"
    if os.path.exists("/sys/hypervisor/type"):
        return system.read_text("/sys/hypervisor/type").strip(), "guest"
    if " hypervisor" in cpuinfo:
        return "kvm" if os.path.exists("/sys/bus/virtio") else "NA", "guest"
    if os.path.exists("/sys/module/kvm"):
        return "kvm", "host"
    return "NA", "NA"


def _container(system: System) -> str:
    if os.path.exists("/.dockerenv"):
        return "docker"
    if os.path.exists("/run/.containerenv"):
        return "podman"
    init = os.environ.get("container", "")  # noqa: SIM112 - systemd's name for it
    init = init or system.read_text("/run/systemd/container").strip()
    if not init and os.geteuid() == 0:
        words = system.read_text("/proc/1/environ").split("\0")
        init = next((word[len("container=") :] for word in words if word.startswith("container=")), "")
    return init.replace("-libvirt", "")


def network(system: System) -> dict[str, Any]:
    """Return the interfaces' names and the default route, without a socket."""
    found: dict[str, Any] = {}
    if os.path.isdir("/sys/class/net"):
        found["interfaces"] = sorted(os.listdir("/sys/class/net"))
    default: dict[str, str] = {}
    for line in system.read_text("/proc/net/route").splitlines()[1:]:
        words = line.split()
        if words[1] == "00000000" and words[7] == "00000000" and int(words[3], 16) & 1:
            default = {"interface": words[0], "gateway": _address(words[2])}
            break
    if default:
        address = _own_address(system, default["interface"])
        default.update({"address": address} if address else {})
        default["macaddress"] = system.read_text("/sys/class/net/%s/address" % default["interface"]).strip()
        default["alias"] = default["interface"]
    return {**found, "default_ipv4": default}


def _address(little_endian: str) -> str:
    return ".".join(str(byte) for byte in reversed(bytes.fromhex(little_endian)))


def _own_address(system: System, interface: str) -> str:
    """Return this host's address in the network of *interface*, from the kernel's routing tables."""
    networks = []
    for line in system.read_text("/proc/net/route").splitlines()[1:]:
        words = line.split()
        if words[0] == interface and words[7] != "00000000":
            networks.append((int(words[1], 16), int(words[7], 16)))
    lines = system.read_text("/proc/net/fib_trie").splitlines()
    for above, line in zip(lines, lines[1:]):
        if "/32 host LOCAL" in line and "|--" in above:
            address = above.split("|--", 1)[1].strip()
            number = int.from_bytes(bytes(int(part) for part in address.split(".")), "little")
            if any(number & mask == network for network, mask in networks):
                return address
    return ""
