from __future__ import annotations

import array
import hashlib
import unittest

from gpuprov.proof.training.data import (
    POINTS,
    STEPS_PER_EPOCH,
    float32,
    linear_task,
    mlp_task,
    shortened,
    tilted,
)


def digest(values: list) -> str:
    return hashlib.sha256(array.array("d", values).tobytes()).hexdigest()[:16]


class TheSameEverywhere(unittest.TestCase):
    """Hosts vote on hashes: data of one seed must never depend on the Python that makes them."""

    def test_linear_bits(self) -> None:
        task = linear_task(7)
        values = [row[0] for row in task.x] + task.y + task.layers[0][0][0] + task.layers[0][1]
        self.assertEqual(digest(values), "62d9cae920ac5205")

    def test_mlp_bits(self) -> None:
        task = mlp_task(7)
        values = [value for row in task.x for value in row] + task.y
        self.assertEqual(digest(values), "ac67d1f5164249ec")

    def test_order_bits(self) -> None:
        self.assertEqual(digest([float(i) for i in linear_task(7).order(99)]), "ae099cec095a7a01")


class Shapes(unittest.TestCase):
    def test_every_point_is_visited_once_per_epoch(self) -> None:
        task = linear_task(3)
        batches = task.batches(5)
        self.assertEqual(len(batches), STEPS_PER_EPOCH)
        self.assertEqual([len(batch) for batch in batches], [16] * 62 + [8])
        self.assertEqual(sorted(i for batch in batches for i in batch), list(range(POINTS)))

    def test_epochs_and_seeds_have_their_own_order(self) -> None:
        task = linear_task(3)
        self.assertNotEqual(task.order(0), task.order(1))
        self.assertNotEqual(task.order(0), linear_task(4).order(0))

    def test_everything_is_float32(self) -> None:
        task = mlp_task(3)
        for values in (task.y, task.x[17], task.layers[1][0][2], task.layers[0][1]):
            self.assertEqual(values, float32(values))

    def test_noise_stays_in_its_band(self) -> None:
        task = linear_task(11)
        rest = [y - (0.03 * row[0] + 0.3) for row, y in zip(task.x, task.y)]  # noqa: B905 - 3.8
        self.assertLess(max(map(abs, rest)), 0.5 + 1e-6)
        self.assertGreater(max(map(abs, rest)), 0.49)

    def test_the_epochs_loss_is_the_mean_over_points_not_the_last_batch(self) -> None:
        task = linear_task(3, epochs=2)
        steps = [1.0] * STEPS_PER_EPOCH + [0.0] * (STEPS_PER_EPOCH - 1) + [2.0]
        self.assertEqual(task.epoch_loss(steps, 0), 1.0)
        self.assertAlmostEqual(task.epoch_loss(steps, 1), 2.0 * 8 / POINTS)

    def test_variants_leave_the_original_alone(self) -> None:
        task = linear_task(3)
        before = list(task.y)
        lying, short = tilted(task, 0.1), shortened(task, 30)
        self.assertEqual((task.y, task.epochs), (before, 100))
        self.assertAlmostEqual(lying.y[5] - task.y[5], 0.1 * task.x[5][0], places=6)
        self.assertEqual((short.epochs, short.y), (30, before))


if __name__ == "__main__":
    unittest.main()
