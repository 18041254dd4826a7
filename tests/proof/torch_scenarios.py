"""Runs inside the environment that has torch: trainings spoiled on purpose, and healthy ones.

    python -m tests.proof.torch_scenarios spoiled
    python -m tests.proof.torch_scenarios seeds FIRST LAST

Prints one JSON object. Started by test_training.py.
"""

from __future__ import annotations

import json
import struct
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gpuprov.proof import worker
from gpuprov.proof.training import device, judge, prove
from gpuprov.proof.training.data import linear_task

if TYPE_CHECKING:
    from collections.abc import Callable


class Kept:
    """A report that keeps checks."""

    def __init__(self) -> None:
        self.checks: dict[str, Any] = {}

    def stage(self, text: str) -> None:
        pass

    text = stage

    def epoch(self, *given: Any) -> None:
        pass

    def check(self, found: dict[str, Any]) -> None:
        self.checks[found["name"]] = found


def spike(at: int) -> Callable[[int, Any], None]:
    def tamper(step: int, model: Any) -> None:
        if step == at:
            next(model.parameters()).grad[0, 0] += 10.0

    return tamper


def flip(at: int, bit: int) -> Callable[[int, Any], None]:
    """Flip one bit of the first weight at one step, as a cosmic ray would."""

    def tamper(step: int, model: Any) -> None:
        if step == at:
            weight = next(model.parameters()).data
            (number,) = struct.unpack("<I", struct.pack("<f", weight[0, 0].item()))
            (value,) = struct.unpack("<f", struct.pack("<I", number ^ (1 << bit)))
            weight[0, 0] = value

    return tamper


def failed(name: str, tamper: Callable[[int, Any], None] | None) -> list[str]:
    """Return the names of the checks that fail in a proof whose first training is spoiled."""
    report = Kept()
    with tempfile.TemporaryDirectory() as folder:
        prove.prove(name, "cpu", report, folder, seed=7, epochs=30 if name == "linear" else None, tamper=tamper)
    return [name for name, found in report.checks.items() if found["verdict"] != "pass"]


def faults() -> dict[str, list[str]]:
    return {
        "linear": failed("linear", None),
        "mlp": failed("mlp", None),
        "linear, gradient spiked at step 100": failed("linear", spike(100)),
        "linear, exponent bit flipped at step 1000": failed("linear", flip(1000, 27)),
        "linear, high mantissa bit flipped at step 1000": failed("linear", flip(1000, 20)),
        "linear, lowest mantissa bit flipped at step 1850": failed("linear", flip(1850, 0)),
        "mlp, gradient spiked at step 100": failed("mlp", spike(100)),
        "mlp, high mantissa bit flipped at step 300": failed("mlp", flip(300, 20)),
        "mlp, low mantissa bit flipped at step 300": failed("mlp", flip(300, 3)),
        "linear, another initial weight": failed("linear", flip(0, 22)),
    }


def seeds(first: int, last: int) -> dict[str, list[str]]:
    """Return what is not a pass for each seed whose healthy trainings are judged as drawn at random."""
    found = {}
    for seed in range(first, last):
        report = Kept()
        for name, epochs in (("linear", 30), ("mlp", 10)):
            task, yardstick = prove.chosen(name, seed, epochs)
            trace, _ = device.train(task, "cpu", list(yardstick.after))
            prove._judge_training(task, "cpu", report, trace, yardstick, True)
            prove._judge_gradients(task, "cpu", report)
        assert len(report.checks) == 15, sorted(report.checks)
        found[str(seed)] = [name for name, check in report.checks.items() if check["verdict"] != "pass"]
    return found


def several() -> dict[str, Any]:
    """Do the part of the second of two devices: its lines have a prefix, its weights their own folder."""
    messages: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        job = worker.Job(tests=("linear",), folder=folder, scratch=folder, seed=7, epochs=1)
        context = job.context(device="cpu", devices=["cpu", "cpu"])
        (part,) = job.parts()
        worker.run_parts([part], context, worker.Report(messages.append, "cpu", "cpu: "))
        files = sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*.pth"))
    return {"files": files, "texts": [m["text"] for m in messages if m["kind"] == "text"]}


def broken() -> dict[str, Any]:
    """Have torch itself raise in the middle of a training, as a device with a fault does."""
    found = {}
    for name, error in (
        ("launch", RuntimeError("CUDA error: unspecified launch failure")),
        ("memory", torch.cuda.OutOfMemoryError("CUDA out of memory")),
    ):
        messages: list[dict[str, Any]] = []
        right = torch.optim.SGD.step

        def step(self: Any, error: Exception = error) -> None:
            raise error

        torch.optim.SGD.step = step
        try:
            with tempfile.TemporaryDirectory() as folder:
                job = worker.Job(tests=("linear", "mlp"), folder=folder, scratch=folder, seed=7)
                report = worker.Report(messages.append, "cpu")
                worker.run_parts(job.parts(), job.context(device="cpu", devices=["cpu"]), report)
        finally:
            torch.optim.SGD.step = right
        found[name] = [(m["name"], m["verdict"], m["reason"]) for m in messages if m["kind"] == "check"]
    return found


def blind() -> list[str]:
    """Take the eyes out of the judge of step losses: the canary must notice that it sees nothing."""
    judge.STEP_BOUND = float("inf")
    return failed("linear", None)


def uneven() -> float:
    """Return how far the loss of the last batch is from the epoch's, which the tutorial confused."""
    task = linear_task(7, epochs=1)
    reported = []
    trace, _ = device.train(task, "cpu", on_epoch=lambda epoch, loss: reported.append(loss))
    assert reported == [task.epoch_loss(trace.steps, 0)]
    return abs(trace.steps[-1] - reported[0])


def spoiled() -> dict[str, Any]:
    found = {"faults": faults(), "several": several(), "broken": broken(), "uneven": uneven()}
    return {**found, "blind": blind()}  # last: the judge does not see again


if __name__ == "__main__":
    device.prepare()
    chosen = globals()[sys.argv[1]]
    print(json.dumps(chosen(*map(int, sys.argv[2:]))))
