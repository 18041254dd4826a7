"""Facts that cost more than a run should pay unasked: mounts, network interfaces, the site's programs."""

from __future__ import annotations

import os

from gpuprov.agent.facts import fact_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.system import System

#: Kernel interfaces that are no storage. A network file system that hangs would hang statvfs, too.
_NO_STORAGE = ("proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "debugfs", "tracefs", "securityfs", "autofs")
_REMOTE = ("nfs", "nfs4", "cifs", "ceph", "glusterfs", "fuse.sshfs", "lustre", "beegfs")


def gather(system: System) -> dict[str, Any]:
    """Return mounts with their sizes (of local file systems) and one entry per network interface."""
    found: dict[str, Any] = {"mounts": _mounts(system)}
    if os.path.isdir("/sys/class/net"):
        for name in os.listdir("/sys/class/net"):
            found[name.replace("-", "_")] = _interface(system, name)
    return found


def run_local(system: System, folder: str) -> dict[str, Any]:
    """Return what the programs among the site's *.fact files print. Blocking, at most 10 s each."""
    found: dict[str, Any] = {}
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        path = os.path.join(folder, name)
        if not name.endswith(".fact") or not os.access(path, os.X_OK):
            continue
        try:
            done = system.run([path], timeout_s=10)
            said = fact_text(done.out) if done.rc == 0 else "error loading fact: %s" % done.why
        except OSError as error:
            said = "error loading fact: %s" % error.strerror
        found[name[: -len(".fact")]] = said
    return found


def _mounts(system: System) -> list[dict[str, Any]]:
    mounts = []
    for line in system.read_text("/proc/self/mounts").splitlines():
        device, path, kind, options = (word.encode().decode("unicode_escape") for word in line.split()[:4])
        if kind in _NO_STORAGE:
            continue
        entry: dict[str, Any] = {"mount": path, "device": device, "fstype": kind, "options": options}
        if kind not in _REMOTE:
            try:
                space = os.statvfs(path)
            except OSError:
                continue
            entry["size_total"] = space.f_blocks * space.f_frsize
            entry["size_available"] = space.f_bavail * space.f_frsize
            entry["block_size"] = space.f_bsize
        mounts.append(entry)
    return mounts


def _interface(system: System, name: str) -> dict[str, Any]:
    folder = "/sys/class/net/%s/" % name
    mtu = system.read_text(folder + "mtu").strip()
    entry: dict[str, Any] = {
        "device": name,
        "active": system.read_text(folder + "operstate").strip() in ("up", "unknown"),
        "macaddress": system.read_text(folder + "address").strip(),
    }
    if mtu:
        entry["mtu"] = int(mtu)
    entry["ipv4"] = {"address": address} if (address := _ipv4(name)) else {}
    return entry


def _ipv4(name: str) -> str:
    """Return an interface's IPv4 address, asked of the kernel."""
    import fcntl
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe.fileno(), 0x8915, struct.pack("256s", name.encode()[:15]))
        except OSError:
            return ""
    return socket.inet_ntoa(answer[20:24])
