"""Runs a plan: plays, blocks, handlers, in order; what failed, what was notified, what was done before.

The engine knows tasks only by their outcome. One task is task.py's business, one call of a
module perform.py's.
"""

from __future__ import annotations

import os
import time

from gpuprov.agent.perform import Rebooting
from gpuprov.agent.task import TaskRunner
from gpuprov.wire import outcome as O  # noqa: N812

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.journal import Journal
    from gpuprov.agent.system import System


class Stopped(Exception):
    """Somebody asked to stop after the current task."""


class NoSpace(Exception):
    """The journal's reserve is in use: no further task may start, and no rescue either."""


class Failed(Exception):
    """A task failed and nothing took care of it yet."""

    def __init__(self, node: dict[str, Any], event: dict[str, Any]) -> None:
        super().__init__(node["id"])
        self.node = node
        self.outcome: str = event["outcome"]
        self.result: dict[str, Any] = event.get("result", {})


class Engine:
    """One plan on this host. run() may raise Stopped and JournalFull."""

    def __init__(self, plan: dict[str, Any], journal: Journal, system: System, context: dict[str, Any]) -> None:
        self.plan = plan
        self.journal = journal
        self.counts: dict[str, int] = {}
        self._run = context["run"]
        #: Ids of handlers that are to run at the next flush.
        self._notified: set[str] = set()
        #: Of earlier runners: how each task ended, in order; a handler may have run several times.
        self._finished: dict[str, list[dict[str, Any]]] = {}
        self._rescued: set[str] = set()
        self._why_stop = ""
        self._current = os.open(os.path.join(self._run, "current"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._tasks = TaskRunner(plan, journal, system, context)

    @property
    def acted(self) -> bool:
        """Whether anything happened that must outlive a power cut."""
        return self._tasks.acted

    @property
    def source(self) -> str:
        """The zip of sources that templates were imported from, "" without any."""
        return self._tasks.context.source

    def stop(self, why: str) -> None:
        """Stop before the next task. May be called from a signal handler."""
        self._why_stop = why

    def restore(self, events: list[dict[str, Any]]) -> None:
        """Take over what earlier runners of this plan did, from their journal."""
        for event in events:
            if event["kind"] == "TaskFinished" and "item" not in event:
                self._finished.setdefault(event["id"], []).append(event)
            elif event["kind"] == "Rescued":
                self._rescued.add(event["id"])
        self._tasks.restore(events)

    def run(self) -> str:
        """Run everything; return "ok", "failed", "lost" or "rebooting"."""
        try:
            for play in self.plan["plays"]:
                try:
                    self._nodes(play["nodes"], play)
                except Failed as failed:
                    if play.get("force_handlers"):
                        self._flush(play)
                    return failed.outcome
                self._flush(play)
                self._notified.clear()
        except Failed as failed:  # a handler
            return failed.outcome
        except NoSpace:
            return O.FAILED
        except Rebooting:
            return "rebooting"
        return O.OK

    def _nodes(self, nodes: list[dict[str, Any]], play: dict[str, Any]) -> None:
        for node in nodes:
            if node.get("kind") == "block":
                self._block(node, play)
            elif node["action"] == "meta":
                self._meta(node, play)
            else:
                self._task(node, play)

    def _block(self, node: dict[str, Any], play: dict[str, Any]) -> None:
        failure: Failed | None = None
        try:
            self._nodes(node.get("block", []), play)
        except Failed as failed:
            failure = failed
        if failure is not None and node.get("rescue"):
            self._tasks.context.rescued(failure.node, failure.result)
            first, failure = failure, None
            try:
                self._nodes(node["rescue"], play)
            except Failed as failed:
                failure = failed
            else:
                self._count(first.outcome, -1)
                self._count("rescued", 1)
                if first.node["id"] not in self._rescued:
                    self.journal.write("Rescued", id=first.node["id"])
        try:
            self._nodes(node.get("always", []), play)
        except Failed as failed:
            failure = failed
        if failure is not None:
            raise failure

    def _meta(self, node: dict[str, Any], play: dict[str, Any]) -> None:
        if node.get("args", {}).get("_raw_params") == "flush_handlers":
            self._flush(play)

    def _flush(self, play: dict[str, Any]) -> None:
        """Run the notified handlers, in the order in which they are defined, each once.

        A handler may notify later ones; one that comes before it waits for the next flush.
        """
        for handler in play["handlers"] if self._notified else ():
            if handler["id"] in self._notified:
                self._notified.discard(handler["id"])
                self._task(handler, play)

    def _notify(self, names: list[str], play: dict[str, Any]) -> None:
        """Mark handlers: the last that has the name, and all that listen to it."""
        for name in names:
            named = [handler["id"] for handler in play["handlers"] if handler["name"] == name]
            self._notified.update(named[-1:])
            self._notified.update(h["id"] for h in play["handlers"] if name in h.get("listen", ()))

    def _task(self, node: dict[str, Any], play: dict[str, Any]) -> None:
        before = self._finished.get(node["id"])
        if before:
            event = before.pop(0)
        else:
            self._may_start(node)
            os.pwrite(self._current, ("%s\t%.1f" % (node["id"], time.time())).ljust(64).encode()[:64], 0)
            event = self._tasks.run(node)
        self._count(event["outcome"], 1)
        if event["outcome"] == O.CHANGED and node.get("notify"):
            self._notify(node["notify"], play)
        if event["outcome"] in (O.FAILED, O.LOST):
            raise Failed(node, event)

    def _may_start(self, node: dict[str, Any]) -> None:
        """Raise Stopped or NoSpace when no further task may start."""
        if self._why_stop or os.path.exists(os.path.join(self._run, "stop")):
            raise Stopped(self._why_stop or "asked to stop")
        if self.journal.low:
            message = "no space is left under %s: the plan stopped before this task" % self._run
            fault = {"code": "disk-full", "message": message, "hint": "free some space there, then apply again"}
            self.journal.write("TaskFinished", id=node["id"], outcome=O.FAILED, msg=message, fault=fault, duration_s=0)
            self._count(O.FAILED, 1)
            raise NoSpace(message)

    def _count(self, outcome: str, by: int) -> None:
        self.counts[outcome] = self.counts.get(outcome, 0) + by
