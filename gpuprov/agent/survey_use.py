"""Survey: who uses the GPUs now, and how much room there is on the disks."""

from __future__ import annotations

import os
import pwd
import re
import time

from gpuprov.agent.survey_host import Host, Untold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: How long the descriptors of all processes may be looked through, in seconds.
MOST_S = 2.0
_FOLDERS = ("/", "/var", "/usr", "/boot", "/tmp", "/opt")  # noqa: S108 - looked at, not written to
#: File systems of other machines: when one of them hangs, so does whoever asks about it.
_REMOTE = re.compile(r"nfs4?|cifs|smb3|ceph|glusterfs|lustre|beegfs|gpfs|afs|9p|fuse\..*|autofs")


def gpu_processes(host: Host, found: dict[str, Any]) -> dict[str, Any]:
    """Return {"gpu_processes": [{"pid", "name", "user"}] of those that have a device file of NVIDIA's open}."""
    loaded = found.get("modules", {}).get("nvidia", {}).get("loaded")
    if loaded is False and not any(name.startswith("nvidia") for name in host.names("/dev")):
        return {"gpu_processes": []}  # nothing to hold
    until = time.monotonic() + MOST_S
    users, denied = [], False
    for pid in sorted((name for name in host.names("/proc") if name.isdigit()), key=int):
        try:
            if _holds_device(host, pid):
                users.append({"pid": int(pid), "name": _name(host, pid), "user": _user(host, pid)})
        except Untold:
            denied = True
        if time.monotonic() > until:
            raise Untold("there are too many open files to look through within %g s" % MOST_S)
    if denied:
        raise Untold("only root can see which files the processes of others have open")
    return {"gpu_processes": users}


def _holds_device(host: Host, pid: str) -> bool:
    folder = "/proc/%s/fd" % pid
    return any((host.link("%s/%s" % (folder, fd)) or "").startswith("/dev/nvidia") for fd in host.names(folder))


def _name(host: Host, pid: str) -> str:
    return host.text("/proc/%s/comm" % pid).strip()


def _user(host: Host, pid: str) -> str | None:
    owner = host.stat("/proc/" + pid)
    if owner is None:  # it has just ended
        return None
    try:
        return pwd.getpwuid(owner.st_uid).pw_name
    except KeyError:
        return str(owner.st_uid)


def disk_free(host: Host, found: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - one signature for all parts
    """Return {"disk_free": folder -> bytes that are free for others than root}."""
    mounts = _mounts(host)
    free = {}
    for folder in _FOLDERS:
        kind = _file_system(mounts, folder)
        if _REMOTE.fullmatch(kind):
            host.untold["disk_free:" + folder] = "it is on %s, which might hang" % kind
        elif host.exists(folder):
            space = os.statvfs(host.at(folder))
            free[folder] = space.f_bavail * space.f_frsize
    return {"disk_free": free}


def _mounts(host: Host) -> dict[str, str]:
    """Return mount point -> type of file system; the last one mounted there."""
    words = (line.split() for line in host.text("/proc/self/mounts").splitlines())
    return {fields[1]: fields[2] for fields in words if len(fields) > 2}


def _file_system(mounts: dict[str, str], folder: str) -> str:
    while folder not in mounts and folder != "/":
        folder = os.path.dirname(folder)
    return mounts.get(folder, "")
