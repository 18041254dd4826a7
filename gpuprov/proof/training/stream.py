"""An endless stream of tokens whose entropy is known exactly, and what a loss on it may be. Pure, without torch.

Each token has four possible successors with chances 1/2, 1/4, 1/8 and 1/8, whatever came before: what the next token
tells is 7/4 bits on average, 1.2130 nats, and no model that sees only the past has a lower expected loss. A lower
loss means that the model saw the future, or that something was computed wrongly.
"""

from __future__ import annotations

import math
import random

from gpuprov.proof.check import check, thinned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuprov.proof.check import Message

#: Chances of a token's successors as powers of 1/2: three random bits pick one.
HALVINGS = (1, 2, 3, 3)
#: Which successor each value of three random bits picks.
PICKS = (0, 0, 0, 0, 1, 1, 2, 3)
#: Entropy of the stream in nats per token, and the standard deviation of one token's.
FLOOR = math.log(2.0) * sum(n * 0.5**n for n in HALVINGS)
SPREAD = math.log(2.0) * math.sqrt(sum(n * n * 0.5**n for n in HALVINGS) - (FLOOR / math.log(2.0)) ** 2)
#: Chance of a false alarm of `allowance`, over a whole training.
FALSE_ALARM = 1e-9
#: Rounding of a mean loss in float32, relative.
ROUNDING = 1e-5
#: The first loss of a model that knows nothing: ln(vocabulary), and no more than this away from it.
START_BOUND = 0.35
#: A mean over so many last steps is the loss that has to be reached.
LAST_STEPS = 5
#: A gradient's norm this many times its neighbours' is a spike, or its inverse a gradient that went missing.
SPIKE = 8.0
#: So many first steps are not judged by their neighbours: gradients change fast there.
SETTLING = 3


class Chain:
    """The successors of each token: successors[token][k] has chance 2 ** -HALVINGS[k]."""

    __slots__ = ("successors", "vocabulary")

    def __init__(self, vocabulary: int, seed: int) -> None:
        rng = random.Random(seed)  # noqa: S311 - reproducible data, no secret
        order = list(range(vocabulary))
        for i in range(vocabulary - 1, 0, -1):
            j = int(rng.random() * (i + 1))
            order[i], order[j] = order[j], order[i]
        # Four shifts of one permutation: never the same successor twice, and every token is as frequent as any other.
        shifts = [k * (vocabulary // len(HALVINGS)) for k in range(len(HALVINGS))]
        self.vocabulary = vocabulary
        self.successors = [[order[(token + shift) % vocabulary] for shift in shifts] for token in range(vocabulary)]

    def chance(self, token: int, following: int) -> float:
        """Return the chance that *following* comes after *token*. Pure."""
        successors = self.successors[token]
        return 0.5 ** HALVINGS[successors.index(following)] if following in successors else 0.0

    def surprise(self, tokens: Sequence[int]) -> float:
        """Return the mean -ln chance of all tokens but the first, infinity for what cannot come. Pure."""
        total = 0.0
        for before, after in zip(tokens, tokens[1:]):
            chance = self.chance(before, after)
            if not chance:
                return math.inf
            total -= math.log(chance)
        return total / (len(tokens) - 1)


def allowance(tokens: int) -> float:
    """Return how far the mean loss over *tokens* may be below that of the true chances on the same tokens. Pure.

    The likelihood of a model, over that of the truth, is a martingale with mean 1 for every model that sees only the
    past: that it ever exceeds 1/FALSE_ALARM has at most the chance FALSE_ALARM (Ville). So whatever the model, the
    sum of its losses is above that of the truth less ln(1/FALSE_ALARM) after every step.
    """
    return math.log(1.0 / FALSE_ALARM) / tokens


def drift(tokens: int) -> float:
    """Return how far the stream's own mean surprise over *tokens* may be from its entropy: 6 standard deviations."""
    return 6.0 * SPREAD / math.sqrt(tokens)


def starts(name: str, device: str, losses: Sequence[float], vocabulary: int, bound: float = START_BOUND) -> Message:
    """Judge the first loss: a model that has seen nothing cannot do better than ln(vocabulary). Pure."""
    expected = math.log(vocabulary)
    first = losses[0]
    good = abs(first - expected) <= bound
    return check(
        name + ".start",
        "pass" if good else "fail",
        f"the first loss {first:.4f} is near ln({vocabulary}) = {expected:.4f}: the model knows nothing yet"
        if good
        else f"the first loss is {first:.4f}, but a model that knows nothing has ln({vocabulary}) = {expected:.4f}",
        measured=first,
        expected=f"{expected:.4f} +/- {bound:g}",
        unit="nats",
        device=device,
        action=_blamed(device, good),
    )


def learns(name: str, device: str, losses: Sequence[float], bound: float) -> Message:
    """Judge the mean of the last losses: it has to cross *bound*. Pure; NaN fails."""
    last = list(losses[-LAST_STEPS:])
    reached = sum(last) / len(last)
    good = reached <= bound
    broken = next((i + 1 for i, loss in enumerate(losses) if not math.isfinite(loss)), 0)
    why = (
        f"the loss of step {broken} is {losses[broken - 1]}" if broken else f"the loss only came down to {reached:.4f}"
    )
    return check(
        name + ".learns",
        "pass" if good else "fail",
        f"the loss fell from {losses[0]:.4f} to {reached:.4f} in {len(losses)} steps (entropy floor {FLOOR:.4f})"
        if good
        else f"{why} in {len(losses)} steps: a device that computes right gets below {bound:.4f}",
        measured=reached,
        expected=f"<= {bound:.4f}",
        unit="nats",
        device=device,
        action=_blamed(device, good),
        data={"losses": thinned(list(losses), 60), "floor": FLOOR, "bound": bound},
    )


def above_floor(
    name: str, device: str, losses: Sequence[float], truths: Sequence[float], tokens_per_step: int
) -> Message:
    """Judge that no loss is below what the true chances give on the same tokens. Pure.

    losses and truths: means per step. Looks at each step alone and at the sum of all until then. NaN fails.
    """
    least, at, margin, total = math.inf, 0, 0.0, 0.0
    for number, (loss, truth) in enumerate(zip(losses, truths), 1):
        total += loss - truth
        for excess, tokens in ((loss - truth, tokens_per_step), (total / number, number * tokens_per_step)):
            room = excess + allowance(tokens) + ROUNDING * truth
            if not room >= least:
                least, at, margin = room, number, excess
    good = least >= 0.0
    mean = sum(truths) / len(truths)
    return check(
        name + ".floor",
        "pass" if good else "fail",
        f"no loss is below the entropy of the stream ({mean:.4f} nats for these tokens): nothing leaks"
        if good
        else f"at step {at} the loss is {-margin:.4f} nats below the entropy of the stream, which no model can "
        "reach: the future leaks into the past, or the loss is computed wrongly",
        measured=margin,
        expected=f">= -{allowance(tokens_per_step):.1g} above the floor",
        unit="nats",
        device=device,
        action=_blamed(device, good),
        data={"floor": FLOOR, "truth": mean, "step": at},
    )


def true_stream(name: str, device: str, truths: Sequence[float], tokens_per_step: int) -> Message:
    """Judge the stream itself: its tokens are what the chances say, or nothing that is learned from it counts."""
    mean = sum(truths) / len(truths)
    tokens = tokens_per_step * len(truths)
    good = abs(mean - FLOOR) <= drift(tokens)
    return check(
        name + ".stream",
        "pass" if good else "fail",
        f"{tokens} tokens have {mean:.4f} nats each, as computed beforehand ({FLOOR:.4f})"
        if good
        else f"{tokens} tokens have {mean:.4f} nats each, not {FLOOR:.4f}: they are not the stream that was asked for",
        measured=mean,
        expected=f"{FLOOR:.4f} +/- {drift(tokens):.4f}",
        unit="nats",
        device=device,
    )


def steady(name: str, device: str, norms: Sequence[float]) -> Message:
    """Judge the norm of each step's gradient against its neighbours'. Pure; NaN fails.

    A gradient that is spiked once leaves no mark on the loss that a bound could see: AdamW forgets it.
    """
    broken = [at for at, norm in enumerate(norms) if not math.isfinite(norm)]
    ratios = {at: spike_ratio(norms, at) for at in range(SETTLING, len(norms))}
    at = broken[0] if broken else max(ratios, key=lambda one: ratios[one])
    worst = math.inf if broken else ratios[at]
    good = worst <= SPIKE
    beside = "" if broken else f", its neighbours' {middle(norms, at):.3g}"
    return check(
        name + ".gradients",
        "pass" if good else "fail",
        f"no gradient of {len(norms)} steps sticks out (largest ratio to its neighbours {worst:.1f})"
        if good
        else f"the norm of step {at + 1}'s gradient is {norms[at]:.3g}{beside}: something was computed wrongly there",
        measured=worst,
        expected=f"<= {SPIKE:g}",
        unit="times its neighbours",
        device=device,
        action=_blamed(device, good),
        data={"norms": thinned(list(norms), 40)},
    )


def middle(norms: Sequence[float], at: int) -> float:
    """Return the median norm of up to three steps before *at* and three after. Pure."""
    near = sorted([*norms[max(0, at - 3) : at], *norms[at + 1 : at + 4]])
    return near[len(near) // 2]


def spike_ratio(norms: Sequence[float], at: int) -> float:
    """Return how many times the norm *at* is its neighbours', or they it. Pure."""
    usual = middle(norms, at)
    ratio = norms[at] / usual if usual else math.inf
    return max(ratio, 1.0 / ratio) if ratio else math.inf


def _blamed(device: str, good: bool) -> str:
    return "none" if good or not device.startswith("cuda") else "isolate"
