from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from gpuprov.transport.target import ConnectOptions, Target, target_of
from gpuprov.transport.ways import Ways
from tests.support.sshd import Sshd, keygen, running_sshd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gpuprov.transport.base import Channel, Connection


@pytest.fixture(scope="session")
def client_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keygen(tmp_path_factory.mktemp("client") / "id_ed25519")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, client_key: Path) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd"), client_key) as running:
        running.known_hosts()
        yield running


@dataclass
class Person:
    """Somebody with a home, connecting: a Ways with its own ~/.ssh, nothing of the machine's."""

    home: Path
    ways: Ways
    options: ConnectOptions
    warnings: list[str]
    stack: contextlib.ExitStack

    def target(self, server: Sshd | None = None, name: str = "gpu01", **variables: Any) -> Target:
        if server is not None:
            given = {
                "ansible_host": server.address,
                "ansible_port": server.port,
                "ansible_ssh_private_key_file": str(server.client_key),
                "gpuprov_known_hosts": str(server.folder / "known_hosts"),
            }
            variables = {key: value for key, value in {**given, **variables}.items() if value is not None}
        return target_of(name, variables, self.options)

    def connect(self, server: Sshd | None = None, name: str = "gpu01", **variables: Any) -> Connection:
        connection = self.ways.connect(self.target(server, name, **variables))
        self.stack.callback(connection.close)
        return connection

    def config(self, text: str) -> Path:
        """Write ~/.ssh/config; only connections after a `fresh` see it when some were made before."""
        path = self.home / ".ssh" / "config"
        path.write_text(text)
        path.chmod(0o600)
        return path

    def fresh(self, **changes: Any) -> Person:
        """Return the same person in a new run."""
        self.options = replace(self.options, **changes)
        self.ways = Ways(self.options)
        self.stack.callback(self.ways.close)
        return self


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Person]:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    warnings: list[str] = []
    options = ConnectOptions(home=str(home), system_ssh_config=os.devnull, connect_timeout_s=5, warn=warnings.append)
    with contextlib.ExitStack() as stack:
        yield Person(home, Ways(options), options, warnings, stack).fresh()


def everything(channel: Channel, timeout_s: float = 20) -> bytes:
    """Read a channel to its end."""
    out = bytearray()
    while channel.wait(timeout_s):
        piece = channel.recv()
        if piece == b"":
            return bytes(out)
        out += piece or b""
    raise AssertionError(f"no end within {timeout_s} s; so far {bytes(out[-200:])!r}")
