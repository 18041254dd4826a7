"""What happened, as values: TaskResult, HostReport, RunReport. Renderers only read these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpuprov.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_REFUSED,
    EXIT_UNHEALTHY,
    EXIT_UNREACHABLE,
    worst_exit,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Version of the JSON that reports are written as.
REPORT_SCHEMA = 1


@dataclass(slots=True)
class TaskResult:
    """One task on one host. Times in seconds; outcome as in wire/outcome.py.

    items are the results of a loop's passes. result has the module's return keys, already
    scrubbed of secrets and capped. msg is the one line to show a person.
    """

    id: str
    name: str
    action: str
    outcome: str
    duration_s: float = 0.0
    play: str = ""
    role: str = ""
    position: str = ""
    item: str = ""
    msg: str = ""
    skip: str = ""
    hint: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    diff: tuple[Mapping[str, Any], ...] = ()
    items: tuple[TaskResult, ...] = ()
    handler: bool = False


@dataclass(slots=True)
class Check:
    """One verified property of a host, as the proof measured it.

    verdict is pass, warn, fail, skip (reason says why) or unknown (could not be measured).
    tier is the depth at which it is looked at, reads where the value comes from. simulated is True when
    hardware was a double. data holds series to draw (losses), samples, evidence.
    """

    name: str
    verdict: str
    measured: Any = None
    expected: Any = None
    unit: str = ""
    reason: str = ""
    device: str = ""
    action: str = "none"
    duration_s: float = 0.0
    tier: str = ""
    reads: str = ""
    simulated: bool = False
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class HostReport:
    """Everything about one host in one run.

    outcome is ok, changed, failed, lost, unreachable, refused or "interrupted". cause is one
    sentence, the same for the same trouble on different hosts; hint is what to do about it.
    verdict is the worst of its checks, "" when there was no proof. expected_gpus is what the
    inventory demands, None when it demands nothing; found_gpus counts PCI functions. stack is what
    was found to fit it, refusal why nothing does (stack/model.py); both empty when nothing asked.
    """

    host: str
    outcome: str
    address: str = ""
    cause: str = ""
    hint: str = ""
    tasks: tuple[TaskResult, ...] = ()
    checks: tuple[Check, ...] = ()
    verdict: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    expected_gpus: int | None = None
    found_gpus: int | None = None
    started_at: float = 0.0
    duration_s: float = 0.0
    simulated: bool = False
    warnings: tuple[str, ...] = ()
    stack: Mapping[str, Any] = field(default_factory=dict)
    refusal: Mapping[str, Any] = field(default_factory=dict)

    def count(self, outcome: str) -> int:
        """Return how many tasks ended with *outcome*."""
        return sum(t.outcome == outcome for t in self.tasks)

    @property
    def exit_code(self) -> int:
        """The exit code that this host alone would give the run."""
        by_outcome = {
            "failed": EXIT_FAILED,
            "lost": EXIT_UNREACHABLE,
            "unreachable": EXIT_UNREACHABLE,
            "refused": EXIT_REFUSED,
            "interrupted": EXIT_INTERRUPTED,
        }
        if self.outcome in by_outcome:
            return by_outcome[self.outcome]
        return EXIT_UNHEALTHY if self.verdict in ("fail", "unknown") else EXIT_OK


@dataclass(slots=True)
class RunReport:
    """One run over the fleet. times are UTC seconds; options are the command line's."""

    run: str
    command: str
    inventory: str
    playbook: str
    hosts: tuple[HostReport, ...]
    started_at: float
    duration_s: float
    check: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    warnings: tuple[str, ...] = ()
    schema: int = REPORT_SCHEMA

    @property
    def exit_code(self) -> int:
        """What the process exits with (docs/exit-codes.md)."""
        return worst_exit(h.exit_code for h in self.hosts)
