"""The module `set_fact`."""

from __future__ import annotations

import re

from gpuprov.agent.modules.base import Action, ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC: dict[str, Any] = {
    "summary": "Define variables of this host for the rest of the run: any name and value.",
    "free_form": "_raw_params",
    "args": {},
    "any_name": True,
    "unsupported": {"cacheable": "facts are gathered at the start of every run, there is no fact cache"},
    "returns": {"ansible_facts": "The variables."},
}
_NAME = re.compile(r"^[A-Za-z_]\w*$", re.ASCII)


class SetFact(Action):
    """Variables, rendered already."""

    reads = True

    def run(self) -> dict[str, Any]:
        """Return the variables. Raises ModuleError for a name that no template could use."""
        for name in self.args:
            if not _NAME.match(name):
                raise ModuleError("%r is no variable name" % name, "letters, digits and _, no digit first")
        if not self.args:
            raise ModuleError("set_fact needs at least one name and value")
        return {"changed": False, "ansible_facts": dict(self.args)}


MODULE = SetFact
