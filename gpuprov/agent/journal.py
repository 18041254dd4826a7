"""The runner's journal: one JSON event per line, numbered, appended, synced when it must be.

The journal is the truth about what was done. A line that a power cut left half-written is cut
off when the journal is opened again.
"""

from __future__ import annotations

import errno
import json
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.masking import Masks

#: Space set aside when a run starts, so that its last events can be written to a full disk.
RESERVE_BYTES = 256 * 1024
#: An event that is longer has its long texts cut. Two full outputs of a command fit.
EVENT_LIMIT_BYTES = 1024 * 1024
#: A journal that is longer takes only short events; the runs of a host share its disk.
JOURNAL_LIMIT_BYTES = 64 * 1024 * 1024
#: What live output of all tasks together may add.
OUTPUT_LIMIT_BYTES = 16 * 1024 * 1024
#: What an event is cut to, text by text, when it is too long; and once space is short.
CUT_TEXT_BYTES = 32 * 1024
SHORT_TEXT_BYTES = 2 * 1024
#: Fields that the program reads: no secret, however short, may hide them.
_STRUCTURE = ("id", "outcome", "action", "boot_id", "pid", "index", "duration_s", "stream", "run", "counts", "changed")


class JournalFull(Exception):
    """No space is left for events: no further task may start."""


class Journal:
    """Appends events to *path*. One writer, the runner; any number of readers.

    sync_with names files that must be on disk before the first synced event is: what a later
    runner needs to make sense of the journal.
    """

    def __init__(self, path: str, secrets: list[str] | None = None, sync_with: tuple[str, ...] = ()) -> None:
        self.path = path
        self.seq = 0
        #: Space ran out once; what was set aside is in use, and no further task may start.
        self.low = False
        self.output_left = OUTPUT_LIMIT_BYTES
        self._reserve = path + ".reserve"
        self._masks = _masks(secrets)
        self._sync_with = sync_with
        self._on_write = -1
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def notify(self, fd: int) -> None:
        """Write one byte to pipe *fd* after every event, so that a reader need not poll."""
        os.set_blocking(fd, False)
        self._on_write = fd

    def recover(self, at_least: int = 0) -> list[dict[str, Any]]:
        """Return the events that are there, after cutting off what a power cut left half-written.

        at_least is the newest number that a reader has seen: later events are numbered above it,
        also when a power cut took events that had been read already.
        """
        if not self._size:
            self.seq = at_least
            return []
        events: list[dict[str, Any]] = []
        good = 0
        with open(self.path, "rb") as f:
            for line in f:
                event = _event(line)
                if event is None or event["seq"] <= self.seq:
                    break
                self.seq = event["seq"]
                events.append(event)
                good += len(line)
        os.truncate(self.path, good)
        self._size = good
        self.seq = max(self.seq, at_least)
        return events

    def reserve(self) -> None:
        """Set space aside. Raises JournalFull when there is none."""
        fd = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _allocate(fd, RESERVE_BYTES)
        except OSError as error:
            os.unlink(self._reserve)
            raise JournalFull(error.strerror) from None
        finally:
            os.close(fd)

    def write(self, kind: str, sync: bool = False, **fields: Any) -> None:
        """Append one event; with *sync*, return only when it is on disk.

        Values that are no JSON become their text; very long ones are cut. Raises JournalFull when
        even the reserve is used up.
        """
        event = {"t": "event", "seq": self.seq + 1, "at": round(time.time(), 3), "kind": kind}
        limit = EVENT_LIMIT_BYTES if self._size < JOURNAL_LIMIT_BYTES and not self.low else 8 * SHORT_TEXT_BYTES
        try:
            self._append(self._text(event, fields, limit))
        except OSError as error:
            self._use_reserve(error)
            try:
                self._append(self._text(event, fields, 8 * SHORT_TEXT_BYTES))
            except OSError as again:
                raise JournalFull(again.strerror) from None
        self.seq += 1
        if sync:
            self._sync()
        if self._on_write >= 0:
            try:
                os.write(self._on_write, b"e")
            except OSError:  # the reader is gone or slow; the journal is what counts
                pass

    def _text(self, event: dict[str, Any], fields: dict[str, Any], limit: int) -> bytes:
        text = _dumps({**event, **fields})
        if self._masks is not None and self._masks.in_json(text):
            fields = {name: one if name in _STRUCTURE else self._masks.hide(one) for name, one in fields.items()}
            text = _dumps({**event, **fields})
        for most in (CUT_TEXT_BYTES, SHORT_TEXT_BYTES):
            if len(text) > limit:
                text = _dumps({**event, **{name: cut(one, most) for name, one in fields.items()}})
        if len(text) > limit:
            kept = {name: one for name, one in fields.items() if name in (*_STRUCTURE, "msg", "fault", "item")}
            left_out = {"left_out": "%d bytes, too many for the journal" % len(text)}
            text = _dumps({**event, **cut(kept, SHORT_TEXT_BYTES), "result": left_out})
        return text.encode() + b"\n"

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)

    def _use_reserve(self, error: OSError) -> None:
        if self.low:
            raise JournalFull(error.strerror) from None
        self.low = True
        self._give_reserve_back()

    def _sync(self) -> None:
        paths, self._sync_with = self._sync_with, ()
        for path in (*paths, *([os.path.dirname(self.path)] if paths else [])):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        os.fdatasync(self._fd)

    def _give_reserve_back(self) -> None:
        try:
            os.unlink(self._reserve)
        except FileNotFoundError:
            pass

    def close(self) -> None:
        """Give the reserve back and close."""
        self._give_reserve_back()
        os.close(self._fd)


def cut(value: Any, most: int) -> Any:
    """Return *value* with the middle of long texts, and the end of long lists, left out."""
    if isinstance(value, str) and len(value) > most:
        return "%s\n... %d letters left out ...\n%s" % (value[: most // 2], len(value) - most, value[-most // 2 :])
    if isinstance(value, dict):
        return {key: cut(one, most) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [cut(one, most) for one in value[: max(1, most // 16)]]
    return value


def _dumps(event: dict[str, Any]) -> str:
    try:
        return json.dumps(event, separators=(",", ":"), default=str)
    except TypeError:  # a template may give a mapping any keys
        return json.dumps(_text_keys(event), separators=(",", ":"), default=str)


def _text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _text_keys(one) for key, one in value.items()}
    return [_text_keys(one) for one in value] if isinstance(value, (list, tuple)) else value


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return event if isinstance(event, dict) and type(event.get("seq")) is int and "kind" in event else None


def _masks(secrets: list[str] | None) -> Masks | None:
    if not secrets:
        return None
    from gpuprov.agent.masking import Masks

    return Masks(secrets)


def _allocate(fd: int, size: int) -> None:
    """Make the file system set *size* bytes aside for a file. Raises OSError."""
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        os.pwrite(fd, bytes(size), 0)  # a file system that cannot promise space
