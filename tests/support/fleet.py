"""Run hand-written plans over real hosts, and see everything that came of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gpuprov.fleet.hostrun import HostRun, Prepared
from gpuprov.fleet.options import RunOptions
from gpuprov.fleet.run import Fleet
from gpuprov.fleet.session import Become, Timeouts
from gpuprov.report.fold import HostFold
from gpuprov.store.names import new_run_id
from gpuprov.transport.target import ConnectOptions, target_of
from gpuprov.transport.ways import Ways

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gpuprov.lab import Lab
    from gpuprov.results import HostReport


@dataclass
class Made:
    plan: dict[str, Any]
    files: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    stack: Mapping[str, Any] | None = None


class Plans:
    """A compiler that gives every host the same nodes."""

    def __init__(self, run: str, nodes: list[dict[str, Any]], **plan: Any) -> None:
        self.run = run
        self.nodes = nodes
        self.more = plan

    def learn(self, host: str, facts: dict[str, Any]) -> None:
        """Plans of these tests name no other host's facts."""

    def forget(self) -> None:
        """There is nothing to forget."""

    def plan(self, host: str, facts: dict[str, Any]) -> Made:
        files = self.more.get("files", {})
        play = {"id": "p1", "name": "play", "nodes": self.nodes, "handlers": self.more.get("handlers", [])}
        plan = {"protocol": 1, "run": self.run, "host": host, "plays": [play]}
        plan["blobs"] = {sha: len(data) for sha, data in files.items()}
        plan.update({k: v for k, v in self.more.items() if k not in ("files", "handlers")})
        return Made(json.loads(json.dumps(plan)), files)


class Watcher:
    """A view that keeps everything, and lets a test act in the middle."""

    def __init__(self, on_event: Callable[[str, dict[str, Any]], None] | None = None) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.states: list[tuple[str, str, str]] = []
        self.messages: list[str] = []
        self._on_event = on_event

    def host_state(self, host: str, state: str, detail: str = "") -> None:
        self.states.append((host, state, detail))

    def event(self, host: str, event: dict[str, Any], node: dict[str, Any] | None) -> None:
        self.events.append((host, event))
        if self._on_event:
            self._on_event(host, event)

    def message(self, text: str, level: str = "info") -> None:
        self.messages.append(text)

    def tick(self, now: float) -> None:
        pass

    def kinds(self, host: str) -> list[str]:
        return [event["kind"] for name, event in self.events if name == host]

    def append(self, host: str, text: bytes) -> None:
        """Be the run folder too."""


def target(lab: Lab, name: str, **variables: Any) -> Any:
    """Return the Target of a lab host, with some variables changed."""
    return target_of(name, {**lab.connection(name), **variables}, ConnectOptions())


def run_plans(
    hosts: Mapping[str, Any],
    nodes: list[dict[str, Any]],
    view: Watcher | None = None,
    become: Become | None = None,
    options: RunOptions | None = None,
    prepared: Mapping[str, Any] | None = None,
    **plan: Any,
) -> dict[str, HostReport]:
    """Run *nodes* on *hosts* (name -> Target); return the reports by host."""
    run = options.run if options else new_run_id()
    fast = RunOptions(run=run, gate_timeout_s=20, reconnect_s=30, timeouts=Timeouts(silence_s=3.5))
    runs = [
        HostRun(replace(Prepared(name, where, become or Become()), **(prepared or {})), HostFold(name))
        for name, where in hosts.items()
    ]
    ways = Ways(ConnectOptions())
    watcher = view or Watcher()
    try:
        reports = Fleet(Plans(run, nodes, **plan), ways, watcher, watcher, options or fast).run(runs)
    finally:
        ways.close()
    return {report.host: report for report in reports}


def task(number: int, action: str, args: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return one task node."""
    return {
        "kind": "task",
        "id": f"p1.t{number}",
        "name": f"task {number}",
        "action": action,
        "args": args,
        "position": "plan",
        **more,
    }


def shell(number: int, text: str, **more: Any) -> dict[str, Any]:
    """Return a shell task."""
    return task(number, "shell", {"_raw_params": text}, **more)
