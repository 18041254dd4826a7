"""The module `gpuprov_driver_state`: does the driver that is installed run, and if not, what does it take?"""

from __future__ import annotations

from gpuprov.agent.modules import driver_reload
from gpuprov.agent.modules.base import Change, ModuleError, NeedsEarlierChange, ProbeError, State
from gpuprov.agent.modules.driver_decision import LOAD, REBOOT, RELOAD, UNKNOWN, Decision, Driver, decide
from gpuprov.agent.survey_host import Host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC: dict[str, Any] = {
    "summary": "The installed driver is the one that runs: nothing to do, a reload, or a reboot with its reason.",
    "args": {
        "version": {"type": "str", "default": "", "doc": "The driver that has to be installed: 580.178.04."},
        "flavour": {
            "type": "str",
            "choices": ["", "open", "proprietary"],
            "default": "",
            "doc": "Of its kernel module.",
        },
        "reload": {
            "type": "bool",
            "default": False,
            "doc": "Exchange the kernel modules when that is enough and no job is on the GPUs.",
        },
        "services": {
            "type": "list",
            "default": list(driver_reload.SERVICES),
            "doc": "Services that use the driver, in the order of stopping. Other processes on the GPUs are jobs.",
        },
        "drain_command": {
            "type": "str",
            "default": "",
            "doc": "Shell command that ends or moves jobs first; GPUPROV_GPU_PIDS has their ids. Without it they stay.",
        },
        "drain_timeout": {"type": "int", "default": 3600, "doc": "Seconds that drain_command may take."},
    },
    "returns": {
        "decision": "none, load, reload, reboot or unknown.",
        "reasons": "Why.",
        "notes": "What else an admin should know of: another kernel that boots next.",
        "reboot_required": "Whether only a reboot helps; this module never reboots.",
        "reload_required": "Whether a reload is enough, and was not asked for.",
        "skip": "What could not be looked at: the running kernel is not this system's (a container, a lab).",
        "loaded": "Version of the loaded module, or null.",
        "on_disk": "Version of the module for the running kernel, or null.",
        "libraries": "Version of the user's libraries, or null.",
        "processes": "Processes on the GPUs: pid, name, user.",
    },
}


class DriverState(State):
    """The driver of this host. root is another root folder to look at."""

    root = ""
    _busy = ""

    def probe(self) -> Change:
        """Look at the bus, the kernel, the disk and the processes. Raises ModuleError for what is broken."""
        if self.call.check and self.call.pending:
            raise NeedsEarlierChange("an earlier task would change something that the driver may depend on")
        self.driver = Driver(Host(self.system, self.root))
        decision = decide(self.driver, self.args["version"], self.args["flavour"])
        if self._busy:
            decision = Decision(REBOOT, *decision.reasons, self._busy)
        result = self._result(decision)
        if self._busy:
            result["changed"] = False
        if decision.wrong is not None:
            code, message, hint = decision.wrong
            raise ModuleError(message, hint, code=code, **result)
        if decision.action == UNKNOWN and not decision.skip:
            raise ProbeError(
                "the state of the driver cannot be told: %s" % decision.reasons[0], code="unknown", **result
            )
        change = Change(result=result)
        if decision.action == LOAD or (decision.action == RELOAD and self.args["reload"]):
            change.differences = list(decision.reasons)
            if self.call.diff:
                change.diff = [{"before": "", "after": "".join("%s\n" % one for one in decision.reasons)}]
        self.decision = decision
        return change

    def converge(self, change: Change) -> None:  # noqa: ARG002 - probe keeps the decision
        """Exchange the modules, or find that only a reboot helps. Raises ModuleError; never kills a job."""
        services = self.args["services"]
        found = driver_reload.jobs(self.driver, services)
        if found and self.args["drain_command"]:
            driver_reload.drain(self.call, self.driver)
            self.driver = Driver(Host(self.system, self.root))
            found = driver_reload.jobs(self.driver, services)
        driver_reload.refuse_jobs(found, bool(self.args["drain_command"]))
        try:
            driver_reload.reload(self.call, self.driver)
        except driver_reload.Busy as reason:
            self._busy = str(reason)

    def _result(self, decision: Decision) -> dict[str, Any]:
        driver = self.driver
        result = {
            "decision": decision.action,
            "reasons": [one for one in decision.reasons if one],
            "notes": decision.notes,
            "reboot_required": decision.action == REBOOT,
            "reload_required": decision.action == RELOAD and not self.args["reload"],
            "loaded": driver.loaded,
            "on_disk": driver.disk.get("version"),
            "libraries": driver.user,
            "processes": driver.processes,
        }
        return {**result, "skip": decision.skip} if decision.skip else result


MODULE = DriverState
