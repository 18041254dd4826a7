"""One conversation with one host's agent: bootstrap, hello, plan, files, events.

The bootstrap and the sending of files block and run in worker threads; frames() never blocks
and is what the one consumer calls.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpuprov import bundle
from gpuprov.errors import AgentError, RefusedError, SessionLost
from gpuprov.wire import PROTOCOL
from gpuprov.wire.frames import CHUNK_BYTES, Decoder, FrameError, encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gpuprov.transport.base import Channel, Connection

#: What may come before our marker: banners, chatty shell profiles. More than this is a flood.
NOISE_LIMIT_BYTES = 64 * 1024
#: What a host may make us hold: its longest event is 1 MiB, and nothing it says has a body.
MAX_HEADER_BYTES = 4 * 1024 * 1024
#: How often frames() reads before others get their turn.
MOST_READS = 64
#: What stage 2 says about a host that it may not, or cannot, be used on.
_REFUSALS = ("disk", "state-folder")


@dataclass(frozen=True, slots=True)
class Become:
    """How root is taken on a host: not at all, or through sudo with or without a password."""

    root: bool = False
    password: str | None = None


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Watchdogs, in seconds. first_byte: until the host says anything after the exec; boot: until hello."""

    first_byte_s: float = 20.0
    boot_s: float = 60.0
    silence_s: float = 30.0
    send_s: float = 120.0


class Session:
    """An agent that was started on a host. Not thread-safe: one thread at a time.

    survey: its facts are to have all that choosing a stack needs, which takes the host longer;
    {"network": True} also whether its package sources answer.
    """

    def __init__(
        self,
        connection: Connection,
        become: Become,
        python: str | None,
        home: str | None,
        limits: Timeouts,
        survey: bool | dict[str, bool] = False,
    ) -> None:
        self.connection = connection
        self.hello: dict[str, Any] = {}
        self.decoder = Decoder(MAX_HEADER_BYTES, 0)
        self.last_heard = time.monotonic()
        self._become = become
        self._python = python
        self._home = home
        self._limits = limits
        self._survey = survey
        self._noise = bytearray()
        self._stderr = bytearray()
        self._open = False
        self._channel: Channel | None = None
        self._ready: list[tuple[dict[str, Any], bytes]] = []

    @property
    def channel(self) -> Channel:
        """The channel of the agent's front."""
        assert self._channel is not None
        return self._channel

    def start(self) -> dict[str, Any]:
        """Bootstrap the agent and return its hello. Raises TransportError and AgentError; blocks."""
        marker = "gpuprov-" + secrets.token_hex(8)
        prompt = f"gpuprov-sudo-{secrets.token_hex(8)}:" if self._become.password is not None else ""
        sudo = prompt if self._become.root else None
        self._channel = self.connection.run(bundle.loader_command(marker, self._python, sudo))
        agent, code = bundle.layer("agent"), bundle.byte_code()
        boot = {"t": "boot", "protocol": PROTOCOL, "bundle": agent.sha256, "state_dir": self._home}
        boot["ready"] = [code.magic, code.digest]
        if self._survey:
            boot["survey"] = self._survey
        first = bundle.stage2() + encode(boot)
        deadline = time.monotonic() + self._limits.boot_s
        if sudo is None:
            self._send_first(first)
            self._await_marker(marker.encode() + b"\n", "", deadline)
        else:
            self._await_marker(marker.encode() + b"\n", prompt, deadline)
            self._send_first(first)
        header, _ = self._next(deadline)
        if header["t"] == "need":
            packed = header.get("bundle") == code.digest
            self._send(encode({"t": "bundle", "packed": packed}, bundle.packed_byte_code() if packed else agent.data))
            header, _ = self._next(deadline)
        if header["t"] == "fault":
            kind = RefusedError if header.get("code") in _REFUSALS else AgentError
            raise kind(str(header.get("message")), hint=str(header.get("hint", "")), code=str(header.get("code")))
        self.hello = _checked(header)
        return header

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        """Send one frame. Raises SessionLost."""
        self._send(encode(header, body))

    def send_encoded(self, data: bytes) -> None:
        """Send a frame that is encoded already. Raises SessionLost."""
        self._send(data)

    def send_blobs(self, wanted: Mapping[str, str | bytes]) -> None:
        """Send files (sha256 -> path or content) in pieces. Raises SessionLost, OSError."""
        for sha256, source in wanted.items():
            for piece, last in _pieces(source):
                self._send(encode({"t": "blob", "sha256": sha256, "last": last}, piece))

    def frames(self) -> Iterator[tuple[dict[str, Any], bytes, bytes]]:
        """Yield (header, header's JSON text, body) of what has arrived; never blocks.

        Raises SessionLost at the end of the stream and FrameError for nonsense. A host that never
        stops talking does not keep others from being heard: the rest waits for the next call.
        """
        for _ in range(MOST_READS):
            data = self.channel.recv(1 << 16)
            if data is None:
                return
            if not data:
                raise SessionLost(self.why_ended())
            self.last_heard = time.monotonic()
            for header, body in self.decoder.feed(data):
                yield header, self.decoder.text, body

    def why_ended(self) -> str:
        """Say in a clause why the stream ended."""
        if self.connection.why_dead:
            return self.connection.why_dead
        status = self.channel.exit_status()
        said = self._said()
        tail = f": {said}" if said else ""
        return f"the agent's channel ended{f' with status {status}' if status is not None else ''}{tail}"

    def close(self) -> None:
        """Close channel and connection; the runner on the host does not notice."""
        if self._channel is not None:
            self._channel.close()
        self.connection.close()

    def _send(self, data: bytes) -> None:
        self.channel.send(data, self._limits.send_s)

    def _send_first(self, data: bytes) -> None:
        """Send what the loader executes. A command that ended before it took it has left word of why."""
        with contextlib.suppress(SessionLost):
            self._send(data)

    def _await_marker(self, marker: bytes, prompt: str, deadline: float) -> None:
        """Read until the marker line; answer sudo's prompt once on the way."""
        answered = False
        first = time.monotonic() + self._limits.first_byte_s
        while marker not in self._noise:
            if prompt:
                self._stderr += self.channel.stderr()
                if self._stderr.count(prompt.encode()) > (1 if answered else 0):
                    if answered:
                        raise AgentError(
                            "sudo refused the password",
                            hint="check -K or ansible_become_password",
                            code="sudo-password",
                        )
                    answered = True
                    self._send((self._become.password or "").encode() + b"\n")
                    first = deadline
            self._read_some(min(deadline, first if not self._noise else deadline), 0.05 if prompt else 1.0)
            if len(self._noise) > NOISE_LIMIT_BYTES:
                raise AgentError(
                    f"the login shell printed more than {NOISE_LIMIT_BYTES // 1024} KiB before our command ran",
                    hint="look at the user's shell start-up files",
                    code="noise",
                )
        index = self._noise.index(marker)
        rest = bytes(self._noise[index + len(marker) :])
        del self._noise[index:]
        self._open = True
        self._take(rest)

    def _read_some(self, deadline: float, slice_s: float) -> None:
        """Wait for output and keep it as noise. Raises when the host is silent or the command ended."""
        if not self.channel.wait(min(slice_s, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                raise self._silent()
            return
        data = self.channel.recv()
        if data == b"":
            raise self._ended_early()
        self._noise += data or b""

    def _next(self, deadline: float) -> tuple[dict[str, Any], bytes]:
        """Return the next frame of the bootstrap."""
        while not self._ready:
            if not self.channel.wait(max(0.0, min(1.0, deadline - time.monotonic()))):
                if time.monotonic() >= deadline:
                    raise self._silent()
                continue
            data = self.channel.recv()
            if data == b"":
                raise self._ended_early()
            self.last_heard = time.monotonic()
            self._take(data or b"")
        return self._ready.pop(0)

    def _take(self, data: bytes) -> None:
        try:
            self._ready.extend(self.decoder.feed(data))
        except FrameError as error:
            raise AgentError(f"the host answered nonsense: {error}", code="protocol") from None

    def _silent(self) -> AgentError:
        said = self._said()
        message = "the host took the command and then said nothing"
        return AgentError(
            f"{message}{': ' + said if said else ''}", hint="is its disk or its home folder hanging?", code="silent"
        )

    def _ended_early(self) -> AgentError | SessionLost:
        """Turn the loader's exit status and what was printed into a sentence."""
        for _ in range(20):  # the status arrives a moment after the end of the output
            status = self.channel.exit_status()
            if status is not None:
                break
            time.sleep(0.05)
        else:
            return SessionLost(self.connection.why_dead or "the connection ended during the bootstrap")
        said = self._said()
        named = f"{self._python} " if self._python else ""
        if status == bundle.EXIT_NO_PYTHON:
            return AgentError(
                f"no Python on the host{f': {named}is not there' if named else ''}",
                hint="`gpuprov bootstrap INVENTORY` installs one (3.8 or newer); or set ansible_python_interpreter",
                code="python-missing",
            )
        if status == bundle.EXIT_OLD_PYTHON:
            return AgentError(
                f"the host's Python {named}is older than 3.8",
                hint="`gpuprov bootstrap INVENTORY` installs a newer one; or set ansible_python_interpreter",
                code="python-too-old",
            )
        if self._become.root and not self._open:
            return sudo_error(said, status)
        return AgentError(
            f"the command ended with status {status} before the agent spoke{f': {said}' if said else ''}",
            hint="does the account have a forced command, or a login shell that refuses commands?",
            code="no-agent",
        )

    def _said(self) -> str:
        """Return the last thing that was printed before the agent spoke, or on stderr."""
        if self._channel is not None:
            self._stderr += self._channel.stderr()
        for source in (self._stderr, self._noise):
            text = re.sub(r"gpuprov-(sudo-)?[0-9a-f]{16}:?", "", source.decode("utf-8", "replace"))
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            if lines:
                return "".join(c if c.isprintable() else " " for c in lines[-1])[:300]
        return ""


def _checked(hello: dict[str, Any]) -> dict[str, Any]:
    """Return the agent's first words when they have the shape that others rely on. Raises AgentError."""
    if hello["t"] != "hello" or hello.get("protocol") != PROTOCOL:
        raise AgentError(f"the agent answered {hello['t']!r} instead of hello", code="protocol")
    trouble = hello.get("trouble", [])
    if not isinstance(hello.get("facts"), dict) or not isinstance(trouble, list):
        raise AgentError("the agent's hello has no facts", code="protocol")
    if not all(isinstance(one, dict) for one in trouble):
        raise AgentError("the agent's hello has trouble of an unknown shape", code="protocol")
    return hello


def sudo_error(said: str, status: int) -> AgentError:
    """Return why sudo did not run a command, by what it printed last."""
    low = said.lower()
    if "password is required" in low or "a terminal is required" in low or "no password was provided" in low:
        return AgentError(
            "sudo wants a password", hint="give it with -K, or set ansible_become_password", code="sudo-password"
        )
    if "not in the sudoers" in low or "not allowed" in low:
        return AgentError(f"sudo refuses this user: {said}", hint="allow it in /etc/sudoers.d", code="sudo-refused")
    if status == 127 or "not found" in low:
        return AgentError(
            "there is no sudo on the host", hint="install sudo, or log in as root (-u root)", code="sudo-missing"
        )
    return AgentError(f"sudo ended with status {status}: {said}", code="sudo")


def _pieces(source: str | bytes) -> Iterator[tuple[bytes, bool]]:
    """Yield (bytes, whether they are the last) of a file or of bytes."""
    if isinstance(source, bytes):
        for start in range(0, max(len(source), 1), CHUNK_BYTES):
            yield source[start : start + CHUNK_BYTES], start + CHUNK_BYTES >= len(source)
        return
    with open(source, "rb") as f:
        left = os.fstat(f.fileno()).st_size
        while True:
            data = f.read(min(CHUNK_BYTES, left))
            left -= len(data)
            if left and not data:
                raise AgentError(f"{source} became shorter while it was sent", hint="run it again", code="file-changed")
            yield data, not left
            if not left:
                return
