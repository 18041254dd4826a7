"""The module `gpuprov_fabric`: this host's part in a proof over several hosts (docs/fabric.md).

As with `gpuprov_proof` the task fails only when the proof could not run; what it found is in its checks.
"""

from __future__ import annotations

import json
import os

from gpuprov.agent.modules.base import Action
from gpuprov.agent.modules.gpuprov_proof import run_proof

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC: dict[str, Any] = {
    "summary": "Take part in a proof over several hosts: collectives and data-parallel training, started together.",
    "args": {
        "virtualenv": {"type": "path", "doc": "The environment that has torch; its bin/python is used."},
        "python": {"type": "path", "doc": "The interpreter that has torch, instead of virtualenv."},
        "plan": {
            "type": "dict",
            "required": True,
            "doc": "Who takes part, where the hub is, and what is measured: docs/fabric.md. `gpuprov verify` makes it.",
        },
        "deadline_s": {"type": "float", "default": 600.0, "doc": "Kill what still runs after this."},
    },
    "exclusive": [["virtualenv", "python"]],
    "one_of": [["virtualenv", "python"]],
    "returns": {
        "verdict": "The worst verdict of all checks: pass, skip, warn, unknown or fail.",
        "counts": "How many checks have each verdict.",
        "checks": "All checks: name, verdict, measured, expected, unit, reason, device, action, data.",
    },
}


class Fabric(Action):
    """One host's part in one run."""

    def run(self) -> dict[str, Any]:
        """Take part. Raises ModuleError when the proof could not run to its end."""
        python = os.path.expanduser(self.args.get("python") or os.path.join(self.args["virtualenv"], "bin", "python"))
        plan = {**self.args["plan"], "deadline_s": self.args["deadline_s"]}
        # not on the command line: others read that, and a token is in it
        stdin = json.dumps(plan).encode("ascii")
        return run_proof(self, [python, "-m", "gpuprov.proof.fabric", "--json"], self.args["deadline_s"], stdin)


MODULE = Fabric
