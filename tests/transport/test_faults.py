from __future__ import annotations

import errno
import inspect
import os
import socket

import paramiko
import pytest
from paramiko import ssh_exception

from gpuprov.errors import SessionLost, TransportError
from gpuprov.transport.faults import OS_ERRORS, TRANSLATIONS, explain, explain_os_error
from gpuprov.transport.hop import Hop

HOP = Hop("gpu01", "10.0.0.1", 22, "root", "10.0.0.1")


def exception_classes() -> set[type[Exception]]:
    found = {
        value
        for module in (paramiko, ssh_exception)
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    todo = list(found)
    while todo:
        new = [c for c in todo.pop().__subclasses__() if c.__module__.startswith("paramiko")]
        found.update(new)
        todo += new
    return {c for c in found if c.__module__.startswith("paramiko")}


def test_every_exception_of_paramiko_is_translated_by_name() -> None:
    """A class that a new paramiko brings must be looked at, not be caught by its parent by chance."""
    named = {kind for kind, _ in TRANSLATIONS}
    assert exception_classes() - named == set()


def test_no_translation_hides_behind_a_parent() -> None:
    kinds = [kind for kind, _ in TRANSLATIONS]
    for position, kind in enumerate(kinds):
        assert not any(issubclass(kind, earlier) for earlier in kinds[:position]), kind


SAMPLES = [
    paramiko.AuthenticationException("no"),
    paramiko.BadAuthenticationType("no", ["password"]),
    paramiko.ChannelException(1, "prohibited"),
    paramiko.ChannelException(2, "failed"),
    paramiko.SSHException("Invalid packet blocking"),
    paramiko.SSHException("Error reading SSH protocol banner"),
    paramiko.SSHException("Signature verification (ssh-ed25519) failed."),
    ssh_exception.IncompatiblePeer("Incompatible ssh peer (no acceptable kex algorithm)"),
    ssh_exception.MessageOrderError("out of order"),
    EOFError(),
    TimeoutError(),
    socket.gaierror(socket.EAI_NONAME, "x"),
    socket.gaierror(socket.EAI_AGAIN, "x"),
    *[OSError(number, os.strerror(number)) for number in OS_ERRORS],
    OSError(errno.EIO, "Input/output error"),
    OSError("no number"),
]


@pytest.mark.parametrize("error", SAMPLES, ids=repr)
def test_each_is_one_sentence_with_the_host_and_a_hint(error: Exception) -> None:
    found = explain(error, HOP)
    assert isinstance(found, TransportError)
    assert "gpu01 (10.0.0.1)" in found.message
    assert found.hint
    assert "\n" not in found.message
    assert not found.message.endswith(".")


def test_what_is_no_accident_of_the_network_is_a_bug() -> None:
    assert explain(ZeroDivisionError(), HOP) is None


def test_ours_pass_unchanged() -> None:
    ours = SessionLost("x")
    assert explain(ours, HOP) is ours


def test_escapes_are_defused() -> None:
    found = explain(paramiko.SSHException("\x1b[2Jevil\r\n"), HOP)
    assert found is not None
    assert all(c.isprintable() for c in found.message)


def test_a_name_that_cannot_be_one() -> None:
    with pytest.raises(UnicodeError) as caught:
        ("x" * 70 + ".example").encode("idna")
    assert "is not a host name" in explain_os_error(caught.value, HOP).message
