"""What was deferred, rendered on the host: arguments, conditions, loops. Problems become outcomes."""

from __future__ import annotations

from gpuprov.agent.masking import MASK
from gpuprov.agent.modules.base import ModuleError, NeedsEarlierChange

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gpuprov.agent.context import Context


class Rendering:
    """Renders what a task's node holds. Raises ModuleError and, in check mode, NeedsEarlierChange."""

    def __init__(self, context: Context, check: bool) -> None:
        self._context = context
        self._check = check

    def arguments(self, node: dict[str, Any], variables: dict[str, Any], args: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of one pass, rendered."""
        if args.get("_text"):
            rest = {key: value for key, value in args.items() if key not in ("_text", "content")}
            rendered: dict[str, Any] = self.value(node, variables, rest)
            rendered["content"] = self._use(node, variables, lambda renderer: renderer.text(args["content"]))
        elif node["action"] == "assert":  # its expressions are evaluated one by one
            rest = {key: value for key, value in args.items() if key != "that"}
            rendered = {**self.value(node, variables, rest), "that": args.get("that", [])}
        else:
            rendered = self.value(node, variables, args)
        if self._context.masked and _masked(rendered) and not _masked(args):
            raise ModuleError(
                "a value for this task held a secret, of which the journal has only a mask",
                "start a new run: results with secrets are not kept over a restart of the run",
                code="secrets-missing",
            )
        return rendered

    def value(self, node: dict[str, Any], variables: dict[str, Any], value: Any) -> Any:
        """Return any value with its templates rendered."""
        return self._use(node, variables, lambda renderer: renderer.render(value))

    def test(self, node: dict[str, Any], variables: dict[str, Any], condition: Any) -> bool:
        """Say whether a condition, or every one of a list, holds."""
        if isinstance(condition, bool):
            return condition
        if isinstance(condition, list):
            return all(self.test(node, variables, one) for one in condition)
        return bool(self._use(node, variables, lambda renderer: renderer.test(condition)))

    def _use(self, node: dict[str, Any], variables: dict[str, Any], use: Callable[[Any], Any]) -> Any:
        renderer = self._context.renderer(node.get("vars"), variables)
        from gpuprov.templating.problem import TemplateProblem

        try:
            return use(renderer)
        except TemplateProblem as problem:
            if self._check and problem.code == "undefined":
                raise NeedsEarlierChange("check mode: %s, since an earlier task was not run" % problem) from None
            hint = ""
            if problem.code == "undefined" and self._context.forgotten:
                names = ", ".join(sorted(self._context.forgotten))
                hint = "results of tasks with no_log are not kept over a restart of the run: %s" % names
            message = "%s (%s)" % (problem, node.get("position", ""))
            code = "undefined" if problem.code == "undefined" else "template"
            raise ModuleError(message, hint, code=code) from None


def _masked(value: Any) -> bool:
    if isinstance(value, str):
        return MASK in value
    if isinstance(value, dict):
        return any(_masked(one) for pair in value.items() for one in pair)
    return isinstance(value, (list, tuple)) and any(_masked(one) for one in value)
