"""Asking and telling systemd about one unit."""

from __future__ import annotations

import os

from gpuprov.agent.modules.base import ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.modules.base import Call
    from gpuprov.agent.process import Finished

_PROPERTIES = "Id,LoadState,ActiveState,SubState,UnitFileState,Type,Result,CanReload,NeedDaemonReload"
#: What is-enabled calls enabled; a unit of one of the fixed kinds can be neither enabled nor disabled.
_ENABLED = ("enabled", "enabled-runtime", "alias")
_DONE = {"start": "started", "stop": "stopped", "restart": "restarted", "reload": "reloaded"}
_FIXED = ("static", "indirect", "generated", "transient")


def running() -> bool:
    """Say whether systemd is this host's init system now."""
    return os.path.isdir("/run/systemd/system")


class Systemctl:
    """systemd, of the system or of the user. Raises ModuleError when it cannot be asked."""

    def __init__(self, call: Call, scope: str = "system", more: tuple[str, ...] = ()) -> None:
        if not running():
            hint = "containers and chroots have no services; leave this task out there (when: ansible_service_mgr ...)"
            raise ModuleError("systemd is not running on this host", hint, code="no-systemd")
        self._call = call
        self._words = ["systemctl", "--no-pager", "--no-ask-password"]
        self._words += {"user": ["--user"], "global": ["--global"]}.get(scope, []) + list(more)

    def show(self, unit: str, everything: bool = False) -> Unit:
        """Return the unit's state; all its properties when *everything*."""
        words = ["show", unit] + ([] if everything else ["--property=" + _PROPERTIES])
        done = self._run(*words)
        if done.rc != 0:
            raise ModuleError("systemctl show %s: %s" % (unit, done.last_line or done.why), code="systemctl-failed")
        values = dict(line.split("=", 1) for line in done.out.splitlines() if "=" in line)
        if not values.get("UnitFileState") and values.get("LoadState") == "loaded":
            values["UnitFileState"] = self._run("is-enabled", unit).out.strip()
        return Unit(values)

    def do(self, verb: str, *units: str) -> None:
        """Run a verb that changes something. Raises ModuleError with what the unit said."""
        done = self._run(verb, *units)
        if done.rc == 0:
            return
        said = next((line.strip() for line in done.err.splitlines() if line.strip()), done.why)
        keys: dict[str, Any] = {"rc": done.rc, "stderr": done.err}
        if "authentication required" in done.err or "Access denied" in done.err:
            raise ModuleError("systemctl %s: %s" % (verb, said), "become: true is missing", code="root-needed", **keys)
        if units and verb in _DONE:
            raise self.failure(units[-1], _DONE[verb], said, **keys)
        raise ModuleError("systemctl %s: %s" % (verb, said), code="systemctl-failed", **keys)

    def failure(self, unit: str, what: str, said: str, **keys: Any) -> ModuleError:
        """Return the failure of a unit, with the last lines of its log."""
        log = self._call.system.run(["journalctl", "--no-pager", "-n", "10", "-o", "short", "-u", unit])
        lines = [line for line in log.out.splitlines() if line.strip() and not line.startswith("-- ")]
        # what the service itself said, not systemd about it
        own = [line.split(": ", 1)[1] for line in lines if ": " in line and " systemd[1]: " not in line]
        message = "%s could not be %s: %s" % (unit, what, said)
        if own:
            message += " (it said: %s)" % own[-1].strip()[:200]
        hint = "journalctl -u %s on the host says more" % unit
        return ModuleError(message, hint, code="service-failed", journal=lines, **keys)

    def _run(self, *words: str) -> Finished:
        env = dict(self._call.env)
        if "--user" in self._words:
            env.setdefault("XDG_RUNTIME_DIR", "/run/user/%d" % os.geteuid())
        return self._call.system.run([*self._words, *words], env, timeout_s=self._call.timeout_s)


class Unit:
    """What systemd says about one unit."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values = values

    @property
    def exists(self) -> bool:
        """A unit file, or something that stands for one, was found."""
        return self.values.get("LoadState") not in ("not-found", "", None)

    @property
    def masked(self) -> bool:
        """It can be started by nobody."""
        return self.values.get("LoadState") == "masked" or self._file.startswith("masked")

    @property
    def runs(self) -> bool:
        """It is active, or on the way there for the first time."""
        if self.values.get("SubState") == "auto-restart":
            return False
        return self.values.get("ActiveState") in ("active", "activating", "reloading")

    @property
    def stopped(self) -> bool:
        """It does nothing, and nothing is on the way."""
        return self.values.get("ActiveState") in ("inactive", "failed")

    @property
    def ran(self) -> bool:
        """It is a one-shot unit that ended well: started, and not active any more."""
        return self.values.get("Type") == "oneshot" and self.values.get("Result") == "success"

    def enabled_as(self, wanted: bool) -> bool:
        """Say whether it starts at boot as wanted; units that cannot be enabled are always right."""
        return self._file in _FIXED or (self._file in _ENABLED) == wanted

    @property
    def state(self) -> str:
        """In one word or two: "active", "activating (auto-restart)"."""
        active, sub = self.values.get("ActiveState", "unknown"), self.values.get("SubState", "")
        return "%s (%s)" % (active, sub) if sub not in ("running", "dead", active) else active

    @property
    def _file(self) -> str:
        return self.values.get("UnitFileState", "")
