from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from gpuprov.errors import AuthenticationError, ConnectError, HostKeyError, SourceErrors, TransportError
from tests.support.sshd import USER, free_port, keygen, running_sshd
from tests.transport.conftest import everything
from tests.transport.test_host_keys import line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.sshd import Sshd
    from tests.transport.conftest import Person


@pytest.fixture
def bastion(tmp_path: Path, client_key: Path) -> Iterator[Sshd]:
    with running_sshd(tmp_path / "bastion", client_key, address="127.0.0.2") as running:
        yield running


def logins(server: Sshd) -> int:
    return server.log.count("Accepted publickey")


def entry(server: Sshd, name: str, *more: str) -> str:
    rows = [f"HostName {server.address}", f"Port {server.port}", f"IdentityFile {server.client_key}", *more]
    return f"Host {name}\n" + "".join(f"  {row}\n" for row in rows)


def trust(person: Person, *servers: Sshd) -> None:
    (person.home / ".ssh" / "known_hosts").write_text("".join(map(line, servers)))


def test_many_hosts_share_one_connection_to_the_bastion(person: Person, server: Sshd, bastion: Sshd) -> None:
    trust(person, server, bastion)
    person.config(entry(bastion, "door") + entry(server, "gpu*", "ProxyJump door"))

    def connect(number: int) -> bytes:
        channel = person.connect(name=f"gpu{number:02}").run("exec echo behind")
        try:
            return everything(channel)
        finally:
            channel.close()

    before = logins(server)
    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(connect, range(12))) == {b"behind\n"}
    assert logins(bastion) == 1
    assert logins(server) - before == 12


def test_a_chain_of_two(person: Person, server: Sshd, bastion: Sshd, tmp_path: Path, client_key: Path) -> None:
    with running_sshd(tmp_path / "second", client_key, address="127.0.0.3") as second:
        trust(person, server, bastion, second)
        user = f"{USER}@" if USER else ""
        jump = f"{user}{bastion.address}:{bastion.port},{second.address}:{second.port}"
        person.config(f"Host 127.*\n  IdentityFile {client_key}\n")
        connection = person.connect(server, gpuprov_known_hosts=None, ansible_ssh_common_args=f"-J {jump}")
        channel = connection.run("exec echo $SSH_CONNECTION")
        assert everything(channel).split()[0] == b"127.0.0.1"
        channel.close()
        assert logins(bastion) == logins(second) == 1
        assert "direct-tcpip" in bastion.log or logins(second)
        assert f"from {bastion.address}" not in server.log


def test_the_first_hop_keeps_its_own_jump(
    person: Person, server: Sshd, bastion: Sshd, tmp_path: Path, client_key: Path
) -> None:
    with running_sshd(tmp_path / "second", client_key, address="127.0.0.3") as second:
        trust(person, server, bastion, second)
        person.config(
            entry(bastion, "outer")
            + entry(second, "inner", "ProxyJump outer")
            + entry(server, "gpu01", "ProxyJump inner")
        )
        assert person.connect().alive()
        assert logins(bastion) == logins(second) == 1


def test_jump_none_goes_straight(person: Person, server: Sshd) -> None:
    trust(person, server)
    person.config(entry(server, "gpu01", "ProxyJump none") + "Host *\n  ProxyJump nowhere.invalid\n")
    assert person.connect().alive()


def test_a_star_rule_does_not_send_the_bastion_through_itself(person: Person, server: Sshd, bastion: Sshd) -> None:
    trust(person, server, bastion)
    person.config(entry(bastion, "door") + entry(server, "gpu01") + "Host *\n  ProxyJump door\n")
    assert person.connect().alive()


def test_a_loop_of_jumps_is_found_before_connecting(person: Person) -> None:
    person.config("Host a\n  ProxyJump b\nHost b\n  ProxyJump a\nHost gpu01\n  ProxyJump a\n")
    (problem,) = person.ways.check([person.target()])
    assert "goes through more than 8 hosts" in problem.message


def test_an_unknown_bastion_is_refused(person: Person, server: Sshd, bastion: Sshd) -> None:
    trust(person, server)
    person.config(entry(bastion, "door") + entry(server, "gpu01", "ProxyJump door"))
    with pytest.raises(HostKeyError, match=r"^bastion door \(\[127\.0\.0\.2\]:\d+\): its host key"):
        person.connect()


def test_a_bastion_that_refuses_us(person: Person, server: Sshd, bastion: Sshd, tmp_path: Path) -> None:
    trust(person, server, bastion)
    stranger = keygen(tmp_path / "stranger")
    person.config(
        entry(bastion, "door").replace(str(bastion.client_key), str(stranger))
        + entry(server, "gpu01", "ProxyJump door")
    )
    with pytest.raises(AuthenticationError, match=r"^bastion door .* refused the login"):
        person.connect()


def test_a_bastion_that_is_down_is_tried_once_for_all(person: Person, server: Sshd) -> None:
    person.config(f"Host door\n  HostName 127.0.0.1\n  Port {free_port()}\n" + entry(server, "gpu*", "ProxyJump door"))

    def fails(number: int) -> str:
        with pytest.raises(ConnectError) as caught:
            person.connect(name=f"gpu{number:02}")
        return caught.value.message

    with ThreadPoolExecutor(8) as pool:
        messages = set(pool.map(fails, range(20)))
    assert len(messages) == 1
    assert "bastion door" in messages.pop()


def test_a_host_that_is_down_behind_the_bastion(person: Person, bastion: Sshd) -> None:
    trust(person, bastion)
    port = free_port()
    person.config(entry(bastion, "door") + f"Host gpu01\n  HostName 127.0.0.1\n  Port {port}\n  ProxyJump door\n")
    with pytest.raises(ConnectError, match=f"no way to 127.0.0.1:{port} through door .* could not connect there"):
        person.connect()


def test_a_bastion_that_forbids_forwarding(person: Person, server: Sshd, tmp_path: Path, client_key: Path) -> None:
    with running_sshd(tmp_path / "strict", client_key, extra="AllowTcpForwarding no") as strict:
        trust(person, server, strict)
        person.config(entry(strict, "door") + entry(server, "gpu01", "ProxyJump door"))
        with pytest.raises(ConnectError, match=r"does not allow it \(AllowTcpForwarding"):
            person.connect()


def test_a_lost_bastion_is_connected_again(person: Person, server: Sshd, bastion: Sshd) -> None:
    trust(person, server, bastion)
    person.config(entry(bastion, "door") + entry(server, "gpu01", "ProxyJump door"))
    first = person.connect()
    channel = first.run("sleep 60")
    for pid in bastion.children():
        import os

        os.kill(pid, signal.SIGKILL)
    assert everything(channel) == b""
    assert not first.alive()
    assert "bastion door" in first.why_dead
    channel.close()
    assert person.connect().alive()
    assert logins(bastion) == 2


def test_a_big_transfer_through_a_bastion(person: Person, server: Sshd, bastion: Sshd) -> None:
    trust(person, server, bastion)
    person.config(entry(bastion, "door") + entry(server, "gpu01", "ProxyJump door"))
    channel = person.connect().run("exec head -c 20000000 /dev/zero")
    assert len(everything(channel)) == 20_000_000
    channel.close()


class TestProxyCommand:
    def test_it_carries_the_connection(self, person: Person, server: Sshd, bastion: Sshd) -> None:
        trust(person, server, bastion)
        config = person.config(entry(bastion, "door") + entry(server, "gpu01"))
        known = person.home / ".ssh" / "known_hosts"
        command = f"ssh -F {config} -o UserKnownHostsFile={known} -W %h:%p door"
        connection = person.connect(ansible_ssh_common_args=f'-o ProxyCommand="{command}"')
        channel = connection.run("exec cat")
        channel.send(b"x" * 100_000, 10)
        channel.stdin_eof()
        assert everything(channel) == b"x" * 100_000
        channel.close()
        connection.close()

    def test_its_last_words_are_shown(self, person: Person, server: Sshd) -> None:
        person.config(entry(server, "gpu01", "ProxyCommand sh -c 'echo the tunnel is closed >&2; exit 7'"))
        with pytest.raises(TransportError, match="the tunnel is closed; it exited with status 7") as caught:
            person.connect()
        assert "ProxyCommand" in caught.value.message

    def test_it_ends_with_the_connection(self, person: Person, server: Sshd, tmp_path: Path) -> None:
        import time

        trust(person, server)
        script = tmp_path / "relay.py"
        script.write_text(
            "import os, socket, sys, threading\n"
            f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
            "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
            "def up():\n"
            "    while d := os.read(0, 65536): s.sendall(d)\n"
            "threading.Thread(target=up, daemon=True).start()\n"
            "while d := s.recv(65536): os.write(1, d)\n"
        )
        import sys

        person.config(entry(server, "gpu01", f"ProxyCommand {sys.executable} {script} %h %p"))
        connection = person.connect()
        pid = int((tmp_path / "pid").read_text())
        connection.close()
        deadline = time.monotonic() + 60
        while _runs(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not _runs(pid)


def _runs(pid: int) -> bool:
    from pathlib import Path

    return Path(f"/proc/{pid}").exists()


def test_jump_and_command_at_once(person: Person, server: Sshd) -> None:
    """ssh takes whichever comes first, even when that is `none`."""
    person.config(entry(server, "gpu01", "ProxyCommand none", "ProxyJump nowhere.invalid"))
    trust(person, server)
    assert person.connect().alive()


def test_a_jump_that_is_no_host(person: Person) -> None:
    with pytest.raises(SourceErrors) as caught:
        person.ways.route(person.target(ansible_ssh_common_args="-J door:99999"))
    assert '"door:99999" is not a host to jump through' in caught.value.problems[0].message
