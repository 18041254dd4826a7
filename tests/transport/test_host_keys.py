from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from gpuprov.errors import HostKeyError
from tests.support.sshd import keygen, running_sshd

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.sshd import Sshd
    from tests.transport.conftest import Person


def line(server: Sshd, key: Path | None = None, name: str | None = None) -> str:
    public = (key or server.host_key).with_suffix(".pub").read_text().split()[:2]
    return f"{name or f'[{server.address}]:{server.port}'} {' '.join(public)}\n"


def fingerprint(key: Path) -> str:
    words = ["ssh-keygen", "-lf", str(key)]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[1]


@pytest.fixture
def known(person: Person) -> Path:
    return person.home / ".ssh" / "known_hosts"


def refused(person: Person, server: Sshd, **variables: object) -> HostKeyError:
    with pytest.raises(HostKeyError) as caught:
        person.connect(server, gpuprov_known_hosts=None, **variables)
    return caught.value


def test_an_unknown_key_is_refused_and_nothing_is_written(person: Person, server: Sshd, known: Path) -> None:
    error = refused(person, server)
    assert error.reference == "host-key-unknown"
    assert fingerprint(server.host_key) in error.message
    assert "gpuprov trust INVENTORY --limit gpu01" in error.hint
    assert not known.exists()


def test_a_changed_key_is_refused_loudly(person: Person, server: Sshd, known: Path, tmp_path: Path) -> None:
    other = keygen(tmp_path / "other")
    known.write_text("# comment\n" + line(server, other))
    error = refused(person, server)
    assert error.reference == "host-key-changed"
    assert "CHANGED" in error.message
    assert fingerprint(server.host_key) in error.message
    assert fingerprint(other) in error.message
    assert f"{known}:2" in error.message


@pytest.mark.parametrize("checking", ["accept-new", "no"])
def test_a_changed_key_is_refused_whatever_the_checking(
    person: Person, server: Sshd, known: Path, tmp_path: Path, checking: str
) -> None:
    known.write_text(line(server, keygen(tmp_path / "other")))
    before = known.read_text()
    error = refused(person, server, ansible_ssh_common_args=f"-o StrictHostKeyChecking={checking}")
    assert error.reference == "host-key-changed"
    assert known.read_text() == before


def test_a_key_of_another_type_does_not_slip_in(person: Person, server: Sshd, known: Path, tmp_path: Path) -> None:
    """On record is an ECDSA key; a server that only has an Ed25519 key must not be accepted as new."""
    known.write_text(line(server, keygen(tmp_path / "other", "ecdsa")))
    error = refused(person, server, ansible_ssh_common_args="-o StrictHostKeyChecking=accept-new")
    assert "no longer has a host key of the kind on record (ecdsa-sha2-nistp256)" in error.message
    assert "it offers ssh-ed25519" in error.message


def test_the_known_type_is_asked_for(person: Person, tmp_path: Path, client_key: Path, known: Path) -> None:
    """The server has two keys, known is the one that it would not choose by itself."""
    rsa = keygen(tmp_path / "host_rsa", "rsa")
    with running_sshd(tmp_path / "s", client_key, extra=f"HostKey {rsa}") as server:
        known.write_text(line(server, rsa))
        connection = person.connect(server, gpuprov_known_hosts=None)
        assert connection.alive()


def test_a_revoked_key_is_refused_although_it_is_known(person: Person, server: Sshd, known: Path) -> None:
    known.write_text(line(server) + "@revoked " + line(server, name="*"))
    error = refused(person, server)
    assert "is revoked" in error.message
    assert f"{known}:2" in error.message


def test_a_certificate_authority_is_named_when_it_would_be_needed(person: Person, server: Sshd, known: Path) -> None:
    known.write_text("@cert-authority " + line(server, name="*"))
    error = refused(person, server)
    assert "certificate authority, which gpuprov does not support" in error.message
    with known.open("a") as f:
        f.write(line(server))
    assert person.fresh().connect(server, gpuprov_known_hosts=None).alive()


def test_accept_new_records_and_then_checks(person: Person, server: Sshd, known: Path, tmp_path: Path) -> None:
    known.write_text("other ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
    args = {"ansible_ssh_common_args": "-o StrictHostKeyChecking=accept-new", "gpuprov_known_hosts": None}
    assert person.connect(server, **args).alive()
    lines = known.read_text().splitlines()
    assert len(lines) == 2
    assert lines[1] + "\n" == line(server)
    assert person.connect(server, **args).alive()
    assert known.read_text().splitlines() == lines
    assert person.fresh().connect(server, gpuprov_known_hosts=None).alive()
    assert person.warnings == []


def test_no_is_accept_new_with_one_warning(person: Person, server: Sshd, known: Path) -> None:
    args = {"ansible_ssh_common_args": "-o StrictHostKeyChecking=no", "gpuprov_known_hosts": None}
    for name in ("gpu01", "gpu02"):
        person.connect(server, name, **args)
    assert len(person.warnings) == 1
    assert "accept-new" in person.warnings[0]
    assert known.read_text() == line(server)


def test_dev_null_records_nothing(person: Person, server: Sshd, known: Path) -> None:
    args = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    for _ in range(2):
        assert person.connect(server, gpuprov_known_hosts=None, ansible_ssh_common_args=args).alive()
    assert not known.exists()


def test_many_threads_record_every_key_once(person: Person, server: Sshd, known: Path) -> None:
    def connect(number: int) -> bool:
        return person.connect(
            server,
            f"gpu{number:02}",
            gpuprov_known_hosts=None,
            ansible_ssh_common_args=f"-o StrictHostKeyChecking=accept-new -o HostKeyAlias=gpu{number:02}",
        ).alive()

    with ThreadPoolExecutor(10) as pool:
        assert all(pool.map(connect, range(10)))
    names = sorted(text.split()[0] for text in known.read_text().splitlines())
    assert names == [f"[gpu{number:02}]:{server.port}" for number in range(10)]


def test_a_file_that_cannot_be_written(person: Person, server: Sshd, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    args = f"-o StrictHostKeyChecking=accept-new -o UserKnownHostsFile={tmp_path}/file/known_hosts"
    error = refused(person, server, ansible_ssh_common_args=args)
    assert "cannot be recorded" in error.message


def test_openssh_agrees_with_what_is_recorded(person: Person, server: Sshd, known: Path) -> None:
    """Hashed and plain names that gpuprov writes are found by ssh-keygen -F, and the other way round."""
    for hashed in ("yes", "no"):
        person.connect(
            server,
            gpuprov_known_hosts=None,
            ansible_ssh_common_args=f"-o StrictHostKeyChecking=accept-new -o HashKnownHosts={hashed}",
        )
        name = f"[{server.address}]:{server.port}"
        found = subprocess.run(
            ["ssh-keygen", "-F", name, "-f", str(known)], capture_output=True, text=True, check=False
        )
        assert found.returncode == 0, known.read_text()
        assert known.read_text().startswith("|1|") is (hashed == "yes")
        known.unlink()
        person.fresh()


def test_a_file_hashed_by_openssh(person: Person, server: Sshd, known: Path) -> None:
    known.write_text(line(server))
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known)], check=True, capture_output=True)
    assert known.read_text().startswith("|1|")
    assert person.connect(server, gpuprov_known_hosts=None).alive()


def test_lines_that_cannot_be_read_are_told_once(person: Person, server: Sshd, known: Path) -> None:
    known.write_text("gpu01 ssh-ed25519\n" + line(server))
    for _ in range(2):
        assert person.connect(server, gpuprov_known_hosts=None).alive()
    assert person.warnings == [f"{known}:1 is not a known_hosts line and is ignored"]


def test_the_alias_is_looked_up(person: Person, server: Sshd, known: Path) -> None:
    known.write_text(line(server, name="rack7"))
    person.config("Host *\n  HostKeyAlias rack7\n")
    assert person.connect(server, gpuprov_known_hosts=None).alive()


def test_a_plain_name_serves_every_port(person: Person, server: Sshd, known: Path) -> None:
    known.write_text(line(server, name=server.address))
    assert person.connect(server, gpuprov_known_hosts=None).alive()
