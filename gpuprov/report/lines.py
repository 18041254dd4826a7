"""What a view says about an event, in lines: which ones at which verbosity, and with what beneath them.

default  changed, failed, unknown, ignored, lost, rescued, reboots; every tenth epoch of a training
-v       also ok and skipped, passes of loops, what hosts are busy with, every epoch
-vv      also the output of tasks, live, and their results
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpuprov.report import clean
from gpuprov.report.ink import seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: With more hosts than this, epochs are shown with -v only and passing states never.
FEW_HOSTS = 8
EPOCH = re.compile(r"Epoch (\d{1,9})/(\d{1,9}), Loss")
_LOUD = ("changed", "failed", "unknown", "ignored", "lost")
_TAIL_LINES = 5


@dataclass(frozen=True, slots=True)
class Line:
    """One line about one host. What is the same on several hosts may be said once for all of them.

    beneath are lines to show indented; took is "" when no duration is worth saying.
    """

    host: str
    word: str
    text: str
    took: str = ""
    beneath: tuple[str, ...] = ()


class Teller:
    """Chooses what is said. Pure but for remembering names of tasks that only the host knows."""

    def __init__(self, verbosity: int, hosts: int, epochs_between: int = 10) -> None:
        self.verbosity = verbosity
        self._epochs_between = epochs_between
        self.few = hosts <= FEW_HOSTS
        self._names: dict[tuple[str, str], str] = {}

    def event(self, host: str, event: Mapping[str, Any], node: Mapping[str, Any] | None) -> Iterator[Line]:
        """Yield the lines that *event* deserves."""
        kind = event.get("kind")
        if kind == "TaskFinished":
            yield from self._finished(host, event, node)
        elif kind == "TaskOutput":
            yield from self._output(host, event)
        elif kind == "TaskStarted":
            given = clean.line(event.get("name"))
            if given and len(self._names) < 10_000:
                self._names[host, clean.line(event.get("id"), 100)] = given
        elif kind == "Rescued":
            yield Line(host, "rescued", self.title(host, event, node))
        elif kind == "RebootStarted":
            yield Line(host, "changed", f"rebooting: {clean.line(event.get('reason')) or 'no reason given'}")
        elif kind == "RunStopped":
            yield Line(host, "interrupted", f"stopped: {clean.line(event.get('why'))}")

    def title(self, host: str, event: Mapping[str, Any], node: Mapping[str, Any] | None) -> str:
        """Return the task's name with its role, as in "environment : CUDA paths"."""
        known = node or {}
        name = clean.line(event.get("name")) or self._names.get((host, clean.line(event.get("id"), 100)), "")
        name = name or clean.line(known.get("name")) or clean.line(known.get("action")) or clean.line(event.get("id"))
        role = clean.line(known.get("role"))
        return f"{role} : {name}" if role else name

    def _finished(self, host: str, event: Mapping[str, Any], node: Mapping[str, Any] | None) -> Iterator[Line]:
        outcome = event.get("outcome")
        word = outcome if isinstance(outcome, str) and outcome in (*_LOUD, "ok", "skipped") else "failed"
        if self.verbosity < 1 and (word not in _LOUD or ("item" in event and word != "failed")):
            return
        if word != "failed" and (node or {}).get("action") == "meta":
            return
        title = self.title(host, event, node)
        if "item" in event:
            title += f" (item={clean.line(str(event['item']), 100)})"
        hidden = bool((node or {}).get("no_log"))
        if not hidden:
            title += self._why(word, event)
        took = clean.number(event.get("duration_s"))
        beneath = () if hidden else tuple(self._beneath(word, event))
        yield Line(host, word, title, seconds(took) if took >= 0.0005 else "", beneath)

    def _why(self, word: str, event: Mapping[str, Any]) -> str:
        if word == "skipped":
            reason = clean.line(event.get("skip"))
            return f": {reason}" if reason else ""
        fault, result = _mapping(event.get("fault")), _mapping(event.get("result"))
        said = clean.line(event.get("msg")) or clean.line(fault.get("message")) or clean.line(result.get("msg"))
        loud = word in ("failed", "ignored", "lost", "unknown") or (self.verbosity > 0)
        return f": {said}" if said and loud else ""

    def _beneath(self, word: str, event: Mapping[str, Any]) -> Iterator[str]:
        fault, result = _mapping(event.get("fault")), _mapping(event.get("result"))
        diff = event.get("diff")
        for part in diff if isinstance(diff, list) else ():
            if isinstance(part, dict):
                yield from unified(part)
        if word == "failed" and "item" not in event:
            for key in ("stdout", "stderr"):
                said = clean.text(result.get(key)).strip().splitlines()
                yield from (f"{key} | {text}" for text in said[-_TAIL_LINES:])
        elif self.verbosity > 1:
            for key in ("stdout", "stderr"):
                yield from (f"{key} | {text}" for text in clean.text(result.get(key)).strip().splitlines())
        hint = clean.line(fault.get("hint"))
        if hint and word in ("failed", "lost", "ignored"):
            yield f"hint: {hint}"

    def _output(self, host: str, event: Mapping[str, Any]) -> Iterator[Line]:
        """Yield live output: everything with -vv, epochs of trainings otherwise."""
        if self.verbosity == 0 and not self.few:
            return
        for text in clean.text(event.get("text")).splitlines():
            found = EPOCH.search(text)
            if self.verbosity > 1 or (found and self._worth_saying(int(found[1]), int(found[2]))):
                yield Line(host, "dim", text)

    def _worth_saying(self, epoch: int, epochs: int) -> bool:
        return self.verbosity > 0 or epoch in (1, epochs) or epoch % self._epochs_between == 0


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def unified(diff: Mapping[str, Any]) -> list[str]:
    """Return one {"before", "after"} as a unified diff, cleaned."""
    if isinstance(diff.get("prepared"), str):
        return clean.text(diff["prepared"], 50_000).splitlines()
    before, after = (clean.text(diff.get(key), 50_000, 0).splitlines() for key in ("before", "after"))
    names = [clean.line(diff.get(key), 200) for key in ("before_header", "after_header")]
    return [
        text.rstrip("\n")
        for text in difflib.unified_diff(before, after, names[0] or names[1] or "before", names[1] or "after", n=3)
    ]
