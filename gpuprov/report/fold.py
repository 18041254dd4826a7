"""Events of one host, folded into its HostReport. Pure: no files, no clock; the same events give the same report.

What a host sends is not trusted: wrong types, unknown kinds and floods end up as bounded, clean
text, or are left out with a warning that says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gpuprov.agent.modules import PROOFS
from gpuprov.report import clean
from gpuprov.report.proof import checks_of, idle_driver, proof_verdict
from gpuprov.results import Check, HostReport, TaskResult
from gpuprov.wire import outcome as o

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Memory that the report of one host may take, in bytes. With the objects around it this stays below 1 MiB.
MEMORY_BYTES = 640 * 1024
#: What a task costs besides its texts.
TASK_BYTES = 400
#: Keys of a result that repeat something else.
_REPEATED = ("stdout_lines", "stderr_lines", "results", "invocation", "checks", "diff", "reading")
#: Keys of a plan's node that reports and views read.
_KEPT = ("id", "name", "action", "role", "position", "tags", "no_log", "loop_var", "skip")
UNFINISHED = "the run did not reach its end on this host"


class HostFold:
    """Collects what happened on one host. Events may come twice; what was seen is ignored."""

    def __init__(self, host: str, address: str = "") -> None:
        self.host = host
        self.address = address
        self.expected_gpus: int | None = None
        self.found_gpus: int | None = None
        self.last_seq = 0
        self.finished = False
        self._budget = clean.Budget(MEMORY_BYTES)
        self._nodes: dict[str, tuple[str, Mapping[str, Any], bool]] = {}
        self._check_mode = False
        self._has_proof = False
        self._tasks: dict[str, TaskResult] = {}
        self._items: dict[str, list[TaskResult]] = {}
        self._running: dict[str, TaskResult] = {}
        self._checks: dict[str, tuple[Check, ...]] = {}
        self._facts: Mapping[str, Any] = {}
        self._stack: Mapping[str, Any] = {}
        self._refusal: Mapping[str, Any] = {}
        self._ending = self._cause = self._hint = ""
        self._run_outcome = self._stopped = ""
        self._started_at = self._seen_at = self._duration_s = 0.0
        self._warnings: list[str] = []
        self._host_words = [re.compile(rf"(?<![\w.-]){re.escape(w)}(?![\w-])") for w in (host, address) if len(w) > 2]

    # What the controller knows

    def plan(self, plan: Mapping[str, Any]) -> None:
        """Take names, positions and roles from the compiled plan. Keeps no variables and no secrets."""
        self._check_mode = bool(plan.get("check"))
        for play in plan.get("plays", ()):
            name = clean.line(play.get("name"))
            for node in _task_nodes(play.get("nodes", ())):
                self._nodes[node["id"]] = (name, _kept(node), False)
            for node in play.get("handlers", ()):
                self._nodes[node["id"]] = (name, _kept(node), True)
        self._has_proof = any(n.get("action") in PROOFS for _, n, _ in self._nodes.values())

    def node(self, task: str) -> Mapping[str, Any] | None:
        """Return the plan's node of task id *task*."""
        found = self._nodes.get(task)
        return None if found is None else found[1]

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Keep the host's facts for the report, bounded."""
        kept = clean.plain(facts, clean.Budget(64 * 1024))
        self._facts = kept if isinstance(kept, dict) else {}

    def expect(self, expected_gpus: int | None, found_gpus: int | None) -> None:
        """Say how many GPUs the inventory demands, and how many PCI functions were found."""
        self.expected_gpus, self.found_gpus = expected_gpus, found_gpus

    def stack(self, stack: Mapping[str, Any]) -> None:
        """Keep what was found to fit the host."""
        kept = clean.plain(stack, clean.Budget(64 * 1024))
        self._stack = kept if isinstance(kept, dict) else {}

    def warn(self, warning: str) -> None:
        """Add a warning to the host's report, once."""
        kept = clean.line(warning)
        if kept not in self._warnings and len(self._warnings) < 50:
            self._warnings.append(kept)

    def unreachable(self, cause: str, hint: str = "") -> None:
        """End the report: no way to the host."""
        self._end(o.UNREACHABLE, cause, hint)

    def refused(self, cause: str, hint: str = "", refusal: Mapping[str, Any] | None = None) -> None:
        """End the report: the preflight said no. refusal: why no stack fits, as data."""
        kept = clean.plain(refusal or {}, clean.Budget(64 * 1024))
        self._refusal = kept if isinstance(kept, dict) else {}
        self._end(o.REFUSED, cause, hint)

    def lost(self, cause: str, hint: str = "") -> None:
        """End the report: the host went away in the middle, and what it did since is not known."""
        self._end(o.LOST, cause, hint)

    def interrupted(self, cause: str = "stopped on request", hint: str = "") -> None:
        """End the report: a person asked to stop."""
        self._end("interrupted", cause, hint)

    def _end(self, ending: str, cause: str, hint: str) -> None:
        self._ending, self._cause, self._hint = ending, clean.line(cause), clean.line(hint)

    # What the host says

    def event(self, event: Mapping[str, Any]) -> bool:
        """Take one event; return False when it was seen before or has no number."""
        seq = event.get("seq")
        if type(seq) is not int or seq <= self.last_seq:
            return False
        self.last_seq = seq
        at = clean.number(event.get("at"))
        self._started_at = self._started_at or at
        self._seen_at = max(self._seen_at, at)
        kind = event.get("kind")
        take = _TAKERS.get(kind) if isinstance(kind, str) else None
        if take is not None:
            take(self, event)
        return True

    def _task_started(self, event: Mapping[str, Any]) -> None:
        task = self._result(event, o.LOST)
        if len(self._running) < 64:
            self._running[task.id] = task

    def _task_finished(self, event: Mapping[str, Any]) -> None:
        found = event.get("outcome")
        task = self._result(event, found if found in o.TASK_OUTCOMES else o.FAILED)
        task.duration_s = max(0.0, clean.number(event.get("duration_s")))
        task.skip = clean.line(event.get("skip"))
        self._explain(task, event)
        if found not in o.TASK_OUTCOMES:
            task.msg = f"the host reported the outcome {clean.line(found, 40) or '(none)'}, which means nothing here"
        known = task.id in self._nodes
        fits = self._budget.take(TASK_BYTES + 4 * (len(task.name) + len(task.msg) + len(task.id)))
        if fits:
            self._keep_result(task, event)
        else:
            task.msg = task.msg[:120]
            self.warn("more output than a report holds; the journal has all of it")
        if "item" in event:
            if fits:
                self._items.setdefault(task.id, []).append(task)
            return
        self._running.pop(task.id, None)
        task.items = tuple(self._items.pop(task.id, ()))
        if known or fits:
            self._tasks[task.id] = task

    def _result(self, event: Mapping[str, Any], ending: str) -> TaskResult:
        task_id = clean.line(event.get("id"), 100)
        play, node, handler = self._nodes.get(task_id, ("", _NO_NODE, False))
        begun = self._running.get(task_id)
        name = clean.line(event.get("name")) or (begun.name if begun else "") or clean.line(node.get("name"))
        action = node.get("action") or clean.line(event.get("action"), 100) or (begun.action if begun else "")
        item = event.get("item", "")
        return TaskResult(
            id=task_id,
            name=name or action or task_id,
            action=action,
            outcome=ending,
            play=play,
            role=node.get("role", ""),
            position=node.get("position", ""),
            item=clean.line(item, 200) if isinstance(item, str) else clean.line(str(clean.number(item))),
            handler=handler,
        )

    def _explain(self, task: TaskResult, event: Mapping[str, Any]) -> None:
        fault, result = _mapping(event.get("fault")), _mapping(event.get("result"))
        task.msg = clean.line(event.get("msg")) or clean.line(fault.get("message")) or clean.line(result.get("msg"))
        task.hint = clean.line(fault.get("hint"))
        if task.msg and self._node_of(task).get("no_log"):
            task.msg, task.hint = "hidden by no_log", ""

    def _node_of(self, task: TaskResult) -> Mapping[str, Any]:
        return self._nodes[task.id][1] if task.id in self._nodes else _NO_NODE

    def _keep_result(self, task: TaskResult, event: Mapping[str, Any]) -> None:
        if self._node_of(task).get("no_log"):
            task.result = {"censored": "hidden by no_log"}
            return
        result = _mapping(event.get("result"))
        if task.action in PROOFS and result.get("checks"):
            self._checks[task.id] = checks_of(result["checks"], self._budget)
        task.result = clean.plain({k: v for k, v in result.items() if k not in _REPEATED}, self._budget) or {}
        diff = event.get("diff")
        if isinstance(diff, list):
            kept = [clean.plain(d, self._budget) for d in diff[:20] if isinstance(d, Mapping)]
            task.diff = tuple(d for d in kept if d)

    def _measured(self, event: Mapping[str, Any]) -> None:
        """Keep a check that was measured, until the task's own list replaces it."""
        task_id = clean.line(event.get("id"), 100)
        if len(self._checks) < 16 or task_id in self._checks:
            so_far = self._checks.get(task_id, ())
            self._checks[task_id] = (*so_far, *checks_of([event.get("measurement")], self._budget))

    def _rescued(self, event: Mapping[str, Any]) -> None:
        """A rescue took care of a failure: the host has not failed because of it."""
        task = self._tasks.get(clean.line(event.get("id"), 100))
        if task is not None and task.outcome in (o.FAILED, o.LOST):
            task.outcome, task.result = o.IGNORED, {**task.result, "rescued": True}

    def _run_started(self, event: Mapping[str, Any]) -> None:
        self._started_at = clean.number(event.get("at")) or self._started_at

    def _reboot_started(self, event: Mapping[str, Any]) -> None:
        self.warn(f"rebooted: {clean.line(event.get('reason')) or 'no reason given'}")

    def _run_stopped(self, event: Mapping[str, Any]) -> None:
        self._stopped = clean.line(event.get("why")) or "no reason given"

    def _resumed(self, event: Mapping[str, Any]) -> None:  # noqa: ARG002 - one shape for all kinds
        self._stopped = ""

    def _run_finished(self, event: Mapping[str, Any]) -> None:
        self.finished = True
        self._run_outcome = clean.line(event.get("outcome"), 40)
        self._duration_s = max(0.0, clean.number(event.get("duration_s")))

    # What became of it

    def report(self) -> HostReport:
        """Return what is known so far. Without an end of the run the host counts as lost."""
        tasks = list(self._tasks.values())
        checks = tuple(c for group in self._checks.values() for c in group)
        ending = self._outcome()
        if ending == o.LOST and not self.finished:
            tasks += [self._cut_off(t) for t in self._running.values() if t.id not in self._tasks]
        verdict, sentence = self._verdict(checks)
        cause, hint = self._why(ending, tasks, sentence)
        return HostReport(
            host=self.host,
            outcome=ending,
            address=self.address,
            cause=cause,
            hint=hint,
            tasks=tuple(tasks),
            checks=checks,
            verdict=verdict,
            facts=self._facts,
            expected_gpus=self.expected_gpus,
            found_gpus=self.found_gpus,
            started_at=self._started_at,
            duration_s=self._duration_s or max(0.0, self._seen_at - self._started_at),
            simulated=any(c.simulated for c in checks) or self._has_doubles(),
            warnings=tuple(self._warnings),
            stack=self._stack,
            refusal=self._refusal,
        )

    def _has_doubles(self) -> bool:
        """Whether this is a rehearsal host that pretends to have GPUs."""
        found = self._facts.get("gpuprov")
        return bool(self.found_gpus) and isinstance(found, Mapping) and found.get("simulated") is True

    def _outcome(self) -> str:
        if self._ending in (o.UNREACHABLE, o.REFUSED):
            return self._ending
        outcomes = {t.outcome for t in self._tasks.values()} | {self._run_outcome}
        if o.FAILED in outcomes:
            return o.FAILED
        if o.LOST in outcomes:
            return o.LOST
        if not self.finished:
            return "interrupted" if self._stopped else self._ending or o.LOST
        return o.CHANGED if o.CHANGED in outcomes else o.OK

    def _cut_off(self, task: TaskResult) -> TaskResult:
        task.outcome, task.msg = o.LOST, "still running when the host was lost"
        return task

    def _verdict(self, checks: tuple[Check, ...]) -> tuple[str, str]:
        """Return the verdict and the sentence that explains a bad one."""
        expected, found = self.expected_gpus, self.found_gpus
        if not self._check_mode and self.finished and expected and found is not None and found < expected:
            return "fail", f"{expected} GPU{'s' if expected != 1 else ''} expected, {found} found on the PCI bus"
        idle = idle_driver(self._stack, found) if self.finished and not self._check_mode else ""
        if idle:
            return "unknown", idle
        if not checks and (self._check_mode or not self._has_proof or self._ending in (o.UNREACHABLE, o.REFUSED)):
            return "", ""
        return proof_verdict(checks, self.expected_gpus, self.found_gpus)

    def _why(self, ending: str, tasks: list[TaskResult], sentence: str) -> tuple[str, str]:
        if ending in (o.FAILED, o.LOST):
            bad = next((t for t in tasks if t.outcome == ending and t.id in self._tasks), None)
            if bad is not None:
                worst = next((i for i in bad.items if i.outcome == ending), bad)
                what = worst.msg or bad.msg or _failure(worst.result)
                return self._anonymous(f"{bad.name}: {what}" if what else bad.name), worst.hint or bad.hint
        if ending not in (o.OK, o.CHANGED):
            default = f"stopped before the end: {self._stopped}" if self._stopped else UNFINISHED
            return self._anonymous(self._cause or default), self._hint
        return self._anonymous(sentence), ""

    def _anonymous(self, cause: str) -> str:
        """Return *cause* without the host's own name, so that the same trouble reads the same on every host."""
        for word in self._host_words:
            cause = word.sub("this host", cause)
        return cause


_NO_NODE: Mapping[str, Any] = {}

_TAKERS = {
    "RunStarted": HostFold._run_started,
    "TaskStarted": HostFold._task_started,
    "TaskFinished": HostFold._task_finished,
    "Rescued": HostFold._rescued,
    "Measured": HostFold._measured,
    "RebootStarted": HostFold._reboot_started,
    "Resumed": HostFold._resumed,
    "RunStopped": HostFold._run_stopped,
    "RunFinished": HostFold._run_finished,
}


def _kept(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what reports and views ask of a node; its arguments would be most of a run's memory."""
    return {key: node[key] for key in _KEPT if key in node}


def _task_nodes(nodes: Any) -> Iterator[Mapping[str, Any]]:
    for node in nodes:
        if node.get("kind") == "block":
            for part in ("block", "rescue", "always"):
                yield from _task_nodes(node.get(part, ()))
        elif "id" in node:
            yield node


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else _NO_NODE


def _failure(result: Mapping[str, Any]) -> str:
    """Return the last line that a failed command said, or its return code."""
    for key in ("stderr", "stdout"):
        lines = str(result.get(key) or "").strip().splitlines()
        if lines:
            return clean.line(lines[-1])
    return f"return code {result['rc']}" if "rc" in result else ""
