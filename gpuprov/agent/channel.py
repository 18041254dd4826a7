"""The agent's side of the SSH channel: frames in on one descriptor, frames out on another."""

from __future__ import annotations

import os
import select

from gpuprov.wire.frames import Decoder, encode, encode_raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class ChannelClosed(Exception):
    """The controller closed its end."""


class Channel:
    """Frames over two descriptors. stdout belongs to the protocol: children never get it."""

    def __init__(self, fd_in: int, fd_out: int) -> None:
        self.fd_in = fd_in
        self._out = os.dup(fd_out)  # not inheritable
        if fd_out == 1:
            os.dup2(2, 1)  # a stray print must not corrupt the stream
        self._decoder = Decoder()
        self._ready: list[tuple[dict[str, Any], bytes]] = []

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        """Write one frame; blocks while the peer does not read."""
        self._write(encode(header, body))

    def send_lines(self, lines: list[bytes]) -> None:
        """Write frames whose headers are the JSON *lines* as they stand in the journal."""
        self._write(b"".join([encode_raw(line) for line in lines]))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._out, view) :]

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """Return the next frame; blocks. Raises ChannelClosed at the end, FrameError for nonsense."""
        while not self._ready:
            self._read()
        return self._ready.pop(0)

    def arrived(self) -> list[tuple[dict[str, Any], bytes]]:
        """Return the frames that one read completes: call it when pending() says so. Raises as receive() does."""
        if not self._ready:
            self._read()
        frames, self._ready = self._ready, []
        return frames

    def _read(self) -> None:
        data = os.read(self.fd_in, 1 << 18)
        if not data:
            raise ChannelClosed
        self._ready.extend(self._decoder.feed(data))

    def pending(self, timeout_s: float, wake: int = -1) -> tuple[bool, bool]:
        """Wait for a frame or for descriptor *wake*; return which of the two is ready."""
        if self._ready:
            return True, False
        poll = select.poll()
        poll.register(self.fd_in, select.POLLIN | select.POLLHUP)
        if wake >= 0:
            poll.register(wake, select.POLLIN | select.POLLHUP)
        ready = {fd for fd, _ in poll.poll(timeout_s * 1000)}
        return self.fd_in in ready, wake in ready

    def drain(self, timeout_s: float) -> None:
        """Read and forget until the controller closes its end: what was said last must reach it first."""
        poll = select.poll()
        poll.register(self.fd_in, select.POLLIN | select.POLLHUP)
        while poll.poll(timeout_s * 1000) and os.read(self.fd_in, 1 << 18):
            continue

    def leave(self) -> None:
        """Close our copy of the way out, in a process that must not keep the connection open."""
        os.close(self._out)
