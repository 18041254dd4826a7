from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from gpuprov.cli.main import main
from gpuprov.errors import EXIT_ERROR, EXIT_INPUT, EXIT_OK, EXIT_UNREACHABLE
from tests.support.sshd import free_port, keygen, running_sshd
from tests.transport.test_host_keys import fingerprint, line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.sshd import Sshd


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir(mode=0o700)
    (tmp_path / ".ssh" / "config").write_text("HashKnownHosts no\n")
    (tmp_path / ".ssh" / "config").chmod(0o600)
    return tmp_path / ".ssh" / "known_hosts"


@pytest.fixture
def second(tmp_path: Path, client_key: Path) -> Iterator[Sshd]:
    rsa = keygen(tmp_path / "host_rsa", "rsa")
    with running_sshd(tmp_path / "second", client_key, address="127.0.0.2", extra=f"HostKey {rsa}") as running:
        yield running


def inventory(folder: Path, *servers: Sshd, more: str = "") -> str:
    path = folder / "hosts.yaml"
    rows = [f"    gpu{n:02}: {{ansible_host: {s.address}, ansible_port: {s.port}}}\n" for n, s in enumerate(servers, 1)]
    path.write_text("all:\n  hosts:\n" + "".join(rows) + more)
    return str(path)


def test_new_keys_are_shown_and_recorded_with_yes(
    known: Path, tmp_path: Path, server: Sshd, second: Sshd, capsys: pytest.CaptureFixture[str]
) -> None:
    path = inventory(tmp_path, server, second)
    assert main(["trust", path, "--yes"]) == EXIT_OK
    out = capsys.readouterr().out
    for key in (server.host_key, second.host_key, tmp_path / "host_rsa"):
        assert fingerprint(key) in out
    assert "2 hosts: 2 new" in out
    recorded = known.read_text()
    assert sorted(recorded.splitlines(keepends=True)) == sorted(
        [line(server), line(second), line(second, tmp_path / "host_rsa")]
    )
    assert main(["trust", path]) == EXIT_OK
    assert "2 hosts: 2 same" in capsys.readouterr().out
    assert known.read_text() == recorded


def test_nothing_is_recorded_unasked(
    known: Path, tmp_path: Path, server: Sshd, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trust", inventory(tmp_path, server)]) == EXIT_ERROR
    captured = capsys.readouterr()
    assert fingerprint(server.host_key) in captured.out
    assert "nothing is recorded unasked" in captured.err
    assert not known.exists()


def test_a_changed_key_needs_more_than_yes(
    known: Path, tmp_path: Path, server: Sshd, capsys: pytest.CaptureFixture[str]
) -> None:
    old = keygen(tmp_path / "old")
    before = line(server, old) + "desk ssh-ed25519 AAAA\n"
    known.write_text(before)
    path = inventory(tmp_path, server)
    assert main(["trust", path, "--yes"]) == EXIT_ERROR
    out = capsys.readouterr().out
    assert "CHANGED" in out
    assert fingerprint(old) in out
    assert fingerprint(server.host_key) in out
    assert f"{known}:1" in out
    assert known.read_text() == before
    assert main(["trust", path, "--yes", "--replace"]) == EXIT_OK
    assert known.read_text() == "desk ssh-ed25519 AAAA\n" + line(server)


def test_a_revoked_key_is_never_recorded(
    known: Path, tmp_path: Path, server: Sshd, capsys: pytest.CaptureFixture[str]
) -> None:
    known.write_text("@revoked " + line(server, name="*"))
    assert main(["trust", inventory(tmp_path, server), "--yes", "--replace"]) == EXIT_UNREACHABLE
    assert "REVOKED" in capsys.readouterr().out
    assert known.read_text() == "@revoked " + line(server, name="*")


def test_an_unreachable_host_does_not_stop_the_others(
    known: Path, tmp_path: Path, server: Sshd, capsys: pytest.CaptureFixture[str]
) -> None:
    more = f"    gpu09: {{ansible_host: 127.0.0.1, ansible_port: {free_port()}}}\n"
    assert main(["trust", inventory(tmp_path, server, more=more), "--yes"]) == EXIT_UNREACHABLE
    assert "connection refused" in capsys.readouterr().out
    assert known.read_text() == line(server)


def test_limit(known: Path, tmp_path: Path, server: Sshd, second: Sshd) -> None:
    assert main(["trust", inventory(tmp_path, server, second), "--yes", "--limit", "gpu01"]) == EXIT_OK
    assert known.read_text() == line(server)


def test_bad_input_is_told_before_anything_connects(
    known: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".ssh" / "config").write_text("Prot 1\n")
    more = "    gpu01: {ansible_host: 127.0.0.1, ansible_ssh_common_args: -A}\n    gpu02:\n"
    assert main(["trust", inventory(tmp_path, more=more), "--yes"]) == EXIT_INPUT
    err = capsys.readouterr().err
    assert "-A is not supported" in err
    assert f"{tmp_path}/.ssh/config:1" in err


def test_bastions_come_first(known: Path, tmp_path: Path, server: Sshd, second: Sshd) -> None:
    (tmp_path / ".ssh" / "config").write_text(
        f"HashKnownHosts no\nHost door\n  HostName {second.address}\n  Port {second.port}\n"
        f"  IdentityFile {second.client_key}\nHost gpu01\n  ProxyJump door\n"
    )
    path = tmp_path / "hosts.yaml"
    settings = f"ansible_ssh_common_args: -o HostName={server.address}, ansible_port: {server.port}"
    path.write_text(f"all:\n  hosts:\n    gpu01: {{{settings}}}\n")
    assert main(["trust", str(path), "--yes"]) == EXIT_OK
    assert known.read_text().splitlines(keepends=True)[-1] == line(server)
    assert line(second) in known.read_text()


@pytest.mark.parametrize(("answer", "recorded"), [("y", True), ("", False), ("no", False)])
def test_a_person_is_asked(known: Path, tmp_path: Path, server: Sshd, answer: str, recorded: bool) -> None:
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gpuprov", "trust", inventory(tmp_path, server)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 30
    while b"[y/N]" not in shown and time.monotonic() < deadline:
        shown += os.read(ours, 4096)
    assert f"record the keys of 1 host in {known}?".encode() in shown
    os.write(ours, answer.encode() + b"\n")
    assert process.wait(30) == (EXIT_OK if recorded else EXIT_ERROR)
    os.close(ours)
    assert known.exists() is recorded
