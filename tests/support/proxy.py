"""A TCP proxy between controller and host that can delay, and that can drop everything without a word."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import deque


class Proxy:
    """Forwards connections to *target* from a port of its own.

    `cut()` makes every connection that is open now silent for good, in both directions, with
    its sockets still open: what a pulled cable looks like. New connections work. `refuse()`
    makes the port answer nobody any more.
    """

    def __init__(self, target: tuple[str, int], delay_s: float = 0.0) -> None:
        self.target = target
        self.delay_s = delay_s
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._peers: dict[socket.socket, socket.socket] = {}
        self._silent: list[socket.socket] = []
        self._late: deque[tuple[float, socket.socket, bytes]] = deque()
        self._lock = threading.Lock()
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self) -> int:
        """Silence all open connections; return how many there were."""
        with self._lock:
            sockets = list(self._peers)
            for one in sockets:
                self._selector.unregister(one)
            self._silent += sockets
            self._peers.clear()
            self._late.clear()
        return len(sockets) // 2

    def refuse(self) -> None:
        """Close the listener."""
        with self._lock:
            self._selector.unregister(self._listener)
            self._listener.close()

    def close(self) -> None:
        self._stop = True
        self._thread.join()
        for one in [*self._peers, *self._silent]:
            one.close()
        self._listener.close()
        self._selector.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._stop:
            for key, _ in self._selector.select(0.005 if self.delay_s else 0.05):
                with self._lock:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.fileobj in self._peers:
                        self._forward(key.fileobj)
            with self._lock:
                self._deliver()

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        far = socket.create_connection(self.target)
        self.accepted += 1
        for one, other in ((near, far), (far, near)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _forward(self, source: socket.socket) -> None:
        try:
            data = source.recv(65536)
        except OSError:
            data = b""
        if data:
            self._late.append((time.monotonic() + self.delay_s, self._peers[source], data))
            return
        for one in (source, self._peers.pop(source)):
            self._peers.pop(one, None)
            self._selector.unregister(one)
            one.close()

    def _deliver(self) -> None:
        while self._late and self._late[0][0] <= time.monotonic():
            _, target, data = self._late.popleft()
            try:
                target.sendall(data)
            except OSError:
                continue
