"""The shape of events: what happened on a host, numbered, in its journal and on the channel.

Types only. A journal is one JSON object per line; "seq" counts from 1 without gaps. Unknown
kinds are kept and unknown fields ignored by every reader.

    RunStarted     run, plan (sha256), boot_id, pid, check
    TaskStarted    id, name, action, item?      on disk before the task has any effect
    TaskOutput     id, text, stream             complete lines, capped; while it runs
    TaskFinished   id, outcome, duration_s, result, item?, msg?, diff?, skip?, fault?
    Measured       id, measurement              one check or measurement of the proof (see proof/)
    Rescued        id                           a rescue took care of this failed task
    RebootStarted  id, reason, boot_id, args
    Resumed        boot_id, pid, why
    RunStopped     why                          asked to stop, out of space
    RunFinished    outcome, counts, duration_s

Loops: one TaskFinished per item with "item", then one without for the whole task.
`result` has Ansible's return keys of the module (changed, rc, stdout, dest, ...).
`fault` is {"code", "message", "hint", "detail"}.
"""

from __future__ import annotations

from typing import Any, TypedDict


class Fault(TypedDict, total=False):
    """An error as data."""

    code: str
    message: str
    hint: str
    detail: str


class Event(TypedDict, total=False):
    """Any event; which fields are there depends on its kind."""

    seq: int
    at: float  # UTC seconds
    kind: str
    id: str
    name: str
    action: str
    item: str  # label of a loop's pass
    outcome: str
    duration_s: float
    result: dict[str, Any]
    msg: str
    skip: str
    diff: list[dict[str, Any]]
    fault: Fault
    text: str
    stream: str
    measurement: dict[str, Any]
    why: str
    reason: str
    run: str
    plan: str
    boot_id: str
    pid: int
    check: bool
    counts: dict[str, int]
