from __future__ import annotations

import contextlib
import hashlib
import selectors
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from gpuprov.errors import SessionLost
from tests.support.sshd import running_sshd
from tests.transport.conftest import everything

if TYPE_CHECKING:
    from pathlib import Path

    from gpuprov.transport.base import Connection
    from tests.support.sshd import Sshd
    from tests.transport.conftest import Person


@pytest.fixture(params=["ssh", "local"])
def connection(request: pytest.FixtureRequest, person: Person, server: Sshd) -> Connection:
    return person.connect(server) if request.param == "ssh" else person.connect(ansible_connection="local")


def test_input_output_stderr_and_status(connection: Connection) -> None:
    channel = connection.run("cat; echo oops >&2; exit 3")
    assert channel.recv() is None
    channel.send(b"hello", 5)
    channel.stdin_eof()
    channel.stdin_eof()
    assert everything(channel) == b"hello"
    assert channel.recv() == b""
    assert channel.stderr() == b"oops\n"
    assert channel.stderr() == b""
    assert _status(channel) == 3
    channel.close()


def _status(channel: object) -> int | None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status = channel.exit_status()  # type: ignore[attr-defined]
        if status is not None:
            return int(status)
        time.sleep(0.01)
    return None


def test_a_command_killed_by_a_signal_has_a_status(connection: Connection) -> None:
    channel = connection.run("kill -KILL $$")
    assert everything(channel) == b""
    assert _status(channel) == 128 + signal.SIGKILL
    channel.close()


def test_wait_says_no_when_nothing_comes(connection: Connection) -> None:
    channel = connection.run("sleep 60")
    started = time.monotonic()
    assert channel.wait(0.2) is False
    assert 0.15 < time.monotonic() - started < 30
    assert channel.exit_status() is None
    channel.close()


def test_a_flood_on_stderr_blocks_nothing_and_is_capped(connection: Connection) -> None:
    channel = connection.run("head -c 8000000 /dev/zero >&2; echo done")
    assert everything(channel) == b"done\n"
    assert len(channel.stderr()) == 64 * 1024
    channel.close()


def test_a_flood_on_stderr_while_only_waiting(connection: Connection) -> None:
    channel = connection.run("head -c 8000000 /dev/zero >&2; echo done; sleep 60")
    assert channel.wait(20) is True
    assert channel.recv() == b"done\n"
    channel.close()


def test_a_hundred_megabytes_each_way(connection: Connection) -> None:
    size = 100 * 1024 * 1024
    block = bytes(range(256)) * 4096
    sent, received = hashlib.sha256(), hashlib.sha256()
    channel = connection.run("cat")
    failures: list[Exception] = []

    def feed() -> None:
        try:
            for _ in range(size // len(block)):
                channel.send(block, 60)
                sent.update(block)
            channel.stdin_eof()
        except SessionLost as error:
            failures.append(error)

    thread = threading.Thread(target=feed)
    thread.start()
    count = 0
    while channel.wait(30):
        piece = channel.recv(1 << 20)
        if piece == b"":
            break
        received.update(piece or b"")
        count += len(piece or b"")
    thread.join()
    assert not failures
    assert count == size
    assert sent.digest() == received.digest()
    channel.close()


def test_selectors_see_output_and_end(connection: Connection) -> None:
    channel = connection.run("echo one; read line; echo two; echo noise >&2")
    with selectors.DefaultSelector() as selector:
        selector.register(channel.fileno(), selectors.EVENT_READ)
        seen, idle_wakeups, deadline = b"", 0, time.monotonic() + 60
        while time.monotonic() < deadline:
            for _ in selector.select(0.3):
                piece = channel.recv()
                if piece == b"":
                    break
                idle_wakeups += piece is None
                seen += piece or b""
            else:
                if seen == b"one\n":
                    channel.send(b"go\n", 5)
                continue
            break
        assert seen == b"one\ntwo\n"
        assert channel.stderr() == b"noise\n"
        assert idle_wakeups < 20, "the descriptor stays readable although there is nothing to read"
        selector.unregister(channel.fileno())
    channel.close()


def test_the_descriptor_stays_readable_while_something_is_left(connection: Connection) -> None:
    channel = connection.run("printf 0123456789")
    assert channel.wait(30)
    time.sleep(0.3)
    assert channel.recv(4) == b"0123"
    with selectors.DefaultSelector() as selector:
        selector.register(channel.fileno(), selectors.EVENT_READ)
        assert selector.select(30)
        assert everything(channel) == b"456789"
        assert selector.select(30), "the end must wake a selector too"
    channel.close()


def test_sending_to_a_command_that_does_not_read_ends_in_time(connection: Connection) -> None:
    channel = connection.run("sleep 60")
    started = time.monotonic()
    with pytest.raises(SessionLost, match="took no more input within 1 s"):
        channel.send(bytes(8 * 1024 * 1024), 1)
    assert time.monotonic() - started < 30
    channel.close()


def test_sending_to_a_command_that_ended(connection: Connection) -> None:
    channel = connection.run("exec true")
    assert everything(channel) == b""
    with pytest.raises(SessionLost, match="ended before it took its input"):
        channel.send(bytes(16 * 1024 * 1024), 5)
    channel.close()


def test_several_commands_over_one_connection(connection: Connection) -> None:
    channels = [connection.run(f"echo {number}") for number in range(5)]
    assert [everything(channel) for channel in channels] == [f"{n}\n".encode() for n in range(5)]
    for channel in channels:
        channel.close()
        channel.close()
    assert connection.alive()
    assert connection.why_dead == ""


def test_a_closed_connection_refuses_commands(connection: Connection) -> None:
    connection.close()
    connection.close()
    assert not connection.alive()
    assert connection.why_dead == ""
    with pytest.raises(SessionLost, match="closed here"):
        connection.run("true")


def test_no_descriptor_or_thread_is_left(person: Person, server: Sshd) -> None:
    import os

    def state() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    person.connect(server).close()
    time.sleep(0.2)
    before = state()
    for _ in range(3):
        connection = person.connect(server)
        channel = connection.run("echo x")
        everything(channel)
        channel.close()
        connection.close()
    deadline = time.monotonic() + 60
    while state() != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert state() == before


def test_a_transfer_goes_on_through_new_keys(person: Person, tmp_path: Path, client_key: Path) -> None:
    """The server asks for a key exchange every megabyte, in the middle of both directions."""
    with running_sshd(tmp_path / "s", client_key, extra="RekeyLimit 1M") as server:
        server.known_hosts()
        channel = person.connect(server).run("exec tee /dev/stderr")
        data = bytes(range(256)) * 40_000
        thread = threading.Thread(target=lambda: (channel.send(data, 60), channel.stdin_eof()))
        thread.start()
        assert everything(channel, 60) == data
        thread.join()
        channel.close()


def test_an_open_connection_does_not_keep_the_process(server: Sshd, person: Person) -> None:
    script = (
        "import sys, os\n"
        "from gpuprov.transport.target import ConnectOptions, target_of\n"
        "from gpuprov.transport.ways import Ways\n"
        "o = ConnectOptions(home=sys.argv[1], system_ssh_config=os.devnull)\n"
        "v = {'ansible_host': sys.argv[2], 'ansible_port': sys.argv[3], 'gpuprov_known_hosts': sys.argv[4]}\n"
        "c = Ways(o).connect(target_of('h', {**v, 'ansible_ssh_private_key_file': sys.argv[5]}, o))\n"
        "c.run('sleep 60'); print('up', flush=True)\n"
    )
    words = [str(person.home), server.address, str(server.port), str(server.folder / "known_hosts")]
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", script, *words, str(server.client_key)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


def test_nothing_is_written_to_stderr_of_the_controller(
    person: Person, server: Sshd, capfd: pytest.CaptureFixture[str]
) -> None:
    connection = person.connect(server)
    channel = connection.run("sleep 60")
    pids = [pid for pid in server.children() if b"sshd" in _command(pid)]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            import os

            os.kill(pid, signal.SIGKILL)
    everything(channel)
    assert capfd.readouterr() == ("", "")


def _command(pid: int) -> bytes:
    from pathlib import Path

    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
