"""report.html: one file that needs no network, drawn in the browser from the data embedded in it.

Python only packs the data (the controller has better things to do with its CPU): descriptions of
tasks are there once, equal results of different hosts are there once. The page builds its text
with textContent alone, and its policy allows the one script and the one style sheet by hash: what
hosts send stays text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from html import escape
from typing import TYPE_CHECKING, Any

from gpuprov.report.exits import meaning
from gpuprov.report.jsonout import from_json
from gpuprov.report.totals import groups, slowest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Results of tasks that changed nothing are left out of the page beyond this; hosts/*.json have them.
RESULT_BYTES = 24 * 1024 * 1024
_PAGE = os.path.join(os.path.dirname(__file__), "page")
_SHAPE_KEYS = ("id", "name", "action", "play", "role", "position", "handler")
_OWN_KEYS = ("msg", "skip", "hint", "item")
_RUN_KEYS = (
    "run",
    "version",
    "command",
    "inventory",
    "playbook",
    "check",
    "started_at",
    "duration_s",
    "exit_code",
    "warnings",
)


def render(document: Mapping[str, Any], note: str = "") -> bytes:
    """Return the page of a run's *document* (jsonout.to_json). note is shown above everything."""
    style, script = _asset("page.css"), "".join(_asset(f"{n}.js") for n in ("dom", "chart", "host", "fleet"))
    data = {**pack(document), "note": note}
    text = json.dumps(data, separators=(",", ":"), default=str)
    # Inside a script element nothing but "<" can end the data.
    embedded = text.replace("<", "\\u003c")
    parts = {
        "POLICY": f"script-src {_source(script)}; style-src {_source(style)}",
        "TITLE": escape(f"gpuprov {document.get('run', '')}"),
        "STYLE": style,
        "PLAIN": escape(_plain_summary(data)),
        "DATA": embedded,
        "SCRIPT": script,
    }
    # One pass: what is put in is never searched for places again.
    return re.sub(r"@([A-Z]+)@", lambda place: parts[place[1]], _asset("page.html")).encode()


def pack(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page draws from: the document with everything that repeats itself named once."""
    report = from_json(document)
    results = _Results(RESULT_BYTES)
    shapes: dict[tuple[Any, ...], int] = {}
    hosts = [_host(h, shapes, results) for h in document["hosts"]]
    return {
        **{k: document.get(k) for k in _RUN_KEYS},
        "exit_meaning": meaning(document.get("exit_code"), check=document.get("check") is True),
        "groups": [
            {"outcome": g.outcome, "cause": g.cause, "hint": g.hint, "trouble": g.trouble, "hosts": g.hosts}
            for g in groups(report.hosts)
        ],
        "slowest": [[s.name, s.hosts, s.median_s, s.longest_s, s.longest_host] for s in slowest(report, 8, 0.1)],
        "shapes": [dict(zip(_SHAPE_KEYS, shape, strict=True)) for shape in shapes],
        "results": results.kept,
        "hosts": hosts,
    }


class _Results:
    """Results of tasks, each once; the same from 200 hosts takes the room of one."""

    def __init__(self, limit: int) -> None:
        self.kept: list[Any] = []
        self._index: dict[str, int] = {}
        self._left = limit

    def add(self, task: Mapping[str, Any]) -> int:
        """Return the number of the task's result, -1 when it has none, -2 when there was no room."""
        result = {k: task[k] for k in ("result", "diff") if k in task}
        if not result:
            return -1
        text = json.dumps(result, separators=(",", ":"), default=str)
        found = self._index.get(text)
        if found is not None:
            return found
        self._left -= len(text)
        if self._left < 0 and task["outcome"] in ("ok", "skipped"):
            return -2
        self.kept.append(result)
        self._index[text] = len(self.kept) - 1
        return len(self.kept) - 1


def _host(host: Mapping[str, Any], shapes: dict[tuple[Any, ...], int], results: _Results) -> dict[str, Any]:
    return {**host, "tasks": [_task(t, shapes, results) for t in host["tasks"]]}


def _task(task: Mapping[str, Any], shapes: dict[tuple[Any, ...], int], results: _Results) -> list[Any]:
    """Return [shape, outcome, duration_s, result, {what only this task has}]."""
    shape = tuple(task.get(k, "") for k in _SHAPE_KEYS)
    own = {k: task[k] for k in _OWN_KEYS if k in task}
    if "items" in task:
        own["items"] = [_task(i, shapes, results) for i in task["items"]]
    number = shapes.setdefault(shape, len(shapes))
    packed = [number, task["outcome"], round(task.get("duration_s", 0.0), 4), results.add(task)]
    return [*packed, own] if own else packed


def _asset(name: str) -> str:
    with open(os.path.join(_PAGE, name), encoding="utf-8") as file:
        return file.read()


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _plain_summary(data: Mapping[str, Any]) -> str:
    """Return the groups as text, for browsers without scripts."""
    lines: Iterable[str] = (
        f"{g['outcome']}: {len(g['hosts'])} hosts ({', '.join(g['hosts'])}) {g['cause']}" for g in data["groups"]
    )
    return "\n".join(lines)
