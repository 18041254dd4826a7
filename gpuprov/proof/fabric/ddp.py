"""Data-parallel training over several hosts: the gradients that everybody has, and the losses that one process has.

A small network; what is proved is that DistributedDataParallel averages over the fabric what it should average, to
the last bit the same everywhere, not how fast.
"""

from __future__ import annotations

import hashlib

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from gpuprov.proof.fabric.collectives import WrongError, gather

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Sequence

SEED = 7
POINTS_PER_RANK = 8
WIDTHS = (16, 32, 1)
LEARNING_RATE = 0.05
#: Of a loss against the same step of one process with the global batch, relative. float32 in another order of
#: summation parts by 1e-6 in 20 steps.
BOUND = 1e-5


def train(device: torch.device, names: Sequence[str], steps: int, at: Callable[[str], None]) -> dict[str, Any]:
    """Train over all ranks; return what rank 0 shows of it. Raises WrongError."""
    world, rank = len(names), dist.get_rank()
    at(f"training over {world} ranks")
    x, y = points(steps, world)
    same("the points of the training", digest([x, y]), names, device)
    mine = slice(rank * POINTS_PER_RANK, (rank + 1) * POINTS_PER_RANK)
    ours = DistributedDataParallel(
        network().to(device), device_ids=[device.index] if device.type == "cuda" else None, gradient_as_bucket_view=True
    )
    optimiser = torch.optim.SGD(ours.parameters(), lr=LEARNING_RATE)
    losses = []
    for step in range(steps):
        at(f"step {step + 1} of {steps} over {world} ranks")
        losses.append(_step(ours, optimiser, x[step, mine].to(device), y[step, mine].to(device)) / world)
        same(f"the gradients of step {step + 1}", digest([p.grad for p in ours.parameters()]), names, device)
    same("the trained weights", digest(list(ours.parameters())), names, device)
    _canary(ours, names, device)
    alone = _alone(device, x, y)
    difference = max(abs(a - b) / abs(b) for a, b in zip(losses, alone))
    if not difference <= BOUND:
        raise WrongError(f"a loss differs from that of one process by {difference:.2g} (bound {BOUND:g})")
    return {"world": world, "steps": steps, "difference": difference, "bound": BOUND, "losses": losses}


def points(steps: int, world: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x (steps, global batch, inputs) and y, the same on every host: made on the CPU from a fixed seed."""
    draw = torch.Generator().manual_seed(SEED)
    x = torch.rand((steps, world * POINTS_PER_RANK, WIDTHS[0]), generator=draw) * 2 - 1
    return x, (x[..., :1] - x[..., 1:2] / 2 + x[..., 2:3].abs())


def network() -> torch.nn.Module:
    """Return the network with its start values."""
    torch.manual_seed(SEED)
    inputs, hidden, outputs = WIDTHS
    return torch.nn.Sequential(torch.nn.Linear(inputs, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, outputs))


def _step(model: torch.nn.Module, optimiser: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> float:
    """Do one step; return the sum of all ranks' losses."""
    optimiser.zero_grad()
    loss = torch.nn.functional.mse_loss(model(x), y)
    loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
    total = loss.detach().clone()
    dist.all_reduce(total)
    optimiser.step()
    return float(total)


def _alone(device: torch.device, x: torch.Tensor, y: torch.Tensor) -> list[float]:
    """Return the losses of one process that trains with the whole batch."""
    model = network().to(device)
    optimiser = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    losses = []
    for step in range(x.shape[0]):
        optimiser.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x[step].to(device)), y[step].to(device))
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


def digest(tensors: Sequence[Any]) -> int:
    """Return 62 bits of the SHA-256 of the tensors' bytes."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(bytes(tensor.detach().cpu().contiguous().view(torch.uint8).flatten().tolist()))
    return int.from_bytes(found.digest()[:8], "big") >> 2


def same(what: str, mine: int, names: Sequence[str], device: torch.device) -> None:
    """Compare a digest over all ranks. Raises WrongError that names who differs from most."""
    everybody = torch.empty(len(names), dtype=torch.int64, device=device)
    gather(everybody, torch.tensor([mine], dtype=torch.int64, device=device))
    odd = odd_ones(everybody.tolist())
    if odd:
        who = ", ".join(names[rank] for rank in odd[:5])
        raise WrongError(f"{what}: not the same bits on all ranks; {who} differ{'s' if len(odd) == 1 else ''}")


def odd_ones(digests: Sequence[int]) -> list[int]:
    """Return the ranks whose digest is not the most frequent one (the first one of those, in a tie). Pure."""
    most = max(digests, key=lambda one: (digests.count(one), -digests.index(one)))
    return [rank for rank, one in enumerate(digests) if one != most]


def _canary(model: torch.nn.Module, names: Sequence[str], device: torch.device) -> None:
    """Change one bit of the last rank's weights: a comparison that does not see it sees nothing."""
    last = len(names) - 1
    with torch.no_grad():
        copies = [p.detach().clone() for p in model.parameters()]
        if dist.get_rank() == last:
            copies[0].view(torch.int32).view(-1)[0] ^= 1
    try:
        same("canary", digest(copies), names, device)
    except WrongError as error:
        if len(names) == 2 or names[last] in str(error):
            return
    raise WrongError("the canary was not caught: this comparison sees nothing")
