"""The module `gpuprov_applied`: what gpuprov put on this host, written down on it.

`state: begun` before the first change keeps the package list as it was; `state: applied` at the end keeps
the stack and adds to the list of packages that came with it. `gpuprov drift`, `rollback` and `remove` read it.
"""

from __future__ import annotations

import json
import os
import time

from gpuprov.agent.modules.base import Change, ModuleError, ProbeError, State
from gpuprov.agent.modules.package_list import all_packages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.system import System

PATH = "/var/lib/gpuprov/applied.json"
SCHEMA = 1
#: How many stacks are remembered.
KEPT = 10
#: What a stack has beside its versions: how it was chosen.
_NOT_STACK = ("reasons", "warnings", "host", "tables")

SPEC: dict[str, Any] = {
    "summary": "What gpuprov put on this host, recorded on it: the stack, and the packages that came with it.",
    "args": {
        "state": {
            "type": "str",
            "choices": ["begun", "applied", "absent"],
            "default": "applied",
            "doc": "begun: before the first change; applied: after the last; absent: forget everything.",
        },
        "stack": {"type": "dict", "doc": "The stack that is in place now: gpuprov_resolved_stack."},
        "files": {"type": "list", "default": [], "doc": "Files that were made for it."},
        "environments": {"type": "list", "default": [], "doc": "Python environments that were made for it."},
        "run": {"type": "str", "default": "", "doc": "The run that did it: gpuprov_run."},
    },
    "returns": {
        "previous": "The stack that was recorded before, or null.",
        "packages": "Packages that came since the first run began, and are still there.",
        "path": "The file.",
    },
}


class Applied(State):
    """The record of this host."""

    _previous: dict[str, Any] | None = None
    _written = False

    def probe(self) -> Change:
        """Compare the record with what is to be in it."""
        if self.args["state"] == "applied" and self.args.get("stack") is None:
            raise ModuleError("state: applied needs stack", "stack: '{{ gpuprov_resolved_stack }}'", "argument-missing")
        self.record = read(self.system)
        if not self._written:
            self._previous = last_stack(self.record)
        change = Change(result={"path": PATH, "previous": self._previous})
        getattr(self, "_probe_" + self.args["state"])(change)
        return change

    def converge(self, change: Change) -> None:  # noqa: ARG002 - probe made what is to be written
        """Write it down."""
        self._written = True
        if self.args["state"] == "absent":
            os.unlink(PATH)
            return
        try:
            os.makedirs(os.path.dirname(PATH), mode=0o700, exist_ok=True)
            text = json.dumps(self.new, indent=1, sort_keys=True) + "\n"
            self.system.replace(PATH, data=text.encode(), mode=0o600)
        except OSError as error:
            raise ModuleError(
                "%s cannot be written: %s" % (PATH, error.strerror), "become: true may be missing"
            ) from None

    def _probe_absent(self, change: Change) -> None:
        if self.record:
            change.differences = ["record"]

    def _probe_begun(self, change: Change) -> None:
        """An earlier list is kept when its run did not come to its end: what it added counts, too."""
        if self.record.get("begun") is None:
            begun = {"run": self.args["run"], "time": time.time(), "packages": all_packages(self.system)}
            self.new = dict(self.record or _empty(), begun=begun)
            change.differences = ["package list"]
            change.result["changed"] = False

    def _probe_applied(self, change: Change) -> None:
        now = all_packages(self.system)
        begun = self.record.get("begun") or {"packages": now}
        before = begun["packages"]
        added = sorted({name for name in self.record.get("added", ()) if name in now} | (now.keys() - before.keys()))
        changed = dict(self.record.get("changed", {}))
        for name in before.keys() & now.keys():
            if before[name] != now[name] and name not in added:
                changed.setdefault(name, before[name])
        wanted = bare(self.args["stack"])
        beside = {key: sorted(self.args[key]) for key in ("files", "environments")}
        last = self._last()
        same = wanted == last_stack(self.record) and all(last.get(key) == value for key, value in beside.items())
        change.result["packages"] = added
        if same and added == self.record.get("added") and self.record.get("begun") is None:
            return
        change.differences = ["stack" if not same else "package list"]
        change.result["changed"] = not same or added != self.record.get("added", [])
        entries = list(self.record.get("applied", ()))
        if not same:
            entry = {"stack": wanted, "run": self.args["run"], "time": time.time(), **beside}
            entries = [*entries, entry][-KEPT:]
        self.new = dict(self.record or _empty(), begun=None, added=added, changed=changed, applied=entries)

    def _last(self) -> dict[str, Any]:
        entries = self.record.get("applied") or [{}]
        return dict(entries[-1])


def _empty() -> dict[str, Any]:
    return {"schema": SCHEMA, "begun": None, "added": [], "changed": {}, "applied": []}


def read(system: System) -> dict[str, Any]:
    """Return the record of this host; {} when there is none. Raises ProbeError when it cannot be told."""
    try:
        found = json.loads(system.read(PATH))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ProbeError("%s cannot be read: %s" % (PATH, error.strerror), "become: true may be missing") from None
    except ValueError as error:
        raise ProbeError("%s is damaged: %s" % (PATH, error), "move it away; rollback knows nothing then") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ProbeError("%s was written by another version of gpuprov" % PATH, "use that version, or move it away")
    return found


def bare(stack: dict[str, Any]) -> dict[str, Any]:
    """Return a stack without how it was chosen."""
    return {key: value for key, value in stack.items() if key not in _NOT_STACK}


def last_stack(record: dict[str, Any]) -> dict[str, Any] | None:
    """Return the stack that *record* says is in place, or None."""
    entries = record.get("applied") or []
    return entries[-1]["stack"] if entries else None


MODULE = Applied
