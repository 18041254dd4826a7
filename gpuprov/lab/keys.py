"""The lab's ssh keys, and the files that an ssh client needs to reach its hosts."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from gpuprov.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpuprov.lab.layout import Layout

_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class LabHost:
    """Where one lab host is reached."""

    name: str
    address: str
    port: int


def make_keys(layout: Layout, names: Iterable[str]) -> None:
    """Make the lab's login key and one host key for each of *names*, where they are missing."""
    wanted = [(layout.path("id"), "gpuprov-lab"), *((layout.host(name, "key"), name) for name in names)]
    missing = [(path, comment) for path, comment in wanted if not os.path.exists(f"{path}.pub")]
    for start in range(0, len(missing), _AT_ONCE):
        running = [_keygen(path, comment) for path, comment in missing[start : start + _AT_ONCE]]
        for process in running:
            _, err = process.communicate()
            if process.returncode:
                raise LabError(f"ssh-keygen failed: {err.strip()}")


def _keygen(path: str, comment: str) -> subprocess.Popen[str]:
    if os.path.exists(path):  # its other half was never written: ssh-keygen would ask what to do
        os.unlink(path)
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path]
    return subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def write_client_files(layout: Layout, hosts: Iterable[LabHost]) -> None:
    """Write known_hosts, ssh_config and hosts.json for *hosts*."""
    hosts = list(hosts)
    known, config = [], []
    for host in hosts:
        with open(layout.host(host.name, "key.pub"), encoding="ascii") as f:
            key = " ".join(f.read().split()[:2])
        known.append(f"[{host.address}]:{host.port} {key}\n")
        config.append(f"\nHost {host.name}\n  HostName {host.address}\n  Port {host.port}\n")
    shared = [
        "Host gpu*\n",
        "  User root\n",
        f'  IdentityFile "{layout.path("id")}"\n',
        "  IdentitiesOnly yes\n",
        f'  UserKnownHostsFile "{layout.path("known_hosts")}"\n',
        "  GlobalKnownHostsFile none\n",
        "  StrictHostKeyChecking yes\n",
    ]
    write_file(layout.path("known_hosts"), "".join(known))
    write_file(layout.path("ssh_config"), "".join(shared + config))
    write_file(layout.path("hosts.json"), json.dumps([asdict(host) for host in hosts], indent=1) + "\n")
    for name in ("id", "known_hosts", "ssh_config", "hosts.json"):
        # who ran `sudo gpuprov lab up` then connects without sudo
        os.chown(layout.path(name), int(os.environ.get("SUDO_UID", "0")), int(os.environ.get("SUDO_GID", "0")))


def read_hosts(layout: Layout) -> list[LabHost]:
    """Return the hosts that the lab was last asked for; none when it is not there."""
    try:
        with open(layout.path("hosts.json"), encoding="utf-8") as f:
            return [LabHost(**data) for data in json.load(f)]
    except FileNotFoundError:
        return []


def write_file(path: str, text: str) -> None:
    """Write a file so that a reader finds the old or the new text, never a part."""
    with open(f"{path}.new", "w", encoding="utf-8") as f:
        f.write(text)
    os.rename(f"{path}.new", path)
