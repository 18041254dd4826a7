"""A small GPT, its start values and its tokens: the same bits on every device. Imports torch.

Start values and tokens come from integer arithmetic (bench/device.py), not from torch's generators, whose last bits
differ between CPUs: what is compared bit by bit between hosts has to start from the same bits.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from gpuprov.proof.bench.device import scrambled
from gpuprov.proof.training.stream import HALVINGS, PICKS, Chain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.proof.training.sizes import Size

#: Standard deviation of start values; those that add to the stream of layers have less, the more layers there are.
SPREAD = 0.02
#: Numbers that are made at once: what that needs has to be little beside the model.
STEP = 1 << 24


class Block(nn.Module):  # type: ignore[misc, unused-ignore]
    """One layer: attention to what came before, then a network of its own for each token."""

    def __init__(self, width: int, heads: int, device: str, dtype: Any) -> None:
        super().__init__()
        make: dict[str, Any] = {"device": device, "dtype": dtype}
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, **make), nn.LayerNorm(width, **make)
        self.qkv, self.project = nn.Linear(width, 3 * width, **make), nn.Linear(width, width, **make)
        self.up, self.down = nn.Linear(width, 4 * width, **make), nn.Linear(4 * width, width, **make)

    def forward(self, x: Any) -> Any:
        """Return what the layer makes of *x* (batch, tokens, width)."""
        batch, tokens, width = x.shape
        parts = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(seen.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Gpt(nn.Module):  # type: ignore[misc, unused-ignore]
    """The whole model. dtype: of its weights. saving: layers are computed again in the backward pass."""

    def __init__(self, size: Size, device: str, seed: int, dtype: Any = torch.float32, saving: bool = False) -> None:
        super().__init__()
        make: dict[str, Any] = {"device": device, "dtype": dtype}
        self.saving = saving
        self.tokens = nn.Embedding(size.vocabulary, size.width, **make)
        self.places = nn.Embedding(size.context, size.width, **make)
        self.blocks = nn.ModuleList(Block(size.width, size.heads, device, dtype) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width, **make)
        self.head = nn.Linear(size.width, size.vocabulary, bias=False, **make)
        start(self, size.layers, seed)

    def forward(self, tokens: Any) -> Any:
        """Return the logits of each next token."""
        x = self.tokens(tokens) + self.places.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.saving else block(x)
        return self.head(self.norm(x))


def start(model: Any, layers: int, seed: int) -> None:
    """Write start values: uniform ones for matrices, ones for norms, zeros for biases."""
    for number, (name, parameter) in enumerate(model.named_parameters()):
        with torch.no_grad():
            if parameter.dim() < 2:
                parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
                continue
            deep = name.endswith(("project.weight", "down.weight"))
            uniform(parameter, SPREAD / math.sqrt(2.0 * layers) if deep else SPREAD, seed * 65599 + number)


def uniform(tensor: Any, spread: float, seed: int) -> None:
    """Fill *tensor* with U(-r, r) of standard deviation *spread*: 24 random bits each, exact up to one rounding."""
    flat = tensor.view(-1)
    scale = spread * math.sqrt(3.0) * 2.0**-23
    for at in range(0, flat.numel(), STEP):
        count = min(STEP, flat.numel() - at)
        index = torch.arange(at, at + count, dtype=torch.int64, device=flat.device) & 0xFFFFFFFF
        bits = scrambled(index, seed + (at >> 32)) >> 8
        flat[at : at + count] = (bits - (1 << 23)).to(torch.float32) * scale


def sequences(chain: Chain, count: int, length: int, seed: int) -> tuple[Any, Any]:
    """Return *count* sequences of *length* tokens on the CPU, and the surprise of each but the first in nats."""
    table = torch.tensor(chain.successors)
    index = torch.arange(count * length, dtype=torch.int64)
    bits = scrambled(index, 2 * seed + 1).view(count, length).t().contiguous()
    picks = torch.tensor(PICKS)[bits >> 29]
    tokens = torch.empty((length, count), dtype=torch.int64)
    tokens[0] = (bits[0] >> 3) % chain.vocabulary
    for at in range(1, length):
        tokens[at] = table[tokens[at - 1], picks[at]]
    surprise = torch.tensor(HALVINGS, dtype=torch.float64)[picks[1:]] * math.log(2.0)
    return tokens.t().contiguous(), surprise.t()


def loss_of(logits: Any, tokens: Any) -> Any:
    """Return the mean loss of *logits* for the tokens after the first, in float32."""
    wide = logits.float().reshape(-1, logits.shape[-1])
    return functional.cross_entropy(wide, tokens[:, 1:].reshape(-1))
