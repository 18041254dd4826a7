"""Batch normalisation: the float64 replay alone, and the proof with torch, healthy and spoiled."""

from __future__ import annotations

import unittest
from typing import Any, ClassVar

import pytest

from gpuprov.proof.training import norm
from tests.proof.test_training_gpt import scenario


class Replay(unittest.TestCase):
    def test_the_formulae_are_the_derivatives_of_the_loss(self) -> None:
        task = norm.NormTask(7)
        network, _ = norm.trained(task)
        xs, ys = task.batch(3)
        before = network.flat()
        formula = network.gradients(xs, ys)[1]
        numbers = norm.numeric(network, xs, ys)
        self.assertEqual(network.flat(), before)
        self.assertLess(max(abs(a - b) for a, b in zip(formula, numbers, strict=True)), 1e-8)

    def test_what_is_normalised_has_mean_0_and_variance_1(self) -> None:
        sums = norm.Norm(norm.NormTask(7)).sums(norm.NormTask(7).x)
        means, variances = norm.moments(sums)
        scaled = [[(z - m) / v**0.5 for z in zs] for zs, m, v in zip(sums, means, variances, strict=True)]
        for mean, variance in zip(*norm.moments(scaled), strict=True):
            self.assertAlmostEqual(mean, 0.0)
            self.assertAlmostEqual(variance, 1.0)

    def test_the_running_statistics_come_from_the_batches(self) -> None:
        task = norm.NormTask(7)
        network = norm.Norm(task)
        xs, ys = task.batch(0)
        means, variances = norm.moments(network.sums(xs))
        network.step(xs, ys)
        self.assertAlmostEqual(network.mean[4], 0.1 * means[4])
        self.assertAlmostEqual(network.variance[4], 0.9 + 0.1 * variances[4] * 16 / 15)

    def test_the_loss_falls(self) -> None:
        _, losses = norm.trained(norm.NormTask(7))
        self.assertLess(sum(losses[-20:]), 0.5 * sum(losses[:20]))


class Proof(unittest.TestCase):
    found: ClassVar[dict[str, Any]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.found = scenario("batchnorm_all")

    def test_a_healthy_device_passes(self) -> None:
        self.assertEqual(len(self.found["healthy"]), 9)
        self.assertEqual({check["verdict"] for check in self.found["healthy"].values()}, {"pass"})

    def test_what_is_spoiled_in_a_step_is_found_by_the_steps(self) -> None:
        for case in ("gradient spiked", "bit flipped", "never in training"):
            self.assertIn("batchnorm.step-losses", self.found[case])
        self.assertIn("from step 22 of 100", self.found["gradient spiked"]["batchnorm.step-losses"])

    def test_wrong_running_statistics_leave_the_losses_alone_and_are_found(self) -> None:
        for case in ("other momentum", "other variance"):
            found = self.found[case]
            self.assertIn("batchnorm.running", found)
            self.assertNotIn("batchnorm.step-losses", found)

    def test_a_comparison_that_sees_nothing_makes_the_run_void(self) -> None:
        self.assertEqual(sorted(self.found["blind"]), ["batchnorm.canary-gradient", "batchnorm.canary-running"])


class Seeds(unittest.TestCase):
    @pytest.mark.slow
    def test_no_healthy_seed_of_a_thousand_is_accused(self) -> None:
        self.assertEqual(scenario("batchnorm_seeds", "1000", "2000")["bad"], {})

    @pytest.mark.slow
    def test_no_healthy_seed_is_accused_in_two_ranks(self) -> None:
        self.assertEqual(scenario("ddp_seeds", "1000", "1100")["bad"], {})


if __name__ == "__main__":
    unittest.main()
