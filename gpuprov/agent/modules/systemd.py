"""The module `systemd`: units of systemd."""

from __future__ import annotations

from gpuprov.agent.modules.base import Change, ModuleError, State, absent
from gpuprov.agent.modules.systemctl import Systemctl, Unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.modules.base import Call

SPEC: dict[str, Any] = {
    "summary": "Units of systemd: running or not, enabled or not, masked or not.",
    "args": {
        "name": {"type": "str", "aliases": ["service", "unit"], "doc": "The unit; .service may be left out."},
        "state": {
            "type": "str",
            "choices": ["reloaded", "restarted", "started", "stopped"],
            "doc": "restarted and reloaded act every time, and start what is stopped.",
        },
        "enabled": {"type": "bool", "doc": "Whether it starts at boot."},
        "masked": {"type": "bool", "doc": "Whether it cannot be started at all."},
        "force": {"type": "bool", "default": False, "doc": "enabled: replace links that are in the way."},
        "daemon_reload": {
            "type": "bool",
            "default": False,
            "aliases": ["daemon-reload"],
            "doc": "Read unit files first; by itself it does not count as a change.",
        },
        "daemon_reexec": {
            "type": "bool",
            "default": False,
            "aliases": ["daemon-reexec"],
            "doc": "Start systemd itself anew; by itself it does not count as a change.",
        },
        "scope": {
            "type": "str",
            "choices": ["global", "system", "user"],
            "default": "system",
            "doc": "Units of the system, of the user that runs the task, or of all users.",
        },
        "no_block": {"type": "bool", "default": False, "doc": "Do not wait until it is started or stopped."},
    },
    "returns": {
        "name": "The unit.",
        "state": "started or stopped, as asked for.",
        "enabled": "As asked for.",
        "status": "All properties of the unit (when registered).",
    },
}


class Systemd(State):
    """One unit, or only systemd itself."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        more = ("--no-block",) if self.args["no_block"] else ()
        self._systemctl = Systemctl(call, self.args["scope"], more)
        self._reread = not (self.args["daemon_reload"] or self.args["daemon_reexec"])
        self._acted = False

    def probe(self) -> Change:
        """Compare the unit with what is wanted. Raises ModuleError when there is no such unit."""
        change = Change([] if self._reread else ["unit files not read again"])
        name = self.args.get("name")
        if name:
            unit = self._systemctl.show(name, everything=self.call.registered)
            change.differences += self._differences(unit)
            change.result = self._result(unit)
        if change.differences and not self._reread and len(change.differences) == 1:
            change.result["changed"] = False
        if change.differences and self.call.check:
            self.call.pending.add("service %s" % name)
        if change.differences and self.call.diff:
            change.diff = [{"before": "", "after": "".join("%s\n" % one for one in change.differences)}]
        return change

    def converge(self, change: Change) -> None:
        """Read unit files, then mask, enable, start in the order that works."""
        if self.args["daemon_reexec"] and not self._reread:
            self._systemctl.do("daemon-reexec")
        if self.args["daemon_reload"] and not self._reread:
            self._systemctl.do("daemon-reload")
        self._reread = True
        name = self.args.get("name")
        if not name:
            return
        differs = self._differences(self._systemctl.show(name))
        change.result["changed"] = bool(differs)
        if self.args.get("masked") is False and "masked" in differs:
            self._systemctl.do("unmask", name)
        if "enabled" in differs:
            force = ["--force"] if self.args["force"] and self.args["enabled"] else []
            self._systemctl.do("enable" if self.args["enabled"] else "disable", *force, name)
        state = next((one for one in differs if one not in ("masked", "enabled")), None)
        if state is not None:
            self._systemctl.do(self._verb(name), name)
        if self.args.get("masked") and "masked" in differs:
            self._systemctl.do("mask", name)
        self._acted = True

    def _differences(self, unit: Unit) -> list[str]:
        state, masked = self.args.get("state"), self.args.get("masked")
        if not unit.exists:
            if not self._reread:
                return []  # reading the unit files may bring it
            message = "there is no unit %s on this host" % self.args["name"]
            raise absent(self.call, message, "is its package installed?", code="service-unknown")
        names = ["masked"] if masked is not None and masked != unit.masked else []
        enabled = self.args.get("enabled")
        if enabled is not None and not unit.masked and not unit.enabled_as(enabled):
            names.append("enabled")
        if state in ("started", "restarted", "reloaded") and unit.masked and masked is not False:
            message = "%s is masked and cannot be started" % self.args["name"]
            raise ModuleError(message, "masked: false permits it", code="service-masked")
        return names + self._state_differences(unit, state)

    def _state_differences(self, unit: Unit, state: str | None) -> list[str]:
        if state == "stopped":
            return [] if unit.stopped or (self.args["no_block"] and self._acted) else [unit.state]
        if state is None or (self._acted and (unit.ran or self.args["no_block"])):
            return []
        if state in ("restarted", "reloaded") and not self._acted:
            return ["to be " + state]
        if self._acted and not unit.runs:
            raise self._systemctl.failure(self.args["name"], "started", "it ended at once: %s" % unit.state)
        return [] if unit.runs else [unit.state]

    def _verb(self, name: str) -> str:
        state = self.args["state"]
        if state == "reloaded":
            unit = self._systemctl.show(name)
            if unit.runs and unit.values.get("CanReload") == "no":
                raise ModuleError("%s cannot be reloaded" % name, "state: restarted works for every service")
            return "reload" if unit.runs else "start"
        return {"started": "start", "stopped": "stop", "restarted": "restart"}[state]

    def _result(self, unit: Unit) -> dict[str, Any]:
        result: dict[str, Any] = {"name": self.args["name"]}
        if self.args.get("state"):
            result["state"] = "stopped" if self.args["state"] == "stopped" else "started"
        if self.args.get("enabled") is not None:
            result["enabled"] = self.args["enabled"]
        if self.call.registered:
            result["status"] = unit.values
        return result


MODULE = Systemd
