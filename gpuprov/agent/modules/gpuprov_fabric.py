"""The module `gpuprov_fabric`: this host's part in a proof over several hosts (docs/fabric.md).

As with `gpuprov_proof` the task fails only when the proof could not run; what it found is in its checks.
"""

from __future__ import annotations

import json
import os

from gpuprov.agent.modules.base import Action, ModuleError
from gpuprov.agent.modules.gpuprov_proof import CODE, PATIENCE_S, RAN, Heard, could_not_run

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
        heard = Heard(self.call.output)
        folder = self.call.proof_dir
        if not folder or not os.access(os.path.join(folder, "gpuprov", "proof", "fabric"), os.R_OK | os.X_OK):
            message = "this user cannot read the proof's sources in %r" % folder
            raise ModuleError(message, "run this task as the user of the connection or as root", code=CODE)
        python = os.path.expanduser(self.args.get("python") or os.path.join(self.args["virtualenv"], "bin", "python"))
        plan = {**self.args["plan"], "deadline_s": self.args["deadline_s"]}
        limits = [self.args["deadline_s"] + PATIENCE_S, self.call.timeout_s or float("inf")]
        try:
            done = self.system.run(
                [python, "-m", "gpuprov.proof.fabric", "--json"],
                dict(self.call.env, PYTHONPATH=folder),
                folder,
                json.dumps(plan).encode("ascii"),  # not on the command line: others read that, and a token is in it
                min(limits),
                heard.line,
            )
        except OSError as error:
            hint = "the torch role makes this environment: was it run?"
            raise ModuleError("%s: %s" % (python, error.strerror), hint, code=CODE) from None
        if done.rc not in RAN or done.timed_out or not heard.complete:
            raise could_not_run(done, heard)
        return dict(heard.result(), changed=False, rc=done.rc)


MODULE = Fabric
