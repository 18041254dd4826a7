"""Packets in and out: buffered, watched, with deadlines, and bounded."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import paramiko
from paramiko.packet import NeedRekeyException, Packetizer

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Bytes asked of the socket at once.
READ_SIZE = 8192
SEND_SIZE = 65536
#: Longest time between two looks at the clock while nothing arrives, in seconds.
TICK_S = 2.0
#: Longest packet that is read; OpenSSH's limit, with room for a MAC. The length comes from the other side.
PACKET_LIMIT = 256 * 1024 + 64
#: Longest line that a server may say before its SSH version.
BANNER_LINE_LIMIT = 8192
_thread = threading.local()


class Silence(EOFError):
    """The peer was declared dead; ends paramiko's loops as the end of the stream does."""


@contextlib.contextmanager
def write_deadline(timeout_s: float) -> Iterator[None]:
    """Let every write of this thread, to any link, fail after *timeout_s* altogether."""
    before = getattr(_thread, "deadline", None)
    _thread.deadline = time.monotonic() + timeout_s
    try:
        yield
    finally:
        _thread.deadline = before


class WatchedPacketizer(Packetizer):
    """A Packetizer that reads in big pieces and notices when nothing comes back."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._sock = sock
        self._buffer = bytearray()
        self._quick_ack = hasattr(socket, "TCP_QUICKACK") and getattr(sock, "family", None) in {
            socket.AF_INET,
            socket.AF_INET6,
        }
        self._unanswered = 0
        self._quiet_since = time.monotonic()
        self._ping_at = 0.0
        self.interval_s = 0.0
        self.count = 0
        self.ping: Any = None
        self.why_dead = ""
        self._initial_kex_done = False  # set by Transport; also declared in the original

    def watch(self, interval_s: float, count: int, ping: Any) -> None:
        """Call *ping* after each *interval_s* of silence; give up when *count* pings stay unanswered."""
        self.interval_s, self.count, self.ping = interval_s, count, ping

    def start_handshake(self, timeout: float) -> None:
        """Do nothing: whoever connects waits with a deadline, no thread is needed for it."""

    def handshake_timed_out(self) -> bool:
        """Return False, see start_handshake."""
        return False

    def complete_handshake(self) -> None:
        """Do nothing, see start_handshake."""

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        """Return exactly *n* bytes; EOFError at the end of the stream or when the peer is dead."""
        if not 0 <= n <= PACKET_LIMIT:
            raise paramiko.SSHException(f"a packet of {n} bytes")
        buffer = self._buffer
        while len(buffer) < n:
            if not self._fill() and check_rekey and not buffer and self.need_rekey():
                raise NeedRekeyException
        out = bytes(buffer[:n])
        del buffer[:n]
        return out

    def readline(self, timeout: float) -> str:
        """Return the next line of the clear-text greeting."""
        deadline = time.monotonic() + timeout
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > BANNER_LINE_LIMIT:
                raise paramiko.SSHException("the first line is too long")
            if not self._fill() and time.monotonic() > deadline:
                raise TimeoutError
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line.rstrip(b"\r").decode("utf-8", "replace")

    def _fill(self) -> bool:
        """Read once. False when nothing came within a tick."""
        try:
            piece = self._sock.recv(READ_SIZE)
        except TimeoutError:
            if self.closed:
                raise EOFError from None
            self._look_after_peer()
            return False
        except OSError:
            if self.closed:
                raise EOFError from None
            raise
        if not piece:
            raise EOFError
        self._buffer += piece
        if self._quick_ack:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        self._quiet_since = time.monotonic()
        self._unanswered = 0
        return True

    def _look_after_peer(self) -> None:
        """Ping when it is time to; raise Silence when enough pings went unanswered.

        Pings are counted, not seconds: a controller that was stopped (Ctrl-Z, a sleeping
        laptop) must not blame its hosts for the time it was away.
        """
        if not self.interval_s or not self._initial_kex_done or self.need_rekey():
            return
        now = time.monotonic()
        if now - max(self._quiet_since, self._ping_at) < self.interval_s:
            return
        if self._unanswered >= self.count:
            self._die(f"the host stopped answering {now - self._quiet_since:.0f} s ago")
        self._unanswered += 1
        self._ping_at = now
        with write_deadline(self.interval_s):
            self.ping()

    def _die(self, reason: str) -> None:
        self.why_dead = self.why_dead or reason
        raise Silence(reason)

    def write_all(self, out: Any) -> None:
        """Send all of *out*; EOFError when the link closes, the deadline passes or the peer takes nothing."""
        view = memoryview(out)
        deadline = getattr(_thread, "deadline", None)
        stuck_s = 0.0
        while view:
            try:
                sent = self._sock.send(view[:SEND_SIZE])
            except TimeoutError:
                sent = 0
                stuck_s += self._sock.gettimeout() or TICK_S
            except OSError as error:
                self.why_dead = self.why_dead or f"the connection broke ({error.strerror or error})"
                raise EOFError from error
            if self.closed:
                raise EOFError
            view = view[sent:]
            stuck_s = 0.0 if sent else stuck_s
            limit_s = self.interval_s * (self.count + 1)
            if view and ((limit_s and stuck_s > limit_s) or (deadline is not None and time.monotonic() > deadline)):
                # half a packet is out: nothing can follow it, so the whole link is lost
                self.why_dead = self.why_dead or "the host took no more data"
                self.close()
                raise Silence(self.why_dead)

    def close(self) -> None:
        """Close the socket and wake whoever is waiting on it."""
        if not self.closed:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
        super().close()
