"""Data, start values and batch order of the two trainings: the same bits on every machine.

Made with Python's own generator (its `random()` is the same in every version) and exact
arithmetic only, no function of the C library whose last bit differs between hosts. All values are float32
numbers held as Python floats, so that the float64 replay starts from exactly what the device gets.
"""

from __future__ import annotations

import copy
import math
import random
from array import array

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import List, Tuple

    #: One layer: rows of weights (one per output) and biases.
    Layer = Tuple[List[List[float]], List[float]]

POINTS = 1000
BATCH = 16
LEARNING_RATE = 0.01
STEPS_PER_EPOCH = -(-POINTS // BATCH)

#: The line that the linear regression looks for, and the half width of the uniform noise on it.
SLOPE = 0.03
INTERCEPT = 0.3
NOISE = 0.5

#: Of the seeds 1 to 30 the one whose network keeps its ReLU inputs farthest from zero (1.1e-5): there
#: float32 rounding would take another branch than float64, and a healthy device would differ.
SEED = 7


class Task:
    """One training as data: what goes in, where it starts, in which order.

    widths are the layers' sizes, (1, 1) for the linear regression. x has one row per point. order(epoch),
    counted from 0, gives the indices of every point in the order in which they are visited.
    """

    __slots__ = ("_orders", "epochs", "layers", "name", "seed", "widths", "x", "y")

    def __init__(
        self,
        name: str,
        seed: int,
        epochs: int,
        widths: tuple[int, ...],
        target: Callable[[list[float]], float],
        noise: float,
    ) -> None:
        rng = random.Random(seed)  # noqa: S311 - reproducible data, no secret
        self.name = name
        self.seed = seed
        self.epochs = epochs
        self.widths = widths
        self.x = [float32([uniform(rng, 1.0) for _ in range(widths[0])]) for _ in range(POINTS)]
        self.y = float32([target(row) + uniform(rng, noise) for row in self.x])
        self.layers = [_start(rng, fan_in, fan_out) for fan_in, fan_out in zip(widths, widths[1:])]
        self._orders: dict[int, list[int]] = {}

    def order(self, epoch: int) -> list[int]:
        """Return the shuffled indices of epoch *epoch* (0 first); computed once."""
        if epoch not in self._orders:
            rng = random.Random(self.seed * 1_000_003 + epoch + 1)  # noqa: S311
            self._orders[epoch] = _shuffled(rng, POINTS)
        return self._orders[epoch]

    def batches(self, epoch: int) -> list[list[int]]:
        """Return the indices of each batch of epoch *epoch*: 62 of 16 points, one of 8."""
        order = self.order(epoch)
        return [order[i : i + BATCH] for i in range(0, POINTS, BATCH)]

    def epoch_loss(self, steps: list[float], epoch: int) -> float:
        """Return the mean loss per point of one epoch (not that of its last batch). Pure."""
        first = epoch * STEPS_PER_EPOCH
        sizes = [min(BATCH, POINTS - i) for i in range(0, POINTS, BATCH)]
        return sum(loss * size for loss, size in zip(steps[first:], sizes)) / POINTS


def linear_task(seed: int = SEED, epochs: int = 100) -> Task:
    """Return the linear regression y = 0.03x + 0.3 + U(-0.5, 0.5). Pure."""
    return Task("linear", seed, epochs, (1, 1), lambda row: SLOPE * row[0] + INTERCEPT, NOISE)


def mlp_task(seed: int = SEED, epochs: int = 10) -> Task:
    """Return the 10-10-5-1 network's training on a known function that is not linear. Pure."""
    return Task("mlp", seed, epochs, (10, 10, 5, 1), _surface, 0.1)


def tilted(task: Task, slope: float) -> Task:
    """Return *task* with *slope* times its first input added to every target: data that lie. Pure."""
    lying = copy.copy(task)
    lying.y = float32([y + slope * row[0] for row, y in zip(task.x, task.y)])
    return lying


def shortened(task: Task, epochs: int) -> Task:
    """Return the first *epochs* epochs of *task*. Pure."""
    short = copy.copy(task)
    short.epochs = epochs
    return short


def _surface(row: list[float]) -> float:
    return row[0] - 0.5 * row[1] + abs(row[2]) + row[3] * row[4]


def float32(values: list[float]) -> list[float]:
    """Return *values* rounded to float32. Pure."""
    return list(array("f", values))


def uniform(rng: random.Random, half_width: float) -> float:
    """Return a value of U(-half_width, half_width)."""
    return (2.0 * rng.random() - 1.0) * half_width


def _start(rng: random.Random, fan_in: int, fan_out: int) -> Layer:
    """Start values as torch.nn.Linear draws them: U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    reach = 1.0 / math.sqrt(fan_in)
    rows = [float32([uniform(rng, reach) for _ in range(fan_in)]) for _ in range(fan_out)]
    return rows, float32([uniform(rng, reach) for _ in range(fan_out)])


def _shuffled(rng: random.Random, count: int) -> list[int]:
    """Fisher-Yates from `random()` alone: `shuffle` promises no particular order across versions."""
    order = list(range(count))
    for i in range(count - 1, 0, -1):
        j = int(rng.random() * (i + 1))
        order[i], order[j] = order[j], order[i]
    return order
