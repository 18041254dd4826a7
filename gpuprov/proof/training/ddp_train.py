"""Data-parallel training of the GPT on one host, and the same by one process with all of the data. Imports torch."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from gpuprov.proof.bench.device import checksum, on_gpu
from gpuprov.proof.training.gpt_model import Gpt, sequences
from gpuprov.proof.training.gpt_train import bit_sum
from gpuprov.proof.training.stream import Chain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gpuprov.proof.parts import Context
    from gpuprov.proof.training.sizes import Size

    #: Gets ("data", tokens), ("start", model), ("gradients", model) or ("weights", model), and the step: tests spoil.
    Tamper = Callable[[str, int, Any], None]

MOMENTUM = 0.9


class Run:
    """What a rank did. bits: of its data and its start, then of gradients and weights of each step."""

    def __init__(self, losses: list[float], bits: list[list[int]]) -> None:
        self.losses = losses
        self.bits = bits


def tokens_of(its: Size, world: int, seed: int) -> Any:
    """Return the tokens of all ranks: (steps, sequences of all ranks, tokens), made on the CPU."""
    every, _ = sequences(Chain(its.vocabulary, seed), its.steps * world * its.batch, its.context + 1, seed)
    return every.view(its.steps, world * its.batch, its.context + 1)


def train(context: Context, its: Size, tamper: Tamper | None = None) -> Run:
    """Train over all ranks, each on its part of the data. Raises RuntimeError (torch's)."""
    device, spoil = context.device, tamper or _leave
    tokens = tokens_of(its, context.world, context.seed)
    spoil("data", 0, tokens)
    model = Gpt(its, device, context.seed)
    spoil("start", 0, model)
    seen = int(checksum(tokens.view(-1, its.context + 1)), 16) % ((1 << 61) - 1)
    sums = [torch.stack([torch.tensor(seen, device=device), bit_sum(list(model.parameters()))])]
    mine = tokens[:, context.rank * its.batch : (context.rank + 1) * its.batch].to(device)
    where = [torch.device(device).index] if on_gpu(device) else None
    shared = DistributedDataParallel(model, device_ids=where, gradient_as_bucket_view=True)
    optimiser = torch.optim.SGD(model.parameters(), lr=its.rate, momentum=MOMENTUM)
    losses = []
    for step in range(its.steps):
        optimiser.zero_grad()
        loss = _losses(shared(mine[step, :, :-1]), mine[step], 1).mean()
        loss.backward()
        spoil("gradients", step, model)
        gradients = bit_sum([parameter.grad for parameter in model.parameters()])
        optimiser.step()
        spoil("weights", step, model)
        sums.append(torch.stack([gradients, bit_sum(list(model.parameters()))]))
        losses.append(loss.detach())
    return Run(torch.stack(losses).tolist(), torch.stack(sums).tolist())


def alone(context: Context, its: Size) -> list[list[float]]:
    """Train as one process with the data of all ranks; return each step's loss of each rank's part."""
    device = context.device
    tokens = tokens_of(its, context.world, context.seed).to(device)
    model = Gpt(its, device, context.seed)
    optimiser = torch.optim.SGD(model.parameters(), lr=its.rate, momentum=MOMENTUM)
    losses = []
    for step in range(its.steps):
        optimiser.zero_grad()
        parts = _losses(model(tokens[step, :, :-1]), tokens[step], context.world)
        parts.mean().backward()
        optimiser.step()
        losses.append(parts.detach())
    found: list[list[float]] = torch.stack(losses).tolist()
    return found


def gathered(numbers: list[Any], kind: Any, device: str) -> list[Any]:
    """Return the numbers (nested lists of the same shape) of every rank, by rank."""
    mine = torch.tensor(numbers, dtype=kind, device=device)
    every = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(every, mine)
    return [one.tolist() for one in every]


def _losses(logits: Any, tokens: Any, parts: int) -> Any:
    """Return the mean loss of each of *parts* equal parts of a batch, in float32."""
    each = cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    return each.view(parts, -1).mean(dim=1)


def _leave(what: str, step: int, it: Any) -> None:
    """Spoil nothing."""
