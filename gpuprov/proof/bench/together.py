"""Processes that measure together: one per device, on one host. They meet, agree on numbers, and part again."""

from __future__ import annotations

import contextlib
import datetime
import os

import torch
import torch.distributed as dist

from gpuprov.proof.bench import device as on
from gpuprov.proof.bench.numbers import repeats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from gpuprov.proof.parts import Context

#: Elements of float32 that are filled or compared at once.
STEP = 1 << 24
#: How long a rank waits for the others: less than the deadline of a part, so that it can say who it waited for.
PATIENCE_S = 60.0


@contextlib.contextmanager
def joined(context: Context) -> Iterator[None]:
    """Be one of the ranks meanwhile: NCCL between GPUs, gloo between CPUs. Raises RuntimeError (torch's)."""
    gpu = on.on_gpu(context.device)
    # On one host ranks find each other by loopback; what other interfaces are for is not measured here.
    os.environ.update({"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"})
    with on.prepared(context.device):
        dist.init_process_group(
            "nccl" if gpu else "gloo",
            init_method=context.rendezvous,
            rank=context.rank,
            world_size=context.world,
            timeout=datetime.timedelta(seconds=PATIENCE_S),
            device_id=torch.device(context.device) if gpu else None,
        )
        try:
            agreed(0.0, context.device)
            yield
        finally:
            dist.destroy_process_group()


def agreed(value: float, device: str, least: bool = False) -> float:
    """Return the largest (or least) of all ranks' values: the same number on each of them."""
    box = torch.tensor([value], dtype=torch.float64, device=device)
    dist.all_reduce(box, op=dist.ReduceOp.MIN if least else dist.ReduceOp.MAX)
    return float(box[0])


def gathered(values: list[float], device: str) -> list[list[float]]:
    """Return the values of every rank, by rank; each has as many."""
    mine = torch.tensor(values, dtype=torch.float64, device=device)
    every = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(every, mine)
    return [one.tolist() for one in every]


def sampled(device: str, work: on.Work, budget_s: float) -> list[float]:
    """Return the seconds of one call of *work*, which all ranks do together: the slowest rank's, at least five."""
    on.timed(device, work)
    calls, count = repeats(max(agreed(on.timed(device, work), device), 1e-7), budget_s)
    return [agreed(on.timed(device, work, calls), device) for _ in range(count)]


def pattern(start: int, count: int, device: str) -> Any:
    """Return whole numbers below 251 that depend on the place: sums over ranks of them are exact in float32."""
    return (torch.arange(start, start + count, dtype=torch.int64, device=device) * 7 % 251).to(torch.float32)


def fill(tensor: Any, rank: int) -> None:
    """Write the pattern, plus 13 for each rank, to flat *tensor*."""
    for start in range(0, len(tensor), STEP):
        piece = tensor[start : start + STEP]
        piece.copy_(pattern(start, len(piece), tensor.device) + 13.0 * rank)


def wrong(tensor: Any, start: int, times: int, plus: float) -> int:
    """Return how many elements of *tensor* are not *times* the pattern (from place *start* on) and *plus*."""
    count = 0
    for at in range(0, len(tensor), STEP):
        piece = tensor[at : at + STEP]
        right = pattern(start + at, len(piece), tensor.device) * times + plus
        count += int((piece != right).sum())
    return count
