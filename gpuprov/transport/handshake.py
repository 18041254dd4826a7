"""From an open stream to an authenticated connection: versions, keys, host key, login."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from gpuprov.errors import ConnectError, HostKeyError, TransportError
from gpuprov.transport import auth
from gpuprov.transport.faults import explain
from gpuprov.transport.known_hosts import ALGORITHMS, HostKey, Known, KnownHosts
from gpuprov.transport.link import Link
from gpuprov.transport.sockets import ProxySocket
from gpuprov.transport.ssh import SshConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuprov.transport.hop import Hop
    from gpuprov.transport.keys import KeyRing

#: How long the key exchange may take after the host said its version, in seconds. Long, since a
#: controller that opens hundreds of connections at once is itself slow.
KEX_TIMEOUT_S = 30.0
#: Trust the host's first word this long after the connection stands, at least.
BANNER_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Trust:
    """What host keys are checked against."""

    known_hosts: KnownHosts

    def known(self, hop: Hop) -> Known:
        """Return what is on record about *hop*."""
        return self.known_hosts.lookup(hop.known_hosts, hop.key_name, hop.port)


def log_in(sock: Any, hop: Hop, trust: Trust, ring: KeyRing) -> SshConnection:
    """Make an authenticated connection of *sock*, which is closed when that fails."""
    known = trust.known(hop)
    link = start_link(sock, hop, known.algorithms())
    try:
        verify(host_key(link), hop, known, trust)
        identities, excuses = ring.identities(hop.keys)
        failed = auth.authenticate(link, hop.user, hop.who, identities, hop.password, hop.methods)
        if failed is not None:
            failed.excuses += excuses
            raise auth.refusal(failed, hop.user, hop.password is not None)
    except BaseException:
        link.close()
        raise
    return SshConnection(link, hop)


def start_link(sock: Any, hop: Hop, key_types: tuple[str, ...]) -> Link:
    """Exchange versions and keys with *hop* over *sock*."""
    link = Link(sock, hop.keepalive_s, hop.keepalive_count)
    try:
        restrict(link, hop, key_types)
    except ConnectError:
        link.close()
        raise
    banner_s = max(hop.connect_timeout_s, BANNER_TIMEOUT_S)
    link.banner_timeout = banner_s
    started = time.monotonic()
    try:
        link.negotiate(banner_s + KEX_TIMEOUT_S)
    except TimeoutError as error:
        raise _silent(link, hop, time.monotonic() - started) from error
    except (EOFError, OSError, paramiko.SSHException, ValueError) as error:
        link.close()
        if isinstance(sock, ProxySocket) and not link.remote_version:
            message = f"{hop.who}: its ProxyCommand brought no SSH server: {sock.last_words()}"
            raise ConnectError(message, hint="run the command by hand") from error
        if not link.remote_version and time.monotonic() - started >= banner_s:
            raise _silent(link, hop, banner_s) from error
        raise _kex_failed(error, link, hop, key_types) from error
    return link


def restrict(link: Link, hop: Hop, key_types: tuple[str, ...]) -> None:
    """Limit what *link* negotiates to what ssh_config allows and, for host keys, to what is on record."""
    wanted = hop.algorithms
    for kind, option, spec in (
        ("kex", "KexAlgorithms", wanted.kex),
        ("ciphers", "Ciphers", wanted.ciphers),
        ("macs", "MACs", wanted.macs),
        ("pubkeys", "PubkeyAcceptedAlgorithms", wanted.pubkeys),
        ("keys", "HostKeyAlgorithms", wanted.keys),
    ):
        if spec and not link.restrict(kind, spec):
            raise ConnectError(f'{hop.who}: {option} "{spec}" names nothing that gpuprov has', hint="see docs/ssh.md")
    allowed = tuple(link.preferred_keys)
    link.key_types = tuple(k for k in key_types if k in allowed) or allowed


def _silent(link: Link, hop: Hop, seconds: float) -> ConnectError:
    if not link.remote_version:
        return ConnectError(
            f"{hop.who} accepted the connection but said nothing within {seconds:.0f} s",
            hint=f"is port {hop.port} an SSH port? sshd may hang (look-ups, a full disk, MaxStartups)",
        )
    return ConnectError(
        f"{hop.who} did not finish the key exchange within {seconds:.0f} s",
        hint="the host hangs, or the network drops big packets (MTU)",
    )


def _kex_failed(error: Exception, link: Link, hop: Hop, key_types: tuple[str, ...]) -> TransportError:
    if isinstance(error, IncompatiblePeer) and "host key" in str(error) and key_types:
        return HostKeyError(
            f"{hop.who} no longer has a host key of the kind on record ({', '.join(key_types)}); "
            f"it offers {', '.join(link.offered_key_types)}",
            hint=f"if the host was reinstalled: gpuprov trust INVENTORY --limit {hop.label}",
        )
    if link.server_said:
        return ConnectError(f'{hop.who} closed the connection: "{link.server_said}"', hint="see the sshd log there")
    return explain(error, hop) or ConnectError(f"{hop.who} broke the SSH protocol ({error})")


def fetch_keys(open_stream: Callable[[], Any], hop: Hop) -> list[HostKey]:
    """Return every host key that *hop* offers: one connection for each kind, none logged in."""
    link = start_link(open_stream(), hop, ())
    found = [host_key(link)]
    link.close()
    for type_, algorithms in ALGORITHMS.items():
        if type_ != found[0].type and any(a in link.offered_key_types for a in algorithms):
            other = start_link(open_stream(), hop, algorithms)
            found.append(host_key(other))
            other.close()
    return found


def host_key(link: Link) -> HostKey:
    """Return the key that the host has just proved to own."""
    key = link.get_remote_server_key()
    return HostKey(key.get_name(), key.asbytes())


def verify(offered: HostKey, hop: Hop, known: Known, trust: Trust) -> None:
    """Raise HostKeyError unless *offered* is on record for *hop*, or new and new ones are accepted."""
    for entry in known.revoked:
        if entry.key == offered:
            raise HostKeyError(
                f"{hop.who}: its host key {offered.type} {offered.fingerprint} is revoked ({entry.where})",
                hint="the host needs a new key; do not trust it before",
            )
    if any(entry.key == offered for entry in known.keys):
        return
    remedy = f"gpuprov trust INVENTORY --limit {hop.label}"
    if known.keys:
        recorded = ", ".join(f"{e.key.type} {e.key.fingerprint} ({e.where})" for e in known.keys)
        raise HostKeyError(
            f"{hop.who}: THE HOST KEY HAS CHANGED: it offers {offered.type} {offered.fingerprint}, "
            f"on record is {recorded}",
            hint=f"somebody may be in between; if the host was reinstalled: {remedy}",
            code="host-key-changed",
        )
    if hop.checking == "accept-new":
        trust.known_hosts.record(hop.record_in, hop.key_name, hop.port, [offered], hashed=hop.hash_names)
        return
    authority = ""
    if known.authorities:
        where = known.authorities[0].where
        authority = f"; {where} trusts it through a certificate authority, which gpuprov does not support"
    raise HostKeyError(
        f"{hop.who}: its host key {offered.type} {offered.fingerprint} is not known{authority}",
        hint=f"compare the fingerprint, then: {remedy}",
        code="host-key-unknown",
    )
