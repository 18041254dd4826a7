"""A throw-away sshd on a loopback address, with its own keys and options."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin:" + os.environ.get("PATH", "")) or "/usr/sbin/sshd"
USER = getpass.getuser()

BASE = """\
ListenAddress {address}:{port}
HostKey {host_key}
PidFile none
AuthorizedKeysFile {authorized}
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 500:30:1000
LogLevel VERBOSE
# bash reads ~/.bashrc for a command over ssh, unless it believes to be started by another shell
SetEnv SHLVL=9
{extra}
"""


def keygen(path: Path, kind: str = "ed25519", *options: str, passphrase: str = "") -> Path:
    """Make a key pair at *path* and return it."""
    words = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(path), "-C", path.name, *options]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
    return path


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as sock:
        sock.bind((address, 0))
        port: int = sock.getsockname()[1]
        return port


@dataclass
class Sshd:
    """One running server. address and port to connect to; client_key is accepted by it."""

    folder: Path
    address: str
    port: int
    host_key: Path
    client_key: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def known_hosts(self, name: str | None = None) -> Path:
        """Write a known_hosts file with this server's key and return its path."""
        path = self.folder / "known_hosts"
        words = self.host_key.with_suffix(".pub").read_text().split()[:2]
        shown = name or f"[{self.address}]:{self.port}"
        path.write_text(f"{shown} {' '.join(words)}\n")
        return path

    def children(self) -> list[int]:
        """Return the ids of the processes that serve connections."""
        found = []
        todo = [self.process.pid]
        while todo:
            pid = todo.pop()
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for task in os.listdir(f"/proc/{pid}/task"):
                    todo += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
            found.append(pid)
        return found[1:]

    def signal_all(self, number: int) -> None:
        """Send a signal to the server and to all that it started."""
        for pid in [*self.children(), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """End the server and every connection to it."""
        self.signal_all(signal.SIGCONT)
        self.signal_all(signal.SIGKILL)
        self.process.wait()


def _penalties() -> str:
    """Return the line that turns off what newer servers do after failed logins: refuse the whole address."""
    said = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr
    found = re.match(r"OpenSSH_(\d+)\.(\d+)", said)
    return "PerSourcePenalties no\n" if found and (int(found[1]), int(found[2])) >= (9, 8) else ""


def start_sshd(
    folder: Path, client_key: Path, *, address: str = "127.0.0.1", extra: str = "", host_key: Path | None = None
) -> Sshd:
    """Start a server that accepts *client_key*; extra are lines for its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.getuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)
    host_key = host_key or keygen(folder / "host_ed25519")
    authorized = folder / "authorized_keys"
    authorized.write_text(client_key.with_name(client_key.name + ".pub").read_text())
    port = free_port(address)
    config = folder / "sshd_config"
    text = BASE.format(address=address, port=port, host_key=host_key, authorized=authorized, extra=extra)
    config.write_text(text + _penalties())
    process = subprocess.Popen(
        [SSHD, "-D", "-f", str(config), "-E", str(folder / "log")], stdin=subprocess.DEVNULL, start_new_session=True
    )
    server = Sshd(folder, address, port, host_key, client_key, process)
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
            return server
        if process.poll() is not None or time.monotonic() > deadline:
            server.stop()
            raise RuntimeError("sshd did not start: " + server.log)
        time.sleep(0.01)


@contextlib.contextmanager
def running_sshd(folder: Path, client_key: Path, **options: object) -> Iterator[Sshd]:
    """Run a server for the length of a with block."""
    server = start_sshd(folder, client_key, **options)  # type: ignore[arg-type]
    try:
        yield server
    finally:
        server.stop()
