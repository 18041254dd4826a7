"""JSON lines over a socket, and how two ends show each other that they know the run's token.

A port may by now belong to somebody else's service, so neither end says anything before the other has proved
that it belongs to the same run; the token itself never travels.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict

    Line = Dict[str, Any]

#: No line of the protocol is longer; more is no line of ours.
MOST_BYTES = 1 << 20
#: How long one write may take before the other end counts as gone.
WRITE_S = 10.0
#: How long the other end may take to prove itself: a service that is not ours may say nothing for ever.
GREETING_S = 5.0


class GoneError(Exception):
    """The other end is not there any more, or is none of ours. The text says how that showed."""


class Lines:
    """One end of a connection that carries JSON objects, one per line."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(WRITE_S)
        self._sock = sock
        self._rest = b""
        self._whole: list[Line] = []

    def fileno(self) -> int:
        """Return the socket's descriptor, for select."""
        return self._sock.fileno()

    def send(self, line: Line) -> None:
        """Send one object. Raises GoneError."""
        try:
            self._sock.sendall(json.dumps(line).encode("ascii") + b"\n")
        except OSError as error:
            raise GoneError(_sentence(error)) from None

    def receive(self) -> list[Line]:
        """Return what one read brings; call it when there is something to read. Raises GoneError."""
        try:
            data = self._sock.recv(65536)
        except OSError as error:
            raise GoneError(_sentence(error)) from None
        if not data:
            raise GoneError("the connection was closed")
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MOST_BYTES:
            raise GoneError("a line without end came")
        return [_object(text) for text in whole]

    def one(self) -> Line:
        """Wait for the next object, at most as long as the socket's timeout. Raises GoneError."""
        while not self._whole:
            self._whole = self.receive()
        return self._whole.pop(0)

    def left(self) -> list[Line]:
        """Return what `one` has read beyond its object; no select tells of it."""
        left, self._whole = self._whole, []
        return left

    def patience(self, seconds: float) -> None:
        """Set how long one read or write may take."""
        self._sock.settimeout(seconds)

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()


def greet(lines: Lines, token: str, mine: str, theirs: str) -> None:
    """Prove that we know *token*, and have the other end prove it. mine, theirs: "hub" and "member", or the reverse.

    Raises GoneError when the other end does not.
    """
    lines.patience(GREETING_S)
    nonce = os.urandom(16).hex()
    lines.send({"t": "gpuprov-fabric", "nonce": nonce})
    other = str(lines.one().get("nonce"))
    lines.send({"t": "proof", "proof": _proof(token, mine, other)})
    if not hmac.compare_digest(str(lines.one().get("proof")), _proof(token, theirs, nonce)):
        raise GoneError("the other end belongs to another run")
    lines.patience(WRITE_S)


def _proof(token: str, role: str, nonce: str) -> str:
    return hmac.new(token.encode(), f"{role} {nonce}".encode(), hashlib.sha256).hexdigest()


def _object(text: bytes) -> Line:
    try:
        found = json.loads(text.decode("utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise GoneError("something came that is no line of this protocol")
    return found


def _sentence(error: OSError) -> str:
    return "nothing came in time" if isinstance(error, socket.timeout) else error.strerror or str(error)
