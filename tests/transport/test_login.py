from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from gpuprov.errors import AuthenticationError
from tests.support.password_sshd import password_sshd
from tests.support.sshd import USER, keygen, running_sshd
from tests.transport.conftest import everything

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.password_sshd import Door
    from tests.support.sshd import Sshd
    from tests.transport.conftest import Person


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "agent.sock"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        while not path.exists():
            assert process.poll() is None
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield path
    finally:
        process.terminate()
        process.wait()


def ssh_add(key: Path, *options: str) -> None:
    subprocess.run(["ssh-add", "-q", *options, str(key)], check=True, stdin=subprocess.DEVNULL)


def works(person: Person, server: Sshd, **variables: object) -> bool:
    channel = person.connect(server, **variables).run("exec echo in")
    try:
        return everything(channel) == b"in\n"
    finally:
        channel.close()


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_kinds_of_keys(person: Person, tmp_path: Path, kind: str) -> None:
    key = keygen(tmp_path / "key", kind)
    with running_sshd(tmp_path / "s", key) as server:
        server.known_hosts()
        assert works(person, server)


def test_a_key_in_the_old_pem_format(person: Person, tmp_path: Path) -> None:
    key = keygen(tmp_path / "key", "rsa", "-m", "PEM")
    with running_sshd(tmp_path / "s", key) as server:
        server.known_hosts()
        assert works(person, server)


def test_the_default_key_of_the_home(person: Person, server: Sshd) -> None:
    (person.home / ".ssh" / "id_ed25519").write_bytes(server.client_key.read_bytes())
    (person.home / ".ssh" / "id_ed25519").chmod(0o600)
    assert works(person, server, ansible_ssh_private_key_file=None)


def test_a_key_is_read_once_per_run(person: Person, server: Sshd, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(server.client_key.read_bytes())
    key.chmod(0o600)
    person.connect(server, ansible_ssh_private_key_file=str(key))
    key.unlink()
    person.connect(server, ansible_ssh_private_key_file=str(key))


def test_a_refused_key_is_named_with_what_the_host_accepts(person: Person, server: Sshd, tmp_path: Path) -> None:
    stranger = keygen(tmp_path / "stranger")
    with pytest.raises(AuthenticationError) as caught:
        person.connect(server, ansible_ssh_private_key_file=str(stranger))
    shown = subprocess.run(["ssh-keygen", "-lf", str(stranger)], check=True, capture_output=True, text=True).stdout
    assert shown.split()[1] in caught.value.message
    assert str(stranger) in caught.value.message
    assert "the host accepts: publickey" in caught.value.message
    assert f"refused the login as {USER}" in caught.value.message
    assert "authorized_keys" in caught.value.hint


def test_no_key_at_all(person: Person, server: Sshd) -> None:
    with pytest.raises(AuthenticationError, match="there was no key or password to try; the host accepts: publickey"):
        person.connect(server, ansible_ssh_private_key_file=None)


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda path: None, "cannot be read"),
        (lambda path: path.write_text("hello"), "is not a private key"),
        (
            lambda path: path.write_text(
                "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
            ),
            "damaged",
        ),
        (lambda path: path.mkdir(), "cannot be read"),
    ],
)
def test_a_key_file_that_is_no_good(person: Person, server: Sshd, tmp_path: Path, prepare: object, says: str) -> None:
    path = tmp_path / "key"
    prepare(path)  # type: ignore[operator]
    if path.is_file():
        path.chmod(0o600)
    with pytest.raises(AuthenticationError) as caught:
        person.connect(server, ansible_ssh_private_key_file=str(path))
    assert says in caught.value.message
    assert str(path) in caught.value.message


def test_a_key_that_others_can_read(person: Person, server: Sshd, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(server.client_key.read_bytes())
    path.chmod(0o644)
    with pytest.raises(AuthenticationError, match=r"can be read by others \(mode 0644\).*chmod 600"):
        person.connect(server, ansible_ssh_private_key_file=str(path))


class TestEncryptedKey:
    @pytest.fixture
    def key(self, tmp_path: Path) -> Path:
        return keygen(tmp_path / "locked", passphrase="open sesame")

    @pytest.fixture
    def server(self, tmp_path: Path, key: Path) -> Iterator[Sshd]:
        with running_sshd(tmp_path / "s", key) as running:
            running.known_hosts()
            yield running

    def test_without_agent_it_says_so(self, person: Person, server: Sshd) -> None:
        with pytest.raises(
            AuthenticationError, match=r"locked is encrypted and the ssh-agent does not hold it; ssh-add"
        ):
            person.connect(server)

    def test_with_its_passphrase(self, person: Person, server: Sshd) -> None:
        assert works(person, server, ansible_ssh_private_key_passphrase="open sesame")

    def test_with_a_wrong_passphrase(self, person: Person, server: Sshd) -> None:
        with pytest.raises(AuthenticationError, match="the passphrase does not open it") as caught:
            person.connect(server, ansible_ssh_private_key_passphrase="open barley")
        assert "barley" not in str(caught.value)

    def test_with_the_agent_holding_it(self, person: Person, server: Sshd, agent: Path, key: Path) -> None:
        plain = key.with_name("plain")
        plain.write_bytes(key.read_bytes())
        plain.chmod(0o600)
        subprocess.run(["ssh-keygen", "-q", "-p", "-P", "open sesame", "-N", "", "-f", str(plain)], check=True)
        ssh_add(plain)
        plain.unlink()
        assert works(person, server)


class TestAgent:
    def test_its_keys_are_offered(self, person: Person, server: Sshd, agent: Path) -> None:
        ssh_add(server.client_key)
        assert works(person, server, ansible_ssh_private_key_file=None)

    @pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
    def test_other_kinds(self, person: Person, tmp_path: Path, agent: Path, kind: str) -> None:
        key = keygen(tmp_path / "key", kind)
        ssh_add(key)
        with running_sshd(tmp_path / "s", key) as server:
            server.known_hosts()
            assert works(person, server, ansible_ssh_private_key_file=None)

    def test_a_named_key_comes_before_those_of_a_full_agent(
        self, person: Person, server: Sshd, agent: Path, tmp_path: Path
    ) -> None:
        for number in range(8):
            ssh_add(keygen(tmp_path / f"other{number}"))
        assert works(person, server)

    def test_too_many_keys_are_explained(self, person: Person, server: Sshd, agent: Path, tmp_path: Path) -> None:
        for number in range(8):
            ssh_add(keygen(tmp_path / f"other{number}"))
        with pytest.raises(AuthenticationError, match="ended the login after too many keys") as caught:
            person.connect(server, ansible_ssh_private_key_file=None)
        assert "IdentitiesOnly" in caught.value.hint

    def test_a_locked_agent_does_not_stop_a_key_that_works(
        self, person: Person, server: Sshd, agent: Path, tmp_path: Path
    ) -> None:
        """The agent lists a key, then refuses to sign with it: the next key is tried."""
        key = keygen(tmp_path / "confirm")
        ssh_add(key, "-c")  # asks for a confirmation, and there is nobody to ask
        (person.home / ".ssh" / "id_ed25519").write_bytes(server.client_key.read_bytes())
        (person.home / ".ssh" / "id_ed25519").chmod(0o600)
        assert works(person, server, ansible_ssh_private_key_file=None)

    def test_identities_only(self, person: Person, server: Sshd, agent: Path) -> None:
        ssh_add(server.client_key)
        person.config("Host *\n  IdentitiesOnly yes\n")
        with pytest.raises(AuthenticationError, match="there was no key"):
            person.connect(server, ansible_ssh_private_key_file=None)

    def test_identity_agent_none(self, person: Person, server: Sshd, agent: Path) -> None:
        ssh_add(server.client_key)
        person.config("IdentityAgent none\n")
        with pytest.raises(AuthenticationError, match="there was no key"):
            person.connect(server, ansible_ssh_private_key_file=None)

    def test_an_agent_that_is_gone(self, person: Person, server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SSH_AUTH_SOCK", "/nonexistent/agent")
        assert works(person, server)

    def test_many_threads_sign_at_once(self, person: Person, server: Sshd, agent: Path) -> None:
        from concurrent.futures import ThreadPoolExecutor

        ssh_add(server.client_key)
        with ThreadPoolExecutor(10) as pool:
            made = list(pool.map(lambda _: person.connect(server, ansible_ssh_private_key_file=None), range(10)))
        assert all(connection.alive() for connection in made)


def test_a_certificate_beside_the_key(person: Person, tmp_path: Path) -> None:
    authority, key = keygen(tmp_path / "ca"), keygen(tmp_path / "key")
    subprocess.run(["ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", USER, str(key) + ".pub"], check=True)
    with running_sshd(
        tmp_path / "s", keygen(tmp_path / "unused"), extra=f"TrustedUserCAKeys {authority}.pub"
    ) as server:
        server.known_hosts()
        assert works(person, server, ansible_ssh_private_key_file=str(key))
        os.rename(f"{key}-cert.pub", tmp_path / "elsewhere")
        with pytest.raises(AuthenticationError):
            person.fresh().connect(server, ansible_ssh_private_key_file=str(key))
        person.config(f"CertificateFile {tmp_path}/elsewhere\n")
        assert works(person.fresh(), server, ansible_ssh_private_key_file=str(key))


class TestPassword:
    def connect(self, person: Person, server: Sshd, port: int, password: str, **variables: object) -> None:
        known = person.home / "known"
        key = " ".join(server.host_key.with_suffix(".pub").read_text().split()[:2])
        known.write_text(f"[127.0.0.1]:{port} {key}\n")
        connection = person.connect(
            ansible_host="127.0.0.1",
            ansible_port=port,
            ansible_password=password,
            gpuprov_known_hosts=str(known),
            **variables,
        )
        assert connection.alive()

    def test_it_opens(self, person: Person, server: Sshd) -> None:
        with password_sshd(server.host_key, "tr0ub4dor", "password") as (port, _):
            self.connect(person, server, port, "tr0ub4dor")

    def test_a_wrong_one_is_not_shown(self, person: Person, server: Sshd) -> None:
        with (
            password_sshd(server.host_key, "tr0ub4dor", "password") as (port, _),
            pytest.raises(AuthenticationError, match="tried the password; the host accepts: password") as caught,
        ):
            self.connect(person, server, port, "hunter2")
        assert "hunter2" not in str(caught.value) + caught.value.hint

    def test_without_one_the_hint_says_how(self, person: Person, server: Sshd, tmp_path: Path) -> None:
        with (
            password_sshd(server.host_key, "tr0ub4dor", "password") as (port, _),
            pytest.raises(AuthenticationError) as caught,
        ):
            self.connect(person, server, port, "", ansible_ssh_private_key_file=str(server.client_key))
        assert "ansible_password" in caught.value.hint

    def test_keyboard_interactive(self, person: Person, server: Sshd) -> None:
        with password_sshd(server.host_key, "tr0ub4dor", "keyboard-interactive") as (port, _):
            self.connect(person, server, port, "tr0ub4dor")

    def test_a_prompt_that_echoes_does_not_get_it(self, person: Person, server: Sshd) -> None:
        prompts = (("What is your name? ", True),)
        door: Door
        with password_sshd(server.host_key, "tr0ub4dor", "keyboard-interactive", prompts=prompts) as (port, door):
            with pytest.raises(AuthenticationError):
                self.connect(person, server, port, "tr0ub4dor")
            assert door.answers == [""]

    def test_a_key_and_then_a_password(self, person: Person, server: Sshd) -> None:
        with password_sshd(server.host_key, "tr0ub4dor", "publickey", "password", both=True) as (port, _):
            self.connect(person, server, port, "tr0ub4dor", ansible_ssh_private_key_file=str(server.client_key))

    def test_preferred_authentications(self, person: Person, server: Sshd) -> None:
        with (
            password_sshd(server.host_key, "tr0ub4dor", "password") as (port, _),
            pytest.raises(AuthenticationError, match="no key or password to try"),
        ):
            self.connect(
                person, server, port, "tr0ub4dor", ansible_ssh_common_args="-o PreferredAuthentications=publickey"
            )


def test_secrets_are_not_in_the_repr_of_a_target_or_a_hop(person: Person) -> None:
    target = person.target(ansible_password="hunter2", ansible_ssh_private_key_passphrase="sesame")
    shown = repr(target) + repr(person.ways.route(target))
    assert "hunter2" not in shown
    assert "sesame" not in shown
