"""The module `fail`."""

from __future__ import annotations

from gpuprov.agent.modules.base import Action, ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC: dict[str, Any] = {
    "summary": "Fail, with a message.",
    "args": {"msg": {"type": "str", "default": "Failed as requested from task", "doc": "Why."}},
    "returns": {"msg": "Why."},
}


class Fail(Action):
    """A failure that the playbook asks for."""

    reads = True

    def run(self) -> dict[str, Any]:
        """Raise ModuleError with the message."""
        raise ModuleError(self.args["msg"], code="fail")


MODULE = Fail
