"""The same trainings in float64 by hand-derived formulae: no torch, no autograd.

    forward    z = W a + b,  a' = relu(z), the last layer without relu;  L = mean((z - y)^2)
    backward   d = 2 (z - y) / n at the last layer;  dW = d a^T,  db = d,  d' = (W^T d) where z' > 0

These numbers are the yardstick: a device that computes right stays within float32 rounding of them.
"""

from __future__ import annotations

import math
from operator import mul

from gpuprov.proof.training.data import LEARNING_RATE, POINTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from gpuprov.proof.training.data import Layer, Task

#: So many epochs of a network with ReLU are compared number by number; later ones by their loss alone.
COMPARED_EPOCHS = 10


class Trace:
    """What a training leaves: the loss of every step, and parameters after chosen epochs.

    parameters are flat: per layer the weights row by row, then the biases. `after` maps an epoch
    (counted from 1) to the parameters after it. margin (replays only) is the closest that the input of
    any ReLU came to zero: where float32 rounding can cross zero, float32 and float64 part for good reason.
    """

    __slots__ = ("after", "margin", "parameters", "steps")

    def __init__(
        self, steps: list[float], parameters: list[float], after: dict[int, list[float]], margin: float = math.inf
    ) -> None:
        self.steps = steps
        self.parameters = parameters
        self.after = after
        self.margin = margin


class Network:
    """Fully connected layers with ReLU between them, in float64.

    closest is the smallest distance from zero that the input of any ReLU has had in `gradients`.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.closest = math.inf
        self.layers: list[Layer] = [([list(row) for row in rows], list(bias)) for rows, bias in layers]

    def forward(self, x: list[float]) -> tuple[list[list[float]], list[list[float]]]:
        """Return each layer's input and its z = W a + b for one point. Pure."""
        inputs, sums = [x], []
        for rows, bias in self.layers:
            a = inputs[-1]
            z = [sum(map(mul, row, a)) + b for row, b in zip(rows, bias)]
            sums.append(z)
            inputs.append([value if value > 0.0 else 0.0 for value in z])
        return inputs[:-1], sums

    def loss(self, xs: list[list[float]], ys: list[float]) -> float:
        """Return the mean squared error. Pure."""
        return math.fsum((self.forward(x)[1][-1][0] - y) ** 2 for x, y in zip(xs, ys)) / len(xs)

    def gradients(self, xs: list[list[float]], ys: list[float]) -> tuple[float, list[Layer]]:
        """Return the mean squared error and its derivative by every parameter."""
        sums: list[Layer] = [([[0.0] * len(row) for row in rows], [0.0] * len(bias)) for rows, bias in self.layers]
        total = 0.0
        for x, y in zip(xs, ys):
            inputs, zs = self.forward(x)
            error = zs[-1][0] - y
            total += error * error
            self.closest = min(self.closest, *(min(map(abs, z)) for z in zs[:-1])) if len(zs) > 1 else self.closest
            self._backward([2.0 * error / len(xs)], inputs, zs, sums)
        return total / len(xs), sums

    def _backward(
        self, delta: list[float], inputs: list[list[float]], zs: list[list[float]], sums: list[Layer]
    ) -> None:
        for k in range(len(self.layers) - 1, -1, -1):
            rows, bias = sums[k]
            for i, d in enumerate(delta):
                if d != 0.0:
                    rows[i] = [g + d * a for g, a in zip(rows[i], inputs[k])]
                    bias[i] += d
            if k:
                columns = zip(*self.layers[k][0])
                delta = [sum(map(mul, column, delta)) if z > 0.0 else 0.0 for column, z in zip(columns, zs[k - 1])]

    def step(self, gradients: list[Layer]) -> None:
        """Move every parameter by -learning rate x gradient, in place."""
        self.layers = [
            (
                [[w - LEARNING_RATE * g for w, g in zip(row, drow)] for row, drow in zip(rows, drows)],
                [b - LEARNING_RATE * g for b, g in zip(bias, dbias)],
            )
            for (rows, bias), (drows, dbias) in zip(self.layers, gradients)
        ]

    def margin(self, xs: list[list[float]]) -> float:
        """Return how close the input of any ReLU comes to zero, where its slope jumps. Pure."""
        return min((abs(value) for x in xs for z in self.forward(x)[1][:-1] for value in z), default=math.inf)


def flat(layers: Sequence[Layer]) -> list[float]:
    """Return parameters in the order of torch's `parameters()`. Pure."""
    return [value for rows, bias in layers for values in (*rows, bias) for value in values]


def shaped(values: Sequence[float], widths: Sequence[int]) -> list[Layer]:
    """Return flat parameters as layers: the inverse of `flat`. Pure."""
    layers, at = [], 0
    for fan_in, fan_out in zip(widths, widths[1:]):
        rows = [list(values[at + i * fan_in : at + (i + 1) * fan_in]) for i in range(fan_out)]
        at += fan_in * fan_out
        layers.append((rows, list(values[at : at + fan_out])))
        at += fan_out
    return layers


def replay(task: Task, keep: Collection[int] = (), least_margin: float = 0.0) -> Trace:
    """Train *task* in float64; parameters are kept after the epochs in *keep*. Pure.

    Stops in the middle of the compared epochs when the margin gets smaller than *least_margin*.
    """
    return _replay_line(task, keep) if task.widths == (1, 1) else _replay_network(task, keep, least_margin)


def _replay_network(task: Task, keep: Collection[int], least_margin: float) -> Trace:
    network = Network(task.layers)
    steps, after, margin = [], {}, math.inf
    for epoch in range(task.epochs):
        for batch in task.batches(epoch):
            loss, gradients = network.gradients([task.x[i] for i in batch], [task.y[i] for i in batch])
            steps.append(loss)
            network.step(gradients)
        if epoch + 1 in keep:
            after[epoch + 1] = flat(network.layers)
        if epoch < COMPARED_EPOCHS:
            margin = network.closest
            if margin < least_margin:
                break
    return Trace(steps, flat(network.layers), after, margin)


def _replay_line(task: Task, keep: Collection[int]) -> Trace:
    """One weight and one bias: a hundred times faster than the general network, by the same formulae."""
    x, y = [row[0] for row in task.x], task.y
    w, b = flat(task.layers)
    steps, after = [], {}
    for epoch in range(task.epochs):
        for batch in task.batches(epoch):
            xs = [x[i] for i in batch]
            errors = [w * x[i] + b - y[i] for i in batch]
            rate = LEARNING_RATE * 2.0 / len(batch)
            steps.append(sum(map(mul, errors, errors)) / len(batch))
            w -= rate * sum(map(mul, errors, xs))
            b -= rate * sum(errors)
        if epoch + 1 in keep:
            after[epoch + 1] = [w, b]
    return Trace(steps, [w, b], after)


def least_squares(task: Task) -> tuple[float, float, float]:
    """Return slope, intercept and mean squared error of the best line through the data. Pure."""
    x, y = [row[0] for row in task.x], task.y
    mean_x, mean_y = math.fsum(x) / POINTS, math.fsum(y) / POINTS
    sxx = math.fsum((a - mean_x) ** 2 for a in x)
    sxy = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y))
    slope = sxy / sxx
    intercept = mean_y - slope * mean_x
    return slope, intercept, line_loss(task, slope, intercept)


def line_loss(task: Task, slope: float, intercept: float) -> float:
    """Return the mean squared error of a line over all points. Pure."""
    return math.fsum((slope * row[0] + intercept - y) ** 2 for row, y in zip(task.x, task.y)) / POINTS


def central_differences(network: Network, xs: list[list[float]], ys: list[float], reach: float = 1e-5) -> list[float]:
    """Return the numeric derivative of the loss by every parameter, flat. Pure.

    The error is about reach^2 from the third derivative plus 1e-16 / reach from rounding: 1e-10.
    """
    widths = [len(network.layers[0][0][0]), *(len(bias) for _, bias in network.layers)]
    start = flat(network.layers)
    slopes = []
    for i, value in enumerate(start):
        losses = []
        for moved in (value + reach, value - reach):
            start[i] = moved
            losses.append(Network(shaped(start, widths)).loss(xs, ys))
        start[i] = value
        slopes.append((losses[0] - losses[1]) / (2.0 * reach))
    return slopes
