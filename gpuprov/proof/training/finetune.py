"""P4 of the ladder: a larger model that fills the memory, fine-tuned as a whole and beside frozen weights, twice.

What it shows beyond P1 and P2: all memory holds what is written to it through a training, to the last bit, and the
power that large products draw.
"""

from __future__ import annotations

from gpuprov.proof.check import check, measurement
from gpuprov.proof.parts import Part
from gpuprov.proof.training import memory, stream
from gpuprov.proof.training.judge import canary
from gpuprov.proof.training.sizes import Size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context
    from gpuprov.proof.training.gpt_train import Tamper, Trace
    from gpuprov.proof.worker import Report

KINDS = ("lora", "full")
GIB = 1 << 30
#: By the memory of the device: wide layers where at least a few of them fit.
WIDE = Size(layers=1, width=4096, heads=32, context=2048, batch=1, steps=16, bound=0.9)
NARROW = WIDE.but(width=2048, heads=16)
#: Rate of learning times width: a step moves each logit alike, however wide the model is.
RATES = {"lora": 0.8, "full": 0.25}
WIDE_FROM = 30 * GIB
#: Steps where hours are at hand.
BURNIN_STEPS = 200
TINY = Size(layers=3, width=64, heads=4, context=32, batch=8, steps=24, vocabulary=16, rate=4e-3, bound=0.75)
#: On a CPU layers are not chosen by its memory.
LEAST_LAYERS = 2


def size(kind: str, context: Context, free: int, half: bool) -> Size:
    """Return what is trained in *free* bytes; it has 0 layers when nothing fits. Pure."""
    if not context.device.startswith("cuda"):
        return TINY
    base = WIDE if free >= WIDE_FROM else NARROW
    steps = BURNIN_STEPS if context.deep("burnin") else base.steps
    return memory.fitting(kind, base.but(steps=steps, rate=RATES[kind] / base.width), free, half)


def tune(context: Context, report: Report, kind: str, its: Size | None = None, tamper: Tamper | None = None) -> None:
    """Report the checks of one fine-tune. tamper spoils its first training (tests). Raises RuntimeError (torch's)."""
    import torch

    from gpuprov.proof.bench import device as on
    from gpuprov.proof.training import gpt_train

    device = context.device
    name = on.named(device, "finetune." + kind)
    _forget(device)
    free, others = _memory(device)
    half = bool(gpt_train.half(device))
    its = its or size(kind, context, free, half)
    if its.layers < LEAST_LAYERS:
        reason = f"only {free / GIB:.1f} GiB of memory are free: not even {LEAST_LAYERS} layers fit"
        report.check(check(name + ".learns", "unknown", reason, device=device, action="restart job"))
        return
    planned = memory.plan(kind, its, half)
    try:
        for found in _tuned(context, report, FineTune(name, kind, its, planned, free), tamper):
            report.check(dict(found, data=dict(on.identity(device), **found["data"])))
    except torch.cuda.OutOfMemoryError:
        held = int(torch.cuda.memory_reserved(device))
        now = _memory(device)[1]
        report.check(memory.exhausted(name + ".memory", device, planned.total, free, held, now, others))


class FineTune:
    """What is trained: its name in reports, "lora" or "full", its size, and the memory planned of what is *free*."""

    __slots__ = ("free", "its", "kind", "name", "planned")

    def __init__(self, name: str, kind: str, its: Size, planned: memory.Plan, free: int) -> None:
        self.name, self.kind, self.its, self.planned, self.free = name, kind, its, planned, free


def _tuned(context: Context, report: Report, what: FineTune, tamper: Tamper | None) -> list[Message]:
    """Train twice, bit by bit; once where torch knows no deterministic way, and say so."""
    from gpuprov.proof.bench import device as on
    from gpuprov.proof.training import gpt_train
    from gpuprov.proof.training.bits import same

    device, its, name = context.device, what.its, what.name + ".deterministic"
    try:
        with gpt_train.modes(device, deterministic=True):
            first, found = _once(context, report, what, "first training", tamper)
            second, _ = _once(context, report, what, "second training")
            work = (
                f"{what.kind} of {its.text()}, seed {context.seed}, {gpt_train.kind(device)}, {on.computed_by(device)}"
            )
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        text = " ".join(str(error).split())[:300]
    else:
        return [*found, same(name, device, first, second, {"seed": context.seed, "bits_of": work})]
    # Not in the handler: the error holds on to the first model, and both would not fit.
    unknown = check(name, "unknown", f"torch has no deterministic way to train here: {text}", device=device)
    with gpt_train.modes(device):
        return [*_once(context, report, what, "training", tamper)[1], unknown]


def _once(
    context: Context, report: Report, what: FineTune, stage: str, tamper: Tamper | None = None
) -> tuple[Trace, list[Message]]:
    """Train a new model, which is gone from memory afterwards; return the trace and its checks."""
    from gpuprov.proof.bench import device as on
    from gpuprov.proof.training import gpt_train, lora

    device, name, its = context.device, what.name, what.its
    _forget(device)
    report.stage(f"{name} on {device}: {stage}, start values of {its.text()}")
    model = lora.built(what.kind, its, device, context.seed)
    before = lora.frozen_sums(model)
    report.stage(f"{name} on {device}: {stage} of {its.text()}")
    trace = gpt_train.train(its, device, context.seed, hashed=True, tamper=tamper, model=model)
    report.stage(f"{name} on {device}: {stage}, comparing")
    fixed = not on.on_gpu(device)
    found = [
        stream.learns(name, device, trace.losses, its.loss_bound),
        stream.above_floor(name, device, trace.losses, trace.truths, its.tokens),
        memory.compared(name, device, trace.held if fixed else trace.peak, what.planned, what.free, fixed),
    ]
    if what.kind == "lora":
        found += _frozen(name, device, model, before)
    seen = lora.flipped_gradient(model)
    found.append(canary(name + ".canary-bits", device, seen, "the lowest bit of one number of the largest gradient"))
    if trace.seconds:
        found.append(_throughput(name, device, its, trace))
    return trace, found


def _forget(device: str) -> None:
    """Free the memory of the training before: both together would not fit."""
    import gc

    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _frozen(name: str, device: str, model: Any, before: dict[str, int]) -> list[Message]:
    """Judge that no bit of the frozen weights has changed, and spoil one to see that this is seen."""
    from gpuprov.proof.training import lora

    found = [unchanged(name, device, before, lora.frozen_sums(model))]
    after = lora.flipped(model)
    return [*found, canary(name + ".canary", device, len(_changed(before, after)) > 0, "one bit of a frozen weight")]


def unchanged(name: str, device: str, before: dict[str, int], after: dict[str, int]) -> Message:
    """Judge sums of the bits of all frozen weights, before and after the training. Pure."""
    changed = _changed(before, after)
    good = bool(before) and not changed
    return check(
        name + ".frozen",
        "pass" if good else "fail",
        f"all bits of {len(before)} frozen tensors are what they were before the training"
        if good
        else f"frozen weights changed during the training, which nothing writes to: {', '.join(changed[:4]) or 'none'}",
        measured=len(changed),
        expected=0,
        unit="tensors",
        device=device,
        action="none" if good or not device.startswith("cuda") else "isolate",
        data={} if good else {"evidence": [f"{key}: {before[key]} to {after.get(key)}" for key in changed[:8]]},
    )


def _changed(before: dict[str, int], after: dict[str, int]) -> list[str]:
    return [key for key, value in before.items() if after.get(key) != value]


def _throughput(name: str, device: str, its: Size, trace: Trace) -> Message:
    rates = [its.tokens / seconds for seconds in trace.seconds]
    # Layers by the free memory: only the same work compares.
    return measurement(
        name + ".throughput", rates, "tokens/s", "higher", its.text(), device=device, data={"work": its.text()}
    )


def _memory(device: str) -> tuple[int, int]:
    """Return the bytes that are free on *device*, and those that other processes hold."""
    if not device.startswith("cuda"):
        return GIB, 0
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return int(free), int(total - free - torch.cuda.memory_reserved(device))


def _part(kind: str) -> Part:
    def run(context: Context, report: Report) -> None:
        tune(context, report, kind)

    reads = f"a model that fills 80 % of the free memory, {'as a whole' if kind == 'full' else 'beside frozen weights'}"
    return Part("finetune." + kind, "weekly", "device", run, reads, deadline_s=1800.0, loads=True)


PARTS = tuple(_part(kind) for kind in KINDS)
