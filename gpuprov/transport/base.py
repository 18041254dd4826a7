"""What every way in looks like to the rest of the program."""

from __future__ import annotations

from typing import Protocol


class Channel(Protocol):
    """One running command: bytes in, bytes out, an exit status. Used by one thread at a time."""

    def send(self, data: bytes, timeout_s: float) -> None:
        """Send all of *data* to the command's stdin; SessionLost when that takes longer or the channel is gone."""

    def recv(self, limit: int = 65536) -> bytes | None:
        """Return what has arrived: bytes, None for nothing yet, b"" for the end. Does not wait."""

    def wait(self, timeout_s: float) -> bool:
        """Wait until recv would return something else than None; False when *timeout_s* passed first."""

    def fileno(self) -> int:
        """Return a descriptor that is readable when recv may have something or the channel ended.

        A wake-up may be spurious; recv then says None and the descriptor is quiet again.
        """

    def stderr(self) -> bytes:
        """Return what arrived on stderr since the last call: the first 64 KiB in all, the rest is dropped."""

    def stdin_eof(self) -> None:
        """Tell the command that no more input comes. Doing it twice, or on a dead channel, is harmless."""

    def exit_status(self) -> int | None:
        """Return the command's exit status; None while it runs, or when the channel died without one.

        A command that was killed by a signal reports 128 + the signal's number.
        """

    def close(self) -> None:
        """Give the channel back; the command sees its pipes closed."""


class Connection(Protocol):
    """An authenticated way to one host. Thread-safe."""

    #: As reports name it: user@address:port.
    address: str

    @property
    def why_dead(self) -> str:
        """The reason, as a clause, once the connection has broken; empty before, and after close()."""

    def run(self, command: str) -> Channel:
        """Run *command* through the login shell of the host, without a terminal."""

    def alive(self) -> bool:
        """Return whether the connection still stands, as far as anybody can know."""

    def close(self) -> None:
        """End the connection and everything that runs over it. Doing it twice is harmless."""
