"""Runs inside the environment that has torch: the ladder's trainings, healthy and spoiled on purpose.

    python -m tests.proof.training_scenarios NAME [NUMBER ...]

Prints one JSON object. Started by test_training_*.py.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
import tempfile
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from gpuprov.proof.parts import Context
from gpuprov.proof.training import (
    batchnorm,
    compile_child,
    compiled,
    ddp,
    ddp_train,
    finetune,
    gpt,
    gpt_train,
    lora,
    norm,
    private,
    reference,
    stream,
)
from tests.support.ranks import ranks

if TYPE_CHECKING:
    from collections.abc import Callable

CPU = Context(tier="nightly", device="cpu", devices=["cpu"])


class Kept:
    """A report that keeps checks."""

    def __init__(self) -> None:
        self.checks: dict[str, dict[str, Any]] = {}

    def stage(self, text: str) -> None:
        pass

    text = stage

    def epoch(self, *given: Any) -> None:
        pass

    def check(self, found: dict[str, Any]) -> None:
        assert found["name"] not in self.checks, found["name"]
        self.checks[found["name"]] = found

    def bad(self) -> dict[str, str]:
        """Return what is neither passed nor skipped, with its reason."""
        return {name: c["reason"] for name, c in self.checks.items() if c["verdict"] not in ("pass", "skip")}


def of(part: Callable[..., None], *given: Any, **named: Any) -> Kept:
    report = Kept()
    part(*(given or (CPU,)), report, **named)
    return report


def spike(at: int) -> Callable[[int, Any], None]:
    """One weight's gradient is off by 10 in one step."""

    def tamper(step: int, model: Any) -> None:
        if step == at:
            model.blocks[0].up.weight.grad[3, 5] += 10.0

    return tamper


def flip(at: int, bit: int, weight: bool = True) -> Callable[[int, Any], None]:
    """One bit of one weight (or of its gradient) flips in one step."""

    def tamper(step: int, model: Any) -> None:
        if step == at:
            tensor = model.blocks[1].qkv.weight
            tensor = tensor.data if weight else tensor.grad
            tensor.view(torch.int32)[7, 3] ^= -(1 << 31) if bit == 31 else 1 << bit

    return tamper


#: By class of position in a float32: sign, exponent, mantissa.
BITS = {"sign": 31, "top exponent": 30, "low exponent": 23, "top mantissa": 22, "mid mantissa": 11, "last mantissa": 0}


def gpt_spoiled() -> dict[str, Any]:
    its = gpt.TINY.but(steps=8)
    found = {kind: of(gpt.repeat, its=its, tamper=flip(6, bit)).bad() for kind, bit in BITS.items()}
    found["last bit of a gradient"] = of(gpt.repeat, its=its, tamper=flip(6, 0, weight=False)).bad()
    found["gradient spiked, seen twice"] = of(gpt.repeat, its=its, tamper=spike(6)).bad()
    found["gradient spiked"] = of(gpt.learn, tamper=spike(20)).bad()
    found["exponent of a weight"] = of(gpt.learn, tamper=flip(20, 30)).bad()
    return found


def gpt_blind() -> dict[str, Any]:
    """Take the eyes out of each comparison in turn: its canary must notice."""
    found = {}
    with mock.patch.object(stream, "ROUNDING", 10.0):
        found["floor"] = gpt.leak_caught("gpt", "cpu", gpt.TINY, 7)["verdict"]
    with mock.patch.object(gpt, "first_difference", return_value=(0, "")):
        found["bits"] = of(gpt.repeat, its=gpt.TINY.but(steps=8)).bad()
    return found


def gpt_wrong() -> dict[str, Any]:
    """Attention that sees the future, attention with one wrong number, tokens that change on their way."""

    def wrong(out: Any) -> None:
        out[0, -1, 5, 3] += 0.01

    peeking = torch.nn.functional.scaled_dot_product_attention

    def uncausal(q: Any, k: Any, v: Any, is_causal: bool) -> Any:
        return peeking(q, k, v)

    found: dict[str, Any] = {"one number": gpt.attention("gpt", "cpu", gpt.TINY, 7, wrong)["verdict"]}
    with mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", uncausal):
        found["future"] = gpt.attention("gpt", "cpu", gpt.TINY, 7)["verdict"]

    class Spoiled(gpt_train.Batches):
        def _received(self) -> Any:
            tokens = super()._received()
            tokens[0, 4] ^= 1
            return tokens

    with mock.patch.object(gpt_train, "Batches", Spoiled):
        found["copies"] = gpt_train.train(gpt.TINY.but(steps=8), "cpu", 7).copied
    found["bfloat16"] = reference.attention_error("cpu", gpt.TINY, 7, form=torch.bfloat16)[:2]
    return found


def gpt_all() -> dict[str, Any]:
    torch.set_deterministic_debug_mode("error")  # as a training before this one may have left it
    parts = {part.name: of(part.run).checks for part in gpt.PARTS}
    modes = [torch.get_deterministic_debug_mode(), torch.get_float32_matmul_precision()]
    torch.set_deterministic_debug_mode("default")
    again = of(gpt.repeat).checks["cpu.gpt.deterministic"]["data"]["bits"]
    other = of(gpt.repeat, Context(tier="nightly", device="cpu", seed=8)).checks
    return {
        "parts": parts,
        "modes": modes,
        "again": again,
        "other": other["cpu.gpt.deterministic"]["data"]["bits"],
        "spoiled": gpt_spoiled(),
        "blind": gpt_blind(),
        "wrong": gpt_wrong(),
    }


def gpt_seeds(first: int, last: int) -> dict[str, Any]:
    """Return what is accused of healthy seeds, and the extremes of what is bounded."""
    bad: dict[str, Any] = {}
    extremes: dict[str, list[float]] = {}
    for seed in range(first, last):
        context = Context(tier="nightly", device="cpu", seed=seed)
        report = Kept()
        gpt.learn(context, report)
        gpt.repeat(context, report)
        if report.bad():
            bad[str(seed)] = report.bad()
        for name, found in report.checks.items():
            if isinstance(found["measured"], float) and "throughput" not in name:
                low, high = extremes.get(name, [found["measured"]] * 2)
                extremes[name] = [min(low, found["measured"]), max(high, found["measured"])]
    return {"bad": bad, "extremes": extremes, "seeds": last - first}


def in_ranks(count: int, work: Callable[[Context], Kept]) -> Any:
    """Do *work* in *count* processes at once; return the checks of rank 0, which is the only one that speaks."""

    def checks(context: Context) -> Any:
        found = work(context).checks
        assert not context.rank or not found
        return found

    return ranks(count, checks, "nightly")


def shared(count: int, spoil: Callable[[str, int, Any], None] | None = None, rank: int = 1) -> Any:
    """Do P3 in *count* ranks, one of which is spoiled."""

    def work(context: Context) -> Kept:
        mine = spoil if context.rank == rank else None
        return of(ddp.parallel, context, its=ddp.TINY.but(steps=6), tamper=mine)

    return in_ranks(count, work)


def other_data(what: str, step: int, it: Any) -> None:
    if what == "data":
        it[3] = it[3].roll(1, dims=1)


def other_start(what: str, step: int, it: Any) -> None:
    if what == "start":
        it.head.weight.data[0, 0] += 0.1


def other_gradient(what: str, step: int, it: Any) -> None:
    if what == "gradients" and step == 2:
        it.blocks[0].up.weight.grad.view(torch.int32)[1, 2] ^= 1


def other_weight(what: str, step: int, it: Any) -> None:
    if what == "weights" and step == 2:
        it.blocks[0].up.weight.data.view(torch.int32)[1, 2] ^= 1


def ddp_all() -> dict[str, Any]:
    importlib.import_module("torch._dynamo")  # of DDP and optimisers: once, instead of in each rank

    return {
        "two": shared(2),
        "other data": shared(2, other_data),
        "other start": shared(3, other_start, 2),
        "other gradient": shared(3, other_gradient),
        "other weight": shared(3, other_weight, 2),
        "alone": of(ddp.parallel).checks,
    }


def frozen_flip(step: int, model: Any) -> None:
    """One bit of a weight that nothing writes to flips, far from where anybody looks."""
    if step == 9:
        model.blocks[1].up.frozen.weight.data.view(torch.int32)[7, 3] ^= 1


def last_bit_of_the_head(step: int, model: Any) -> None:
    if step == 9:
        model.head.weight.grad.view(torch.int32)[7, 3] ^= 1


def not_deterministic(step: int, model: Any) -> None:
    """Fail as torch does where a kernel has no deterministic way."""
    if torch.are_deterministic_algorithms_enabled():
        raise RuntimeError("upsample_backward does not have a deterministic implementation")


def finetune_all() -> dict[str, Any]:
    def full(step: int, model: Any) -> None:
        if step == 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    found: dict[str, Any] = {part.name: of(part.run).checks for part in finetune.PARTS}
    found["flipped"] = of(finetune.tune, CPU, kind="lora", tamper=frozen_flip).bad()
    with mock.patch.object(lora, "flipped", lora.frozen_sums):
        found["blind"] = of(finetune.tune, CPU, kind="lora").bad()
    for kind in finetune.KINDS:
        found["last bit, " + kind] = of(finetune.tune, CPU, kind=kind, tamper=last_bit_of_the_head).bad()
    with mock.patch.object(gpt_train, "bit_sum", return_value=torch.zeros((), dtype=torch.int64)):
        found["hashes nothing"] = of(finetune.tune, CPU, kind="full").bad()
    found["no deterministic way"] = of(finetune.tune, CPU, kind="full", tamper=not_deterministic).checks
    with mock.patch.object(torch.cuda, "memory_reserved", return_value=1 << 10):
        found["exhausted"] = of(finetune.tune, CPU, kind="full", tamper=full).checks
    return found


def compile_wrong() -> dict[str, Any]:
    """Return what is accused of backends that compile nothing, compute one number or one gradient wrongly."""

    def eager(graph: Any, inputs: Any) -> Any:
        return graph.forward

    def number(graph: Any, inputs: Any) -> Any:
        def run(*values: Any) -> Any:
            first, *others = graph(*values)
            first = first.clone()
            first[3, 5, 7] += 1e-4
            return (first, *others)

        return run

    def gradient(graph: Any, inputs: Any) -> Any:
        def run(*values: Any) -> Any:
            first, *others = graph(*values)
            if first.requires_grad:
                first.register_hook(lambda its: its * 1.001)
            return (first, *others)

        return run

    found = {}
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=folder):
        for backend in (eager, number, gradient):
            with contextlib.redirect_stdout(io.StringIO()):
                said = compile_child.compare("cpu", compiled.TINY, 7, backend)
            end = private.End({"complete": True, **said}, "", 0, False, "")
            checks = compiled.judged("cpu.compile", "cpu", end)
            found[backend.__name__] = [check["name"] for check in checks if check["verdict"] != "pass"]
    return found


def batchnorm_all() -> dict[str, Any]:
    def at(step: int, spoil: Callable[[Any], None]) -> Callable[[int, Any], None]:
        return lambda now, model: spoil(model) if now == step else None

    def bit(model: Any) -> None:
        model[3].weight.data.view(torch.int32)[0, 5] ^= 1 << 20

    def momentum(model: Any) -> None:
        model[1].momentum = 0.11

    def biased(model: Any) -> None:
        model[1].running_var *= 1.001

    found = {
        "healthy": of(batchnorm.prove).checks,
        "gradient spiked": of(batchnorm.prove, tamper=at(20, batchnorm.spike)).bad(),
        "bit flipped": of(batchnorm.prove, tamper=at(50, bit)).bad(),
        "other momentum": of(batchnorm.prove, tamper=at(0, momentum)).bad(),
        "other variance": of(batchnorm.prove, tamper=at(99, biased)).bad(),
        "never in training": of(batchnorm.prove, tamper=at(60, lambda model: model.eval())).bad(),
    }
    with mock.patch.object(batchnorm, "STEP_BOUND", 1e9), mock.patch.object(batchnorm, "RUNNING_BOUND", 1e9):
        found["blind"] = of(batchnorm.prove).bad()
    return found


def batchnorm_seeds(first: int, last: int) -> dict[str, Any]:
    bad: dict[str, Any] = {}
    worst: dict[str, float] = {}
    for seed in range(first, last):
        task = norm.NormTask(seed)
        network, losses = norm.trained(task)
        checks = batchnorm.judged("cpu", batchnorm.train(task, "cpu"), network, losses, task)
        checks += batchnorm.gradients(task, "cpu")
        accused = [check["name"] for check in checks if check["verdict"] != "pass"]
        if accused:
            bad[str(seed)] = accused
        for check in checks:
            worst[check["name"]] = max(worst.get(check["name"], 0.0), check["measured"])
    return {"bad": bad, "worst": worst, "seeds": last - first}


def ddp_seeds(first: int, last: int) -> dict[str, Any]:
    """Return what is accused of healthy seeds in two ranks, which meet once for all of them."""
    from gpuprov.proof.bench import together

    importlib.import_module("torch._dynamo")

    def work(context: Context) -> Kept:
        report, its = Kept(), ddp.TINY.but(steps=6)
        bad: dict[str, Any] = {}
        worst = 0.0
        with together.joined(context), torch.inference_mode(mode=False), gpt_train.modes("cpu"):
            for seed in range(first, last):
                context.seed = seed
                parts = ddp_train.alone(context, its)
                checks = ddp._found(context, its, ddp_train.train(context, its), parts, "ddp")
                accused = [check["name"] for check in checks if check["verdict"] != "pass"]
                if accused:
                    bad[str(seed)] = accused
                worst = max(worst, checks[-1]["measured"])
        if not context.rank:
            report.checks["found"] = {"bad": bad, "worst": worst, "seeds": last - first}
        return report

    found: dict[str, Any] = in_ranks(2, work)["found"]
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    chosen = globals()[sys.argv[1]]
    print(json.dumps(chosen(*map(int, sys.argv[2:]))))
