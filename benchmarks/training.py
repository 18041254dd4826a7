#!/usr/bin/env python3
"""Corrupt the trainings of the proof at random places, and train healthy seeds: what is caught, and what is accused?

    PYTHON -m benchmarks.training [PART ...] [--first 1000] [--seeds 1000] [--trials 50] [--budget S] [--json FILE]

PYTHON is an interpreter that has torch (`python -m tests.support.torch_env` prints one); everything runs on one core of
the CPU, in the sizes that the proof has for CPUs. A corruption is tried with another seed, step and place each time.
After --budget seconds a part's healthy seeds end, and the table says how many there were. Prints two Markdown tables.
"""

from __future__ import annotations

import argparse
import collections
import functools
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gpuprov.proof.bench import together
from gpuprov.proof.parts import Context
from gpuprov.proof.training import batchnorm, ddp, ddp_train, device, finetune, gpt, gpt_train, norm, prove
from tests.proof.training_scenarios import CPU, Kept, in_ranks, of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    #: Gets (step, model) between the backward pass and the optimiser's step.
    Tamper = Callable[[int, Any], None]
    #: Returns the names of the checks that a training with this seed and corruption has not passed.
    Train = Callable[[int, Tamper | None], list[str]]

#: By class of position in a float32.
BITS = {"sign": 31, "top exponent": 30, "lowest exponent": 23, "top mantissa": 22, "middle mantissa": 11, "last": 0}
SPIKE = 10.0


# -- corruption ------------------------------------------------------------------------------------------------------


def flipped(tensor: Any, place: int, bit: int) -> None:
    """Flip one bit of one float32 number of *tensor*."""
    tensor.view(torch.int32).view(-1)[place] ^= -(1 << 31) if bit == 31 else 1 << bit


def at_random(rng: random.Random, steps: int, spoil: Callable[[Any, int], None]) -> Tamper:
    """Return what calls spoil(parameter, place) in one step, at one place of the model, each number as likely."""
    when, where = rng.randrange(steps), rng.random()

    def tamper(step: int, model: Any) -> None:
        if step != when:
            return
        parameters = [p for p in model.parameters() if p.requires_grad]
        place = int(where * sum(p.numel() for p in parameters))
        for parameter in parameters:
            if place < parameter.numel():
                spoil(parameter, place)
                return
            place -= parameter.numel()

    return tamper


def spiked(parameter: Any, place: int) -> None:
    parameter.grad.view(-1)[place] += SPIKE


def bit_of_a_weight(bit: int) -> Callable[[Any, int], None]:
    return lambda parameter, place: flipped(parameter.data, place, bit)


def bit_of_a_gradient(parameter: Any, place: int) -> None:
    flipped(parameter.grad, place, 0)


#: What is done to a training of one process.
USUAL: dict[str, Callable[[Any, int], None]] = {
    f"a gradient spiked once by {SPIKE:g}": spiked,
    **{f"a bit of a weight flipped once: {kind}": bit_of_a_weight(bit) for kind, bit in BITS.items()},
    "the last bit of a gradient flipped once": bit_of_a_gradient,
}


# -- parts -----------------------------------------------------------------------------------------------------------


def known(name: str, epochs: int) -> Train:
    """Return the training of linear or mlp: as prove.prove does it, but for the weights' file and the canaries."""

    @functools.cache
    def healthy(seed: int) -> Any:
        task, yardstick = prove.chosen(name, seed, epochs)
        return task, yardstick, device.train(task, "cpu")[0]

    def train(seed: int, tamper: Tamper | None) -> list[str]:
        report = Kept()
        task, yardstick, second = healthy(seed)
        trace, _ = device.train(task, "cpu", list(yardstick.after), tamper=tamper)
        prove._judge_training(task, "cpu", report, trace, yardstick, drawn=tamper is None)
        report.check(prove._deterministic(task, "cpu", trace, second))
        if tamper is None:
            prove._judge_gradients(task, "cpu", report)
        return list(report.bad())

    return train


def normalised(seed: int, tamper: Tamper | None) -> list[str]:
    task = norm.NormTask(seed)
    network, losses = norm.trained(task)
    found = batchnorm.judged("cpu", batchnorm.train(task, "cpu", tamper), network, losses, task)
    if tamper is None:
        found += batchnorm.gradients(task, "cpu")
    return [check["name"] for check in found if check["verdict"] != "pass"]


def on_cpu(part: Callable[..., None], **named: Any) -> Train:
    def train(seed: int, tamper: Tamper | None) -> list[str]:
        context = Context(CPU.tier, device="cpu", devices=["cpu"], seed=seed)
        return list(of(part, context, tamper=tamper, **named).bad())

    return train


def frozen(rng: random.Random, steps: int) -> Tamper:
    """Return what flips any bit of any frozen number."""
    when, which, where, bit = rng.randrange(steps), rng.random(), rng.random(), rng.randrange(32)

    def tamper(step: int, model: Any) -> None:
        if step == when:
            there = [p for p in model.parameters() if not p.requires_grad]
            parameter = there[int(which * len(there))]
            flipped(parameter.data, int(where * parameter.numel()), bit)

    return tamper


class Part:
    """A part of the proof: how it is trained with a seed, over how many steps, and how it is corrupted."""

    def __init__(self, train: Train, steps: int, corruptions: dict[str, Callable[[random.Random], Tamper]]) -> None:
        self.train, self.steps, self.corruptions = train, steps, corruptions


def usual(steps: int) -> dict[str, Callable[[random.Random], Tamper]]:
    return {name: lambda rng, spoil=spoil: at_random(rng, steps, spoil) for name, spoil in USUAL.items()}


def parts() -> dict[str, Part]:
    """Return the parts of one process."""
    tuned = finetune.TINY.steps
    lora = {"any bit of a frozen weight flipped once": lambda rng: frozen(rng, tuned), **usual(tuned)}
    return {
        "linear": Part(known("linear", 30), 30 * 63, usual(30 * 63)),
        "mlp": Part(known("mlp", 10), 630, usual(630)),
        "batchnorm": Part(normalised, 100, usual(100)),
        "gpt": Part(on_cpu(gpt.learn), gpt.TINY.steps, usual(gpt.TINY.steps)),
        "gpt.deterministic": Part(on_cpu(gpt.repeat), gpt.HASHED_STEPS, usual(gpt.HASHED_STEPS)),
        "finetune.lora": Part(on_cpu(finetune.tune, kind="lora"), tuned, lora),
        "finetune.full": Part(on_cpu(finetune.tune, kind="full"), tuned, usual(tuned)),
    }


# -- two ranks -------------------------------------------------------------------------------------------------------

DDP = ddp.TINY.but(steps=6)


def in_a_rank(rng: random.Random, hook: str, spoil: Callable[[Any, int], None]) -> Callable[[str, int, Any], None]:
    """Return what spoils the model of one rank, after a step's gradients or weights are there."""
    tamper = at_random(rng, DDP.steps, spoil)
    return lambda what, step, it: tamper(step, it) if what == hook else None


def other_data(rng: random.Random) -> Callable[[str, int, Any], None]:
    """Return what changes one of the tokens that a rank learns from in one step."""
    step, place, token = rng.randrange(DDP.steps), rng.random(), 1 + rng.randrange(DDP.vocabulary - 1)

    def spoil(what: str, now: int, it: Any) -> None:  # noqa: ARG001
        if what == "data":
            half = it[step, DDP.batch :].view(-1)
            half[int(place * len(half))] = (half[int(place * len(half))] + token) % DDP.vocabulary

    return spoil


def ddp_corruptions() -> dict[str, Callable[[random.Random], Callable[[str, int, Any], None]]]:
    found = {f"a rank: {name}": ("gradients", spoil) for name, spoil in USUAL.items()}
    return {
        "a rank has one other token": other_data,
        **{name: lambda rng, it=it: in_a_rank(rng, *it) for name, it in found.items()},
    }


def ranks(seeds: range, trials: int, budget_s: float) -> dict[str, Any]:
    """Do all of P3's trainings in two ranks that meet once."""

    def once(context: Context, seed: int, spoil: Any) -> list[str]:
        context.seed = seed
        mine = spoil if context.rank == 1 else None
        run = ddp_train.train(context, DDP, mine)
        found = ddp._found(context, DDP, run, ddp_train.alone(context, DDP), "ddp")
        return [check["name"] for check in found if check["verdict"] != "pass"]

    def work(context: Context) -> Kept:
        report = Kept()
        with together.joined(context), torch.inference_mode(mode=False), gpt_train.modes("cpu"):
            caught = {
                name: tried(lambda seed, spoil: once(context, seed, spoil), make, name, trials)
                for name, make in ddp_corruptions().items()
            }
            accused, started = {}, time.monotonic()
            for seed in seeds:
                over = torch.tensor(float(time.monotonic() - started > budget_s))
                torch.distributed.broadcast(over, 0)
                if over:
                    break
                accused[seed] = once(context, seed, None)
        if not context.rank:
            report.checks["found"] = {"caught": caught, "accused": accused}
        return report

    found: dict[str, Any] = in_ranks(2, work)["found"]
    return found


# -- the run ---------------------------------------------------------------------------------------------------------


def tried(train: Any, make: Any, name: str, trials: int) -> dict[str, int]:
    """Corrupt *trials* trainings; return how many of them some check caught ("") and each check did."""
    counts: collections.Counter[str] = collections.Counter({"": 0, "of": trials})
    for trial in range(trials):
        caught = train(trial, make(random.Random(f"{name} {trial}")))  # noqa: S311 - reproducible, no secret
        counts.update({"": bool(caught), **dict.fromkeys(caught, 1)})
    return counts


def alone(part: Part, seeds: range, trials: int, budget_s: float) -> dict[str, Any]:
    caught = {name: tried(part.train, make, name, trials) for name, make in part.corruptions.items()}
    started, accused = time.monotonic(), {}
    for seed in seeds:
        if time.monotonic() - started > budget_s:
            break
        accused[seed] = part.train(seed, None)
    return {"caught": caught, "accused": accused}


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the tables."""
    yield "| part | corruption | caught | by |\n|---|---|---|---|"
    for part, it in found.items():
        for name, counts in it["caught"].items():
            by = ", ".join(f"`{check}` {n}" for check, n in sorted(counts.items()) if check not in ("", "of"))
            yield f"| `{part}` | {name} | {counts['']} of {counts['of']} | {by} |"
    yield "\n| part | healthy seeds | accused |\n|---|---|---|"
    for part, it in found.items():
        accused = {seed: names for seed, names in it["accused"].items() if names}
        yield f"| `{part}` | {len(it['accused'])} | {len(accused)}{f' {accused}' if accused else ''} |"


def main() -> int:
    every = parts()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*every, "ddp", []], metavar="PART")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=1000, metavar="SEED")
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--budget", type=float, default=1e9, metavar="S", help="of a part's healthy seeds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything, added to what is there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    file = options.json
    found = json.loads(file.read_text()) if file and file.exists() else {}
    for name in options.parts or [*every, "ddp"]:
        seeds = range(options.first, options.first + options.seeds)
        how = seeds, options.trials, options.budget
        found[name] = ranks(*how) if name == "ddp" else alone(every[name], *how)
        if file:
            file.write_text(json.dumps(found))
    print(f"torch {torch.__version__}, {os.uname().machine}\n", *lines(found), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
