"""Watches the GPUs of a fleet: one SSH connection per host, kept open, with one small process at its end.

Worker threads connect; the calling thread reads all channels. A host that is lost is sought again.
"""

from __future__ import annotations

import json
import queue
import selectors
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuprov import bundle
from gpuprov.errors import GpuprovError, SessionLost
from gpuprov.proof import watch
from gpuprov.report.top import Host, host_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpuprov.fleet.hostrun import Prepared, Ways
    from gpuprov.transport.base import Channel, Connection

#: A host that cannot be reached, or was lost, is tried again after this long.
AGAIN_S = 10.0
SEND_S = 10.0
#: More than a line of a host with eight GPUs and all their processes; what is longer is not ours.
MOST_BYTES = 1 << 18
EXIT_NO_PYTHON = 85


class _Watched:
    """One host: its way, and what is known."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.host = Host(prepared.name)
        self.connection: Connection | None = None
        self.channel: Channel | None = None
        self.rest = b""
        self.again_at = 0.0
        self.connecting = False


class Top:
    """The fleet's GPUs, as their hosts tell of them. Close it at the end."""

    def __init__(self, hosts: Sequence[Prepared], ways: Ways, interval_s: float = 2.0, threads: int = 50) -> None:
        self._ways = ways
        self._interval_s = interval_s
        self._watched = [_Watched(prepared) for prepared in hosts]
        self._selector = selectors.DefaultSelector()
        self._pool = ThreadPoolExecutor(max(1, min(threads, len(hosts))), thread_name_prefix="top")
        self._done: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    @property
    def hosts(self) -> list[Host]:
        """What is known of each host, in the inventory's order."""
        return [one.host for one in self._watched]

    def turn(self, wait_s: float = 0.25) -> None:
        """Take what hosts said; connect to those that are due."""
        now = time.monotonic()
        for one in self._watched:
            if one.channel is None and not one.connecting and now >= one.again_at:
                one.connecting = True
                self._pool.submit(self._connect, one)
        if self._selector.get_map():
            for key, _ in self._selector.select(wait_s):
                self._read(key.data)
        else:
            time.sleep(wait_s)
        while not self._done.empty():
            self._done.get()()

    def close(self) -> None:
        """End all connections: the processes at their ends see their pipes closed."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for one in self._watched:
            self._drop(one)
        self._selector.close()

    def _connect(self, one: _Watched) -> None:
        """Connect and start the watch. In a worker thread."""
        connection = None
        try:
            connection = self._ways.connect(one.prepared.target)
            channel = connection.run(command(one.prepared.python, self._interval_s))
            channel.send(_source(), SEND_S)
        except GpuprovError as error:
            if connection is not None:
                connection.close()
            why = error.message
            self._done.put(lambda: self._lost(one, why))
        else:
            self._done.put(lambda: self._listen(one, connection, channel))

    def _listen(self, one: _Watched, connection: Connection, channel: Channel) -> None:
        one.connection, one.channel, one.connecting, one.rest = connection, channel, False, b""
        self._selector.register(channel.fileno(), selectors.EVENT_READ, one)
        self._read(one)

    def _read(self, one: _Watched) -> None:
        assert one.channel is not None
        try:
            data = one.channel.recv()
        except SessionLost as lost:
            self._lost(one, lost.message)
            return
        if data is None:
            return
        if not data:
            self._lost(one, self._why_ended(one))
            return
        *lines, one.rest = (one.rest + data).split(b"\n")
        one.rest = one.rest[-MOST_BYTES:]
        for line in lines:
            found = _object(line)
            if found is not None:
                one.host = host_of(one.prepared.name, found, time.monotonic())

    def _why_ended(self, one: _Watched) -> str:
        assert one.channel is not None
        assert one.connection is not None
        if one.connection.why_dead:
            return one.connection.why_dead
        if one.channel.exit_status() == EXIT_NO_PYTHON:
            return "no Python 3.8 or newer on the host: `gpuprov bootstrap INVENTORY` installs one"
        said = one.channel.stderr().decode("utf-8", "replace").strip().splitlines()
        return f"the watch on the host ended{': ' + said[-1] if said else ''}"

    def _lost(self, one: _Watched, why: str) -> None:
        self._drop(one)
        one.connecting = False
        one.again_at = time.monotonic() + AGAIN_S
        one.host = Host(one.prepared.name, (), why, unreachable=True)

    def _drop(self, one: _Watched) -> None:
        if one.channel is not None:
            for key in list(self._selector.get_map().values()):
                if key.data is one:
                    self._selector.unregister(key.fileobj)
            one.channel.close()
        if one.connection is not None:
            one.connection.close()
        one.channel = one.connection = None


def command(python: str | None, interval_s: float) -> str:
    """Return the command line that finds a Python and gives it the watch's source; valid in any login shell."""
    tries = " ".join([bundle.interpreter(python)] if python else bundle.PYTHONS)
    old = "import sys; sys.exit(sys.version_info < (3, 8))"
    read = f"import sys; exec(sys.stdin.buffer.read({len(_source())}))"
    body = (
        f'for p in {tries}; do command -v $p >/dev/null 2>&1 || continue; $p -I -S -c "{old}" || continue; '
        f'exec $p -I -S -B -c "{read}" {interval_s:g}; done; exit {EXIT_NO_PYTHON}'
    )
    return f"exec /bin/sh -c '{body}'"


def _source() -> bytes:
    return Path(watch.__file__).read_bytes()


def _object(line: bytes) -> dict[str, Any] | None:
    """Return a line's object, None for what a login shell may have said before."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "gpus" in found else None
