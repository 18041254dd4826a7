"""What deferred templates see on the host: facts, registered results, and the variables they name."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.system import System


class Context:
    """Variables of one run. The template engine is loaded when something asks for it, not before.

    masked: some results come from the journal, where secrets are masked. forgotten: registered
    names whose results the journal does not have, since their tasks have no_log. source: the zip
    that the template engine was imported from, when there was no byte code of it.
    """

    def __init__(self, plan: dict[str, Any], system: System, context: dict[str, Any]) -> None:
        self.facts: dict[str, Any] = context["facts"]
        self.final: dict[str, Any] = {}
        self.masked = False
        self.forgotten: set[str] = set()
        self.source = ""
        self._templates: dict[str, Any] = plan.get("vars") or {}
        self._system = system
        self._context = context
        self._renderer: Any = None

    def register(self, name: str, result: dict[str, Any]) -> None:
        """Keep *result* under *name* for later tasks."""
        self.final[name] = result
        self.forgotten.discard(name)
        self._renderer = None

    def set_facts(self, values: dict[str, Any]) -> None:
        """Define variables (set_fact) for later tasks."""
        self.final.update(values)
        self._renderer = None

    def refresh(self, facts: dict[str, Any]) -> None:
        """Replace the host's facts (setup, reboot)."""
        self.facts = {**self.facts, **facts}
        self._renderer = None

    def rescued(self, node: dict[str, Any], result: dict[str, Any]) -> None:
        """Define what a rescue part may read about the failure."""
        task = {"name": node["name"], "action": node["action"], "args": node.get("args", {})}
        self.set_facts({"ansible_failed_task": task, "ansible_failed_result": result})

    def renderer(self, templates: dict[str, Any] | None = None, final: dict[str, Any] | None = None) -> Any:
        """Return a templating.Renderer that also knows *templates* and *final*."""
        if self._renderer is None:
            self._renderer = self._engine()(self._templates, {**self._fact_variables(), **self.final})
        if templates or final:
            return self._renderer.child(templates or {}, final or {})
        return self._renderer

    def _fact_variables(self) -> dict[str, Any]:
        names = {key if key.startswith("ansible_") else "ansible_" + key: value for key, value in self.facts.items()}
        names["ansible_facts"] = self.facts
        return names

    def _engine(self) -> Any:
        try:
            from gpuprov.templating.renderer import Renderer
        except ImportError:
            self._load_layer()
            from gpuprov.templating.renderer import Renderer
        return Renderer

    def _load_layer(self) -> None:
        """Make the layer with Jinja2 importable: from byte code that an earlier run left, or from its checked zip."""
        import gpuprov
        from gpuprov.agent.byte_code import run_from

        digest = self._context["layers"]["jinja"]
        path = os.path.join(self._context["home"], "bundle", "jinja-%s.zip" % digest)
        if run_from(path):
            return
        if self._system.sha256(path) != digest:
            os.unlink(path)
            raise OSError(5, "the template layer is damaged and was removed; run again", path)
        self.source = path
        sys.path.insert(0, path)
        gpuprov.__path__.append(os.path.join(path, "gpuprov"))
