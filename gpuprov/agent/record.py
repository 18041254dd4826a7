"""What is kept of a task: in memory all that later tasks may ask for, in the journal what may be seen."""

from __future__ import annotations

import json

from gpuprov.agent.masking import MASK
from gpuprov.wire import outcome as O  # noqa: N812

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.context import Context
    from gpuprov.agent.journal import Journal

CENSORED = "the output has been hidden: no_log is set for this task"
#: Modules whose results are facts.
FACT_ACTIONS = ("set_fact", "setup", "gather_facts", "package_facts", "service_facts")
#: Keys that repeat another one, line by line.
_LINES = ("stdout", "stderr")


class Recorder:
    """Writes TaskFinished events and keeps registered results and facts; restores them from a journal."""

    def __init__(self, journal: Journal, context: Context) -> None:
        self._journal = journal
        self._context = context

    def write(self, node: dict[str, Any], done: dict[str, Any], duration_s: float, **more: Any) -> dict[str, Any]:
        """Write how a task, or a pass of its loop, ended; return the event with the whole result."""
        event = {key: done[key] for key in ("outcome", "result", "msg", "skip", "diff", "fault") if done.get(key)}
        event.update(more, id=node["id"], duration_s=round(duration_s, 4))
        written = _censored(event) if node.get("no_log") else event
        if written is event and event.get("result"):
            whole_loop = "item" not in event and ("items" in node or "loop" in node)
            written = dict(event, result=_without_repeats(event["result"], whole_loop))
        self._journal.write("TaskFinished", **written)
        return event

    def remember(self, node: dict[str, Any], result: dict[str, Any]) -> None:
        """Keep the result of a finished task: what is registered, and facts."""
        if node.get("register"):
            self._context.register(node["register"], result)
        self.learn(node, result)

    def learn(self, node: dict[str, Any], result: dict[str, Any]) -> None:
        """Take facts out of a result."""
        facts = result.get("ansible_facts") if node["action"] in FACT_ACTIONS else None
        if isinstance(facts, dict):
            if node["action"] == "set_fact":
                self._context.set_facts(facts)
            else:
                self._context.refresh(facts)

    def restore(self, node: dict[str, Any], event: dict[str, Any], passes: list[dict[str, Any]]) -> None:
        """Keep what an earlier runner has written about a finished task; passes: the events of its loop."""
        result = with_lines(event.get("result", {}))
        if "items" in node or "loop" in node:
            for one in passes:
                self.learn(node, one.get("result", {}))
            result["results"] = [with_lines(one.get("result", {})) for one in passes]
        self.remember(node, result)
        if MASK in json.dumps(result):
            self._context.masked = True
        if node.get("no_log") and not node.get("skip"):
            self._context.forgotten.update(node.get("args", ()) if node["action"] == "set_fact" else ())
            self._context.forgotten.update([node["register"]] if node.get("register") else ())


def _censored(event: dict[str, Any]) -> dict[str, Any]:
    written = {key: value for key, value in event.items() if key not in ("msg", "diff", "fault", "item")}
    written["result"] = {"censored": CENSORED, "changed": event["outcome"] == O.CHANGED}
    if "item" in event:
        written["item"] = "(hidden)"
    if event["outcome"] == O.FAILED:
        written["msg"] = CENSORED
    return written


def _without_repeats(result: dict[str, Any], whole_loop: bool) -> dict[str, Any]:
    """Return a result as the journal has it: a loop's passes have events of their own."""
    repeats = [name + "_lines" for name in _LINES if name in result] + (["results"] if whole_loop else [])
    return {key: value for key, value in result.items() if key not in repeats}


def with_lines(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result from the journal with the keys that repeat others."""
    texts = [name for name in _LINES if isinstance(result.get(name), str)]
    return {**result, **{name + "_lines": result[name].splitlines() for name in texts}}
