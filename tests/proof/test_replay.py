from __future__ import annotations

import math
import unittest

from gpuprov.proof.training.data import SEED, Task, linear_task, mlp_task
from gpuprov.proof.training.replay import (
    Network,
    central_differences,
    flat,
    least_squares,
    line_loss,
    replay,
    shaped,
)


class ByHand(unittest.TestCase):
    def test_one_step_worked_out_on_paper(self) -> None:
        # z = 2*1 + 1 = 3, y = 1, n = 1: L = 4, dL/dw = 2*(3-1)*1 = 4, dL/db = 4
        network = Network([([[2.0]], [1.0])])
        loss, gradients = network.gradients([[1.0]], [1.0])
        self.assertEqual((loss, gradients), (4.0, [([[4.0]], [4.0])]))
        network.step(gradients)
        self.assertEqual(flat(network.layers), [2.0 - 0.04, 1.0 - 0.04])

    def test_a_dead_unit_gets_no_gradient(self) -> None:
        # first layer: units 1*1-0.5 = 0.5 (alive) and 1*1-3 = -2 (dead); output 2*0.5 + 5*0 = 1, y = 0: d = 2
        network = Network([([[1.0], [1.0]], [-0.5, -3.0]), ([[2.0, 5.0]], [0.0])])
        loss, gradients = network.gradients([[1.0]], [0.0])
        self.assertEqual(loss, 1.0)
        self.assertEqual(gradients, [([[4.0], [0.0]], [4.0, 0.0]), ([[1.0, 0.0]], [2.0])])
        self.assertEqual(network.closest, 0.5)

    def test_formulae_agree_with_central_differences(self) -> None:
        for seed in (1, 2, 3):
            task = mlp_task(seed)
            network = Network(task.layers)
            batch = max(task.batches(0)[:-1], key=lambda b: network.margin([task.x[i] for i in b]))
            xs, ys = [task.x[i] for i in batch], [task.y[i] for i in batch]
            formula = flat(network.gradients(xs, ys)[1])
            numeric = central_differences(network, xs, ys)
            self.assertEqual(len(formula), 171)
            self.assertLess(max(abs(a - b) for a, b in zip(formula, numeric)), 1e-8)  # noqa: B905 - 3.8

    def test_the_short_cut_for_a_line_is_the_general_network(self) -> None:
        task = linear_task(5, epochs=2)
        quick = replay(task, {1})
        network = Network(task.layers)
        for step, batch in enumerate(task.batches(0) + task.batches(1)):
            loss, gradients = network.gradients([task.x[i] for i in batch], [task.y[i] for i in batch])
            self.assertAlmostEqual(loss, quick.steps[step], places=13)
            network.step(gradients)
        for mine, theirs in zip(flat(network.layers), quick.parameters):  # noqa: B905 - 3.8
            self.assertAlmostEqual(mine, theirs, places=13)
        self.assertEqual(list(quick.after), [1])

    def test_flat_and_shaped_are_inverse(self) -> None:
        task = mlp_task(2)
        self.assertEqual(shaped(flat(task.layers), task.widths), task.layers)


class LeastSquares(unittest.TestCase):
    def test_no_line_is_better(self) -> None:
        task = linear_task(9)
        slope, intercept, loss = least_squares(task)
        for ds, di in ((1e-4, 0.0), (-1e-4, 0.0), (0.0, 1e-4), (0.0, -1e-4)):
            self.assertGreater(line_loss(task, slope + ds, intercept + di), loss)

    def test_exact_data_give_the_exact_line(self) -> None:
        task = Task("linear", 1, 1, (1, 1), lambda row: 0.25 * row[0] + 0.5, 0.0)
        slope, intercept, loss = least_squares(task)
        self.assertAlmostEqual(slope, 0.25, places=7)
        self.assertAlmostEqual(intercept, 0.5, places=7)
        self.assertLess(loss, 1e-14)


class TheDefaultSeed(unittest.TestCase):
    def test_no_relu_input_comes_near_zero(self) -> None:
        # 1e-5 is ten times what float32 rounding moves a ReLU's input by within ten epochs.
        self.assertGreater(replay(mlp_task(SEED)).margin, 1e-5)

    def test_a_line_has_no_relu(self) -> None:
        self.assertEqual(replay(linear_task(SEED, epochs=1)).margin, math.inf)

    def test_the_network_learns(self) -> None:
        task = mlp_task(SEED)
        steps = replay(task).steps
        self.assertLess(task.epoch_loss(steps, 9), 0.6 * task.epoch_loss(steps, 0))


if __name__ == "__main__":
    unittest.main()
