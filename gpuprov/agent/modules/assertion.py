"""The module `assert`: conditions that must hold."""

from __future__ import annotations

from gpuprov.agent.modules.base import Action, ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC: dict[str, Any] = {
    "summary": "Conditions that must hold, or the task fails.",
    "args": {
        "that": {"type": "raw", "required": True, "doc": "One Jinja2 expression without braces, or a list of them."},
        "fail_msg": {"type": "raw", "aliases": ["msg"], "doc": "What is said when one does not hold."},
        "success_msg": {"type": "raw", "doc": "What is said when all hold."},
        "quiet": {"type": "bool", "default": False, "doc": "Do not return the expressions."},
    },
    "internal": ["_decided"],
    "returns": {
        "assertion": "The first expression that does not hold.",
        "evaluated_to": "false, when one does not hold.",
        "msg": "What was said.",
    },
}


class Assert(Action):
    """Conditions, some of them decided by the controller already."""

    reads = True

    def run(self) -> dict[str, Any]:
        """Evaluate one expression after the other. Raises ModuleError at the first that does not hold."""
        that = self.args["that"]
        for expression in that if isinstance(that, list) else [that]:
            if not self._holds(expression):
                said = _text(self.args.get("fail_msg")) or "assertion failed: %s" % expression
                keys = {"assertion": expression, "evaluated_to": False}
                raise ModuleError(said, code="assertion", **({} if self.args["quiet"] else keys))
        return {"changed": False, "msg": _text(self.args.get("success_msg")) or "All assertions passed"}

    def _holds(self, expression: Any) -> bool:
        if isinstance(expression, bool):
            return expression
        decided: dict[str, bool] = self.args.get("_decided") or {}
        if expression in decided:
            return decided[expression]
        if self.call.evaluate is None:
            raise ModuleError("%s cannot be decided on the host" % expression, code="assertion")
        return self.call.evaluate(str(expression))


def _text(message: Any) -> str:
    return "\n".join(str(line) for line in message) if isinstance(message, list) else str(message or "")


MODULE = Assert
