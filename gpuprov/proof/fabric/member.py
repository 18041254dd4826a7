"""A host's part: join the hub, fork the ranks of each round, say what became of them, pass checks on.

The process imports torch, so that forked ranks have it at once, but never uses a device: a CUDA context does not
survive a fork. One thread, one select; nothing here waits for a rank.
"""

from __future__ import annotations

import selectors
import socket
import time

from gpuprov.proof.check import check
from gpuprov.proof.fabric import network
from gpuprov.proof.fabric.hub import BEAT_S, GRACE_S, SILENT_S
from gpuprov.proof.fabric.lines import GoneError, Lines, greet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

    from gpuprov.proof.check import Message
    from gpuprov.proof.fabric.children import Child
    from gpuprov.proof.fabric.lines import Line
    from gpuprov.proof.fabric.plan import Plan

#: Between two tries to reach the hub, whose host may still be starting.
AGAIN_S = 0.2
CONNECT_S = 5.0


class _Rank:
    """One process of the present round. stage is what it said last, for when it has to be killed."""

    __slots__ = ("child", "killed", "number", "outcome", "stage", "stuck")

    def __init__(self, number: int, child: Child) -> None:
        self.number = number
        self.child = child
        self.stage = "starting"
        self.outcome: Line = {}
        self.killed = False
        self.stuck = ""


class Member:
    """This host in one run.

    devices: what its ranks run on, none when jobs use them; kind: them in words, or why not; fork starts a rank.
    """

    def __init__(
        self,
        plan: Plan,
        devices: list[str],
        kind: str,
        fork: Callable[[Line, int, int, str], Child],
        send: Callable[[Message], None],
    ) -> None:
        self._plan = plan
        self._devices = devices
        self._kind = kind
        self._fork = fork
        self._emit = send
        self._selector = selectors.DefaultSelector()
        self._ranks: list[_Rank] = []
        self._round = 0
        self._name = ""
        self._told = False
        self._left_at = 0.0
        self._address = ""

    def run(self) -> None:
        """Take part until the hub says that it is over, or is lost."""
        try:
            hub = self._join()
        except GoneError as error:
            self._check("fabric.join", "fail", str(error))
            return
        self._selector.register(hub, selectors.EVENT_READ)
        try:
            self._follow(hub)
        except GoneError as error:
            where = f" in the middle of {self._name}" if self._round else ""
            self._check("fabric.hub", "unknown", f"the hub on {self._plan.hub} was lost{where}: {error}")
        finally:
            for one in self._ranks:
                one.child.kill()
            hub.close()
            self._selector.close()

    def _check(self, name: str, verdict: str, reason: str) -> None:
        self._emit(dict(check(name, verdict, reason), kind="check"))

    # -- joining -------------------------------------------------------------

    def _join(self) -> Lines:
        """Return a connection to the hub. Raises GoneError with what was tried."""
        self._emit({"kind": "stage", "text": f"looking for the hub on {self._plan.hub}", "device": ""})
        until = time.monotonic() + self._plan.join_s
        trouble = "nothing was tried"
        while time.monotonic() < until:
            for port in self._plan.ports:
                try:
                    return self._greeted(port)
                except OSError as error:
                    trouble = f"port {port}: {error.strerror or error}"
                except GoneError as error:
                    trouble = f"port {port}: {error}"
            time.sleep(AGAIN_S)
        raise GoneError(
            f"no way to the hub on {self._plan.hub} ({self._plan.hub_address}) within {self._plan.join_s:g} s: "
            f"{trouble}; does a firewall stand between the hosts?"
        )

    def _greeted(self, port: int) -> Lines:
        self._address = network.own_address(self._plan.address, self._plan.hub_address)
        sock = socket.create_connection((self._plan.hub_address, port), CONNECT_S, (self._address, 0))
        lines = Lines(sock)
        try:
            greet(lines, self._plan.token, "member", "hub")
        except GoneError:
            lines.close()
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lines.send({"t": "hello", "host": self._plan.host, "devices": self._devices, "kind": self._kind})
        return lines

    # -- rounds --------------------------------------------------------------

    def _follow(self, hub: Lines) -> None:
        beat_at, heard_at = 0.0, time.monotonic()
        lines = hub.left()
        while True:
            for line in lines:
                if line["t"] == "end":
                    return
                self._take(line, hub)
            lines = []
            for key, _ in self._selector.select(0.2):
                if key.fileobj is hub:
                    heard_at = time.monotonic()
                    lines += hub.receive()
                else:
                    self._hear(key.data, hub)
            now = time.monotonic()
            if now - heard_at > SILENT_S:
                raise GoneError(f"silent for {SILENT_S:g} s")
            if now >= beat_at:
                beat_at = now + BEAT_S
                hub.send({"t": "beat"})
            self._watch(hub)

    def _take(self, line: Line, hub: Lines) -> None:
        """Do what the hub says."""
        kind = line["t"]
        if kind == "check":
            self._emit(dict(line["check"], kind="check"))
        elif kind == "round":
            self._begin(line)
        elif line.get("round") != self._round:
            return
        elif kind == "go":
            for one in self._ranks:
                self._to_rank(one, {"store": line["store"]})
        elif kind == "release":
            self._kill(hub)

    def _begin(self, line: Line) -> None:
        self._round, self._name, self._told, self._left_at = line["round"], line["name"], False, 0.0
        self._emit({"kind": "stage", "text": f"{line['name']}: {line['what']}", "device": ""})
        self._ranks = []
        mine = [number for number, (host, _) in enumerate(line["ranks"]) if host == self._plan.host]
        for local, number in enumerate(mine):
            one = _Rank(number, self._fork(line, number, local, self._address))
            self._ranks.append(one)
            self._selector.register(one.child.lines, selectors.EVENT_READ, one)

    def _to_rank(self, one: _Rank, line: Line) -> None:
        try:
            one.child.lines.send(line)
        except GoneError:
            return  # it has ended; _watch finds out how

    def _hear(self, one: _Rank, hub: Lines) -> None:
        try:
            said = one.child.lines.receive()
        except GoneError:
            self._selector.unregister(one.child.lines)
            one.child.lines.close()
            return
        for line in said:
            if line["t"] == "ready":
                hub.send(dict(line, round=self._round))
            elif line["t"] == "stage":
                one.stage = line["text"]
            else:
                one.outcome = line
                if line["state"] == "error":
                    self._trouble(hub, line["text"], bool(line["own"]))

    def _watch(self, hub: Lines) -> None:
        """See who has ended; tell the hub when all have."""
        if not self._ranks:
            return
        for one in self._ranks:
            if one.child.ended is None and one.child.reap() and not one.outcome and not one.killed:
                self._last_words(one, hub)
                if not one.outcome:
                    self._trouble(hub, self._died(one), True)
        stuck = bool(self._left_at) and time.monotonic() > self._left_at
        if stuck or all(one.child.ended is not None for one in self._ranks):
            hub.send({"t": "result", "round": self._round, "outcomes": [self._outcome(one) for one in self._ranks]})
            for one in self._ranks:
                if one.child.lines.fileno() >= 0:
                    self._selector.unregister(one.child.lines)
                    one.child.lines.close()
            self._ranks, self._round = [], 0

    def _last_words(self, one: _Rank, hub: Lines) -> None:
        """Read what a process that has ended wrote before."""
        while one.child.lines.fileno() >= 0 and not one.outcome:
            self._hear(one, hub)

    def _died(self, one: _Rank) -> str:
        return f"its process of {self._device(one)} was {one.child.how()} ({one.stage})".replace("was ended", "ended")

    def _device(self, one: _Rank) -> str:
        return self._devices[self._ranks.index(one)]

    def _outcome(self, one: _Rank) -> Line:
        if one.outcome and one.child.ended is not None:
            return dict(one.outcome, rank=one.number)
        if one.child.ended is None:
            text = f"its process does not even go when killed ({one.stage}): the driver hangs in the kernel"
            return {"rank": one.number, "state": "died", "text": text, "stage": one.stage}
        if one.killed:
            text = f"its process of {self._device(one)} {one.stuck} ({one.stage})" if one.stuck else ""
            return {"rank": one.number, "state": "released", "text": text, "stage": one.stage, "own": bool(text)}
        return {"rank": one.number, "state": "died", "text": self._died(one), "stage": one.stage}

    def _trouble(self, hub: Lines, why: str, own: bool) -> None:
        """Tell the hub at once, so that nobody waits for a rank that is lost."""
        if not self._told:
            self._told = True
            hub.send({"t": "trouble", "round": self._round, "why": why, "own": own})

    def _kill(self, hub: Lines) -> None:
        for one in self._ranks:
            if not one.child.reap():
                one.killed, one.stuck = True, one.child.stuck()
                one.child.kill()
            elif not one.outcome:
                self._last_words(one, hub)
        self._left_at = time.monotonic() + GRACE_S / 2
