"""P1 and P2 of the ladder: a small GPT on a stream of known entropy; the same, bit by bit, twice.

torch is imported when a part runs: the list of parts is read by processes that have none.
"""

from __future__ import annotations

from gpuprov.proof.check import check, measurement
from gpuprov.proof.parts import Part
from gpuprov.proof.training import stream
from gpuprov.proof.training.bits import first_difference, same
from gpuprov.proof.training.judge import canary
from gpuprov.proof.training.sizes import Size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context
    from gpuprov.proof.training.gpt_train import Tamper, Trace
    from gpuprov.proof.worker import Report

#: By the model of the GPU alone, never by its measured speed: what is compared between GPUs has to be the same work.
LARGE = Size(layers=12, width=768, heads=12, context=1024, batch=8, steps=50, rate=6e-4, bound=0.35)
#: GPUs without bfloat16 train in float32, ten times slower.
SMALLER = LARGE.but(layers=6, batch=2, bound=0.5)
TINY = Size(layers=2, width=32, heads=2, context=32, batch=8, steps=40, vocabulary=16, rate=3e-3, bound=0.25)
#: Steps of the training that is done twice.
HASHED_STEPS = 20
#: Free memory that the training needs: weights, moments, activations, the logits and some pieces for libraries.
NEEDED = 12 << 30
#: By how much the canary raises the logits of the tokens that are to be predicted.
LEAK = 0.5


def size(device: str) -> Size:
    """Return what is trained on *device*."""
    from gpuprov.proof.bench.device import on_gpu
    from gpuprov.proof.training.gpt_train import half

    if not on_gpu(device):
        return TINY
    return LARGE if half(device) else SMALLER


def learn(context: Context, report: Report, its: Size | None = None, tamper: Tamper | None = None) -> None:
    """Report the checks of P1 on the context's device. tamper spoils the training (tests). Raises RuntimeError."""
    from gpuprov.proof.bench import device as on
    from gpuprov.proof.training import gpt_train

    device, seed = context.device, context.seed
    its = its or size(device)
    name = on.named(device, "gpt")
    if not _room(name + ".learns", device, report):
        return
    with gpt_train.modes(device):
        report.stage(f"gpt on {device}: attention beside float64")
        report.check(attention(name, device, its, seed))
        report.stage(f"gpt on {device}: training {its.text()}")
        trace = gpt_train.train(its, device, seed, tamper=tamper)
        for found in judged(name, device, its, trace):
            report.check(dict(found, data=dict(on.identity(device), **found["data"])))
        report.stage(f"gpt on {device}: canary")
        report.check(leak_caught(name, device, its, seed))


def judged(name: str, device: str, its: Size, trace: Trace) -> list[Message]:
    """Return the checks of a training. Pure."""
    found = [
        stream.true_stream(name, device, trace.truths, its.tokens),
        stream.starts(name, device, trace.losses, its.vocabulary),
        stream.learns(name, device, trace.losses, its.loss_bound),
        stream.above_floor(name, device, trace.losses, trace.truths, its.tokens),
        stream.steady(name, device, trace.norms),
        _copies(name, device, its, trace),
        _allocator(name, device, trace),
    ]
    if trace.seconds:
        found.append(_throughput(name, device, its, trace, all(one["verdict"] != "fail" for one in found)))
    return found


def _copies(name: str, device: str, its: Size, trace: Trace) -> Message:
    good = trace.copied
    return check(
        name + ".copies",
        "pass" if good else "fail",
        f"the tokens of {its.steps} steps arrived as they were sent, copied while others were computed"
        if good
        else "the tokens that arrived on the device are not those that were sent: asynchronous copies spoil data",
        device=device,
        action="none" if good or not device.startswith("cuda") else "isolate",
    )


def _allocator(name: str, device: str, trace: Trace) -> Message:
    if trace.allocated is None:
        return check(name + ".allocator", "skip", "the CPU's memory has no pool that torch counts", device=device)
    good = trace.allocated <= 0
    return check(
        name + ".allocator",
        "pass" if good else "warn",
        "after the warm-up no step asked the driver for memory: the pool is reused"
        if good
        else f"after the warm-up torch asked the driver for memory {trace.allocated} times: the pool is not reused, "
        "because memory is short or fragmented",
        measured=trace.allocated,
        expected=0,
        unit="allocations",
        device=device,
        action="none" if good else "monitor",
    )


def _throughput(name: str, device: str, its: Size, trace: Trace, right: bool) -> Message:
    rates = [its.tokens / seconds for seconds in trace.seconds]
    middle = sorted(trace.seconds)[len(trace.seconds) // 2]
    data = {"work": its.text(), "tflops": round(its.operations / middle / 1e12, 3)}
    said = f"{its.text()}, {data['tflops']:g} TFLOPS in products and attention"
    reason = said if right else f"{said}; but what was computed is wrong, see the other checks of {name}"
    return measurement(name + ".throughput", rates, "tokens/s", "higher", reason, device=device, data=data)


def attention(name: str, device: str, its: Size, seed: int, tamper: Any = None) -> Message:
    """Return the check of the attention kernel that trains: one sequence, its output and gradients beside float64."""
    from gpuprov.proof.training.reference import attention_error

    error, bound, kind = attention_error(device, its, seed, tamper)
    good = error <= bound
    return check(
        name + ".attention",
        "pass" if good else "fail",
        f"causal attention in {kind} and its gradients agree with the formula in float64"
        if good
        else f"causal attention in {kind} or its gradients differ from the formula in float64",
        measured=error,
        expected=f"<= {bound:.2g}",
        unit="of the largest",
        device=device,
        action="none" if good or not device.startswith("cuda") else "isolate",
    )


def leak_caught(name: str, device: str, its: Size, seed: int) -> Message:
    """Canary: logits that know a little of what comes next have to be found below the floor."""
    from gpuprov.proof.training import reference

    verdicts = []
    for leak in (0.0, LEAK):
        losses, truths = reference.of_true_chances(device, its, seed, leak)
        verdicts.append(stream.above_floor(name, device, losses, truths, its.tokens)["verdict"])
    caught = verdicts == ["pass", "fail"]
    return canary(name + ".canary-leak", device, caught, "true chances that know a little of what comes next")


def repeat(context: Context, report: Report, its: Size | None = None, tamper: Tamper | None = None) -> None:
    """Report the checks of P2: the same training twice in deterministic mode. tamper spoils the first one (tests)."""
    from gpuprov.proof.bench import device as on
    from gpuprov.proof.training import gpt_train

    device, seed = context.device, context.seed
    its = its or size(device).but(steps=HASHED_STEPS)
    name = on.named(device, "gpt.deterministic")
    if not _room(name, device, report):
        return
    try:
        with gpt_train.modes(device, deterministic=True):
            report.stage(f"{name} on {device}: first training")
            first = gpt_train.train(its, device, seed, hashed=True, tamper=tamper)
            report.stage(f"{name} on {device}: second training")
            second = gpt_train.train(its, device, seed, hashed=True)
            report.stage(f"{name} on {device}: canary")
            short = its.but(steps=2)
            spoiled = gpt_train.train(short, device, seed, hashed=True, tamper=_flip)
            computed_by = on.computed_by(device)
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        text = " ".join(str(error).split())[:300]
        report.check(check(name, "unknown", f"torch has no deterministic way to train here: {text}", device=device))
        return
    work = f"{its.text()}, seed {seed}, {gpt_train.kind(device)}, {computed_by}"
    data = dict(on.identity(device), seed=seed, bits_of=work)
    report.check(same(name, device, first, second, data))
    at = first_difference(spoiled.steps, second.steps[:2])
    report.check(canary(name + ".canary", device, at == (2, "gradients"), "the lowest bit of one gradient, flipped"))


def _flip(step: int, model: Any) -> None:
    import torch

    if step == 1:
        next(model.parameters()).grad.view(torch.int32).view(-1)[0] ^= 1


def _room(name: str, device: str, report: Report) -> bool:
    from gpuprov.proof.bench import device as on

    reason = on.room(device, NEEDED) if on.on_gpu(device) else ""
    if reason:
        report.check(check(name, "unknown", reason, device=device, action="restart job", data=on.identity(device)))
    return not reason


PARTS = (
    Part("gpt", "nightly", "device", learn, "a GPT on tokens of known entropy", deadline_s=120.0, loads=True),
    Part("gpt.deterministic", "nightly", "device", repeat, "the same twice, bit by bit", deadline_s=120.0, loads=True),
)
