"""The module `wait_for`: until a port answers, a path is there, or time has passed."""

from __future__ import annotations

import os
import re
import time

from gpuprov.agent.modules import attributes
from gpuprov.agent.modules.base import Action, ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC: dict[str, Any] = {
    "summary": "Wait until a port answers or a path exists, or for some seconds.",
    "args": {
        "host": {"type": "str", "default": "127.0.0.1", "doc": "Host of the port, as seen from this host."},
        "port": {"type": "int", "doc": "TCP port."},
        "path": {"type": "path", "doc": "A path."},
        "search_regex": {"type": "str", "doc": "Pattern that the file, or what the port says, must match."},
        "state": {
            "type": "str",
            "choices": ["absent", "present", "started", "stopped"],
            "default": "started",
            "doc": "started, present: until it is there; stopped, absent: until it is gone.",
        },
        "timeout": {"type": "int", "default": 300, "doc": "Seconds to wait; without port and path: how long."},
        "delay": {"type": "int", "default": 0, "doc": "Seconds before the first look."},
        "sleep": {"type": "int", "default": 1, "doc": "Seconds between looks."},
        "connect_timeout": {"type": "int", "default": 5, "doc": "Seconds for one connection."},
        "msg": {"type": "str", "doc": "What is said when the time is over."},
    },
    "exclusive": [["path", "port"]],
    "unsupported": {
        "exclude_hosts": "draining is not watched",
        "active_connection_states": "draining is not watched",
    },
    "returns": {"elapsed": "Seconds waited.", "match_groups": "Groups of search_regex."},
}


class WaitFor(Action):
    """Something that comes or goes by itself."""

    _groups: tuple[Any, ...] = ()

    def run(self) -> dict[str, Any]:
        """Look again and again. Raises ModuleError when the time is over."""
        started = time.monotonic()
        time.sleep(self.args["delay"])
        if self.args.get("port") is None and not self.args.get("path"):
            time.sleep(max(0.0, self.args["timeout"] - (time.monotonic() - started)))
            return {"changed": False, "elapsed": self.args["timeout"]}
        gone = self.args["state"] in ("absent", "stopped")
        while self._is_there() == gone:
            elapsed = time.monotonic() - started
            if elapsed >= self.args["timeout"]:
                what = "is still there" if gone else "did not come"
                message = self.args.get("msg") or "%s %s in %d s" % (self._name(), what, self.args["timeout"])
                raise ModuleError(message, code="timeout", elapsed=int(elapsed))
            time.sleep(min(self.args["sleep"], max(0.05, self.args["timeout"] - elapsed)))
        result = {"changed": False, "elapsed": int(time.monotonic() - started), "state": self.args["state"]}
        return {**result, "match_groups": list(self._groups)}

    def _name(self) -> str:
        return str(self.args.get("path") or "port %s of %s" % (self.args["port"], self.args["host"]))

    def _is_there(self) -> bool:
        return self._path_is_there() if self.args.get("path") else self._port_answers()

    def _path_is_there(self) -> bool:
        path = attributes.path(self.args["path"])
        if not os.path.exists(path):
            return False
        return self._matches(self.system.read(path)) if self.args.get("search_regex") else True

    def _port_answers(self) -> bool:
        import socket

        address = (self.args["host"], self.args["port"])
        try:
            with socket.create_connection(address, timeout=self.args["connect_timeout"]) as connection:
                if not self.args.get("search_regex"):
                    return True
                return self._hears(connection)
        except OSError:
            return False

    def _hears(self, connection: Any) -> bool:
        data, deadline = b"", time.monotonic() + self.args["connect_timeout"]
        while time.monotonic() < deadline and len(data) < 1 << 20:
            piece = connection.recv(4096)
            data += piece
            if self._matches(data):
                return True
            if not piece:
                return False
        return False

    def _matches(self, data: bytes) -> bool:
        match = re.search(self.args["search_regex"].encode(), data, re.MULTILINE)
        if match:
            self._groups = tuple((group or b"").decode("utf-8", "replace") for group in match.groups())
        return match is not None


MODULE = WaitFor
