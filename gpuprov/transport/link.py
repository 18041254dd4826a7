"""paramiko's Transport made fit for hundreds of hosts: cheap, quiet, and sure about dead peers.

What differs from the original, and why:

* Reads are buffered and poll the socket every few seconds instead of ten times a second; no
  timer thread is started per handshake. With 200 connections that is most of the idle CPU.
* A keepalive asks for an answer. A peer that leaves `count` of them unanswered is dead, and so
  is one that takes no byte of a blocked write for that long. why_dead says which.
* A write obeys the deadline of the thread that started it (`write_deadline`).
* Nothing is logged. paramiko formats dozens of debug lines per handshake and prints errors to
  stderr when nobody configured logging; what matters is kept: why_dead, server_said.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from typing import TYPE_CHECKING, Any

import paramiko
from paramiko.auth_handler import AuthHandler
from paramiko.common import MSG_CHANNEL_REQUEST, cMSG_CHANNEL_REQUEST, cMSG_GLOBAL_REQUEST

from gpuprov.errors import AuthenticationError
from gpuprov.transport.algorithms import CIPHERS, CURVE25519, CURVE25519_OLD, MACS, choose
from gpuprov.transport.packets import TICK_S, WatchedPacketizer

if TYPE_CHECKING:
    from collections.abc import Sequence

#: With these, 200 hosts that print megabytes need at most this much memory each.
WINDOW_BYTES = 1024 * 1024

_quiet = logging.getLogger("paramiko")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False
_quiet.setLevel(logging.CRITICAL + 1)


class RecordingAuthHandler(AuthHandler):
    """Remembers which methods the server would have taken, and survives a key that cannot sign."""

    def __init__(self, transport: paramiko.Transport) -> None:
        super().__init__(transport)
        self.allowed: tuple[str, ...] = ()
        self.excuse = ""

    def _parse_service_accept(self, m: paramiko.Message) -> None:
        try:
            super()._parse_service_accept(m)  # type: ignore[misc]
        except (paramiko.SSHException, AuthenticationError) as error:
            # an agent that refuses, or an RSA key for a server without RSA: the next key may do
            self.excuse = str(error)
            self.abort()

    def _parse_userauth_failure(self, m: paramiko.Message) -> None:
        copy = paramiko.Message(m.asbytes())
        self.allowed = tuple(copy.get_list())
        super()._parse_userauth_failure(m)  # type: ignore[misc]


def _channel_request(channel: paramiko.Channel, m: paramiko.Message) -> None:
    """Handle a channel request; paramiko drops exit-signal, so it is turned into a status here."""
    start = m.packet.tell()
    if m.get_text() == "exit-signal":
        m.get_boolean()
        number = getattr(signal, "SIG" + m.get_text(), 0)
        channel.exit_status = 128 + int(number)
        channel.status_event.set()
        return
    m.packet.seek(start)
    channel._handle_request(m)  # type: ignore[attr-defined]


#: What paramiko knows, in its order of preference, with the second name of curve25519 beside the first.
_KEX_ORDER: tuple[str, ...] = paramiko.Transport._preferred_kex  # type: ignore[attr-defined]
_KEX_INFO: dict[str, Any] = paramiko.Transport._kex_info  # type: ignore[attr-defined]


class Link(paramiko.Transport):
    """A client connection below authentication. server_said is the text of its last goodbye."""

    _channel_handler_table = {  # noqa: RUF012 - overrides the class attribute of the original
        **paramiko.Transport._channel_handler_table,  # type: ignore[attr-defined]
        MSG_CHANNEL_REQUEST: _channel_request,
    }
    _kex_info = {  # noqa: RUF012 - as above
        **_KEX_INFO,
        **({CURVE25519: _KEX_INFO[CURVE25519_OLD]} if CURVE25519_OLD in _KEX_INFO else {}),
    }
    _preferred_kex = tuple(
        name for known in _KEX_ORDER for name in ((CURVE25519, known) if known == CURVE25519_OLD else (known,))
    )
    _preferred_ciphers = CIPHERS
    _preferred_macs = MACS
    packetizer: WatchedPacketizer

    def __init__(self, sock: Any, interval_s: float, count: int) -> None:
        self._active_check_timeout = min(TICK_S, interval_s / 4) if interval_s else TICK_S
        super().__init__(sock, default_window_size=WINDOW_BYTES, packetizer_class=WatchedPacketizer)
        self.packetizer.watch(interval_s, count, self._ping)
        self.key_types: Sequence[str] = ()
        self.offered_key_types: tuple[str, ...] = ()
        self.server_said = ""

    def _log(self, level: int, msg: object, *args: object) -> None:
        """Drop paramiko's own log."""

    @property
    def preferred_keys(self) -> Sequence[str]:
        """Return the host key algorithms to ask for: key_types when set; never certificates."""
        return tuple(self.key_types) or self._filter_algorithm("keys")  # type: ignore[attr-defined]

    def restrict(self, kind: str, spec: str) -> bool:
        """Use only what *spec* (see algorithms.choose) leaves of *kind*: kex, ciphers, macs, keys or pubkeys."""
        known = {"kex": self._kex_info, "ciphers": self._cipher_info, "macs": self._mac_info}  # type: ignore[attr-defined]
        default = getattr(self, f"_preferred_{kind}")
        chosen = choose(spec, default, tuple(known.get(kind, default)))
        setattr(self, f"_preferred_{kind}", chosen)
        return bool(chosen)

    @property
    def why_dead(self) -> str:
        """Return why the link broke, as a clause; empty while it stands."""
        if self.is_active():
            return ""
        if self.packetizer.why_dead:
            return self.packetizer.why_dead
        if self.server_said:
            return f'the host closed the connection: "{self.server_said}"'
        error = self.saved_exception
        if error is None or isinstance(error, EOFError):
            return "the host closed the connection"
        return f"the connection broke ({getattr(error, 'strerror', None) or error})"

    def _ping(self) -> None:
        if not self.clear_to_send.is_set():
            return  # in the middle of a key exchange: waiting for its end here would be waiting for ourselves
        message = paramiko.Message()
        message.add_byte(cMSG_GLOBAL_REQUEST)
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)
        self._send_user_message(message)  # type: ignore[attr-defined]

    def _parse_disconnect(self, m: paramiko.Message) -> None:
        m.get_int()
        self.server_said = _one_line(m.get_text())

    def _parse_kex_init(self, m: paramiko.Message) -> None:
        copy = paramiko.Message(m.asbytes())
        copy.get_bytes(16)
        copy.get_list()
        self.offered_key_types = tuple(copy.get_list())
        super()._parse_kex_init(m)  # type: ignore[misc]

    def negotiate(self, timeout_s: float) -> None:
        """Exchange keys; raise what ended it, TimeoutError when it takes longer."""
        done = threading.Event()
        self.start_client(event=done)
        finished = done.wait(timeout_s)
        if not finished:
            self.close()
            raise TimeoutError
        if not self.is_active() or not self.initial_kex_done:
            raise self.saved_exception or EOFError()

    def request_exec(self, channel: paramiko.Channel, command: str) -> None:
        """Ask for *command*, without waiting a round trip for the answer (a refusal closes the channel)."""
        message = paramiko.Message()
        message.add_byte(cMSG_CHANNEL_REQUEST)
        message.add_int(channel.remote_chanid)
        message.add_string("exec")
        message.add_boolean(True)
        message.add_string(command)
        self._send_user_message(message)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Close the link. Its thread ends by itself, at once."""
        if self.is_active():
            self.active = False
            self.packetizer.close()
            if self.completion_event is not None:
                self.completion_event.set()
            for channel in list(self._channels.values()):  # type: ignore[attr-defined]
                channel._unlink()
        with contextlib.suppress(OSError):
            self.sock.close()


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:200].strip()
