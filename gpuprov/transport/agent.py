"""Talk to ssh-agent: list its keys once, let it sign for any number of threads."""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import threading
from dataclasses import dataclass

from gpuprov.errors import AuthenticationError

FAILURE = 5
REQUEST_IDENTITIES = 11
IDENTITIES_ANSWER = 12
SIGN_REQUEST = 13
SIGN_RESPONSE = 14

#: Flags of a signature request, by the algorithm that the server is told.
RSA_FLAGS = {"rsa-sha2-256": 2, "rsa-sha2-512": 4}
#: Largest answer of an agent that is believed, in bytes.
ANSWER_LIMIT = 1024 * 1024
#: An agent may ask its user to touch a key or to confirm; so long is that waited for.
SIGN_TIMEOUT_S = 30.0
LIST_TIMEOUT_S = 5.0


def fingerprint(blob: bytes) -> str:
    """Return the SHA256 fingerprint of a public key as ssh prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def read_string(data: bytes, offset: int) -> tuple[bytes, int]:
    """Return the length-prefixed string at *offset* and where it ends; ValueError when it is cut off."""
    if offset + 4 > len(data):
        raise ValueError("cut off")
    (length,) = struct.unpack_from(">I", data, offset)
    end = offset + 4 + length
    if end > len(data):
        raise ValueError("cut off")
    return data[offset + 4 : end], end


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


@dataclass(frozen=True, slots=True)
class AgentKey:
    """A key that an agent holds; has what paramiko's authentication asks of a key."""

    agent: Agent
    blob: bytes
    comment: str

    #: A certificate held by an agent is its own blob.
    public_blob = None

    def get_name(self) -> str:
        """Return the key's type, as in `ssh-ed25519`."""
        return read_string(self.blob, 0)[0].decode("ascii", "replace")

    def asbytes(self) -> bytes:
        """Return the public key."""
        return self.blob

    def sign_ssh_data(self, data: bytes, algorithm: str | None = None) -> bytes:
        """Return the agent's signature of *data*."""
        flags = RSA_FLAGS.get((algorithm or "").replace("-cert-v01@openssh.com", ""), 0)
        return self.agent.sign(self.blob, data, flags)


class Agent:
    """One ssh-agent, by its socket. Thread-safe: one request at a time."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def keys(self) -> tuple[AgentKey, ...]:
        """Return the keys that the agent holds; OSError or ValueError when it cannot be asked."""
        kind, answer = self._ask(bytes([REQUEST_IDENTITIES]), LIST_TIMEOUT_S)
        if kind != IDENTITIES_ANSWER or len(answer) < 4:
            raise ValueError(f"unexpected answer {kind}")
        found = []
        offset = 4
        for _ in range(struct.unpack_from(">I", answer)[0]):
            blob, offset = read_string(answer, offset)
            comment, offset = read_string(answer, offset)
            found.append(AgentKey(self, blob, comment.decode("utf-8", "replace")))
        return tuple(found)

    def sign(self, blob: bytes, data: bytes, flags: int) -> bytes:
        """Return a signature by the key *blob*; AuthenticationError when the agent will not."""
        request = bytes([SIGN_REQUEST]) + _string(blob) + _string(data) + struct.pack(">I", flags)
        try:
            kind, answer = self._ask(request, SIGN_TIMEOUT_S)
            if kind == SIGN_RESPONSE:
                return read_string(answer, 0)[0]
        except (OSError, ValueError) as error:
            message = f"the ssh-agent at {self.path} did not sign ({error})"
            raise AuthenticationError(message, hint="is it still running, and is a confirmation pending?") from error
        raise AuthenticationError(
            f"the ssh-agent at {self.path} refused to sign with {fingerprint(blob)}",
            hint="ssh-add -l shows its keys; it may be locked (ssh-add -X)",
        )

    def close(self) -> None:
        """Close the socket; the next request opens it again."""
        with self._lock:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, request: bytes, timeout_s: float) -> tuple[int, bytes]:
        with self._lock:
            try:
                if self._socket is None:
                    self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                    self._socket.settimeout(timeout_s)
                    self._socket.connect(self.path)
                self._socket.settimeout(timeout_s)
                self._socket.sendall(_string(request))
                (length,) = struct.unpack(">I", self._read(4))
                if not 0 < length <= ANSWER_LIMIT:
                    raise ValueError(f"an answer of {length} bytes")
                answer = self._read(length)
            except (OSError, ValueError):
                self._hang_up()
                raise
        return answer[0], answer[1:]

    def _read(self, count: int) -> bytes:
        assert self._socket is not None
        data = b""
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            if not piece:
                raise ConnectionResetError("it hung up")
            data += piece
        return data
