"""Real agents on this machine through the real bootstrap, with any interpreter and any trouble on the way."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpuprov import bundle
from gpuprov.fleet.session import Become, Session, Timeouts
from gpuprov.transport.local import LocalConnection

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gpuprov.transport.base import Channel

QUICK = Timeouts(first_byte_s=20, boot_s=40)


@dataclass
class Odd:
    """A connection with oddities: *change* rewrites the command, *piece* bytes arrive at once."""

    change: Callable[[str], str] = lambda command: command
    piece: int = 65536
    sent: int = 0
    inner: LocalConnection = field(default_factory=LocalConnection)
    why_dead: str = ""

    def run(self, command: str) -> Channel:
        return _Slow(self.inner.run(self.change(command)), self)  # type: ignore[return-value]

    def close(self) -> None:
        self.inner.close()


class _Slow:
    """A channel that counts what is sent and hands out what arrives in pieces."""

    def __init__(self, channel: Channel, odd: Odd) -> None:
        self._channel = channel
        self._odd = odd

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def send(self, data: bytes, timeout_s: float) -> None:
        self._odd.sent += len(data)
        self._channel.send(data, timeout_s)

    def recv(self, limit: int = 65536) -> bytes | None:
        return self._channel.recv(min(limit, self._odd.piece))


def marker_of(command: str) -> str:
    """Return the session's marker, from the loader's command line."""
    found = re.search(r"gpuprov-[0-9a-f]{16}", command)
    assert found
    return found[0]


def session(home: Path, python: str | None = None, odd: Odd | None = None, limits: Timeouts = QUICK) -> Session:
    """Return a session that was not started yet."""
    return Session(odd or Odd(), Become(), python, str(home), limits)  # type: ignore[arg-type]


def start(home: Path, python: str | None = None, odd: Odd | None = None) -> tuple[Session, Odd]:
    """Start an agent; return its session and its connection."""
    odd = odd or Odd()
    found = session(home, python, odd)
    try:
        found.start()
    except BaseException:
        found.close()
        raise
    return found, odd


def run_plan(found: Session, plan: dict[str, Any], layers: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Send a plan, answer what the host asks for, and return its events to the end."""
    wanted = {name: bundle.layer(name).sha256 for name in layers}
    found.send({"t": "plan", "plan": plan, "layers": wanted})
    events: list[dict[str, Any]] = []
    while True:
        assert found.channel.wait(30), f"silent after {events}"
        for header, _, _ in found.frames():
            if header["t"] == "files":
                found.send_blobs({wanted[name]: bundle.layer(name).data for name in header["layers"]})
            elif header["t"] != "beat":
                events.append(header)
            if header.get("kind") == "RunFinished" or header["t"] in ("fault", "gone"):
                found.close()
                return events
