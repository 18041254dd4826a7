"""The hub: gathers the members, runs the course's rounds, releases everybody when one fails. Standard library.

One thread, one select. A member that is silent for SILENT_S is gone, whatever its sockets say.
"""

from __future__ import annotations

import selectors
import socket
import time

from gpuprov.proof.fabric import verdicts
from gpuprov.proof.fabric.course import Course, Ended, Group
from gpuprov.proof.fabric.lines import GoneError, Lines, greet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Iterable

    from gpuprov.proof.fabric.lines import Line
    from gpuprov.proof.fabric.plan import Plan

BEAT_S = 2.0
#: A member without a beat for so long is gone: a cut cable closes nothing.
SILENT_S = 12.0
#: How long members of a released round may take to say what became of their processes.
GRACE_S = 10.0


class _Member:
    __slots__ = ("devices", "host", "kind", "lines", "seen_at")

    def __init__(self, host: str, lines: Lines, devices: list[str], kind: str) -> None:
        self.host = host
        self.lines = lines
        self.devices = devices
        self.kind = kind
        self.seen_at = time.monotonic()


class _Round:
    """A group's round while it runs. due_at is when the present stage has to be over."""

    def __init__(self, number: int, group: Group, ranks: list[list[str]], due_at: float) -> None:
        self.number = number
        self.group = group
        self.ranks = ranks
        self.due_at = due_at
        self.ready: set[int] = set()
        self.store: list[object] = []
        self.began = False
        self.released = ""
        self.blamed: list[str] = []
        self.gone: list[str] = []
        self.outcomes: dict[str, list[Line]] = {}

    @property
    def open(self) -> list[str]:
        """Hosts that have not yet said how it ended."""
        return [host for host in self.group.hosts if host not in self.outcomes and host not in self.gone]


class Hub:
    """One run over the hosts that join. listener is bound and listens."""

    def __init__(self, plan: Plan, listener: socket.socket, text: Callable[[str], None]) -> None:
        self._plan = plan
        self._text = text
        self._members: dict[str, _Member] = {}
        self._rounds: dict[int, _Round] = {}
        self._number = 0
        self._selector = selectors.DefaultSelector()
        listener.setblocking(False)
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ)
        self._beat_at = 0.0
        self._over = False

    def run(self) -> None:
        """Take the run to its end."""
        self._gather()
        absent = [host for host in self._plan.hosts if host not in self._members]
        for host in absent:
            self._text(f"{host} did not come within {self._plan.join_s:g} s")
        self._tell(self._members, verdicts.joined(sorted(self._members, key=self._plan.hosts.index), absent))
        there = self._equals()
        if len(there) > 1:
            self._follow(Course(there, self._plan.parts))
        elif len(self._members) > 1:
            for host in there:
                self._tell([host], verdicts.not_measured(host, "nobody is left to measure with"))
        self._part()

    def _part(self) -> None:
        """Say that it is over, and leave last: closing a socket that has something unread takes back what was said."""
        self._over = True
        for member in list(self._members.values()):
            self._send(member, {"t": "end"})
        until = time.monotonic() + GRACE_S
        while self._members and time.monotonic() < until:
            self._turn(until)
        for host in list(self._members):
            self._lose(host, "")
        self._selector.close()

    def _equals(self) -> dict[str, str]:
        """Return what the devices are of those who measure together: free GPUs, if anybody has one."""
        members = [self._members[host] for host in self._plan.hosts if host in self._members]
        for member in members:
            if not member.devices:
                self._tell([member.host], verdicts.not_measured(member.host, member.kind))
        there = {member.host: member.kind for member in members if member.devices}
        gpus = {host: kind for host, kind in there.items() if kind.startswith("cuda")}
        if gpus:
            for host in there.keys() - gpus.keys():
                reason = "torch finds no GPU here, and the other hosts' GPUs are what is measured"
                self._tell([host], verdicts.not_measured(host, reason))
        return gpus or there

    def _gather(self) -> None:
        until = time.monotonic() + self._plan.join_s
        while len(self._members) < len(self._plan.hosts) and time.monotonic() < until:
            self._turn(until)
        self._selector.unregister(self._listener)
        self._listener.close()

    def _follow(self, course: Course) -> None:
        rounds = course.rounds()
        try:
            groups = next(rounds)
            while True:
                ended = self._together(groups)
                for one in ended:
                    self._tell(one.group.hosts, verdicts.of_round(one))
                groups = rounds.send(ended)
        except StopIteration:
            hosts = list(self._members)
            self._tell(hosts, verdicts.of_course(course, hosts))

    def _together(self, groups: list[Group]) -> list[Ended]:
        """Run the groups side by side; return how each ended, in their order."""
        mine = [self._begin(group) for group in groups]
        while any(one.open for one in mine):
            self._turn(min(one.due_at for one in mine if one.open))
            for one in mine:
                if one.open and time.monotonic() >= one.due_at:
                    self._overdue(one)
        self._rounds.clear()
        return [verdicts.ended(o.group, o.ranks, o.outcomes, o.released, o.blamed, o.gone) for o in mine]

    def _begin(self, group: Group) -> _Round:
        self._number += 1
        names = [host for host in group.hosts if host in self._members]
        ranks = [[host, device] for host in names for device in self._members[host].devices]
        one = _Round(self._number, group, ranks, time.monotonic() + self._plan.ready_s)
        one.gone = [host for host in group.hosts if host not in self._members]
        self._rounds[one.number] = one
        if one.gone:  # lost between two rounds: all or nothing
            one.released, one.blamed = f"{one.gone[0]} is gone", list(one.gone)
            one.outcomes = {host: [] for host in names}
            return one
        begin = {"t": "round", "round": one.number, "name": group.name, "what": group.what, "ranks": ranks}
        for host in names:
            self._send(self._members[host], begin)
        return one

    def _overdue(self, one: _Round) -> None:
        if one.released:
            for host in one.open:
                self._lose(host, f"{host} did not say what became of {one.group.name}")
            return
        if one.began:
            self._release(one, f"did not end within {self._plan.round_s:g} s", [])
            return
        late = [host for number, (host, _) in enumerate(one.ranks) if number not in one.ready]
        blamed = list(dict.fromkeys(late))
        self._release(one, f"{', '.join(blamed)} not ready within {self._plan.ready_s:g} s", blamed)

    def _release(self, one: _Round, why: str, blamed: list[str]) -> None:
        """Have every rank of the round end at once."""
        if one.released:
            return
        one.released, one.blamed = why, blamed
        one.due_at = time.monotonic() + GRACE_S
        for host in one.open:
            if host in self._members:
                self._send(self._members[host], {"t": "release", "round": one.number, "why": why})

    # -- what members say ----------------------------------------------------

    def _turn(self, until: float) -> None:
        now = time.monotonic()
        for key, _ in self._selector.select(max(0.0, min(until - now, 0.5))):
            if key.data is None:
                self._accept()
            else:
                self._hear(key.data)
        now = time.monotonic()
        if now >= self._beat_at:
            self._beat_at = now + BEAT_S
            for member in () if self._over else list(self._members.values()):
                self._send(member, {"t": "beat"})
        for member in list(self._members.values()):
            if now - member.seen_at > SILENT_S:
                self._lose(member.host, f"{member.host} has been silent for {SILENT_S:g} s")

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        lines = Lines(sock)
        try:
            greet(lines, self._plan.token, "hub", "member")
            hello = lines.one()
        except GoneError as error:
            self._text(f"somebody connected and left: {error}")
            lines.close()
            return
        host = str(hello.get("host"))
        if host not in self._plan.hosts or host in self._members:
            lines.close()
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._members[host] = _Member(host, lines, [str(d) for d in hello["devices"]], str(hello["kind"]))
        self._selector.register(lines, selectors.EVENT_READ, self._members[host])

    def _hear(self, member: _Member) -> None:
        try:
            found = member.lines.receive()
        except GoneError as error:
            self._lose(member.host, f"{member.host} is gone: {error}")
            return
        member.seen_at = time.monotonic()
        for line in found:
            one = self._rounds.get(line.get("round", 0))
            if one is not None and member.host in one.group.hosts:
                self._said(one, member.host, line)

    def _said(self, one: _Round, host: str, line: Line) -> None:
        if line["t"] == "ready":
            one.ready.add(line["rank"])
            one.store = line.get("store") or one.store
            if len(one.ready) == len(one.ranks) and not one.released:
                one.began = True
                one.due_at = time.monotonic() + self._plan.round_s
                for name in one.group.hosts:
                    self._send(self._members[name], {"t": "go", "round": one.number, "store": one.store})
        elif line["t"] == "trouble":  # one of its ranks is lost; the others' last words follow
            self._release(one, f"{host}: {line['why']}", [host] if line["own"] else [])
        elif line["t"] == "result":
            one.outcomes[host] = line["outcomes"]

    # -- what members are told -----------------------------------------------

    def _tell(self, hosts: Iterable[str], checks: dict[str, list[Line]]) -> None:
        for host in list(hosts):
            for found in checks.get(host, ()):
                if host in self._members:
                    self._send(self._members[host], {"t": "check", "check": found})

    def _send(self, member: _Member, line: Line) -> None:
        try:
            member.lines.send(line)
        except GoneError as error:
            self._lose(member.host, f"{member.host} is gone: {error}")

    def _lose(self, host: str, why: str) -> None:
        member = self._members.pop(host, None)
        if member is None:
            return
        if not self._over:
            self._text(why)
        self._selector.unregister(member.lines)
        member.lines.close()
        for one in self._rounds.values():
            if host in one.open:
                one.gone.append(host)
                self._release(one, why, [host])
