from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from gpuprov.errors import ConnectError, SessionLost, TransportError
from tests.support.sshd import free_port, running_sshd
from tests.support.wire_cutter import wire_cutter
from tests.transport.conftest import everything

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.sshd import Sshd
    from tests.transport.conftest import Person


@contextlib.contextmanager
def listener(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Run *serve* for each connection; yield the port."""
    server = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def loop() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = server.accept()
                held.append(sock)
                serve(sock)

    threading.Thread(target=loop, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        for sock in held:
            sock.close()


def fails(person: Person, port: int, **variables: object) -> tuple[TransportError, float]:
    started = time.monotonic()
    with pytest.raises(TransportError) as caught:
        person.connect(ansible_host="127.0.0.1", ansible_port=port, **variables)
    return caught.value, time.monotonic() - started


def test_nothing_listens(person: Person) -> None:
    error, took = fails(person, free_port())
    assert isinstance(error, ConnectError)
    assert "connection refused" in error.message
    assert "sshd" in error.hint
    assert took < 300


def test_a_listener_that_never_speaks(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuprov.transport.handshake.BANNER_TIMEOUT_S", 0.5)
    person.fresh(connect_timeout_s=0.5)
    with listener(lambda sock: None) as port:
        error, took = fails(person, port)
    assert isinstance(error, ConnectError)
    assert "said nothing within" in error.message
    assert took < 30


def test_a_listener_that_stops_after_its_banner(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuprov.transport.handshake.KEX_TIMEOUT_S", 0.5)
    monkeypatch.setattr("gpuprov.transport.handshake.BANNER_TIMEOUT_S", 0.5)
    person.fresh(connect_timeout_s=0.5)
    with listener(lambda sock: sock.sendall(b"SSH-2.0-Test\r\n")) as port:
        error, took = fails(person, port)
    assert isinstance(error, ConnectError)
    assert "did not finish the key exchange" in error.message
    assert took < 30


@pytest.mark.parametrize("length", [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xf0", b"\0\0\0\0"])
def test_a_packet_of_an_absurd_length(person: Person, length: bytes) -> None:
    def serve(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock.sendall(b"SSH-2.0-Test\r\n" + length + bytes(2_000_000))

    with listener(serve) as port:
        error, took = fails(person, port)
    assert "broke the SSH protocol" in error.message
    assert took < 30


def test_something_that_is_not_ssh(person: Person) -> None:
    with listener(lambda sock: sock.sendall(b"HTTP/1.1 400 Bad Request\r\n" * 200)) as port:
        error, _ = fails(person, port)
    assert "does not speak SSH" in error.message
    assert str(port) in error.hint


def test_a_terminal_escape_in_a_greeting_is_defused(person: Person) -> None:
    with listener(lambda sock: sock.sendall(b"\x1b[2J\x1b]0;gotcha\x07 hello\n" * 150)) as port:
        error, _ = fails(person, port)
    assert "\x1b" not in str(error)


def test_a_listener_that_hangs_up_at_once(person: Person) -> None:
    with listener(lambda sock: sock.close()) as port:
        error, took = fails(person, port)
    assert isinstance(error, ConnectError)
    assert "MaxStartups" in error.hint
    assert took < 30


def test_a_full_backlog_times_out(person: Person) -> None:
    """A listener that accepts nothing: the kernel drops further SYNs, as a firewall would."""
    person.fresh(connect_timeout_s=0.5)
    server = socket.socket()
    fillers = []
    try:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
            fillers.append(filler)
        time.sleep(0.1)
        error, took = fails(person, server.getsockname()[1])
    finally:
        for sock in (server, *fillers):
            sock.close()
    assert "did not answer within 0.5 s" in error.message
    assert took < 30


def test_a_name_that_does_not_exist(person: Person) -> None:
    with pytest.raises(ConnectError, match=r"no-such-host\.invalid"):
        person.connect(ansible_host="no-such-host.invalid", ansible_port=22)


def test_a_resolver_that_hangs(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: done.wait(60))
    person.fresh(connect_timeout_s=0.3)
    started = time.monotonic()
    with pytest.raises(ConnectError, match=r"was not resolved within 0\.3 s"):
        person.connect(ansible_host="gpu01.example", ansible_port=22)
    done.set()
    assert time.monotonic() - started < 30


def test_a_killed_server_ends_the_channel(person: Person, tmp_path: Path, client_key: Path) -> None:
    with running_sshd(tmp_path / "s", client_key) as server:
        server.known_hosts()
        connection = person.connect(server)
        channel = connection.run("sleep 60")
        assert channel.wait(0.5) is False
        server.signal_all(signal.SIGKILL)
        assert everything(channel) == b""
        assert channel.exit_status() is None
        assert not connection.alive()
        assert connection.why_dead == "the host closed the connection"
        with pytest.raises(SessionLost, match="the host closed the connection"):
            connection.run("true")
        with pytest.raises(SessionLost, match="the host closed the connection"):
            channel.send(b"x", 5)
        channel.close()


def test_a_stopped_server_is_noticed(person: Person, tmp_path: Path, client_key: Path) -> None:
    person.fresh(keepalive_s=0.4, keepalive_count=2)
    with running_sshd(tmp_path / "s", client_key) as server:
        server.known_hosts()
        connection = person.connect(server)
        channel = connection.run("sleep 60")
        assert channel.wait(2) is False, "a living host that is silent must stay connected"
        assert connection.alive()
        server.signal_all(signal.SIGSTOP)
        started = time.monotonic()
        assert channel.wait(30)
        assert channel.recv() == b""
        assert time.monotonic() - started > 0.8
        assert "stopped answering" in connection.why_dead
        channel.close()


def test_dropped_packets_are_noticed(person: Person, server: Sshd) -> None:
    person.fresh(keepalive_s=0.4, keepalive_count=2)
    with wire_cutter((server.address, server.port)) as wire:
        connection = person.connect(
            server, ansible_port=wire.port, gpuprov_known_hosts=str(_renamed(person, server, wire.port))
        )
        channel = connection.run("while :; do echo tick; sleep 0.1; done")
        assert channel.wait(10)
        wire.cut()
        started = time.monotonic()
        everything(channel)
        assert time.monotonic() - started < 30
        assert "stopped answering" in connection.why_dead
        channel.close()


def test_a_short_gap_is_survived(person: Person, server: Sshd) -> None:
    person.fresh(keepalive_s=0.5, keepalive_count=20)
    with wire_cutter((server.address, server.port)) as wire:
        connection = person.connect(
            server, ansible_port=wire.port, gpuprov_known_hosts=str(_renamed(person, server, wire.port))
        )
        channel = connection.run("sleep 2; echo late")
        wire.cut()
        time.sleep(1.2)
        wire.mend()
        assert everything(channel) == b"late\n"
        channel.close()


def test_a_write_into_a_dead_wire_ends_in_time(person: Person, server: Sshd) -> None:
    with wire_cutter((server.address, server.port)) as wire:
        connection = person.connect(
            server, ansible_port=wire.port, gpuprov_known_hosts=str(_renamed(person, server, wire.port))
        )
        channel = connection.run("cat >/dev/null")
        wire.cut()
        started = time.monotonic()
        with pytest.raises(SessionLost):
            channel.send(bytes(100 * 1024 * 1024), 1)
        assert time.monotonic() - started < 30
        channel.close()


def test_a_controller_that_slept_does_not_blame_the_host(person: Person, server: Sshd) -> None:
    """Stop this process for longer than the whole patience with a silent host."""
    script = (
        "import sys, time, os, signal\n"
        "from gpuprov.transport.target import ConnectOptions, target_of\n"
        "from gpuprov.transport.ways import Ways\n"
        "o = ConnectOptions(home=sys.argv[1], system_ssh_config=os.devnull, keepalive_s=0.4, keepalive_count=2)\n"
        "v = {'ansible_host': sys.argv[2], 'ansible_port': sys.argv[3], 'gpuprov_known_hosts': sys.argv[4]}\n"
        "c = Ways(o).connect(target_of('h', {**v, 'ansible_ssh_private_key_file': sys.argv[5]}, o))\n"
        "print('up', flush=True); sys.stdin.readline()\n"
        "time.sleep(1.5); print('alive' if c.alive() else c.why_dead, flush=True); c.close()\n"
    )
    import subprocess
    import sys

    words = [str(person.home), server.address, str(server.port), str(server.folder / "known_hosts")]
    process = subprocess.Popen(
        [sys.executable, "-c", script, *words, str(server.client_key)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(2.5)
        os.kill(process.pid, signal.SIGCONT)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "alive\n"


def _renamed(person: Person, server: Sshd, port: int) -> Path:
    """Return a known_hosts file that has the server's key under another port."""
    path = person.home / f"known_{port}"
    key = " ".join(server.host_key.with_suffix(".pub").read_text().split()[:2])
    path.write_text(f"[127.0.0.1]:{port} {key}\n")
    return path
