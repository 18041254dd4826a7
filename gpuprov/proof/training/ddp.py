"""P3 of the ladder: data-parallel training over the host's devices. What each rank has, and what one process has.

Ranks take their own part of the data, DistributedDataParallel averages their gradients. What all must have alike is
compared bit by bit; what differs by the order of additions alone is compared with a training by one process.
"""

from __future__ import annotations

import math

from gpuprov.proof.check import check, thinned
from gpuprov.proof.parts import Part
from gpuprov.proof.training.bits import odd_ones
from gpuprov.proof.training.judge import canary
from gpuprov.proof.training.sizes import Size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context
    from gpuprov.proof.training.ddp_train import Run, Tamper
    from gpuprov.proof.worker import Report

    #: Numbers of every rank: by rank, then by step.
    Table = Sequence[Sequence[Any]]

#: batch: of one rank. SGD, since AdamW makes much of the sign of gradients that are all but zero.
LARGE = Size(layers=4, width=512, heads=8, context=256, batch=8, steps=12, rate=0.1)
TINY = Size(layers=2, width=32, heads=2, context=16, batch=4, steps=12, vocabulary=16, rate=0.1)
#: Free memory that every rank has to have, else none begins.
NEEDED = 4 << 30
UNIT = 2.0**-24


def bound(step: int, tokens: int) -> float:
    """Return how far a loss may be from one process's, relative, at *step* (from 1). Pure.

    *tokens* numbers in float32, added in another order, part by UNIT sqrt(tokens) at random; each step's weights
    carry that on. A GPU adds the first step's losses in an order of its own, too: up to 1.45 of 2 UNIT in 20,000 draws
    of 2048 tokens, so four times that are allowed. docs/training.md has what healthy CPUs do.
    """
    return 2.0 * UNIT * (4.0 + (step - 1) * math.sqrt(tokens))


def judged(name: str, devices: Sequence[str], bits: Table, losses: Table, parts: Table, tokens: int) -> list[Message]:
    """Return the checks. Pure.

    bits: of each rank [[data, start], [gradients, weights] of step 1, ...]. losses: of each rank, by step. parts: by
    rank, what one process has for that rank's part of the data, by step. tokens: of a step of all ranks.
    """
    starts = [[row[0]] for row in bits]
    steps = [row[1:] for row in bits]
    return [
        _alike(name + ".data", "the data set", devices, [[row[0][0]] for row in starts], once=True),
        _alike(name + ".start", "the start values", devices, [[row[0][1]] for row in starts], once=True),
        _alike(name + ".gradients", "gradients", devices, [[one[0] for one in row] for row in steps]),
        _alike(name + ".weights", "weights", devices, [[one[1] for one in row] for row in steps]),
        _trace(name + ".trace", devices, losses, parts, tokens),
    ]


def _alike(name: str, what: str, devices: Sequence[str], sums: Table, once: bool = False) -> Message:
    """Judge that all ranks have the same bits in every step."""
    count = len(sums[0])
    step, odd = next(
        ((i + 1, odd) for i in range(count) for odd in [odd_ones([row[i] for row in sums])] if odd), (0, [])
    )
    good = not step
    each = "" if once else f" of each of {count} steps"
    at = "" if once else f" of step {step}"
    told = " differs from the others" if len(odd) == 1 else " differ, and nobody can tell which is right"
    return check(
        name,
        "pass" if good else "fail",
        f"all {len(devices)} ranks have the same bits in {what}{each}"
        if good
        else f"{what}{at}: not the same bits on all ranks: {_named(devices, odd)}{told}",
        measured="equal" if good else "different",
        expected="equal",
        action=_blamed(devices, good),
        data={} if good else {"ranks": odd, "step": step, "evidence": _lines(devices, [row[step - 1] for row in sums])},
    )


def _lines(devices: Sequence[str], sums: Sequence[int]) -> list[str]:
    pairs = enumerate(zip(devices, sums))
    return [f"rank {rank} on {device}: {one & (1 << 64) - 1:016x}" for rank, (device, one) in pairs][:8]


def _trace(name: str, devices: Sequence[str], losses: Table, parts: Table, tokens: int) -> Message:
    """Judge each rank's losses against one process that trains with the data of all ranks. NaN fails."""
    worst, wrong = 0.0, []
    for rank, (row, right) in enumerate(zip(losses, parts)):
        errors = [abs(a - b) / abs(b) / bound(i + 1, tokens) for i, (a, b) in enumerate(zip(row, right))]
        first = next((i + 1 for i, error in enumerate(errors) if not error <= 1.0), 0)
        worst = max(worst, *errors) if not any(math.isnan(error) for error in errors) else math.nan
        if first:
            wrong.append((first, rank))
    earliest = min(wrong, default=(0, 0))[0]
    odd = [rank for first, rank in wrong if first == earliest]
    good = not wrong
    whose = _named(devices, odd) if len(odd) < len(devices) else "all ranks"
    data: Message = {"losses": thinned([sum(column) / len(column) for column in zip(*losses)], 40)}
    if not good:
        at = earliest - 1
        data.update(ranks=odd, step=earliest)
        data["evidence"] = [f"rank {r} on {devices[r]}: {losses[r][at]:.6f}, alone {parts[r][at]:.6f}" for r in odd][:8]
    return check(
        name,
        "pass" if good else "fail",
        f"the losses of {len(devices)} ranks are those of one process with the data of all, in each step"
        if good
        else f"from step {earliest} on the loss of {whose} is not that of one process with the same data: a rank has "
        "other data, or gradients are not averaged rightly",
        measured=worst,
        expected="<= 1 of the bound",
        unit="of the bound",
        action=_blamed(devices, good),
        data=data,
    )


def _named(devices: Sequence[str], ranks: Sequence[int]) -> str:
    return ", ".join(f"rank {rank} on {devices[rank]}" for rank in ranks[:4]) + (" ..." if len(ranks) > 4 else "")


def _blamed(devices: Sequence[str], good: bool) -> str:
    return "none" if good or not devices[0].startswith("cuda") else "isolate"


def _found(context: Context, its: Size, run: Run, parts: list[list[float]], name: str) -> list[Message]:
    """Bring together what all ranks have, and judge it: the same on every rank."""
    import torch

    from gpuprov.proof.training import ddp_train

    device, world = context.device, context.world
    bits = ddp_train.gathered(run.bits, torch.int64, device)
    losses = ddp_train.gathered(run.losses, torch.float64, device)
    # Of what one process has, each rank has its own answer: the middle one counts.
    answers = ddp_train.gathered(parts[: its.steps], torch.float64, device)
    right = [
        [sorted(one[step][rank] for one in answers)[world // 2] for step in range(its.steps)] for rank in range(world)
    ]
    return judged(name, context.devices, bits, losses, right, world * its.tokens)


def _canary(context: Context, its: Size, parts: list[list[float]], name: str) -> Message:
    """Give the last rank other data, and flip one bit of its weights: both have to be found, and it named."""
    import torch

    from gpuprov.proof.training import ddp_train

    last = context.world - 1

    def spoil(what: str, step: int, it: Any) -> None:
        if context.rank != last:
            return
        if what == "data":
            it[0] = it[0].roll(1, dims=1)
        elif what == "weights" and step == 1:
            next(it.parameters()).data.view(torch.int32).view(-1)[0] ^= 1

    short = its.but(steps=2)
    found = _found(context, short, ddp_train.train(context, short, spoil), parts, name)
    verdicts = {one["name"].rpartition(".")[2]: one for one in found}
    named = [last in verdicts[kind]["data"].get("ranks", ()) for kind in ("data", "weights", "trace")]
    return canary(
        name + ".canary",
        "",
        all(named) and verdicts["trace"]["data"]["ranks"] == [last],
        "other data and a flipped bit on the last rank",
    )


def parallel(context: Context, report: Report, its: Size | None = None, tamper: Tamper | None = None) -> None:
    """Report the checks of P3: all ranks call it, rank 0 speaks. tamper spoils the training (tests)."""
    from gpuprov.proof.bench import device as on

    name = on.named(context.device, "ddp")
    if context.world < 2:
        report.check(check(name + ".trace", "skip", "one device alone has nobody to share a training with"))
        return
    import torch

    from gpuprov.proof.bench import together
    from gpuprov.proof.training import ddp_train, gpt_train

    def tell(found: Message) -> None:
        if not context.rank:
            report.check(found)

    its = its or (LARGE if on.on_gpu(context.device) else TINY)
    report.stage(f"ddp: joining {context.world} ranks")
    with together.joined(context), torch.inference_mode(mode=False), gpt_train.modes(context.device):
        free = together.agreed(on.free_bytes(context.device, NEEDED), context.device, least=True)
        if free < NEEDED:
            reason = f"a GPU has only {free / (1 << 30):.1f} GiB of memory free, and ranks need {NEEDED >> 30} GiB"
            tell(check(name + ".trace", "unknown", reason, action="restart job"))
            return
        report.stage(f"ddp: training over {context.world} ranks")
        run = ddp_train.train(context, its, tamper)
        report.stage("ddp: the same by one process")
        parts = ddp_train.alone(context, its)
        for found in _found(context, its, run, parts, name):
            tell(found)
        report.stage("ddp: canary")
        tell(_canary(context, its, parts, name))


PARTS = (Part("ddp", "nightly", "group", parallel, "a training shared by all devices", deadline_s=120.0, loads=True),)
