"""The module `ping`."""

from __future__ import annotations

from gpuprov.agent.modules.base import Action, ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC: dict[str, Any] = {
    "summary": "Answer: the host was reached and runs tasks.",
    "args": {"data": {"type": "str", "default": "pong", "doc": 'What is answered; "crash" fails.'}},
    "returns": {"ping": "The answer."},
}


class Ping(Action):
    """An answer."""

    reads = True

    def run(self) -> dict[str, Any]:
        """Return data."""
        if self.args["data"] == "crash":
            raise ModuleError("asked to crash", code="crash")
        return {"changed": False, "ping": self.args["data"]}


MODULE = Ping
