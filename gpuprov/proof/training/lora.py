"""Models to be fine-tuned: all of one, or small matrices beside frozen weights. Imports torch."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import linear

from gpuprov.proof.bench import device as on
from gpuprov.proof.training import gpt_train
from gpuprov.proof.training.gpt_model import Gpt, uniform
from gpuprov.proof.training.memory import RANK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.proof.training.sizes import Size

#: In deeper models each layer's matrices count for less, or all of them together move too far in a step.
FULL_SCALE_LAYERS = 8


class Beside(nn.Module):  # type: ignore[misc, unused-ignore]
    """A frozen matrix and its bias, and two small matrices that are trained: y = W x + b + scale B (A x)."""

    def __init__(self, frozen: Any, seed: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.frozen = frozen.requires_grad_(False)
        make: dict[str, Any] = {"device": frozen.weight.device, "dtype": torch.float32}
        self.inner = nn.Parameter(torch.empty((RANK, frozen.in_features), **make))
        self.outer = nn.Parameter(torch.zeros((frozen.out_features, RANK), **make))
        with torch.no_grad():
            uniform(self.inner, frozen.in_features**-0.5, seed)

    def forward(self, x: Any) -> Any:
        """Return the sum of what is frozen and what is trained."""
        return self.frozen(x) + linear(linear(x, self.inner), self.outer) * self.scale


def built(kind: str, its: Size, device: str, seed: int) -> Any:
    """Return a model with its start values, ready to be trained as *kind* ("full" or "lora")."""
    if kind == "full":
        return Gpt(its, device, seed, saving=True)
    model = Gpt(its, device, seed, dtype=gpt_train.half(device) or torch.float32, saving=True)
    model.requires_grad_(False)
    number, scale = 0, min(1.0, FULL_SCALE_LAYERS / its.layers)
    for block in model.blocks:
        for name in ("qkv", "project", "up", "down"):
            number += 1
            setattr(block, name, Beside(getattr(block, name), seed * 7919 + number, scale))
    model.head = model.head.float().requires_grad_(True)
    return model


def frozen_sums(model: Any) -> dict[str, int]:
    """Return the sum of the bits of each frozen tensor, by its name."""
    frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    return {name: int(gpt_train.bit_sum([p])) for name, p in frozen.items()}


def flipped(model: Any) -> dict[str, int]:
    """Flip one bit of a frozen weight, return the sums, flip it back."""
    weight = model.blocks[-1].down.frozen.weight.data.view(-1)
    bits = weight.view(on.INTEGERS[weight.element_size()])
    bits[len(bits) // 3] ^= 1
    sums = frozen_sums(model)
    bits[len(bits) // 3] ^= 1
    return sums


def flipped_gradient(model: Any) -> bool:
    """Flip the lowest bit of one number of the largest gradient, and back; return whether the sum of bits showed it."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    largest = max(gradients, key=lambda one: one.numel())
    before = int(gpt_train.bit_sum(gradients))
    bits = largest.view(-1).view(on.INTEGERS[largest.element_size()])
    bits[len(bits) // 3] ^= 1
    spoiled = int(gpt_train.bit_sum(gradients))
    bits[len(bits) // 3] ^= 1
    return spoiled != before == int(gpt_train.bit_sum(gradients))
