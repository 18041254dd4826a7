"""Every foreign exception of a connection, turned into one sentence and a hint.

The only place that translates. Most specific first; a test fails when paramiko grows a class
that nothing here matches.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

import paramiko
from paramiko.auth_strategy import AuthFailure
from paramiko.pkey import UnknownKeyType
from paramiko.ssh_exception import (
    IncompatiblePeer,
    MessageOrderError,
    NoValidConnectionsError,
    PartialAuthentication,
    UnableToAuthenticate,
)

from gpuprov.errors import AuthenticationError, ConnectError, HostKeyError, SessionLost, TransportError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuprov.transport.hop import Hop

#: errno -> what it means for a connection, and what to do.
OS_ERRORS = {
    errno.ECONNREFUSED: ("nothing listens there (connection refused)", "is sshd running on that port?"),
    errno.EHOSTUNREACH: ("there is no route to it", "is the host up, and on this network?"),
    errno.ENETUNREACH: ("its network cannot be reached", "is this machine in the right network or VPN?"),
    errno.EHOSTDOWN: ("it is down", "is the host powered on?"),
    errno.ETIMEDOUT: ("it did not answer in time", "is the host up, and does a firewall drop the packets?"),
    errno.ECONNRESET: (
        "it reset the connection",
        "sshd may be starting, at its MaxStartups limit, or block this address",
    ),
    errno.EPIPE: ("it closed the connection", "sshd may be starting, at its MaxStartups limit, or block this address"),
    errno.EADDRNOTAVAIL: (
        "the address to connect from or to is not available here",
        "check BindAddress and ansible_host",
    ),
    errno.EACCES: ("this machine is not allowed to connect to it", "a local firewall or policy says no"),
    errno.EPERM: ("this machine is not allowed to connect to it", "a local firewall or policy says no"),
    errno.EMFILE: ("this process has no file descriptors left", "raise `ulimit -n` or lower --forks"),
    errno.ENFILE: ("this machine has no file descriptors left", "raise fs.file-max or lower --forks"),
}


def explain_os_error(error: Exception, hop: Hop) -> ConnectError:
    """Return the ConnectError for a failed look-up or TCP connection to *hop*."""
    if isinstance(error, UnicodeError):
        return ConnectError(f"{hop.host!r} is not a host name", hint="check ansible_host")
    if isinstance(error, socket.gaierror):
        if error.errno in (socket.EAI_AGAIN,):
            return ConnectError(
                f"{hop.who}: the name cannot be looked up now", hint="the DNS server does not answer; try an IP address"
            )
        return ConnectError(f"{hop.who}: there is no such name", hint="check ansible_host, or HostName in ssh_config")
    if isinstance(error, TimeoutError) and error.errno is None:
        return ConnectError(
            f"{hop.who} did not answer within {hop.connect_timeout_s:g} s",
            hint="is the host up, and does a firewall drop the packets?",
        )
    if isinstance(error, OSError) and error.errno in OS_ERRORS:
        clause, hint = OS_ERRORS[error.errno]
        return ConnectError(f"{hop.who}: {clause}", hint=hint)
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return ConnectError(f"{hop.who} cannot be connected to ({reason.lower()})", hint="is the host up?")


def _incompatible(error: Exception, hop: Hop) -> TransportError:
    text = str(error)
    what = text[text.find("(") + 1 : text.rfind(")")] if "(" in text else text
    names = {
        "no acceptable kex algorithm": ("key exchange", "KexAlgorithms"),
        "no acceptable ciphers": ("cipher", "Ciphers"),
        "no acceptable macs": ("message authentication", "MACs"),
        "no acceptable host key": ("host key type", "HostKeyAlgorithms"),
    }
    name, option = names.get(what, ("algorithm", "KexAlgorithms, Ciphers, MACs and HostKeyAlgorithms"))
    return ConnectError(
        f"{hop.who} and this machine have no {name} in common",
        hint=f"check {option} in ssh_config and in the host's sshd_config; the host's sshd may be too old",
    )


def _bad_host_key(_error: Exception, hop: Hop) -> TransportError:
    return HostKeyError(f"{hop.who} could not prove that it owns its host key", hint="somebody may be in between")


def _authentication(error: Exception, hop: Hop) -> TransportError:
    return AuthenticationError(f"{hop.who} refused the login ({_plain(error)})", hint="check the user and the key")


def _needs_passphrase(_error: Exception, hop: Hop) -> TransportError:
    return AuthenticationError(f"{hop.who}: the private key is encrypted", hint="ssh-add it first")


def _channel(error: Exception, hop: Hop) -> TransportError:
    code = getattr(error, "code", 0)
    clause = {
        1: "does not allow it (AllowTcpForwarding, PermitOpen or MaxSessions in its sshd_config)",
        2: "could not connect there",
        4: "has no resources left for it",
    }.get(code, f"answered {_plain(error)}")
    return ConnectError(f"{hop.who} {clause}", hint="see the sshd log there")


def _proxy(error: Exception, hop: Hop) -> TransportError:
    return ConnectError(f"{hop.who}: its ProxyCommand failed ({_plain(error)})", hint="run the command by hand")


def _protocol(error: Exception, hop: Hop) -> TransportError:
    text = str(error)
    if "protocol version" in text or "SSH banner" in text or "first line" in text:
        return ConnectError(
            f"{hop.who} does not speak SSH: {_plain(error)}", hint=f"is port {hop.port} the right one? Set ansible_port"
        )
    if "SSH protocol banner" in text:
        return ConnectError(
            f"{hop.who} closed the connection before it said anything",
            hint="sshd may be starting, at its MaxStartups limit, or block this address",
        )
    if "Signature verification" in text:
        return _bad_host_key(error, hop)
    return ConnectError(f"{hop.who} broke the SSH protocol ({_plain(error)})", hint="see the sshd log there")


def _ended(_error: Exception, hop: Hop) -> TransportError:
    return ConnectError(
        f"{hop.who} closed the connection before the login",
        hint="sshd may be starting, at its MaxStartups limit, or block this address",
    )


#: Class -> translation. The first match counts, so subclasses stand before their parents.
TRANSLATIONS: tuple[tuple[type[Exception], Callable[[Exception, Hop], TransportError]], ...] = (
    (paramiko.PasswordRequiredException, _needs_passphrase),
    (paramiko.BadAuthenticationType, _authentication),
    (PartialAuthentication, _authentication),
    (UnableToAuthenticate, _authentication),
    (AuthFailure, _authentication),
    (paramiko.AuthenticationException, _authentication),
    (paramiko.BadHostKeyException, _bad_host_key),
    (paramiko.ChannelException, _channel),
    (IncompatiblePeer, _incompatible),
    (MessageOrderError, _protocol),
    (paramiko.ProxyCommandFailure, _proxy),
    (paramiko.CouldNotCanonicalize, lambda e, h: ConnectError(f"{h.who}: {_plain(e)}")),
    (paramiko.ConfigParseError, lambda e, h: ConnectError(f"{h.who}: {_plain(e)}")),
    (paramiko.SFTPError, lambda e, h: SessionLost(f"{h.who}: {_plain(e)}")),
    (paramiko.SSHException, _protocol),
    (UnknownKeyType, _authentication),
    (NoValidConnectionsError, explain_os_error),
    (EOFError, _ended),
    (OSError, explain_os_error),
)


def explain(error: Exception, hop: Hop) -> TransportError | None:
    """Return the error that *error* means for *hop*; None for what only a bug can raise."""
    if isinstance(error, TransportError):
        return error
    for kind, translate in TRANSLATIONS:
        if isinstance(error, kind):
            return translate(error, hop)
    return None


def printable(text: str) -> str:
    """Return *text*, which came from elsewhere, on one line and without what a terminal would act upon."""
    return "".join(c if c.isprintable() else " " for c in text)[:300].strip()


def _plain(error: Exception) -> str:
    return printable(str(error) or type(error).__name__)
