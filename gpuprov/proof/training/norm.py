"""A network with batch normalisation in float64 by hand-derived formulae: no torch, no autograd. Pure.

    z = W x,  m = mean(z),  v = mean((z - m)^2),  h = (z - m) / sqrt(v + EPSILON),  a = tanh(g h + b),  p = u a + c
    backward   d = 2 (p - y) / n,  du = d a,  dc = d,  e = d u (1 - a^2),  dg = e h,  db = e,
               dz = g / sqrt(v + EPSILON) (e - mean(e) - h mean(e h)),  dW = dz x
    running    mean <- 0.9 mean + 0.1 m,  variance <- 0.9 variance + 0.1 v n / (n - 1)

In training the batch's own mean and variance count, later the running ones: the same weights give other predictions.
"""

from __future__ import annotations

import math
import random
from operator import mul

from gpuprov.proof.training.data import float32, uniform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

INPUTS, HIDDEN = 8, 12
POINTS, BATCH, EPOCHS = 320, 16, 5
RATE, MOMENTUM, EPSILON = 0.05, 0.1, 1e-5


class NormTask:
    """Data, start values and order of batches, all from *seed*: float32 numbers as Python floats."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)  # noqa: S311 - reproducible data, no secret
        self.seed = seed
        # Inputs far from zero and of different width: what batch normalisation is for.
        scales = [0.5 + i / 4.0 for i in range(INPUTS)]
        self.x = [float32([scale * (uniform(rng, 1.0) + 0.5) for scale in scales]) for _ in range(POINTS)]
        self.y = float32([row[0] - 0.5 * row[1] * row[2] + uniform(rng, 0.1) for row in self.x])
        self.weight = [float32([uniform(rng, INPUTS**-0.5) for _ in range(INPUTS)]) for _ in range(HIDDEN)]
        self.last = float32([uniform(rng, HIDDEN**-0.5) for _ in range(HIDDEN)])
        self.order = list(range(POINTS))
        for i in range(POINTS - 1, 0, -1):
            j = int(rng.random() * (i + 1))
            self.order[i], self.order[j] = self.order[j], self.order[i]

    def batches(self) -> list[list[int]]:
        """Return the indices of each batch of an epoch. Pure."""
        return [self.order[at : at + BATCH] for at in range(0, POINTS, BATCH)]

    def batch(self, number: int) -> tuple[list[list[float]], list[float]]:
        """Return x and y of batch *number*. Pure."""
        indices = self.batches()[number]
        return [self.x[i] for i in indices], [self.y[i] for i in indices]


class Norm:
    """The network, with its running mean and variance."""

    def __init__(self, task: NormTask) -> None:
        self.weight = [list(row) for row in task.weight]
        self.gain, self.shift = [1.0] * HIDDEN, [0.0] * HIDDEN
        self.last, self.bias = list(task.last), 0.0
        self.mean, self.variance = [0.0] * HIDDEN, [1.0] * HIDDEN

    def sums(self, xs: Sequence[Sequence[float]]) -> list[list[float]]:
        """Return z of each hidden unit, for all points. Pure."""
        return [[math.fsum(map(mul, row, x)) for x in xs] for row in self.weight]

    def predictions(
        self, xs: Sequence[Sequence[float]], mean: Sequence[float], variance: Sequence[float]
    ) -> list[float]:
        """Return what is predicted with this mean and variance of each hidden unit. Pure."""
        found = [self.bias] * len(xs)
        units = zip(self.sums(xs), mean, variance, self.gain, self.shift, self.last)
        for zs, m, v, gain, shift, last in units:
            root = math.sqrt(v + EPSILON)
            found = [p + last * math.tanh(gain * (z - m) / root + shift) for p, z in zip(found, zs)]
        return found

    def loss(self, xs: Sequence[Sequence[float]], ys: Sequence[float]) -> float:
        """Return the mean squared error with the batch's own mean and variance. Pure."""
        means, variances = moments(self.sums(xs))
        return mean_square(self.predictions(xs, means, variances), ys)

    def later(self, xs: Sequence[Sequence[float]]) -> list[float]:
        """Return what is predicted after the training, with running mean and variance. Pure."""
        return self.predictions(xs, self.mean, self.variance)

    def gradients(self, xs: Sequence[Sequence[float]], ys: Sequence[float]) -> tuple[float, list[float]]:
        """Return the loss and its derivative by every parameter, flat as `flat`. Pure."""
        count = len(xs)
        sums = self.sums(xs)
        means, variances = moments(sums)
        predicted = self.predictions(xs, means, variances)
        errors = [2.0 * (p - y) / count for p, y in zip(predicted, ys)]
        weight, gain, shift, last = [], [], [], []
        for k, zs in enumerate(sums):
            root = math.sqrt(variances[k] + EPSILON)
            hs = [(z - means[k]) / root for z in zs]
            outs = [math.tanh(self.gain[k] * h + self.shift[k]) for h in hs]
            back = [d * self.last[k] * (1.0 - a * a) for d, a in zip(errors, outs)]
            inner = math.fsum(map(mul, back, hs))
            flow = math.fsum(back)
            last.append(math.fsum(map(mul, errors, outs)))
            gain.append(inner)
            shift.append(flow)
            slope = [self.gain[k] / root * (e - flow / count - h * inner / count) for e, h in zip(back, hs)]
            weight += [math.fsum(map(mul, slope, column)) for column in zip(*xs)]
        return mean_square(predicted, ys), [*weight, *gain, *shift, *last, math.fsum(errors)]

    def step(self, xs: Sequence[Sequence[float]], ys: Sequence[float]) -> float:
        """Take one step of training, in place; return the loss before it."""
        means, variances = moments(self.sums(xs))
        loss, slopes = self.gradients(xs, ys)
        grown = len(xs) / (len(xs) - 1)
        self.mean = [(1 - MOMENTUM) * old + MOMENTUM * new for old, new in zip(self.mean, means)]
        self.variance = [(1 - MOMENTUM) * old + MOMENTUM * new * grown for old, new in zip(self.variance, variances)]
        self.take([value - RATE * slope for value, slope in zip(self.flat(), slopes)])
        return loss

    def flat(self) -> list[float]:
        """Return all parameters in the order of torch's `parameters()`. Pure."""
        return [*(value for row in self.weight for value in row), *self.gain, *self.shift, *self.last, self.bias]

    def take(self, values: Sequence[float]) -> None:
        """Set all parameters: the inverse of `flat`."""
        size = HIDDEN * INPUTS
        self.weight = [list(values[at : at + INPUTS]) for at in range(0, size, INPUTS)]
        self.gain, self.shift, self.last = (list(values[size + i * HIDDEN : size + (i + 1) * HIDDEN]) for i in range(3))
        self.bias = values[-1]


def moments(sums: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    """Return mean and variance (by n) of each unit's numbers. Pure."""
    means = [math.fsum(zs) / len(zs) for zs in sums]
    return means, [math.fsum((z - m) ** 2 for z in zs) / len(zs) for zs, m in zip(sums, means)]


def mean_square(predicted: Sequence[float], ys: Sequence[float]) -> float:
    """Return the mean squared error. Pure."""
    return math.fsum((p - y) ** 2 for p, y in zip(predicted, ys)) / len(ys)


def trained(task: NormTask) -> tuple[Norm, list[float]]:
    """Return the network after the training, and the loss of each step. Pure."""
    network = Norm(task)
    return network, [network.step(*task.batch(b)) for _ in range(EPOCHS) for b in range(POINTS // BATCH)]


def numeric(network: Norm, xs: Sequence[Sequence[float]], ys: Sequence[float], reach: float = 1e-5) -> list[float]:
    """Return central differences of the loss by every parameter, flat; the network is left as it was."""
    start = network.flat()
    slopes = []
    for i, value in enumerate(start):
        losses = []
        for moved in (value + reach, value - reach):
            network.take([*start[:i], moved, *start[i + 1 :]])
            losses.append(network.loss(xs, ys))
        slopes.append((losses[0] - losses[1]) / (2.0 * reach))
    network.take(start)
    return slopes
