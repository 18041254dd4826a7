"""Who is doing what since when: the state behind every view. Pure; clocks come from the caller."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from gpuprov.report import clean
from gpuprov.report.ink import plural, seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

ORDER = ("connecting", "preparing", "ready", "sending", "running", "rebooting", "reconnecting", "done")
#: How hosts may end, the good endings first.
ENDINGS = ("ok", "changed", "failed", "lost", "unreachable", "refused", "interrupted")


class HostProgress:
    """One host: its state, its task, both since when, and how many tasks ended how."""

    __slots__ = (
        "changed",
        "done",
        "failed",
        "host",
        "outcome",
        "output",
        "since",
        "state",
        "task",
        "task_id",
        "task_since",
    )

    def __init__(self, host: str, now: float) -> None:
        self.host = host
        self.state = "connecting"
        self.outcome = ""
        self.since = now
        self.task = self.task_id = ""
        self.task_since = now
        self.output = ""
        self.done = self.changed = self.failed = 0

    def at_it_since(self) -> float:
        """Return since when the host is at what it does now."""
        return self.task_since if self.task else max(self.task_since, self.since)


class Progress:
    """All hosts of a run. Hosts that nothing was heard of are connecting."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.hosts: dict[str, HostProgress] = {}
        self.began = 0.0

    def state(self, host: str, state: str, detail: str, now: float) -> HostProgress:
        """Take a new state of *host*."""
        one = self._host(host, now)
        one.state, one.since = state, now
        if state == "done":
            one.outcome, _, one.output = detail.partition(": ")
            one.task = ""
        elif detail:
            one.output = clean.line(detail, 200)
        return one

    def event(self, host: str, event: Mapping[str, Any], node: Mapping[str, Any] | None, now: float) -> None:
        """Take one event of *host*."""
        kind = event.get("kind")
        one = self._host(host, now)
        if kind == "TaskFinished":
            if "item" not in event:
                self._count(one, event.get("outcome"))
                one.task = one.task_id = one.output = ""
                one.task_since = now
        elif kind == "TaskOutput":
            self._begin(one, event, node, now)
            text = clean.text(event.get("text"), 0, 400).rstrip("\n")
            one.output = clean.line(text.rpartition("\n")[2], 200)
        elif kind == "TaskStarted":
            self._begin(one, event, node, now)
        elif kind == "Rescued":
            one.failed = max(0, one.failed - 1)

    def counts(self) -> Counter[str]:
        """Return how many hosts are in which state; those that are done by their outcome."""
        found = Counter(h.outcome or "done" if h.state == "done" else h.state for h in self.hosts.values())
        if self.expected > len(self.hosts):
            found["connecting"] += self.expected - len(self.hosts)
        return found

    def finished(self) -> int:
        """Return how many hosts are done."""
        return sum(h.state == "done" for h in self.hosts.values())

    def slowest(self, count: int) -> list[HostProgress]:
        """Return the hosts that are longest at what they do."""
        busy = [h for h in self.hosts.values() if h.state not in ("done", "ready")]
        return sorted(busy, key=HostProgress.at_it_since)[:count]

    def sentence(self, now: float) -> str:
        """Return how far the run is, in one line."""
        counts = self.counts()
        parts = [f"{self.finished()} of {plural(self.expected, 'host')} done"]
        parts += [f"{counts[word]} {word}" for word in (*ORDER[:-1], *ENDINGS[2:]) if counts[word]]
        text = f"{seconds(now - self.began)}: {', '.join(parts)}"
        slow = self.slowest(1)
        if slow and slow[0].task:
            text += f"; longest: {slow[0].host} {slow[0].task} ({seconds(now - slow[0].task_since)})"
        return text

    def _host(self, host: str, now: float) -> HostProgress:
        one = self.hosts.get(host)
        if one is None:
            self.began = self.began or now
            one = self.hosts[host] = HostProgress(host, now)
        return one

    def _begin(self, one: HostProgress, event: Mapping[str, Any], node: Mapping[str, Any] | None, now: float) -> None:
        task_id = event.get("id")
        if not isinstance(task_id, str) or task_id == one.task_id:
            return
        known = node or {}
        name = clean.line(event.get("name")) or clean.line(known.get("name")) or clean.line(event.get("action"))
        role = clean.line(known.get("role"))
        one.task_id = task_id[:100]
        one.task = f"{role} : {name}" if role else name
        one.task_since, one.output = now, ""

    def _count(self, one: HostProgress, outcome: object) -> None:
        one.done += 1
        one.changed += outcome == "changed"
        one.failed += outcome in ("failed", "lost")
