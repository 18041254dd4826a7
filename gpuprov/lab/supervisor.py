"""The process that a lab is: parent of every host's process 1, until `down`.

It starts hosts when asked to over its control socket, and again when they reboot. When it ends,
however it ends, the kernel ends the hosts, and with their namespaces go their mounts.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import time
from typing import Any

from gpuprov.lab import boot, syscalls
from gpuprov.lab.addresses import listening_addresses, lock_block
from gpuprov.lab.layout import Layout
from gpuprov.lab.options import HostOptions
from gpuprov.lab.processes import process_of
from gpuprov.lab.root import HostSpec

#: Builders at work at once: they are short of disk and CPU, not of each other.
_AT_ONCE = 8
#: How the process of a host ends when it reboots or is switched off: the exit codes of an ordinary
#: host's init (inside.py) and what reboot(2) kills it with, and the exit codes of systemd-nspawn.
_REBOOT, _POWEROFF = (64, -signal.SIGHUP), (65, -signal.SIGINT)
_BOOTED_REBOOT, _BOOTED_POWEROFF = (133,), (0,)


class _Host:
    """One host as the supervisor sees it. state: waiting, starting, up, off or failed."""

    def __init__(self, spec: HostSpec) -> None:
        self.spec = spec
        self.state = "waiting"
        self.not_before = 0.0
        self.init = 0
        self.said = b""
        self.reason = ""


class _Refused(Exception):
    """A host that is asked for cannot be had; the sentence says why."""


class Supervisor:
    """A lab's hosts and the loop that looks after them. Single-threaded; owns the process."""

    def __init__(self, layout: Layout, block_lock: socket.socket) -> None:
        self._layout = layout
        self._block_lock = block_lock
        self._hosts: dict[str, _Host] = {}
        self._reports: dict[int, _Host] = {}
        self._clients: dict[socket.socket, tuple[set[str], dict[str, str]]] = {}
        self._life, self._held = os.pipe()
        self._wake, wake_w = os.pipe()
        for fd in (self._wake, wake_w):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake_w)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._listener = _listen(layout)

    def run(self) -> None:
        """Serve until killed."""
        while True:
            self._start_waiting()
            self._find_listening()
            self._answer_clients()
            self._sleep()
            self._reap()

    def _sleep(self) -> None:
        """Wait for a client, a builder's report, the end of a child, or the next thing that is due."""
        now = time.monotonic()
        waits = [host.not_before - now for host in self._hosts.values() if host.state == "waiting"]
        if any(host.state == "starting" for host in self._hosts.values()):
            waits.append(0.02)  # nobody says when an sshd begins to listen
        timeout = max(0.0, min(waits)) if waits else None
        listener = self._listener.fileno()
        ready, _, _ = select.select([listener, self._wake, *self._reports], [], [], timeout)
        for fd in ready:
            if fd == listener:
                self._accept()
            elif fd == self._wake:
                os.read(fd, 4096)
            else:
                self._hear(fd)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        client.settimeout(5)
        try:
            with client.makefile("rb") as f:
                request: list[dict[str, Any]] = json.loads(f.readline())
        except (OSError, ValueError):  # killed before it had said all
            client.close()
            return
        client.settimeout(0)
        refused = {}
        for data in request:
            try:
                self._want(data)
            except _Refused as error:
                refused[data["name"]] = str(error)
        self._clients[client] = ({data["name"] for data in request} - set(refused), refused)

    def _want(self, data: dict[str, Any]) -> None:
        """Start a host that is not there yet, or is off (it keeps its options and its layer)."""
        known = self._hosts.get(data["name"])
        options = HostOptions.from_json(data["options"]) if data["options"] else None
        if known is not None and options not in (None, known.spec.options):
            raise _Refused("it was started with other options; gpuprov lab down first")
        if known is not None and known.state in ("waiting", "starting", "up"):
            return
        if (data["address"], data["port"]) in listening_addresses():
            raise _Refused(f"{data['address']}:{data['port']} is taken by a process that is not the lab's")
        options = options or (known.spec.options if known else HostOptions())
        fields = {**data, "hidden": tuple(data["hidden"]), "options": options}
        self._hosts[data["name"]] = _Host(HostSpec(**fields, layout=self._layout))

    def _start_waiting(self) -> None:
        now = time.monotonic()
        room = _AT_ONCE - len(self._reports)
        for host in self._hosts.values():
            if room > 0 and host.state == "waiting" and host.not_before <= now:
                report = boot.start(host.spec, self._life, (self._held, *self._reports))
                host.said, host.state = b"", "starting"
                self._reports[report] = host
                room -= 1

    def _hear(self, report: int) -> None:
        """Take in what a builder says; at the end of its report, its host runs or has failed."""
        host = self._reports[report]
        data = os.read(report, 4096)
        host.said += data
        if data:
            return
        os.close(report)
        del self._reports[report]
        first, _, rest = host.said.decode("utf-8", "replace").partition("\n")
        if first.startswith("ok ") and not rest:
            host.init = int(first[3:])
        else:
            self._fail(host, " ".join(host.said.decode("utf-8", "replace").split()) or "its builder was killed")

    def _find_listening(self) -> None:
        starting = [host for host in self._hosts.values() if host.state == "starting" and host.init]
        if not starting:
            return
        listening = listening_addresses()
        for host in starting:
            if (host.spec.address, host.spec.port) in listening:
                host.state = "up"

    def _reap(self) -> None:
        by_init = {host.init: host for host in self._hosts.values() if host.init}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in by_init:
                self._ended(by_init[pid], status)

    def _ended(self, host: _Host, status: int) -> None:
        """Go by how a host's process ended."""
        code = os.waitstatus_to_exitcode(status)
        host.init = 0
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._layout.host(host.spec.name, "process"))
        booted = host.spec.options.booted
        reboot, poweroff = (_BOOTED_REBOOT, _BOOTED_POWEROFF) if booted else (_REBOOT, _POWEROFF)
        if code in reboot and host.spec.options.returns:
            host.state, host.not_before = "waiting", time.monotonic() + host.spec.options.boot_delay_s
        elif code in reboot + poweroff:
            host.state, host.reason = "off", "it was switched off"
        else:
            self._fail(
                host,
                f"its {'systemd-nspawn' if booted else 'process 1'} ended with {code}: {_last_line(host.spec.log)}",
            )

    def _fail(self, host: _Host, reason: str) -> None:
        host.state, host.reason = "failed", reason

    def _answer_clients(self) -> None:
        """Answer each client whose hosts are all up or out of hope, with {name: reason} of the latter."""
        for client, (names, refused) in list(self._clients.items()):
            hosts = [self._hosts[name] for name in names]
            if any(host.state in ("waiting", "starting") for host in hosts):
                continue
            answer = {**refused, **{host.spec.name: host.reason for host in hosts if host.state != "up"}}
            del self._clients[client]
            with contextlib.suppress(OSError):  # the client is gone, or reads nothing: its loss
                client.sendall(json.dumps(answer).encode() + b"\n")
            client.close()


def _last_line(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as f:
        return ([line for line in f.read().splitlines() if line.strip()] or ["it said nothing"])[-1]


def _listen(layout: Layout) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    os.chdir(layout.state)  # a socket's path has room for 107 bytes
    if os.path.exists("control"):
        os.unlink("control")
    listener.bind("control")
    os.chmod("control", 0o600)
    listener.listen(16)
    os.chdir("/")
    return listener


def _why_no_layers(layout: Layout) -> str:
    """Return why the file system of the layers cannot carry one (it is an overlay itself, say), or ""."""

    def work() -> None:
        syscalls.unshare(syscalls.NEW_MOUNTS)
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
        os.chdir(layout.path("layers"))
        for name in ("upper", "work", "view"):
            os.makedirs(f".trial/{name}", exist_ok=True)
        os.chdir(".trial")
        os.setxattr("upper", "trusted.overlay.opaque", b"y")
        syscalls.mount("overlay", "view", "overlay", 0, "lowerdir=/etc,upperdir=upper,workdir=work")

    reason = boot.trial(work)
    shutil.rmtree(layout.path("layers", ".trial"), ignore_errors=True)
    return reason


def users_available() -> bool:
    """Say whether the kernel gives out user namespaces here."""
    return boot.trial(lambda: syscalls.unshare(syscalls.NEW_USERS)) == ""


def main(state: str, ready: int, starter_lock: int) -> None:
    """Leave a supervisor of the lab at *state* behind; it tells through *ready* when it serves.

    It holds the starter's lock on the lab until then, so that nobody meets half a supervisor,
    whatever happens to the starter.
    """
    if os.fork():
        os._exit(0)
    os.setsid()
    os.umask(0o022)
    layout = Layout(state)
    with open(layout.path("lab.json"), encoding="utf-8") as f:
        lab = json.load(f)
    lab["block"], lock = lock_block(lab.get("block"))
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    syscalls.unshare(syscalls.NEW_MOUNTS)
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
    lab["own_users"] = lab["own_users"] and users_available()
    lab["in_memory"] = bool(_why_no_layers(layout))
    if lab["in_memory"]:
        syscalls.mount("layers", layout.path("layers"), "tmpfs", 0, "mode=711,size=75%")
        reason = _why_no_layers(layout)
        if reason:
            raise OSError(f"no copy-on-write view of / can be had: {reason}")
    # Held by all that we fork, until it has become a host: end_processes waits for it.
    running = os.open(layout.path("running"), os.O_WRONLY | os.O_CREAT, 0o600)
    fcntl.flock(running, fcntl.LOCK_EX)
    supervisor = Supervisor(layout, lock)
    for name, text in (("lab.json", json.dumps(lab)), ("supervisor", str(process_of(os.getpid())))):
        with open(layout.path(f"{name}.new"), "w", encoding="utf-8") as f:
            f.write(text)
        os.rename(layout.path(f"{name}.new"), layout.path(name))
    os.write(ready, b"ok")
    os.close(ready)
    os.close(starter_lock)
    supervisor.run()
