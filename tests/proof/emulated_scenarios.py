"""Runs inside the environment that has torch: parts of the proof on EMULATED GPUs, in small sizes.

    python -m tests.proof.emulated_scenarios MAJOR.MINOR PART ...
    python -m tests.proof.emulated_scenarios planted

Prints one JSON object, part -> its checks; or what the emulation says of planted mistakes.
Started by test_on_emulated_gpu.py.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import traceback
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from gpuprov.proof import registry
from gpuprov.proof.bench import bus, collectives, gemm, hbm, pairs, peers
from gpuprov.proof.bench import device as on
from gpuprov.proof.parts import Context
from gpuprov.proof.training import ddp, finetune, gpt, gpt_train, memory
from tests.proof.training_scenarios import Kept
from tests.support.emulated_cuda import GIB, EmulatedCuda
from tests.support.ranks import ranks

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOISE = on.noise
DEVICES = ["cuda:0", "cuda:1"]
#: Fewer than a proof has: just so many that every check of a line is judged.
EPOCHS = {"linear": 30, "mlp": 2}
SMALL = gpt.TINY.but(bound=0.5)
#: Of the model that is fine-tuned: as many layers as fit into what is free.
BASE = finetune.TINY.but(layers=1, steps=16, bound=0.95)


class Each(Kept):
    """Keeps checks, of each device those of the same name."""

    def check(self, found: dict[str, Any]) -> None:
        twice = found["name"] in self.checks
        super().check(dict(found, name=f"{found['name']} of {found['device']}") if twice else found)


@contextlib.contextmanager
def small() -> Iterator[None]:
    """Make everything small that has another size on a GPU."""
    with contextlib.ExitStack() as stack:
        for where, name, value in (
            (on, "uses", lambda *_: 0.05),
            (gemm, "SIZE", 256),
            (gemm, "WEAK_FP64_SIZE", 128),
            (bus, "SIZE", 1 << 22),
            (peers, "SIZE", 1 << 20),
            (hbm, "COPIED", 1 << 22),
            (hbm, "CHUNK", 1 << 20),
            (collectives, "LARGEST", 4 << 20),
            (collectives, "SMALLEST", 1 << 20),
            (collectives, "PROBE", 1 << 20),
            (collectives, "SWEEP", (1 << 18,)),
            (pairs, "SIZE", 1 << 20),
            (ddp, "LARGE", ddp.TINY),
            (gpt, "LARGE", SMALL),
            (gpt, "SMALLER", SMALL),
            (gpt, "NEEDED", 0),
            (finetune, "WIDE", BASE),
            (finetune, "NARROW", BASE),
            (finetune, "RATES", {"lora": BASE.rate * BASE.width, "full": BASE.rate * BASE.width}),
        ):
            stack.enter_context(mock.patch.object(where, name, value))
        yield


def planned(name: str, capability: tuple[int, int]) -> int:
    """Return the bytes that the fine-tune *name* plans for as few layers as it takes, 0 for other parts."""
    kind = name.partition(".")[2]
    half = capability >= (8, 0)
    return memory.plan(kind, BASE.but(layers=finetune.LEAST_LAYERS), half).total if name.startswith("finetune") else 0


def free_bytes(name: str, its: int) -> int:
    """Return how much memory a GPU is to have for the part *name*, which plans *its* bytes."""
    if its:
        return int(its / memory.FILLED) + (1 << 12)
    return hbm.SPARED + (4 << 20) if name == "hbm.patterns" else 64 * GIB


def run(part: Any, capability: tuple[int, int]) -> dict[str, Any]:
    """Run a part on the second of two devices, or, when it is one of a group, in a rank for each."""
    if part.where == "group":
        return dict(ranks(len(DEVICES), lambda its: _run(part, capability, its.rank, its.rendezvous), "nightly"))
    return _run(part, capability, 1, "")


def _run(part: Any, capability: tuple[int, int], rank: int, rendezvous: str) -> dict[str, Any]:
    its = planned(part.name, capability)
    with tempfile.TemporaryDirectory() as scratch:
        context = _context(rank, rendezvous, scratch, EPOCHS.get(part.name))
        with EmulatedCuda(len(DEVICES), capability, free_bytes(part.name, its)) as cuda:
            cuda.peak_bytes = its
            return _checks(part, context)


def _context(rank: int, rendezvous: str, scratch: str, epochs: int | None = None) -> Context:
    options = {"folder": "", "epochs": epochs, "drawn": False}
    there = {"device": DEVICES[rank], "devices": DEVICES, "rank": rank, "world": len(DEVICES)}
    return Context("nightly", **there, rendezvous=rendezvous, scratch=scratch, options=options)


def _checks(part: Any, context: Context) -> dict[str, Any]:
    report = Each()
    try:
        part.run(context, report)
    except Exception:
        report.checks["broken"] = {"verdict": "fail", "reason": traceback.format_exc()}
    return report.checks


def planted() -> dict[str, str]:
    """Return what is said of mistakes that a real GPU would not forgive."""

    def forgets_to_send(self: Any, step: int) -> None:
        self._next = self.host[step]

    def forgets_the_device(rows: int, columns: int, form: str, device: str, seed: int, salt: int) -> Any:
        return _NOISE(rows, columns, form, "cpu" if salt == 2 else device, seed, salt)

    part = {part.name: part for part in registry.parts()}
    found = {}
    for name, where, what, mistake in (
        ("gpt", gpt_train.Batches, "_send", forgets_to_send),
        ("gemm.fp32", on, "noise", forgets_the_device),
        ("launch", on, "wait", lambda device: torch.cuda.synchronise(device)),
        ("d2h", on, "wait", lambda device: torch.cuda.synchronize("cuda:2")),
    ):
        with mock.patch.object(where, what, mistake):
            found[name] = run(part[name], (9, 0))["broken"]["reason"].splitlines()[-1]
    return found


def main(capability: str, *names: str) -> None:
    if capability == "planted":
        with small():
            print(json.dumps(planted()))
        return
    major, _, minor = capability.partition(".")
    with small():
        parts = [part for part in registry.parts() if part.name in names]
        print(json.dumps({part.name: run(part, (int(major), int(minor))) for part in parts}))


if __name__ == "__main__":
    main(*sys.argv[1:])
