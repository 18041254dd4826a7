"""An event that select() can wait for."""

from __future__ import annotations

import os
import threading


class Doorbell:
    """A flag with a descriptor that is readable while the flag is set. Thread-safe.

    Safe to ring after close: paramiko's own pipe may then write into a descriptor that by now
    belongs to somebody else.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_end, self._write_end = os.pipe()
        self._rung = False
        self._open = True

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._read_end

    def set(self) -> None:
        """Ring; does nothing when already rung or closed."""
        with self._lock:
            if self._open and not self._rung:
                self._rung = True
                os.write(self._write_end, b"!")

    def clear(self) -> None:
        """Be silent until the next set."""
        with self._lock:
            if self._open and self._rung:
                self._rung = False
                os.read(self._read_end, 1)

    def close(self) -> None:
        """Give the descriptors back."""
        with self._lock:
            if self._open:
                self._open = False
                os.close(self._read_end)
                os.close(self._write_end)


class Bell:
    """What a paramiko buffer rings; only its reader silences the doorbell."""

    __slots__ = ("_doorbell",)

    def __init__(self, doorbell: Doorbell) -> None:
        self._doorbell = doorbell

    def set(self) -> None:
        """Ring the doorbell."""
        self._doorbell.set()

    def clear(self) -> None:
        """Do nothing: the buffer emptied does not mean that the other one is empty too."""
