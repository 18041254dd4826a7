"""The module `service`: services by systemd, or by init scripts where there is none."""

from __future__ import annotations

from gpuprov.agent.modules.base import Change, State
from gpuprov.agent.modules.systemctl import running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.modules.base import Call

SPEC: dict[str, Any] = {
    "summary": "Services: running or not, enabled or not.",
    "args": {
        "name": {"type": "str", "required": True, "doc": "The service."},
        "state": {
            "type": "str",
            "choices": ["reloaded", "restarted", "started", "stopped"],
            "doc": "restarted and reloaded act every time, and start what is stopped.",
        },
        "enabled": {"type": "bool", "doc": "Whether it starts at boot."},
        "sleep": {"type": "int", "doc": "Init scripts: seconds between stop and start of a restart."},
        "arguments": {"type": "str", "default": "", "aliases": ["args"], "doc": "Init scripts: further words."},
        "use": {"type": "str", "default": "auto", "doc": "Accepted; systemd where it runs, else init scripts."},
        # the systemd module takes these, and playbooks give them to service, too
        "daemon_reload": {"type": "bool", "default": False, "doc": "systemd: read unit files first."},
    },
    "one_of": [["state", "enabled"]],
    "unsupported": {
        "pattern": "processes are not searched by name; the init system is asked",
        "runlevel": "it is for OpenRC",
    },
    "returns": {
        "name": "The service.",
        "state": "started or stopped, as asked for.",
        "enabled": "As asked for.",
        "status": "systemd: all properties of the unit (when registered).",
    },
}


class Service(State):
    """One service, by whichever init system the host has."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        if running():
            from gpuprov.agent.modules.systemd import Systemd

            call.args = {"scope": "system", "force": False, "no_block": False, "daemon_reexec": False, **self.args}
            self._inner: State = Systemd(call)
        else:
            from gpuprov.agent.modules.sysv import SysV

            self._inner = SysV(call)

    def probe(self) -> Change:
        """Ask the init system."""
        return self._inner.probe()

    def converge(self, change: Change) -> None:
        """Let the init system do it."""
        self._inner.converge(change)


MODULE = Service
