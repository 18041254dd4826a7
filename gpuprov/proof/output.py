"""What a run of the proof writes to stdout: text for a person, or JSON lines.

JSON lines, one object each, by "kind" (docs/proof.md): versions, text, epoch, check, then done or error.
"""

from __future__ import annotations

import json
import sys

from gpuprov.proof.check import UNHEALTHY, VERDICTS, finite, worst

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.check import Message


class Output:
    """Writes messages as they come and remembers the verdicts.

    error is True after an "error"; simulated is to be set when the GPUs are doubles.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._verdicts: list[str] = []
        self.error = False
        self.simulated = False

    def message(self, message: Message) -> None:
        """Write one message at once."""
        if message["kind"] == "check":
            self._verdicts.append(message["verdict"])
        self.error = self.error or message["kind"] == "error"
        if self._as_json:
            self._line(json.dumps(finite(message), allow_nan=False))
        else:
            text = _as_text(message)
            if text:
                self._line(text)

    def done(self, duration_s: float, tier: str = "", budget_s: float | None = None) -> bool:
        """Write the last message, and say whether the host is healthy."""
        verdict = worst(self._verdicts)
        counts = {v: self._verdicts.count(v) for v in VERDICTS if v in self._verdicts}
        checks = len(self._verdicts)
        message: Message = {"kind": "done", "verdict": verdict, "checks": checks, "counts": counts}
        message.update(duration_s=round(duration_s, 3), tier=tier, budget_s=budget_s, simulated=self.simulated)
        self.message(message)
        return verdict not in UNHEALTHY

    def _line(self, text: str) -> None:
        print(text, file=sys.stdout, flush=True)  # noqa: T201 - this is the program's output


def _as_text(message: Message) -> str:
    """Return what a person reads of *message*, "" for nothing. Pure."""
    kind = message["kind"]
    if kind == "text":
        return str(message["text"])
    if kind == "versions":
        return _versions(message)
    if kind == "check":
        return _check(message)
    if kind == "done":
        return _done(message)
    if kind == "error":
        return f"error[{message['code']}]: {message['message']}\nhint: {message['hint']}"
    return ""


def _done(message: Message) -> str:
    counts = ", ".join(f"{n} {verdict}" for verdict, n in message["counts"].items()) or "no checks"
    ran = sum(n for verdict, n in message["counts"].items() if verdict not in ("skip", "unknown"))
    text = f"{ran} of {message['checks']} checks ran\n"
    text += f"verdict: {message['verdict']} ({counts}) after {message['duration_s']:.1f} s"
    if message["budget_s"]:
        text += f", of the {message['budget_s']:g} s that the tier {message['tier']} may take"
    return text + ("\nSIMULATED GPUs: nothing here is about real ones" if message["simulated"] else "")


def _versions(message: Message) -> str:
    cuda = f"CUDA {message['cuda']}" if message["cuda"] else "no CUDA"
    words = ["Python " + message["python"], "torch " + message["torch"], cuda]
    words += [f"{key} {message[key]}" for key in ("cudnn", "nccl", "driver") if message[key]]
    devices = [f"cuda:{device['index']} {device['name']}" for device in message["devices"]]
    return "\n".join([", ".join(words), *devices])


def _check(message: Message) -> str:
    device = " on " + message["device"] if message["device"] else ""
    text = f"{message['verdict']:7} {message['name']}{device}: {message['reason']}"
    if isinstance(message["measured"], float):
        unit = " " + message["unit"] if message["unit"] else ""
        text += f" (measured {message['measured']:.2g}{unit}, expected {message['expected']})"
    return text
