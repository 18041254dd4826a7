"""Connections and channels over SSH."""

from __future__ import annotations

import contextlib
import errno
import select
import threading
import time
from typing import TYPE_CHECKING, Any

import paramiko

from gpuprov.errors import ConnectError, SessionLost, TransportError
from gpuprov.transport.doorbell import Bell, Doorbell
from gpuprov.transport.faults import explain
from gpuprov.transport.packets import write_deadline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuprov.transport.hop import Hop
    from gpuprov.transport.link import Link

#: Bytes of a command's stderr that are kept; more is read and dropped.
STDERR_LIMIT = 64 * 1024
#: How long a server may take to open a channel.
CHANNEL_TIMEOUT_S = 30.0
#: How long the small messages of a channel (its end, its window) may take to leave.
COURTESY_S = 5.0


class SshConnection:
    """An authenticated Link."""

    def __init__(self, link: Link, hop: Hop) -> None:
        self._link = link
        self._hop = hop
        self._closed = False
        self.address = hop.address
        self.who = hop.who

    @property
    def why_dead(self) -> str:
        """Return why the connection broke, as a clause; empty while it stands and after close()."""
        return "" if self._closed else self._link.why_dead

    def alive(self) -> bool:
        """Return whether the connection still stands."""
        return self._link.is_active()

    def run(self, command: str) -> SshChannel:
        """Run *command* through the login shell of the host."""
        channel = self._open("session")
        try:
            with write_deadline(CHANNEL_TIMEOUT_S):
                self._link.request_exec(channel, command)
        except (EOFError, OSError, paramiko.SSHException) as error:
            raise self.lost() from error
        return SshChannel(channel, self)

    def tunnel(self, host: str, port: int) -> Tunnel:
        """Open a stream from the host to *host*:*port*, for the next hop."""
        return Tunnel(self._open("direct-tcpip", (host, port), ("127.0.0.1", 0)), self)

    def _open(self, kind: str, *addresses: tuple[str, int]) -> paramiko.Channel:
        try:
            with write_deadline(CHANNEL_TIMEOUT_S):
                to, source = addresses or (None, None)
                return self._link.open_channel(kind, to, source, timeout=CHANNEL_TIMEOUT_S)
        except (EOFError, OSError, paramiko.SSHException) as error:
            if not self.alive():
                raise self.lost() from error
            if str(error) == "Timeout opening channel.":
                message = f"{self._hop.who} did not open a channel within {CHANNEL_TIMEOUT_S:.0f} s"
                raise ConnectError(message, hint="the host is overloaded or hangs") from error
            raise self._refused(error, kind, addresses) from error

    def _refused(self, error: Exception, kind: str, addresses: tuple[tuple[str, int], ...]) -> TransportError:
        found = explain(error, self._hop) or ConnectError(f"{self._hop.who}: {error}")
        what = "a session" if kind == "session" else "a way to {}:{}".format(*addresses[0])
        return ConnectError(f"no {what.removeprefix('a ')} through {found.message}", hint=found.hint)

    def lost(self) -> SessionLost:
        """Return the error for using a connection that is no more."""
        reason = self.why_dead or "the connection was closed here"
        return SessionLost(f"{self._hop.who}: {reason}", hint="the run can be continued with gpuprov resume")

    def close(self) -> None:
        """End the connection."""
        self._closed = self._closed or self._link.is_active()
        self._link.close()


class Tunnel:
    """A stream through a bastion, as the socket of the next link. All its errors are OSError."""

    def __init__(self, channel: paramiko.Channel, bastion: SshConnection) -> None:
        self._channel = channel
        self._bastion = bastion
        self.settimeout = channel.settimeout
        self.gettimeout = channel.gettimeout

    @property
    def _closed(self) -> bool:
        return self._channel.closed

    def recv(self, limit: int) -> bytes:
        """Return what arrived; b"" at the end, an error when that is the bastion's fault."""
        with self._errors():
            data = self._channel.recv(limit)
        if not data and self._bastion.why_dead:
            raise self._broken()
        return data

    def send(self, data: bytes) -> int:
        """Send some of *data*; return how much."""
        with self._errors():
            sent = self._channel.send(data)
        if not sent:
            raise self._broken()
        return sent

    def shutdown(self, how: int) -> None:
        """End the stream in one direction or both."""
        with self._errors():
            self._channel.shutdown(how)

    def close(self) -> None:
        """Close the stream."""
        with contextlib.suppress(OSError), self._errors(), write_deadline(COURTESY_S):
            self._channel.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, paramiko.SSHException) as error:
            raise self._broken() from error

    def _broken(self) -> OSError:
        reason = self._bastion.why_dead or "the stream through it ended"
        return OSError(errno.ECONNABORTED, f"bastion {self._bastion.who}: {reason}")


class SshChannel:
    """One command. Reading keeps stderr drained, so that a flood there never blocks stdout."""

    def __init__(self, channel: paramiko.Channel, connection: SshConnection) -> None:
        self._channel = channel
        self._connection = connection
        self._lock = threading.Lock()
        self._stderr = bytearray()
        self._stderr_kept = 0
        self._doorbell = Doorbell()
        bell: Any = Bell(self._doorbell)
        channel.in_buffer.set_event(bell)
        channel.in_stderr_buffer.set_event(bell)

    def fileno(self) -> int:
        """Return a descriptor that is readable when recv may have something."""
        return self._doorbell.fileno()

    def recv(self, limit: int = 65536) -> bytes | None:
        """Return what has arrived, None for nothing yet, b"" for the end."""
        channel = self._channel
        self._doorbell.clear()
        self._drain_stderr()
        # the end is looked at first: what arrived before it is then in the buffer for sure
        ended = bool(channel.eof_received) or channel.closed
        if channel.recv_ready():
            data = self._read(channel.recv, limit)
            if ended or channel.recv_ready():
                self._doorbell.set()
            return data
        if ended:
            self._doorbell.set()
            return b""
        return None

    def _read(self, read: Any, limit: int) -> bytes:
        """Call a recv of paramiko; what it owes the host (window) may be lost with the link."""
        try:
            with write_deadline(COURTESY_S):
                data: bytes = read(limit)
                return data
        except (EOFError, OSError, paramiko.SSHException) as error:
            raise self._connection.lost() from error

    def _drain_stderr(self) -> None:
        while self._channel.recv_stderr_ready():
            data = self._read(self._channel.recv_stderr, 65536)
            with self._lock:
                room = STDERR_LIMIT - self._stderr_kept
                self._stderr += data[:room]
                self._stderr_kept += len(data[:room])

    def stderr(self) -> bytes:
        """Return what arrived on stderr since the last call."""
        self._drain_stderr()
        with self._lock:
            data = bytes(self._stderr)
            self._stderr.clear()
        return data

    def wait(self, timeout_s: float) -> bool:
        """Wait until recv would return something else than None."""
        poll = select.poll()
        poll.register(self._doorbell.fileno(), select.POLLIN)
        deadline = time.monotonic() + timeout_s
        while True:
            channel = self._channel
            if channel.recv_ready() or channel.eof_received or channel.closed:
                return True
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return False
            self._doorbell.clear()
            self._drain_stderr()

    def send(self, data: bytes, timeout_s: float) -> None:
        """Send all of *data*."""
        deadline = time.monotonic() + timeout_s
        view = memoryview(data)
        with write_deadline(timeout_s):
            while view:
                self._channel.settimeout(max(0.0, deadline - time.monotonic()))
                try:
                    sent = self._channel.send(view[:65536])  # type: ignore[arg-type]
                except TimeoutError as error:
                    message = f"{self._connection.who} took no more input within {timeout_s:g} s"
                    raise SessionLost(message, hint="what runs there hangs, or the network does") from error
                except (EOFError, OSError, paramiko.SSHException) as error:
                    raise self._gone() from error
                if sent == 0 or not self._connection.alive():
                    raise self._gone()
                view = view[sent:]

    def _gone(self) -> SessionLost:
        if not self._connection.alive():
            return self._connection.lost()
        return SessionLost(
            f"{self._connection.who}: the command ended before it took its input",
            hint="its output and stderr say why",
        )

    def stdin_eof(self) -> None:
        """Tell the command that no more input comes."""
        try:
            with write_deadline(COURTESY_S):
                self._channel.shutdown_write()
        except (EOFError, OSError, paramiko.SSHException):
            return  # the channel is gone, and with it the command's stdin

    def exit_status(self) -> int | None:
        """Return the command's exit status, None while there is none."""
        status = self._channel.exit_status
        return None if status < 0 else status

    def close(self) -> None:
        """Give the channel back."""
        try:
            with write_deadline(COURTESY_S):
                self._channel.close()
        except (EOFError, OSError, paramiko.SSHException):
            pass  # it went with its connection
        self._doorbell.close()
