"""Collectives with known results: each is compared number by number before and after it is timed.

Numbers are small whole ones, exact in float32, so that every order of summation gives the same.
"""

from __future__ import annotations

import time

import torch
import torch.distributed as dist

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Sequence

    At = Callable[[str], None]

WARM_UP = 2
SAMPLES = 5
#: Calls per sample: a GPU's are short beside the clock and the barrier.
CALLS = {"cuda": 4, "cpu": 1}
#: Pattern of a payload: the element at i is i % CYCLE + 1, times what the rank makes of it.
CYCLE = 7


#: all_gather_into_tensor by the name that it has since torch 2.13.
gather: Callable[..., Any] = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


class WrongError(Exception):
    """A collective gave a number that it must not give."""


class AllReduce:
    """Sum over all ranks. size: bytes of the payload that every rank has."""

    @staticmethod
    def factor(world: int) -> float:
        """Return bus bytes per byte of payload, as nccl-tests count them."""
        return 2 * (world - 1) / world

    def __init__(self, device: torch.device, size: int, names: Sequence[str], rank: int) -> None:
        self._names = names
        self._base = _pattern(size // 4, device)
        self._mine = self._base * _share(rank)
        self.out = self._mine.clone()
        self.size = self.out.numel() * 4

    def reset(self) -> None:
        """Make the payload what it was."""
        self.out.copy_(self._mine)

    def run(self) -> None:
        """Do it once."""
        dist.all_reduce(self.out)

    def wrong(self) -> str:
        """Return the first number that is not what it must be, after reset and run; "" when all are right."""
        total = sum(_share(rank) for rank in range(len(self._names)))
        return _first_wrong(self.out, self._base * total, "a sum")


class AllGather:
    """Every rank's part at every rank. size: bytes of all parts together."""

    @staticmethod
    def factor(world: int) -> float:
        """Return bus bytes per byte of payload."""
        return (world - 1) / world

    def __init__(self, device: torch.device, size: int, names: Sequence[str], rank: int) -> None:
        self._names = names
        self._base = _pattern(max(1, size // 4 // len(names)), device)
        self._mine = self._base * (rank + 1)
        self.out = torch.empty(self._base.numel() * len(names), device=device)
        self.size = self.out.numel() * 4

    def reset(self) -> None:
        """Make the output what nobody sends."""
        self.out.fill_(-1.0)

    def run(self) -> None:
        """Do it once."""
        gather(self.out, self._mine)

    def wrong(self) -> str:
        """Return the first number that is not what it must be."""
        parts = self.out.chunk(len(self._names))
        found = (_first_wrong(p, self._base * (n + 1), f"from {self._names[n]}") for n, p in enumerate(parts))
        return next((text for text in found if text), "")


class AllToAll:
    """A part of every rank for every rank. size: bytes that one rank sends."""

    @staticmethod
    def factor(world: int) -> float:
        """Return bus bytes per byte of payload."""
        return (world - 1) / world

    def __init__(self, device: torch.device, size: int, names: Sequence[str], rank: int) -> None:
        world = len(names)
        self._names = names
        self._rank = rank
        self._base = _pattern(max(1, size // 4 // world), device)
        self._mine = torch.cat([self._base + CYCLE * _both(rank, to) for to in range(world)])
        self.out = torch.empty_like(self._mine)
        self.size = self.out.numel() * 4

    def reset(self) -> None:
        """Make the output what nobody sends."""
        self.out.fill_(-1.0)

    def run(self) -> None:
        """Do it once."""
        dist.all_to_all_single(self.out, self._mine)

    def wrong(self) -> str:
        """Return the first number that is not what it must be."""
        world = len(self._names)
        for number, part in enumerate(self.out.chunk(world)):
            must = self._base + CYCLE * _both(number, self._rank)
            text = _first_wrong(part, must, f"from {self._names[number]}")
            if text:
                return text
        return ""


RUNNERS: dict[str, Any] = {"allreduce": AllReduce, "allgather": AllGather, "alltoall": AllToAll}


def measure(name: str, device: torch.device, size: int, names: Sequence[str], at: At) -> dict[str, Any]:
    """Verify, time and verify again; return samples in GB/s of bus bandwidth, the same on all ranks.

    Raises WrongError, and RuntimeError (torch's) when a peer is lost.
    """
    world = len(names)
    one = RUNNERS[name](device, size, names, dist.get_rank())
    at(f"{name} of {one.size >> 10} KiB over {world} ranks")
    _verified(one, name)
    _canary(one, name)
    for _ in range(WARM_UP):
        one.run()
    calls = CALLS[device.type]
    seconds = []
    for _ in range(SAMPLES):
        dist.barrier()
        since = _clock(device)
        for _ in range(calls):
            one.run()
        seconds.append((_clock(device) - since) / calls)
    slowest = torch.tensor(seconds, device=device, dtype=torch.float64)
    dist.all_reduce(slowest, dist.ReduceOp.MAX)  # a collective is as slow as its slowest rank
    _verified(one, name)
    samples = [one.size * one.factor(world) / took / 1e9 for took in slowest.tolist()]
    return {"gb_per_s": sorted(samples)[len(samples) // 2], "samples": samples, "bytes": one.size, "world": world}


def _verified(one: Any, name: str) -> None:
    one.reset()
    one.run()
    text = one.wrong()
    if text:
        raise WrongError(f"{name}: {text}")


def _canary(one: Any, name: str) -> None:
    """Spoil one number: a comparison that does not see it sees nothing."""
    middle = one.out.numel() // 2
    kept = one.out[middle].clone()
    one.out[middle] += 1.0
    if not one.wrong():
        raise WrongError(f"{name}: the canary was not caught: this comparison sees nothing")
    one.out[middle] = kept


def _share(rank: int) -> int:
    """Return the factor of a rank's payload: sums stay exact in float32 (below 2^24) up to 9000 ranks."""
    return rank % 512 + 1


def _both(sender: int, receiver: int) -> int:
    """Return a number that says who sends what to whom, below 2^24 / CYCLE."""
    return (sender * 4099 + receiver) % 2_000_003


def _pattern(count: int, device: torch.device) -> torch.Tensor:
    return torch.arange(count, device=device).remainder_(CYCLE).add_(1).to(torch.float32)


def _first_wrong(found: torch.Tensor, must: torch.Tensor, what: str) -> str:
    different = found.ne(must)
    if not bool(different.any()):
        return ""
    at = int(different.nonzero()[0])
    count = int(different.sum())
    return f"{what}: number {at} is {found[at].item():g}, must be {must[at].item():g} ({count} of {must.numel()} wrong)"


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
