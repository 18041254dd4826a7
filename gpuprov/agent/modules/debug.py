"""The module `debug`."""

from __future__ import annotations

from gpuprov.agent.modules.base import Action

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC: dict[str, Any] = {
    "summary": "Show a message or a variable.",
    "args": {
        "msg": {"type": "raw", "doc": "What is shown. Default: Hello world!"},
        "var": {"type": "str", "doc": "Variable or expression, without braces, whose value is shown."},
        "verbosity": {"type": "int", "default": 0, "doc": "Shown only with at least as many -v."},
    },
    "exclusive": [["msg", "var"]],
    "internal": ["_value"],
    "returns": {"msg": "What is shown, when msg is given."},
}


class Debug(Action):
    """A message, rendered already; `_value` is what var stands for."""

    reads = True

    def run(self) -> dict[str, Any]:
        """Return the message, or the value under the variable's name."""
        if self.args.get("var") is not None:
            return {"changed": False, self.args["var"]: self.args.get("_value", self.args["var"])}
        message = self.args.get("msg")
        return {"changed": False, "msg": "Hello world!" if message is None else message}


MODULE = Debug
