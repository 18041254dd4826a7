"""One call of a module, by the contract: probe, compare, stop or change, probe again.

Tasks that do not run as the agent's own user run in a child that gave up all other rights.
"""

from __future__ import annotations

import os
import time

from gpuprov.agent.journal import JournalFull
from gpuprov.agent.modules import PROOFS, arguments, base, load
from gpuprov.wire import outcome as O  # noqa: N812

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gpuprov.agent.context import Context
    from gpuprov.agent.journal import Journal
    from gpuprov.agent.output import LiveOutput
    from gpuprov.agent.system import System


class Rebooting(Exception):
    """The host is going down on our request."""


class Performer:
    """Calls modules and keeps the promise that an action runs once."""

    def __init__(
        self, plan: dict[str, Any], journal: Journal, system: System, context: dict[str, Any], known: Context
    ) -> None:
        self.acted = False
        self._plan = plan
        self._journal = journal
        self._system = system
        self._home: str = context["home"]
        self._layers: dict[str, str] = context["layers"]
        self._known = known
        self._interrupted: dict[tuple[str, int], dict[str, Any]] = {}
        self._reboots: dict[str, dict[str, Any]] = {}
        self._pending: set[str] = set()
        self._own_name = ""

    def restore(self, events: list[dict[str, Any]]) -> None:
        """Note what had started and not finished when the earlier runner ended."""
        for event in events:
            key = (event.get("id", ""), event.get("index", -1))
            if event["kind"] == "TaskStarted":
                self._interrupted[key] = event
            elif event["kind"] == "TaskFinished":
                self._interrupted.pop(key, None)
                self._reboots.pop(key[0], None)
            elif event["kind"] == "RebootStarted":
                self._interrupted.pop(key, None)
                self._reboots[key[0]] = event

    def call(
        self,
        node: dict[str, Any],
        args: dict[str, Any],
        env: dict[str, str],
        index: int,
        live: LiveOutput,
        evaluate: Callable[[str], bool] | None,
    ) -> dict[str, Any]:
        """Return {"outcome", "result", ...}. Module errors become failures here."""
        before = self._interrupted.pop((node["id"], index), None)
        started = _Once(self, node, index)
        try:
            if node["action"] == "reboot":
                return self._reboot(node, args, started)
            module_file = load(node["action"])
            given, wrong = arguments.check(module_file.SPEC, args)
            if wrong:
                raise base.ModuleError(wrong[0].message, wrong[0].hint, code=wrong[0].code)
            if before is not None and module_file.MODULE.kind == "action" and not module_file.MODULE.reads:
                return _lost(before)
            call = self._call(node, given, env, live, evaluate)
            user = self._other_user(node)
            if user is None:
                return self._noted(node, perform(module_file.MODULE(call), started))
            from gpuprov.agent.privileges import perform_as

            return self._noted(node, perform_as(user, lambda: module_file.MODULE(call), call, started))
        except base.NeedsEarlierChange as reason:
            return self._noted(node, {"outcome": O.UNKNOWN, "skip": str(reason)})
        except base.ModuleError as error:
            return failed(error)
        except OSError as error:
            return failed(os_failure(error))
        except (JournalFull, Rebooting):
            raise
        except Exception as bug:  # a bug in one module fails its task, not the whole run
            return crashed(bug)

    def _noted(self, node: dict[str, Any], done: dict[str, Any]) -> dict[str, Any]:
        """Remember for later tasks of a check that this one may have left something undone."""
        if done["outcome"] in (O.CHANGED, O.UNKNOWN) or done.get("final"):
            self._pending.add("task %s" % node["id"])
        return done

    def _call(
        self,
        node: dict[str, Any],
        args: dict[str, Any],
        env: dict[str, str],
        live: LiveOutput,
        evaluate: Callable[[str], bool] | None,
    ) -> base.Call:
        timeout_s = node.get("timeout_s")
        self._system.deadline_at = time.monotonic() + timeout_s if timeout_s else None
        call = base.Call(
            args,
            self._system,
            check=node.get("check_mode", self._plan.get("check", False)),
            diff=node.get("diff", self._plan.get("diff", False)),
            registered="register" in node,
            blob=self._blob,
            output=live.line,
            facts=self._known.facts,
            env=env,
            state_dir=self._home,
            timeout_s=timeout_s,
            pending=self._pending,
        )
        call.evaluate = evaluate
        if node["action"] in PROOFS and "proof" in self._layers:
            from gpuprov.agent.proof_layer import unpack

            call.proof_dir = unpack(self._home, self._layers["proof"], self._system)
        return call

    def _blob(self, sha256: str) -> str:
        path = os.path.join(self._home, "blobs", os.path.basename(sha256))
        if not os.path.exists(path):
            raise base.ModuleError(
                "file %s is not on the host any more" % sha256[:12], "run again: it will be sent", code="file-missing"
            )
        return path

    def _other_user(self, node: dict[str, Any]) -> str | None:
        """Return the user that a task runs as, None when it is the agent's own. Raises ModuleError."""
        if node["action"] in _WITHIN:
            return None
        user = node.get("become_user") or "root" if node.get("become") else self._plan.get("login_user") or ""
        if not user or user == self._user():
            return None
        if os.geteuid() != 0:
            message = "cannot become %s: the agent runs as %s" % (user, self._user())
            raise base.ModuleError(message, "allow sudo for the login user, or log in as root", code="become")
        return str(user)

    def _user(self) -> str:
        if not self._own_name:
            self._own_name = _name_of(os.geteuid())
        return self._own_name

    def _reboot(self, node: dict[str, Any], args: dict[str, Any], started: _Once) -> dict[str, Any]:
        from gpuprov.agent.launch import boot_id
        from gpuprov.agent.modules import reboot

        before = self._reboots.pop(node["id"], None)
        if before is not None:
            if before["boot_id"] == boot_id():
                message = "the host did not reboot: its boot id is the same as before"
                raise base.ModuleError(message, "look at its console and its logs", code="no-reboot")
            reboot.await_services(self._system, before["args"])
            elapsed_s = max(0, round(time.time() - before["at"]))
            return {"outcome": O.CHANGED, "result": {"rebooted": True, "elapsed": elapsed_s}}
        given, wrong = arguments.check(reboot.SPEC, args)
        if wrong:
            raise base.ModuleError(wrong[0].message, wrong[0].hint, code=wrong[0].code)
        if node.get("check_mode", self._plan.get("check", False)):
            return {"outcome": O.CHANGED, "result": {"rebooted": False}}
        started()
        reason = given.get("msg") or node["name"]
        self._journal.write("RebootStarted", sync=True, id=node["id"], reason=reason, boot_id=boot_id(), args=given)
        time.sleep(given.get("pre_reboot_delay") or 0)
        reboot.reboot_now(self._system)
        raise Rebooting


#: Modules that touch nothing but the run itself: whose rights they have makes no difference.
_WITHIN = ("assert", "debug", "fail", "set_fact")


def _name_of(uid: int) -> str:
    if uid == 0:
        return "root"
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "uid %d" % uid


class _Once:
    """Writes TaskStarted, on disk, before the first effect of a task; once."""

    def __init__(self, performer: Performer, node: dict[str, Any], index: int) -> None:
        self._performer = performer
        self._node = node
        self._index = index
        self._done = False

    def __call__(self) -> None:
        if self._done:
            return
        self._done = True
        self._performer.acted = True
        journal = self._performer._journal
        more = {"index": self._index} if self._index >= 0 else {}
        journal.write("TaskStarted", sync=True, id=self._node["id"], action=self._node["action"], **more)


def perform(module: Any, started: Callable[[], None]) -> dict[str, Any]:
    """Run a State or Action by the contract. started() is called before the first effect."""
    call = module.call
    done = _converge(module, call, started) if module.kind == "state" else _act(module, call, started)
    if call.warnings:
        done.setdefault("result", {})["warnings"] = list(call.warnings)
    return done


def _converge(module: Any, call: base.Call, started: Callable[[], None]) -> dict[str, Any]:
    change = module.probe()
    if not change.differences:
        return {"outcome": O.OK, "result": change.result}
    done: dict[str, Any] = {"outcome": O.CHANGED, "result": change.result}
    if call.diff:
        done["diff"] = change.diff
    if call.check:
        return _only_preparing(done)
    started()
    module.converge(change)
    after = module.probe()
    if after.differences:
        left = ", ".join(str(d) for d in after.differences)
        raise base.ModuleError(
            "not converged: still different after the change: %s" % left,
            "something else changes it back, or it cannot be set on this host",
            code="not-converged",
        )
    done["result"] = {**change.result, **after.result}
    return _only_preparing(done)


def _only_preparing(done: dict[str, Any]) -> dict[str, Any]:
    """Count as ok what a module says was only preparation (reading package sources or unit files)."""
    if done["result"].get("changed") is False:
        done["outcome"] = O.OK
    return done


def _act(module: Any, call: base.Call, started: Callable[[], None]) -> dict[str, Any]:
    why = module.skip()
    if why and module.unmeasured:
        return {"outcome": O.SKIPPED, "skip": why}
    if why:
        return {"outcome": O.OK, "result": {"changed": False, "msg": why, **module.skipped()}}
    if call.check and not module.reads:
        return {"outcome": O.SKIPPED, "skip": "check mode: commands are not run", "final": True}
    if not module.reads:
        started()
    result = module.run()
    outcome = O.CHANGED if result.get("changed") else O.OK
    if result.get("failed"):
        outcome = O.FAILED
    done = {"outcome": outcome, "result": result}
    if outcome == O.FAILED and result.get("msg"):
        done["msg"] = result["msg"]
    return done


def crashed(bug: Exception) -> dict[str, Any]:
    """Return what a task whose module met a bug ends with."""
    import traceback

    detail = traceback.format_exc()[-4000:]
    message = f"the module met a bug: {type(bug).__name__}: {bug}"
    done = failed(base.ModuleError(message, "please report it with the lines below", code="module-crashed"))
    done["fault"]["detail"] = done["result"]["exception"] = detail
    return done


def os_failure(error: OSError) -> base.ModuleError:
    """Return an operating system error as a sentence with a remedy."""
    import errno

    hints = {
        errno.ENOSPC: "free some space on that file system",
        errno.EROFS: "that file system is mounted read-only",
        errno.EACCES: "the task may need become: true",
        errno.EPERM: "the task may need become: true, or the file is immutable (lsattr)",
        errno.ENOENT: "",
    }
    where = " %s" % error.filename if error.filename else ""
    message = "%s:%s" % (error.strerror or error, where) if where else str(error.strerror or error)
    return base.ModuleError(message, hints.get(error.errno or 0, ""), code="os-error", errno=error.errno)


def failed(error: base.ModuleError) -> dict[str, Any]:
    """Return what a task that met *error* ends with."""
    fault = {"code": error.code, "message": error.message, "hint": error.hint}
    result = dict(error.result, msg=error.result.get("msg", error.message))
    return {"outcome": O.FAILED, "msg": error.message, "fault": fault, "result": result}


def _lost(before: dict[str, Any]) -> dict[str, Any]:
    since = time.strftime("%H:%M:%S UTC", time.gmtime(before["at"]))
    message = "interrupted after it had started at %s; whether it took effect is not known" % since
    fault = {"code": "lost", "message": message, "hint": "look at the host, then apply again: it is never run unasked"}
    return {"outcome": O.LOST, "msg": message, "fault": fault, "result": {}}
