"""One task: conditions, loops, retries, what counts as changed and failed, what is registered."""

from __future__ import annotations

import time

from gpuprov.agent.blobs import tasks
from gpuprov.agent.context import Context
from gpuprov.agent.modules.base import ModuleError, NeedsEarlierChange
from gpuprov.agent.output import LiveOutput
from gpuprov.agent.perform import Performer, failed
from gpuprov.agent.record import Recorder, with_lines
from gpuprov.agent.rendering import Rendering
from gpuprov.wire import outcome as O  # noqa: N812

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.journal import Journal
    from gpuprov.agent.system import System

#: How often a task with `until` is tried again when it does not say, and how long it waits in between.
RETRIES = 3
DELAY_S = 5.0
BAD = (O.FAILED, O.LOST)


class TaskRunner:
    """Runs single tasks and writes their events."""

    def __init__(self, plan: dict[str, Any], journal: Journal, system: System, context: dict[str, Any]) -> None:
        self.journal = journal
        self.context = Context(plan, system, context)
        self._plan = plan
        self._rendering = Rendering(self.context, bool(plan.get("check")))
        self._performer = Performer(plan, journal, system, context, self.context)
        self._recorder = Recorder(journal, self.context)
        self._items_done: dict[tuple[str, int], dict[str, Any]] = {}

    @property
    def acted(self) -> bool:
        """Whether anything was changed or run."""
        return self._performer.acted

    def restore(self, events: list[dict[str, Any]]) -> None:
        """Take over registered results and facts, and what was interrupted."""
        nodes = {n["id"]: n for play in self._plan["plays"] for n in [*tasks(play["nodes"]), *play["handlers"]]}
        passes: dict[str, list[dict[str, Any]]] = {}
        for event in events:
            node = nodes.get(event.get("id", ""))
            if node is None or event["kind"] != "TaskFinished":
                continue
            if "item" in event:
                passes.setdefault(node["id"], []).append(event)
            else:
                self._recorder.restore(node, event, passes.pop(node["id"], []))
        for node_id, finished in passes.items():  # of loops that were interrupted
            for event in finished:
                self._items_done[(node_id, event["index"])] = dict(event, result=with_lines(event.get("result", {})))
                self._recorder.learn(nodes[node_id], event.get("result", {}))
        self._performer.restore(events)

    def run(self, node: dict[str, Any]) -> dict[str, Any]:
        """Run *node* to its end; return its TaskFinished event, with the whole result."""
        started = time.monotonic()
        try:
            done = self._decide(node)
        except NeedsEarlierChange as reason:
            done = {"outcome": O.UNKNOWN, "skip": str(reason)}
        except ModuleError as error:
            done = failed(error)
        if done["outcome"] == O.FAILED and self._ignored(node):
            done["outcome"] = O.IGNORED
        _complete(done)
        event = self._recorder.write(node, done, time.monotonic() - started)
        self._recorder.remember(node, event.get("result", {}))
        return event

    def _ignored(self, node: dict[str, Any]) -> bool:
        try:
            return self._rendering.test(node, {}, node.get("ignore_errors", False))
        except (ModuleError, NeedsEarlierChange):  # it cannot be told: then the failure counts
            return False

    def _decide(self, node: dict[str, Any]) -> dict[str, Any]:
        if node.get("skip"):
            return {"outcome": O.SKIPPED, "skip": node["skip"]}
        if "items" in node:
            return self._loop(node, node["items"])
        if "loop" in node:
            try:
                items = self._deferred_items(node)
            except ModuleError as error:
                why = self._skipped(node, {}) if error.code == "undefined" else ""
                if not why:
                    raise
                return {"outcome": O.SKIPPED, "skip": why}
            return self._loop(node, items)
        return self._single(node, node.get("args", {}), {}, -1)

    def _deferred_items(self, node: dict[str, Any]) -> list[dict[str, Any]]:
        values = self._rendering.value(node, {}, node["loop"])
        if not isinstance(values, (list, tuple)):
            raise ModuleError("loop needs a list, got %s" % type(values).__name__, code="loop-type")
        return [{"item": value} for value in values]

    def _loop(self, node: dict[str, Any], items: list[dict[str, Any]]) -> dict[str, Any]:
        if not items:
            return {"outcome": O.SKIPPED, "skip": "the loop's list is empty", "result": {"results": []}}
        results, outcomes, message = [], [], ""
        for index, item in enumerate(items):
            done = self._items_done.pop((node["id"], index), None) or self._item(node, item, index)
            outcomes.append(done["outcome"])
            if node.get("register"):  # nobody else needs them, and there may be thousands
                results.append(done.get("result", {}))
            if done["outcome"] in BAD:
                message = message or done.get("msg", "")
            if node.get("pause_s") and index + 1 < len(items):
                time.sleep(node["pause_s"])
        combined: dict[str, Any] = {"outcome": _combine(outcomes), "result": {"results": results}}
        if combined["outcome"] in BAD:
            combined["msg"] = message
        elif combined["outcome"] == O.SKIPPED:
            combined["skip"] = "all passes of the loop were skipped"
        return combined

    def _item(self, node: dict[str, Any], item: dict[str, Any], index: int) -> dict[str, Any]:
        started = time.monotonic()
        name = node.get("loop_var", "item")
        variables = {name: item["item"], "ansible_loop_var": name}
        if "index_var" in node:
            variables[node["index_var"]] = index
        label = item.get("label", item["item"])
        try:
            if "label" in node and "label" not in item:
                label = self._rendering.value(node, variables, node["label"])
            if item.get("skip"):
                done: dict[str, Any] = {"outcome": O.SKIPPED, "skip": item["skip"]}
            else:
                done = self._single(node, item.get("args", node.get("args", {})), variables, index, item)
        except NeedsEarlierChange as reason:
            done = {"outcome": O.UNKNOWN, "skip": str(reason)}
        except ModuleError as error:
            done = failed(error)
        _complete(done)
        done["result"].update(variables)
        event = self._recorder.write(node, done, time.monotonic() - started, item=str(label)[:200], index=index)
        self._recorder.learn(node, event["result"])  # the next pass may build on it
        return event

    def _skipped(self, node: dict[str, Any], variables: dict[str, Any]) -> str:
        """Return the condition that is false, "" when all hold."""
        for condition in node.get("when", ()):
            if not self._rendering.test(node, variables, condition):
                return "when: %s is false" % condition
        return ""

    def _single(
        self,
        node: dict[str, Any],
        args: dict[str, Any],
        variables: dict[str, Any],
        index: int,
        item: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Run one pass: when, then until/retries around the module."""
        why = self._skipped(node, variables)
        if why:
            return {"outcome": O.SKIPPED, "skip": why}
        live = LiveOutput(self.journal, node["id"], hidden=bool(node.get("no_log")))
        again = "until" in node or "retries" in node
        attempts = max(0, node.get("retries", RETRIES)) + 1 if again else 1
        done: dict[str, Any] = {}
        for attempt in range(1, attempts + 1):
            done = self._attempt(node, args, variables, index, item, live)
            if again:
                done.setdefault("result", {})["attempts"] = attempt
            if not again or done["outcome"] in (O.LOST, O.UNKNOWN, O.SKIPPED) or self._enough(node, variables, done):
                return done
            if attempt < attempts:
                live.line("stdout", "attempt %d of %d: not yet" % (attempt, attempts))
                live.flush()
                time.sleep(node.get("delay_s", DELAY_S))
        if "until" in node:
            done.update(outcome=O.FAILED, msg="until was never true in %d attempts" % attempts)
        return done

    def _enough(self, node: dict[str, Any], variables: dict[str, Any], done: dict[str, Any]) -> bool:
        """Say whether a task that may be tried again need not be: `until` holds; without one, it succeeded."""
        if "until" not in node:
            return bool(done["outcome"] != O.FAILED)
        names = {**variables, node.get("register", "_result"): done["result"]}
        return self._rendering.test(node, names, node["until"])

    def _attempt(
        self,
        node: dict[str, Any],
        args: dict[str, Any],
        variables: dict[str, Any],
        index: int,
        item: dict[str, Any] | None,
        live: LiveOutput,
    ) -> dict[str, Any]:
        environment = (item or {}).get("environment", node.get("environment", {}))
        if node.get("defer"):
            args = self._rendering.arguments(node, variables, args)
            environment = self._rendering.value(node, variables, environment)
        evaluate = None
        if node["action"] == "assert":

            def evaluate(expression: str) -> bool:
                return self._rendering.test(node, variables, expression)

        try:
            done = self._performer.call(node, args, environment, index, live, evaluate)
        finally:
            live.finish()
        return self._judge(node, variables, done)

    def _judge(self, node: dict[str, Any], variables: dict[str, Any], done: dict[str, Any]) -> dict[str, Any]:
        """Let changed_when and then failed_when say what the module's result means."""
        if done["outcome"] not in (O.OK, O.CHANGED, O.FAILED) or done.get("final"):
            return done
        result = done.setdefault("result", {})
        was_failed = done["outcome"] == O.FAILED
        result.setdefault("changed", done["outcome"] == O.CHANGED)
        result.setdefault("failed", was_failed)
        names = {**variables, node["register"]: result} if node.get("register") else variables
        if node.get("changed_when") is not None:
            result["changed"] = self._rendering.test(node, names, node["changed_when"])
        is_failed = was_failed
        if node.get("failed_when") is not None:
            is_failed = result["failed_when_result"] = self._rendering.test(node, names, node["failed_when"])
        if is_failed and not was_failed:
            done["msg"] = "failed_when is true"
        elif was_failed and not is_failed:
            done.pop("fault", None)
            done.pop("msg", None)
        done["outcome"] = O.FAILED if is_failed else O.CHANGED if result["changed"] else O.OK
        return done


def _complete(done: dict[str, Any]) -> None:
    """Give a result the keys that every result has, by what became of it."""
    result = done.setdefault("result", {})
    bad = done["outcome"] in (*BAD, O.IGNORED)
    result["changed"] = done["outcome"] == O.CHANGED or (bad and bool(result.get("changed")))
    result["failed"] = bad
    if done["outcome"] == O.SKIPPED:
        result.update(skipped=True, skip_reason=done.get("skip", ""))
    if "msg" in done:
        result.setdefault("msg", done["msg"])


def _combine(outcomes: list[str]) -> str:
    """Return a loop's outcome from those of its passes."""
    for outcome in (O.LOST, O.FAILED, O.CHANGED, O.UNKNOWN, O.OK):
        if outcome in outcomes:
            return outcome
    return O.SKIPPED
