"""The rehearsal fleet as a value: start it, look at it, connect to it, take it down."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpuprov.errors import LabError
from gpuprov.lab.addresses import address_of, free_port, listening_addresses
from gpuprov.lab.checks import check, need_root, which, with_booted
from gpuprov.lab.control import CODE, ask, end_processes, start_supervisor
from gpuprov.lab.keys import LabHost, make_keys, read_hosts, write_client_files, write_file
from gpuprov.lab.layout import (
    DEFAULT_PORT,
    DEFAULT_STATE,
    FILES,
    LOCK,
    Layout,
    default_state,
    host_index,
    host_name,
    label_of,
)
from gpuprov.lab.processes import read_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gpuprov.lab.options import HostOptions


@dataclass(frozen=True, slots=True)
class HostStatus:
    """One lab host and whether it runs. pid is that of its process 1, 0 when it has none.

    booted is the Debian suite of a booted host, and "" for others; its pid is that of its systemd-nspawn.
    gpus are its simulated GPUs ("8xh100-sxm"), "" for none.
    """

    host: LabHost
    up: bool
    pid: int
    booted: str = ""
    gpus: str = ""


class Lab:
    """The lab whose files are in folder *state* ($GPUPROV_LAB_STATE, else /var/lib/gpuprov-lab)."""

    def __init__(self, state: str | os.PathLike[str] | None = None) -> None:
        if os.uname().sysname != "Linux":
            raise LabError("a lab needs Linux: its hosts are namespaces of this machine's kernel")
        self.layout = Layout(os.path.realpath(state or default_state()))

    def up(
        self,
        hosts: int = 4,
        *,
        options: Mapping[str, HostOptions] | None = None,
        booted: str = "",
        gpus: str | Mapping[str, str] = "",
        port: int = 0,
        user_namespaces: bool = True,
        timeout_s: float = 60.0,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Start gpu01 to gpuNN where they are not up; hosts beyond that are left alone.

        options (by host name) are for the first start of a host; booted, the name of a Debian suite,
        makes booted hosts of those that have none. gpus are the simulated GPUs of all hosts ("8xh100-sxm", or a
        recorded file) or of each ("gpu01=8xh100-sxm,gpu02=4xt4", or a mapping). port and user_namespaces are
        for a new lab: port 0 is the first free one from 2222, and without user namespaces root
        in a host cannot mount. Returns when every sshd listens; say is told what takes long before.
        Raises LabError.
        """
        names = [host_name(index) for index in range(1, hosts + 1)]
        options = with_booted(names, options or {}, booted)
        simulated = _simulated(names, gpus)
        if simulated:
            from gpuprov.lab.gpus import with_gpus

            options = with_gpus(options, simulated)
        check(names, options, port)
        for suite in sorted({wanted.booted for wanted in options.values()} - {""}):
            from gpuprov.lab.debian import make_base_root

            make_base_root(suite, say)
        with self._lock(create=True) as lock:
            self._ensure_supervisor(lock, port, user_namespaces)
            for name in names:
                _folder(self.layout.host(name))
            make_keys(self.layout, names)
            if simulated:
                from gpuprov.lab.gpus import furnish

                furnish(self.layout, simulated)
            lab = self._read()
            wanted = [LabHost(name, address_of(lab["block"], host_index(name)), lab["port"]) for name in names]
            more = [host for host in read_hosts(self.layout) if host_index(host.name) > hosts]
            write_client_files(self.layout, wanted + more)
            failed = ask(self.layout, self._request(wanted, options, lab["own_users"]), timeout_s)
        if failed:
            raise self._could_not_be_had(failed, hosts)

    def _could_not_be_had(self, failed: Mapping[str, str], hosts: int) -> LabError:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in sorted(failed.items())[:3])
        text = f"{len(failed)} of {hosts} lab hosts could not be had: {reasons}"
        return LabError(text, hint=f"{self.layout.host(min(failed), 'log')} has what its sshd said")

    def down(self) -> None:
        """End every host and remove every file of the lab; nothing to do is fine. Raises LabError."""
        state = self.layout.state
        if not os.path.isdir(state) or not os.listdir(state):
            return
        need_root("down")
        with self._lock(create=False):
            self._end_processes()
            for name in ("layers", "hosts"):
                _remove(self.layout.path(name))
            for name in FILES:
                for file in (name, f"{name}.new"):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(self.layout.path(file))
            os.unlink(self.layout.path(LOCK))
        with contextlib.suppress(OSError):  # somebody's files, or a lab that starts this moment
            os.rmdir(state)

    def ensure(
        self,
        hosts: int = 4,
        *,
        booted: str = "",
        gpus: str | Mapping[str, str] = "",
        say: Callable[[str], None] = lambda _: None,
    ) -> bool:
        """Start what is not running of gpu01 to gpuNN; say whether anything had to be started.

        Needs no root, and no more than milliseconds, when all are up. Raises LabError, also when
        a host is up that is not of the kind that *booted* asks for, or has other GPUs than *gpus* says.
        """
        up = {status.host.name: status for status in self.status() if status.up}
        names = [host_name(index) for index in range(1, hosts + 1)]
        for name in names:
            if name in up and up[name].booted != booted:
                is_one, wanted = (
                    f"a booted {suite} host" if suite else "an ordinary one" for suite in (up[name].booted, booted)
                )
                raise LabError(
                    f"lab host {name} is {is_one}, not {wanted}",
                    hint="gpuprov lab down, or another lab: GPUPROV_LAB_STATE=FOLDER",
                )
        simulated = _simulated(names, gpus)
        if simulated:
            from gpuprov.lab.gpus import need_same

            need_same({name: status.gpus for name, status in up.items()}, simulated)
        if all(name in up for name in names):
            return False
        self.up(hosts, booted=booted, gpus=gpus, say=say)
        return True

    def status(self) -> tuple[HostStatus, ...]:
        """Return the hosts that the lab was asked for, and whether each runs. Needs no root."""
        listening = listening_addresses()
        found = []
        for host in read_hosts(self.layout):
            process = read_process(self.layout.host(host.name, "process"))
            pid = process.pid if process is not None and process.is_alive() else 0
            up = bool(pid) and (host.address, host.port) in listening
            found.append(HostStatus(host, up, pid, self._suite(host.name), label_of(self.layout, host.name)))
        return tuple(found)

    @property
    def confined(self) -> bool:
        """Whether hosts have a user namespace; without one root in a host cannot mount."""
        return bool(self._read()["own_users"])

    def connection(self, name: str) -> dict[str, Any]:
        """Return the connection variables of host *name*. Raises LabError when the lab has none."""
        hosts = read_hosts(self.layout)
        found = next((host for host in hosts if host.name == name), None)
        if found is None:
            have = f"it has {hosts[0].name} to {hosts[-1].name}" if hosts else "it is not running"
            raise LabError(
                f"the lab at {self.layout.state} has no host {name}: {have}", hint="gpuprov lab up --hosts N"
            )
        return {
            "ansible_host": found.address,
            "ansible_port": found.port,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": self.layout.path("id"),
            "gpuprov_known_hosts": self.layout.path("known_hosts"),
        }

    def _suite(self, name: str) -> str:
        try:
            with open(self.layout.host(name, "booted"), encoding="ascii") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def _end_processes(self) -> None:
        """End all that runs, and remove what the kernel keeps about it. Raises LabError."""
        end_processes(self.layout)
        hosts = self.layout.path("hosts")
        if any(self._suite(name) for name in (os.listdir(hosts) if os.path.isdir(hosts) else [])):
            from gpuprov.lab import cgroups

            reason = cgroups.remove(self.layout)
            if reason:
                raise LabError(f"the lab's cgroups cannot be removed: {reason}")

    @contextmanager
    def _lock(self, create: bool) -> Iterator[int]:
        """Hold the lab's lock; its descriptor is the one thing that says who may change it."""
        state, path = self.layout.state, self.layout.path(LOCK)
        while True:
            if create:
                os.makedirs(state, exist_ok=True)
            others = set(os.listdir(state)) - {LOCK}
            if others and not os.path.exists(path):  # in this order: who starts it meanwhile makes the lock first
                raise LabError(
                    f"{state} has files in it that are not a lab's; nothing was touched",
                    hint="name another folder with --state",
                )
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                # who held it before may have taken the lab down, this file with it
                if os.path.exists(path) and os.path.samestat(os.fstat(fd), os.stat(path)):
                    yield fd
                    return
            finally:
                os.close(fd)

    def _ensure_supervisor(self, lock: int, port: int, user_namespaces: bool) -> None:
        running = read_process(self.layout.path("supervisor"))
        if running is not None and running.is_alive():
            return
        self._end_processes()
        # No host runs: all start afresh, with the keys and addresses that they had.
        _remove(self.layout.path("layers"))
        for folder in (self.layout.state, self.layout.path("hosts"), self.layout.path("layers")):
            _folder(folder)
        for name in os.listdir(self.layout.path("hosts")):
            _remove(self.layout.host(name, "journal"))
            _remove(self.layout.host(name, "gpus"))
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.layout.host(name, "booted"))
        old = self._read() if os.path.exists(self.layout.path("lab.json")) else {}
        lab = {
            "block": old.get("block"),
            "port": free_port(port or old.get("port") or DEFAULT_PORT),
            "own_users": user_namespaces,
        }
        write_file(self.layout.path("lab.json"), json.dumps(lab))
        start_supervisor(self.layout, lock)

    def _request(
        self, hosts: Sequence[LabHost], options: Mapping[str, HostOptions], own_users: bool
    ) -> list[dict[str, Any]]:
        with open(self.layout.path("id.pub"), encoding="ascii") as f:
            authorized_key = f.read()
        hidden = [self.layout.state, DEFAULT_STATE]
        if os.path.exists(f"{CODE}/pyproject.toml"):
            hidden.append(CODE)
        shared = {
            "sshd": which("sshd") or "",
            "own_users": own_users,
            "hidden": hidden,
            "authorized_key": authorized_key,
        }
        return [
            {
                "name": host.name,
                "address": host.address,
                "port": host.port,
                "options": options[host.name].to_json() if host.name in options else None,
                **shared,
            }
            for host in hosts
        ]

    def _read(self) -> dict[str, Any]:
        try:
            with open(self.layout.path("lab.json"), encoding="utf-8") as f:
                data: dict[str, Any] = json.load(f)
        except FileNotFoundError:
            raise LabError(f"no lab in {self.layout.state}", hint="gpuprov lab up") from None
        return data


def _simulated(names: Sequence[str], gpus: str | Mapping[str, str]) -> Mapping[str, str]:
    if not gpus:
        return {}
    from gpuprov.lab.gpus import assigned  # its tables are for labs that have some

    return assigned(names, gpus)


def _folder(path: str) -> None:
    """Make sure that *path* is there, to be passed through by all and listed by root."""
    os.makedirs(path, exist_ok=True)
    os.chmod(path, 0o711)  # noqa: S103 - who ran `sudo gpuprov lab up` reads its key below


def _remove(path: str) -> None:
    """Remove a folder, waiting for what an ending host still has in it."""
    shutil.rmtree(path, ignore_errors=True)
    if os.path.exists(path):
        shutil.rmtree(path)
