"""What a module is: one kind of state a host can be in (State), or one deed (Action).

The engine guarantees idempotence, no module can bypass it. For a State: probe; equal = ok;
in check mode stop anyway and say changed; converge; probe again; still different = failed
"not converged". An Action runs once and reports honestly.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gpuprov.agent.system import System


class ModuleError(Exception):
    """The task failed for a reason that the module understands.

    message is one sentence with what was found; hint is an action; result holds return keys.
    """

    def __init__(self, message: str, hint: str = "", code: str = "module-failed", **result: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.result = result


class ProbeError(ModuleError):
    """The present state cannot be told. Unknown is never spelled as absent."""


class NeedsEarlierChange(Exception):
    """Check mode only: the answer depends on an earlier change that was not made (outcome `unknown`)."""


class Change:
    """What probe found. Empty `differences` means that there is nothing to do.

    differences: short names of what is not as wanted ("mode", "content", "package nginx").
    diff: [{"before": text, "after": text, "before_header": ..., "after_header": ...}] for --diff,
    filled only when call.diff. result: the module's return keys as far as known; "changed": False in
    it says that the differences were only preparation (reading package sources) and count as ok.
    """

    __slots__ = ("diff", "differences", "result")

    def __init__(
        self,
        differences: list[str] | None = None,
        diff: list[dict[str, Any]] | None = None,
        result: dict[str, Any] | None = None,
    ) -> None:
        self.differences = differences or []
        self.diff = diff or []
        self.result = result or {}


class Call:
    """One task as a module sees it: validated arguments and what it may use.

    check: nothing may be changed. diff: fill Change.diff. registered: somebody reads the
    result, so costly return keys (checksums) are wanted. blob(sha256) gives the path of a file
    that travelled with the plan. output(stream, line) shows a line live. facts are the host's.
    env is the task's environment. state_dir is the agent's private folder; proof_dir has
    gpuprov/proof, "" without a proof in the plan. evaluate(expression) decides a deferred condition.

    pending, one set for all tasks of a run in check mode, names what earlier tasks would have
    changed: "/path", "user x", "group x", "package x", or for an action that was not run its name.
    """

    __slots__ = (
        "args",
        "blob",
        "check",
        "diff",
        "env",
        "evaluate",
        "facts",
        "output",
        "pending",
        "proof_dir",
        "registered",
        "state_dir",
        "system",
        "timeout_s",
        "warnings",
    )

    def __init__(self, args: dict[str, Any], system: System, **rest: Any) -> None:
        self.args = args
        self.system = system
        self.check: bool = rest.get("check", False)
        self.diff: bool = rest.get("diff", False)
        self.registered: bool = rest.get("registered", False)
        self.blob: Callable[[str], str] = rest.get("blob", _no_blob)
        self.output: Callable[[str, str], None] = rest.get("output", _no_output)
        self.facts: dict[str, Any] = rest.get("facts", {})
        self.env: dict[str, str] = rest.get("env", {})
        self.proof_dir: str = rest.get("proof_dir", "")
        self.state_dir: str = rest.get("state_dir", "")
        self.timeout_s: float | None = rest.get("timeout_s")
        self.evaluate: Callable[[str], bool] | None = rest.get("evaluate")
        self.pending: set[str] = rest.get("pending", set())
        self.warnings: list[str] = []


def planned(call: Call, what: str) -> bool:
    """Say whether, in check mode, an earlier task would have changed *what* ("/path", "user x")."""
    return call.check and what in call.pending


def absent(call: Call, message: str, hint: str = "", **result: Any) -> Exception:
    """Return the exception for something that this task needs and that is not there.

    A failure, unless in check mode an earlier task might have made it: then nobody can tell.
    """
    if call.check and call.pending:
        return NeedsEarlierChange("%s; an earlier task might change that" % message)
    return ModuleError(message, hint, **result)


def _no_output(stream: str, line: str) -> None:
    """Nobody watches."""


def _no_blob(sha256: str) -> str:
    raise ModuleError("file %s did not travel with the plan" % sha256[:12], code="file-missing")


class State:
    """A module that brings something into a state."""

    kind = "state"

    def __init__(self, call: Call) -> None:
        self.call = call
        self.args = call.args
        self.system = call.system

    def probe(self) -> Change:
        """Return what differs. MUST have no effect; MUST raise ProbeError when it cannot tell."""
        raise NotImplementedError

    def converge(self, change: Change) -> None:
        """Make it so. MAY assume that *change* is current; MUST be safe to repeat."""
        raise NotImplementedError


class Action:
    """A module that does something, or only looks (`reads = True`: also runs in check mode).

    What skip() spares is as it should be (a command whose `creates` is there), and ok. With `unmeasured = True` it
    could not be looked at, and is skipped: never spelled as ok.
    """

    kind = "action"
    reads = False
    unmeasured = False

    def __init__(self, call: Call) -> None:
        self.call = call
        self.args = call.args
        self.system = call.system

    def skip(self) -> str:
        """Return why there is nothing to do ("creates /x exists"), or "". MUST have no effect."""
        return ""

    def skipped(self) -> dict[str, Any]:
        """Return the return keys, beside changed and msg, of an action that skip() spared."""
        return {}

    def run(self) -> dict[str, Any]:
        """Do it and return Ansible's return keys, with "changed". Raises ModuleError."""
        raise NotImplementedError


def needs(args: dict[str, Any], system: System) -> list[str]:  # noqa: ARG001
    """Return the sha256 of the files that a task really needs on this host; the default: all it names.

    A module file may define its own `needs`, so that what the host already has is never sent.
    """
    return [args["_blob"]["sha256"]] if args.get("_blob") else []
