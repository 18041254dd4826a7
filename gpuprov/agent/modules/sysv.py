"""Services of hosts without systemd: scripts in /etc/init.d."""

from __future__ import annotations

import os
import time

from gpuprov.agent.modules.base import Change, ModuleError, State, absent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.agent.process import Finished

INIT_D = "/etc/init.d"


class SysV(State):
    """One init script: running or not, started at boot or not."""

    _acted = False

    def probe(self) -> Change:
        """Ask the script for its status. Raises ModuleError when there is none."""
        self.name: str = self.args["name"]
        if not os.access(os.path.join(INIT_D, self.name), os.X_OK):
            message = "systemd is not running on this host, and there is no %s/%s" % (INIT_D, self.name)
            raise absent(self.call, message, "is its package installed?", code="service-unknown")
        change = Change(result={"name": self.name})
        state, enabled = self.args.get("state"), self.args.get("enabled")
        if state is not None:
            change.result["state"] = "stopped" if state == "stopped" else "started"
            self._runs = self._script("status").rc == 0
            change.differences += self._state_differences(state)
        if enabled is not None:
            change.result["enabled"] = enabled
            change.differences += [] if self._enabled() == enabled else ["enabled"]
        if change.differences and self.call.check:
            self.call.pending.add("service " + self.name)
        return change

    def converge(self, change: Change) -> None:
        """Let the script do it."""
        if "enabled" in change.differences:
            self._enable(self.args["enabled"])
        state = self.args.get("state")
        if state is None or change.differences == ["enabled"]:
            return
        if state == "restarted" and self._runs:
            self._change("stop")
            time.sleep(self.args.get("sleep") or 0)
            self._change("start")
        elif state == "reloaded" and self._runs:
            self._change("reload")
        else:
            self._change("stop" if state == "stopped" else "start")
        self._acted = True

    def _state_differences(self, state: str) -> list[str]:
        if state in ("restarted", "reloaded") and not self._acted:
            return ["to be " + state]
        if self._runs == (state == "stopped"):
            return ["running" if self._runs else "not running"]
        return []

    def _change(self, verb: str) -> None:
        done = self._script(verb)
        if done.rc != 0:
            message = "%s/%s %s: %s" % (INIT_D, self.name, verb, done.last_line or done.why)
            raise ModuleError(message, code="service-failed", rc=done.rc, stdout=done.out, stderr=done.err)

    def _script(self, verb: str) -> Finished:
        words = [os.path.join(INIT_D, self.name), verb, *str(self.args.get("arguments") or "").split()]
        return self.system.run(words, self.call.env, cwd="/", timeout_s=self.call.timeout_s)

    def _enabled(self) -> bool:
        """Say whether a start link exists in one of the multi-user runlevels."""
        for level in "2345":
            folder = "/etc/rc%s.d" % level
            names = os.listdir(folder) if os.path.isdir(folder) else []
            if any(name[:1] == "S" and name[3:] == self.name for name in names):
                return True
        return False

    def _enable(self, wanted: bool) -> None:
        if self.system.which("update-rc.d"):
            # defaults makes the links, enable and disable turn them over
            commands = [["update-rc.d", self.name, "defaults"]]
            commands.append(["update-rc.d", self.name, "enable" if wanted else "disable"])
        elif self.system.which("chkconfig"):
            commands = [["chkconfig", self.name, "on" if wanted else "off"]]
        else:
            raise ModuleError("this host has neither update-rc.d nor chkconfig", code="program-missing")
        for words in commands:
            done = self.system.run(words, self.call.env, timeout_s=self.call.timeout_s)
            if done.rc != 0:
                raise ModuleError("%s: %s" % (" ".join(words), done.last_line or done.why), code="service-failed")
