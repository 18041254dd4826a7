"""Frames: a length-prefixed JSON header, optionally followed by raw bytes.

4 bytes  header length, big endian
4 bytes  body length, big endian
header   a JSON object with at least "t", the frame's type
body     raw bytes (a file, a bundle), often empty
"""

from __future__ import annotations

import json
from struct import Struct

TYPE_CHECKING = False  # `typing` would cost every host 2 ms
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

PREFIX = Struct("!II")
#: A plan of some thousand tasks is about 2 MiB; the cap is what a hostile or confused peer can make us hold.
MAX_HEADER_BYTES = 32 * 1024 * 1024
MAX_BODY_BYTES = 8 * 1024 * 1024
#: Larger files travel as several frames of this size.
CHUNK_BYTES = 1024 * 1024


class FrameError(ValueError):
    """The bytes are not a frame of this protocol."""


def encode(header: dict[str, Any], body: bytes = b"") -> bytes:
    """Return the bytes of one frame."""
    return encode_raw(json.dumps(header, separators=(",", ":")).encode(), body)


def encode_raw(text: bytes, body: bytes = b"") -> bytes:
    """Return the bytes of a frame whose header is JSON already."""
    if len(text) > MAX_HEADER_BYTES or len(body) > MAX_BODY_BYTES:
        raise FrameError(f"a frame of {len(text)} + {len(body)} bytes is too large")
    return PREFIX.pack(len(text), len(body)) + text + body


class Decoder:
    """Turns a stream of bytes, in pieces of any size, into frames no larger than its limits."""

    def __init__(self, max_header: int = MAX_HEADER_BYTES, max_body: int = MAX_BODY_BYTES) -> None:
        self._max_header = max_header
        self._max_body = max_body
        self._buffer = bytearray()
        #: The JSON text of the header that was yielded last.
        self.text = b""

    @property
    def pending(self) -> int:
        """How many bytes of an unfinished frame are held."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Yield (header, body) of every frame that *data* completes. Raises FrameError."""
        self._buffer += data
        while len(self._buffer) >= PREFIX.size:
            head, body = PREFIX.unpack_from(self._buffer)
            if head > self._max_header or body > self._max_body:
                limits = f"{self._max_header} + {self._max_body}"
                raise FrameError(f"a frame announces {head} + {body} bytes; the limits are {limits}")
            start, end = PREFIX.size + head, PREFIX.size + head + body
            if len(self._buffer) < end:
                return
            text, raw = bytes(self._buffer[PREFIX.size : start]), bytes(self._buffer[start:end])
            del self._buffer[:end]
            self.text = text
            yield decode_header(text), raw


def decode_header(text: bytes) -> dict[str, Any]:
    """Return a frame's header. Raises FrameError when it is not one."""
    try:
        header = json.loads(text.decode("utf-8"))
    except ValueError as error:
        raise FrameError(f"a frame's header is not JSON: {error}") from None
    if not isinstance(header, dict) or not isinstance(header.get("t"), str):
        raise FrameError("a frame's header is not an object with a type")
    return header
