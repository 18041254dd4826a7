"""Parts of the GPT beside what they should give: attention in float64, the loss of the true chances. Imports torch."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from gpuprov.proof.training import gpt_train
from gpuprov.proof.training.gpt_model import loss_of, sequences, uniform
from gpuprov.proof.training.stream import HALVINGS, Chain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gpuprov.proof.training.sizes import Size

#: Error of attention in half precision and in float32, of the largest number: docs/training.md.
BOUND_16, BOUND_32 = 2.0**-6, 1e-5
#: Heads that are computed again in float64 on the CPU: the first and the last.
COMPARED = 2
#: Batches whose loss is computed from the true chances.
BATCHES = 4


def attention_error(
    device: str, its: Size, seed: int, tamper: Callable[[Any], None] | None = None, form: Any = None
) -> tuple[float, float, str]:
    """Return the largest error of causal attention and its gradients, as a part of the largest number of each.

    And its bound, and the name of the number format. form: of another one than is trained in (tests).
    """
    form = form or gpt_train.half(device) or torch.float32
    shape = (4, 1, its.heads, its.context, its.width // its.heads)
    numbers = torch.empty(shape, dtype=torch.float32, device=device)
    uniform(numbers, 1.0, seed)
    q, k, v, slope = numbers.to(form).unbind(0)
    given = [one.detach().clone().requires_grad_() for one in (q, k, v)]
    seen = functional.scaled_dot_product_attention(*given, is_causal=True)
    seen.backward(slope)
    found = [seen.detach(), *(one.grad for one in given)]
    if tamper is not None:
        tamper(found[0])
    heads = [0, its.heads - 1][:COMPARED]
    exact = _by_formula(*(one[:, heads].detach().cpu().double() for one in (q, k, v, slope)))
    errors = [_error(a[:, heads].cpu().double(), b) for a, b in zip(found, exact)]
    worst = math.nan if any(math.isnan(one) for one in errors) else max(errors)
    return worst, BOUND_32 if form == torch.float32 else BOUND_16, str(form).rpartition(".")[2]


def _error(found: Any, exact: Any) -> float:
    return float((found - exact).abs().max() / exact.abs().max())


def _by_formula(q: Any, k: Any, v: Any, slope: Any) -> list[Any]:
    """Return attention and its derivatives by q, k and v, by hand-derived formulae.

    P = softmax(q k^T / sqrt(d)) over the past, o = P v;  dv = P^T do,  dP = do v^T,
    dS = P (dP - sum(dP P)) / sqrt(d),  dq = dS k,  dk = dS^T q
    """
    root = math.sqrt(q.shape[-1])
    past = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool).tril()
    scores = (q @ k.transpose(-1, -2) / root).masked_fill(~past, -math.inf)
    weights = torch.exp(scores - scores.amax(-1, keepdim=True))
    weights /= weights.sum(-1, keepdim=True)
    back = slope @ v.transpose(-1, -2)
    inner = weights * (back - (back * weights).sum(-1, keepdim=True)) / root
    return [weights @ v, inner @ k, inner.transpose(-1, -2) @ q, weights.transpose(-1, -2) @ slope]


def of_true_chances(device: str, its: Size, seed: int, leak: float) -> tuple[list[float], list[float]]:
    """Return losses of batches whose logits are the true chances, and the surprise of their tokens.

    leak is added to the logit of each token that is to be predicted: that nobody can know.
    """
    chain = Chain(its.vocabulary, seed)
    tokens, surprise = sequences(chain, BATCHES * its.batch, its.context + 1, seed + 1)
    tokens = tokens.to(device)
    # Not minus infinity: the loss of a token that cannot come has to show, not to be NaN.
    table = torch.full((its.vocabulary, its.vocabulary), -40.0, device=device)
    chances = torch.tensor(HALVINGS, dtype=torch.float32, device=device) * -math.log(2.0)
    table.scatter_(1, torch.tensor(chain.successors, device=device), chances.expand(its.vocabulary, -1))
    logits = table[tokens[:, :-1]]
    logits.scatter_add_(2, tokens[:, 1:, None], torch.full_like(logits[..., :1], leak))
    losses = [float(loss_of(a, b)) for a, b in zip(logits.split(its.batch), tokens.split(its.batch))]
    return losses, [float(one.mean()) for one in surprise.split(its.batch)]
