"""The module `gpuprov_proof`: run the proof in a provisioned environment and collect its checks.

A tier runs without such an environment, too, by the agent's own Python: what needs torch is then unknown.

The task fails only when the proof could not run. A host that is not healthy is a finding: its
checks say so, and the run ends with exit code 3.
"""

from __future__ import annotations

import json
import os
import sys

from gpuprov.agent.modules.base import Action, ModuleError
from gpuprov.agent.modules.gpuprov_applied import last_stack, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.process import Finished

#: What the proof gets beyond its own deadline, which it keeps itself, before it is killed from outside.
PATIENCE_S = 30.0
#: The proof's exit codes when it ran to its end: healthy, not healthy.
RAN = (0, 3)
#: After what the proof ends by itself when nobody says, by tier (as gpuprov.proof has it).
DEADLINE_S = {"": 300.0, "quick": 60.0, "nightly": 300.0, "weekly": 1200.0, "burnin": 18000.0}
CODE = "proof-could-not-run"

SPEC: dict[str, Any] = {
    "summary": "Prove that this host trains: versions, devices, and two trainings whose every number is known.",
    "args": {
        "virtualenv": {"type": "path", "doc": "The environment that has torch; its bin/python is used."},
        "python": {"type": "path", "doc": "The interpreter that has torch, instead of virtualenv."},
        "tests": {
            "type": "list",
            "doc": "Names of docs/proof.md. Without these and a tier: linear, mlp, versions.",
        },
        "tier": {
            "type": "str",
            "choices": ["quick", "nightly", "weekly", "burnin"],
            "doc": "Everything up to this depth: 10 s, 1 minute, 5 minutes, hours on a host with eight GPUs.",
        },
        "expect": {"type": "dict", "default": {}, "doc": "What has to be found: gpus, mig, ... (docs/proof.md)."},
        "load_busy": {"type": "bool", "default": False, "doc": "Load GPUs that processes use, too."},
        "record": {"type": "bool", "default": False, "doc": "Return all that NVML said, as `reading`."},
        "expect_gpus": {"type": "int", "doc": "Not healthy when torch can use fewer GPUs than this."},
        "device": {"type": "str", "doc": "auto (every GPU, else the CPU; the default), cpu, cuda or cuda:N."},
        "epochs": {"type": "int", "doc": "Instead of 100 (linear) and 10 (mlp)."},
        "seed": {"type": "str", "doc": 'A whole number, or "random". Hashes compare only with the same seed.'},
        "deadline_s": {
            "type": "float",
            "doc": "Kill what still runs after this (300, or by the tier); that is a fail.",
        },
        "out": {"type": "path", "doc": "Keep the trained weights in this folder of the host."},
    },
    "exclusive": [["virtualenv", "python"]],
    "one_of": [["virtualenv", "python"]],
    "returns": {
        "verdict": "The worst verdict of all checks: pass, skip, warn, unknown or fail.",
        "counts": "How many checks have each verdict.",
        "checks": "All checks: name, verdict, measured, expected, unit, reason, device, action, data.",
        "versions": "Versions of Python, torch, CUDA, cuDNN, NCCL and the driver; devices.",
        "tier": "The tier that ran.",
        "budget_s": "What the tier may take on a host with eight GPUs; proof_duration_s is what it took.",
        "simulated": "Whether the GPUs are doubles, of a rehearsal host.",
        "reading": "With record: all that NVML said.",
    },
}


class Proof(Action):
    """One run of the proof."""

    def run(self) -> dict[str, Any]:
        """Run it. Raises ModuleError when it could not run to its end."""
        deadline_s = self.args.get("deadline_s") or DEADLINE_S[self.args.get("tier") or ""]
        return run_proof(self, self._words(), deadline_s)

    def _words(self) -> list[str]:
        args = self.args
        words = [self._python(), "-m", "gpuprov.proof", "--json"]
        for name in ("expect_gpus", "device", "epochs", "seed", "out", "tier"):
            if args.get(name) is not None:
                words.append("--%s=%s" % (name.replace("_", "-"), args[name]))
        if args.get("deadline_s"):
            words.append("--deadline=%s" % args["deadline_s"])
        words += ["--" + name.replace("_", "-") for name in ("load_busy", "record") if args[name]]
        words.append("--expect=" + json.dumps(self._expected()))
        return [*words, "--", *(str(test) for test in args.get("tests") or ())]

    def _python(self) -> str:
        """Return the interpreter: the environment's, or for a tier on a host without one the agent's."""
        python = self.args.get("python") or os.path.join(self.args["virtualenv"], "bin", "python")
        python = os.path.expanduser(python)
        named = self.args.get("tier") or self.args.get("tests")
        if named and not self.args.get("python") and not os.path.exists(python):
            self.call.output("stdout", "there is no %s: what needs torch is not measured" % python)
            return sys.executable
        return python

    def _expected(self) -> dict[str, Any]:
        """Return what has to be found: as asked, and the versions of the stack that was applied here."""
        expected = dict(self.args["expect"])
        if self.args.get("tier") and "versions" not in expected:
            expected["versions"] = versions_of(last_stack(read(self.system)) or {})
        return expected


def run_proof(action: Action, words: list[str], deadline_s: float, stdin: bytes = b"") -> dict[str, Any]:
    """Run *words*, which is a program of the proof, and return what it found.

    It ends itself after deadline_s. Raises ModuleError when it could not run to its end.
    """
    heard, call = Heard(action.call.output), action.call
    folder = call.proof_dir
    if not folder or not os.access(os.path.join(folder, "gpuprov", "proof"), os.R_OK | os.X_OK):
        message = "this user cannot read the proof's sources in %r" % folder
        raise ModuleError(message, "run this task as the user of the connection or as root", code=CODE)
    limit_s = min(deadline_s + PATIENCE_S, call.timeout_s or float("inf"))
    try:
        done = action.system.run(words, dict(call.env, PYTHONPATH=folder), folder, stdin, limit_s, heard.line)
    except OSError as error:
        hint = "the torch role makes this environment: was it run?"
        raise ModuleError("%s: %s" % (words[0], error.strerror), hint, code=CODE) from None
    if done.rc not in RAN or done.timed_out or not heard.complete:
        raise could_not_run(done, heard)
    return dict(heard.result(), changed=False, rc=done.rc)


def versions_of(stack: dict[str, Any]) -> dict[str, str]:
    """Return name -> version of what a running process can be asked for, of a resolved stack. Pure."""
    torch, driver = stack.get("torch") or {}, stack.get("driver") or {}
    found = {"torch": torch.get("version"), "driver": driver.get("version")}
    variant = str(torch.get("variant") or "")
    if variant.startswith("cu") and variant[2:].isdigit():  # cu130 is CUDA 13.0
        found["cuda"] = "%s.%s" % (variant[2:-1], variant[-1])
    return {name: str(version) for name, version in found.items() if version}


class Heard:
    """What the proof has said so far."""

    def __init__(self, output: Any) -> None:
        self._output = output
        self._checks: list[dict[str, Any]] = []
        self._versions: dict[str, Any] = {}
        self._done: dict[str, Any] = {}
        self._pieces: list[str] = []
        self.error: dict[str, Any] = {}

    def line(self, stream: str, text: str) -> None:
        """Take one line of output."""
        try:
            message = json.loads(text) if stream == "stdout" else None
        except ValueError:
            message = None
        if isinstance(message, dict):
            self._message(message)
        else:
            self._output(stream, text)

    def _message(self, message: dict[str, Any]) -> None:
        kind = message.pop("kind", "")
        if kind == "text":
            self._output("stdout", message["text"])
        elif kind == "check":
            self._checks.append(message)
            if message["verdict"] in ("warn", "unknown", "fail"):
                self._output("stdout", "%(verdict)s %(name)s: %(reason)s" % message)
        elif kind == "versions":
            self._versions = message
        elif kind == "reading":
            self._pieces.append(message["text"])
        elif kind == "done":
            self._done = message
        elif kind == "error":
            self.error = message

    @property
    def complete(self) -> bool:
        """Whether the proof came to its end and every check that it gave arrived."""
        return bool(self._done) and self._done["checks"] == len(self._checks)

    def result(self) -> dict[str, Any]:
        """Return what arrived, as return keys."""
        result = {"checks": self._checks, "versions": self._versions}
        if self._done:
            counts = self._done["counts"]
            result.update(verdict=self._done["verdict"], counts=counts, proof_duration_s=self._done["duration_s"])
            result["msg"] = ", ".join("%d %s" % (number, verdict) for verdict, number in counts.items())
            result.update({key: self._done[key] for key in ("tier", "budget_s", "simulated") if self._done.get(key)})
        if self._pieces:
            result["reading"] = json.loads("".join(self._pieces))
        return result


def could_not_run(done: Finished, heard: Heard) -> ModuleError:
    """Return the error of a proof that did not come to its end, with what it had found."""
    if heard.error:
        message, hint = heard.error["message"], heard.error["hint"]
    else:
        last = done.err.strip().splitlines()[-1:]
        message = "the proof could not run to its end: %s%s" % (done.why, "".join(": " + line[:500] for line in last))
        hint = "run it by hand on the host: the environment's python -m gpuprov.proof"
    found = heard.result()
    found.pop("msg", None)
    return ModuleError(message, hint, code=CODE, rc=done.rc, **found)


MODULE = Proof
