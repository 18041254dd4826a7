"""Open the stream under an SSH connection: TCP, or a ProxyCommand."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import subprocess
import tempfile
import threading
from typing import IO, TYPE_CHECKING, Any

from gpuprov.errors import ConnectError
from gpuprov.transport.faults import explain_os_error, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuprov.transport.hop import Hop

#: How much of a ProxyCommand's stderr an error message quotes, in bytes.
PROXY_STDERR_LIMIT = 500
#: How long a ProxyCommand may take to end after its stdin did, in seconds.
PROXY_GRACE_S = 0.5


def open_tcp(hop: Hop) -> socket.socket:
    """Connect to *hop* itself; every address of its name is tried. ConnectError says why not."""
    addresses = resolve(hop)
    error: OSError | None = None
    for family, kind, protocol, _, address in addresses:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(hop.connect_timeout_s)
            if hop.bind_address:
                sock.bind((hop.bind_address, 0))
            sock.connect(address)
            tune(sock, hop.keepalive_s * (hop.keepalive_count + 1))
        except OSError as failed:
            sock.close()
            error = failed
        else:
            return sock
    assert error is not None
    raise explain_os_error(error, hop) from error


def tune(sock: socket.socket, silence_s: float) -> None:
    """Send small packets at once, and let the kernel notice a dead peer as well."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT") and silence_s:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(silence_s * 1000))


def resolve(hop: Hop) -> Sequence[tuple[Any, ...]]:
    """Return the addresses of *hop*; ConnectError when its name is not found in time.

    The C library's resolver has no deadline, so a name is looked up in a thread that is left
    behind when it takes too long.
    """
    family = hop.family or socket.AF_UNSPEC
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(hop.host.partition("%")[0])
        return _lookup(hop, family)
    box: list[Any] = []

    def look() -> None:
        try:
            box.append(_lookup(hop, family))
        except (ConnectError, OSError) as error:
            box.append(error)

    thread = threading.Thread(target=look, name=f"resolve {hop.host}", daemon=True)
    thread.start()
    thread.join(hop.connect_timeout_s)
    if not box:
        message = f"the name {hop.host} was not resolved within {hop.connect_timeout_s:g} s"
        raise ConnectError(message, hint="the DNS server does not answer; ansible_host can hold an IP address")
    if isinstance(box[0], Exception):
        raise box[0]
    found: Sequence[tuple[Any, ...]] = box[0]
    return found


def _lookup(hop: Hop, family: int) -> Sequence[tuple[Any, ...]]:
    try:
        return socket.getaddrinfo(hop.host, hop.port, family, socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise explain_os_error(error, hop) from error


class ProxySocket(socket.socket):
    """Our end of a socket pair whose other end is a ProxyCommand's stdin and stdout."""

    process: subprocess.Popen[bytes]
    stderr_file: IO[bytes]
    _said = ""
    _reaper: threading.Thread | None = None

    def close(self) -> None:
        """Close the stream and end the command, with what it started."""
        super().close()
        if self._reaper is None:
            self._reaper = threading.Thread(target=self._reap, name="end of a ProxyCommand", daemon=True)
            self._reaper.start()

    def _reap(self) -> None:
        try:
            self.process.wait(PROXY_GRACE_S)  # the end of its stdin is enough for most
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        with self.stderr_file as f:
            f.seek(0)
            said = f.read(PROXY_STDERR_LIMIT).decode("utf-8", "replace")
        status = f"it exited with status {self.process.returncode}"
        self._said = "; ".join(part for part in (printable(said), status) if part)

    def last_words(self) -> str:
        """Return what the command said on stderr, and its exit status; waits until it ended."""
        self.close()
        assert self._reaper is not None
        self._reaper.join()
        return self._said


def open_proxy(hop: Hop) -> ProxySocket:
    """Start the ProxyCommand of *hop* through sh."""
    assert hop.proxy_command is not None
    ours, theirs = socket.socketpair()
    stderr_file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the socket
    with theirs:
        process = subprocess.Popen(
            ["/bin/sh", "-c", "exec " + hop.proxy_command],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=stderr_file,
            start_new_session=True,
        )
    sock = ProxySocket(ours.family, ours.type, ours.proto, fileno=ours.detach())
    sock.process = process
    sock.stderr_file = stderr_file
    return sock
