from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gpuprov.errors import ConnectError
from gpuprov.transport.algorithms import choose
from tests.support.sshd import running_sshd
from tests.transport.conftest import everything

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.sshd import Sshd
    from tests.transport.conftest import Person

HAVE = ("a1", "a2", "b1", "curve25519-sha256@libssh.org", "weak")
DEFAULT = HAVE[:-1]


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        ("b1,a1", ("b1", "a1")),
        ("b1,unheard-of", ("b1",)),
        ("unheard-of", ()),
        ("+weak", (*DEFAULT, "weak")),
        ("-a*", ("b1", "curve25519-sha256@libssh.org")),
        ("^b1", ("b1", "a1", "a2", "curve25519-sha256@libssh.org")),
        ("curve25519-sha256*", ("curve25519-sha256@libssh.org",)),
        ("-*", ()),
    ],
)
def test_lists_of_ssh_config(wanted: str, left: tuple[str, ...]) -> None:
    assert choose(wanted, DEFAULT, HAVE) == left


@pytest.mark.parametrize(
    ("line", "attribute", "value"),
    [
        ("", "local_cipher", "aes128-gcm@openssh.com"),
        ("Ciphers aes256-ctr", "local_cipher", "aes256-ctr"),
        ("Ciphers -*gcm*,aes128-ctr", "local_cipher", "aes192-ctr"),
        ("Ciphers aes128-ctr\n  MACs hmac-sha2-512", "local_mac", "hmac-sha2-512"),
        ("KexAlgorithms sntrup761x25519-sha512@openssh.com,curve25519-sha256", "host_key_type", "ssh-ed25519"),
        ("HostKeyAlgorithms ^ssh-ed25519", "host_key_type", "ssh-ed25519"),
        ("PubkeyAcceptedAlgorithms +ssh-rsa", "host_key_type", "ssh-ed25519"),
    ],
)
def test_they_are_honoured(person: Person, server: Sshd, line: str, attribute: str, value: str) -> None:
    person.config(f"Host *\n  {line}\n")
    connection: Any = person.connect(server)
    assert getattr(connection._link, attribute) == value
    channel = connection.run("exec cat")
    channel.send(b"x" * 1_000_000, 10)
    channel.stdin_eof()
    assert everything(channel) == b"x" * 1_000_000
    channel.close()


def test_a_list_of_which_nothing_is_left(person: Person, server: Sshd) -> None:
    person.config("Ciphers chacha20-poly1305@openssh.com\n")
    with pytest.raises(ConnectError, match=r'Ciphers "chacha20-poly1305@openssh\.com" names nothing that gpuprov has'):
        person.connect(server)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("Ciphers aes256-cbc", "have no cipher in common"),
        ("KexAlgorithms ecdh-sha2-nistp521", "have no key exchange in common"),
    ],
)
def test_nothing_in_common(person: Person, tmp_path: Path, client_key: Path, line: str, says: str) -> None:
    extra = "Ciphers aes128-ctr\nKexAlgorithms curve25519-sha256\n"
    with running_sshd(tmp_path / "s", client_key, extra=extra) as server:
        server.known_hosts()
        person.config(line + "\n")
        with pytest.raises(ConnectError, match=says) as caught:
            person.connect(server)
        assert line.split()[0] in caught.value.hint
