"""The controller's journal of a run: one file, one line per event, whatever host it came from.

One file because 200 hosts would be 200 opens for each second's flush. What is lost when the
controller is killed (at most a second's worth) is fetched again: the hosts' own journals are
the truth, and a host is asked to go on from the last number that is on disk here.
"""

from __future__ import annotations

import json
import os
import re
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FLUSH_S = 1.0
FLUSH_BYTES = 256 * 1024
_SEQ = re.compile(rb'"seq"\s*:\s*(\d{1,15})\b')


class Journal:
    """Appends and reads one run's events. Used by one thread."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lines: list[bytes] = []
        self._size = 0
        self._due = time.monotonic() + FLUSH_S
        self._descriptor = -1
        self._keys: dict[str, bytes] = {}
        self._last: dict[str, int] = {}
        if os.path.exists(path):
            for host, event in self._read():
                seq = event.get("seq")
                if type(seq) is int:
                    self._last[host] = max(seq, self._last.get(host, 0))

    def append(self, host: str, event: bytes | Mapping[str, Any]) -> None:
        """Add one event: its JSON text as it came (cheapest), or the object."""
        if isinstance(event, bytes):
            # JSON has raw line ends between tokens only, where a space means the same
            raw = event.replace(b"\n", b" ").replace(b"\r", b" ")
            found = _SEQ.search(raw)
            seq = int(found[1]) if found else 0
        else:
            raw = json.dumps(event, separators=(",", ":")).encode()
            seq = event["seq"] if type(event.get("seq")) is int else 0
        key = self._keys.get(host)
        if key is None:
            key = self._keys[host] = b'{"host":%s,"event":' % json.dumps(host).encode()
        self._lines += (key, raw, b"}\n")
        self._size += len(raw)
        if seq > self._last.get(host, 0):
            self._last[host] = seq
        if self._size > FLUSH_BYTES:
            self.flush()
        else:
            self.tick(time.monotonic())

    def tick(self, now: float) -> None:
        """Flush when a second has gone by since the last time. *now* is time.monotonic()."""
        if now >= self._due:
            self._due = now + FLUSH_S
            self.flush()

    def flush(self) -> None:
        """Hand everything to the operating system: it survives this process from here on."""
        if not self._lines:
            return
        data = b"".join(self._lines)
        self._lines.clear()
        self._size = 0
        if self._descriptor < 0:
            self._open()
        while data:
            data = data[os.write(self._descriptor, data) :]

    def close(self) -> None:
        """Flush, and close the file."""
        self.flush()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def last_seq(self, host: str) -> int:
        """Return the number of the newest event of *host*, 0 when there is none."""
        return self._last.get(host, 0)

    def events(self, host: str) -> Iterator[dict[str, Any]]:
        """Yield all events of *host* in the order in which they came (some maybe twice)."""
        self.flush()
        return (event for name, event in self._read() if name == host)

    def all_events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (host, event) of the whole run in the order in which they came."""
        self.flush()
        return self._read()

    def _open(self) -> None:
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._descriptor).st_size
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
            os.write(self._descriptor, b"\n")  # a controller was killed in the middle of a line

    def _read(self) -> Iterator[tuple[str, dict[str, Any]]]:
        try:
            file = open(self.path, "rb")  # noqa: SIM115 - closed below, opened where its absence is answered
        except FileNotFoundError:
            return
        with file:
            for text in file:
                try:
                    line = json.loads(text)
                except ValueError:
                    continue  # torn by a kill; the host has it
                if isinstance(line, dict) and isinstance(line.get("event"), dict):
                    yield str(line.get("host")), line["event"]
