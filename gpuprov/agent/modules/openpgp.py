"""OpenPGP keys: which fingerprints a key file has, in text or binary form. Checks no signature.

Fingerprints are computed here, from the key material itself (RFC 9580, section 5.5.4), so that a host
needs no gpg for it.
"""

from __future__ import annotations

import base64
import binascii
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_PUBLIC_KEY = 6
_BEGIN, _END = b"-----BEGIN PGP PUBLIC KEY BLOCK-----", b"-----END PGP PUBLIC KEY BLOCK-----"
#: A key file is a few KB; what is larger is something else.
LIMIT_BYTES = 1 << 20
_LINE_CHARS = 64


class NotAKey(ValueError):
    """What was given is no public key."""


def fingerprints(data: bytes) -> list[str]:
    """Return the fingerprints of all primary keys, upper-case hex. Raises NotAKey."""
    found = [_fingerprint(body) for tag, body in _packets(binary(data)) if tag == _PUBLIC_KEY]
    if not found:
        raise NotAKey("there is no public key in it")
    return found


def binary(data: bytes) -> bytes:
    """Return a key file in binary form, whichever it has. Raises NotAKey."""
    if _BEGIN not in data:
        return data
    whole = b""
    for block in data.split(_BEGIN)[1:]:
        text, end, _ = block.partition(_END)
        if not end:
            raise NotAKey("it ends in the middle")
        # Headers, if any, end with an empty line; the checksum is a line of its own that starts with "=".
        lines = text.replace(b"\r", b"").strip(b" \n").split(b"\n")
        start = lines.index(b"") + 1 if b"" in lines else 0
        body = b"".join(line.strip() for line in lines[start:] if not line.startswith(b"="))
        try:
            whole += base64.b64decode(body, validate=True)
        except binascii.Error:
            raise NotAKey("it is damaged: not base64") from None
    return whole


def text(data: bytes) -> bytes:
    """Return a key file in text form, as rpm wants it. Raises NotAKey."""
    body = base64.b64encode(binary(data))
    lines = [body[start : start + _LINE_CHARS] for start in range(0, len(body), _LINE_CHARS)]
    return b"\n".join([_BEGIN, b"", *lines, _checksum(binary(data)), _END, b""])


def pretty(fingerprint: str) -> str:
    """Return a fingerprint as one compares it: without blanks, upper-case."""
    plain = fingerprint.replace(" ", "").replace(":", "").upper()
    return plain[2:] if plain.startswith("0X") else plain


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (tag, body) of each packet. Raises NotAKey."""
    at = 0
    while at < len(data):
        head = data[at]
        if not head & 0x80:
            raise NotAKey("it is not an OpenPGP file")
        new = bool(head & 0x40)
        tag = head & 0x3F if new else (head >> 2) & 0x0F
        start, size = _new_length(data, at + 1) if new else _old_length(data, at + 1, head & 0x03)
        if start + size > len(data):
            raise NotAKey("it ends in the middle")
        yield tag, data[start : start + size]
        at = start + size


def _new_length(data: bytes, at: int) -> tuple[int, int]:
    first = data[at] if at < len(data) else 255
    if first < 192:
        return at + 1, first
    if first < 224 and at + 1 < len(data):
        return at + 2, ((first - 192) << 8) + data[at + 1] + 192
    if first == 255 and at + 5 <= len(data):
        return at + 5, int.from_bytes(data[at + 1 : at + 5], "big")
    raise NotAKey("it has a packet of unknown length")


def _old_length(data: bytes, at: int, kind: int) -> tuple[int, int]:
    octets = (1, 2, 4, 0)[kind]
    if not octets or at + octets > len(data):
        raise NotAKey("it has a packet of unknown length")
    return at + octets, int.from_bytes(data[at : at + octets], "big")


def _fingerprint(body: bytes) -> str:
    import hashlib

    version = body[0] if body else 0
    if version == 4:
        options: dict[str, Any] = {"usedforsecurity": False} if sys.version_info >= (3, 9) else {}
        # RFC 9580 has SHA-1 for version 4; a second key with a given fingerprint is out of reach all the same
        state = hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, **options)  # noqa: S324
        return state.hexdigest().upper()
    if version == 6:
        return hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    raise NotAKey("its key has version %d; 4 and 6 are known" % version)


def _checksum(data: bytes) -> bytes:
    """Return the CRC-24 line of a text form: older programs insist on it."""
    crc = 0xB704CE
    for octet in data:
        crc ^= octet << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return b"=" + base64.b64encode(crc.to_bytes(3, "big"))
