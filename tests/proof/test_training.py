"""Real trainings with torch: what is spoiled is caught, what is healthy is left alone."""

from __future__ import annotations

import json
import subprocess
import threading
import unittest
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.support.torch_env import torch_python

ROOT = Path(__file__).parents[2]


def scenario(*words: str) -> Any:
    argv = [torch_python(), "-W", "ignore", "-m", "tests.proof.torch_scenarios", *words]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Spoiled(unittest.TestCase):
    """Trainings spoiled on purpose, all in one process: importing torch takes longer than most of them."""

    found: ClassVar[dict[str, Any]]
    failed: ClassVar[dict[str, list[str]]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.found = scenario("spoiled")
        cls.failed = cls.found["faults"]

    def test_nothing_fails_without_a_fault(self) -> None:
        self.assertEqual((self.failed["linear"], self.failed["mlp"]), ([], []))

    def test_a_gradient_spiked_once_is_caught_by_the_steps_alone(self) -> None:
        # The final line is right to a millionth: that is why the steps are compared.
        self.assertEqual(
            self.failed["linear, gradient spiked at step 100"], ["linear.step-losses", "linear.deterministic"]
        )

    def test_a_flipped_bit_in_a_weight_is_caught(self) -> None:
        for bit in ("exponent", "high mantissa"):
            failed = self.failed[f"linear, {bit} bit flipped at step 1000"]
            self.assertIn("linear.step-losses", failed)
            self.assertIn("linear.deterministic", failed)
        self.assertIn("mlp.step-losses", self.failed["mlp, high mantissa bit flipped at step 300"])

    def test_the_lowest_bits_are_seen_by_comparing_two_runs(self) -> None:
        self.assertEqual(self.failed["linear, lowest mantissa bit flipped at step 1850"], ["linear.deterministic"])
        self.assertEqual(self.failed["mlp, low mantissa bit flipped at step 300"], ["mlp.deterministic"])

    def test_a_spiked_gradient_of_the_network_is_caught_by_everything(self) -> None:
        self.assertEqual(
            self.failed["mlp, gradient spiked at step 100"],
            ["mlp.replay-10", "mlp.step-losses", "mlp.deterministic"],
        )

    def test_another_start_is_caught_though_it_ends_at_the_same_line(self) -> None:
        self.assertEqual(self.failed["linear, another initial weight"], ["linear.step-losses", "linear.deterministic"])

    def test_the_second_of_several_devices_has_its_own_folder_and_prefix(self) -> None:
        found = self.found["several"]
        self.assertEqual(found["files"], ["cpu/linear_model.pth"])
        self.assertIn("cpu: Epoch 1/1, Loss: 0.3243", found["texts"])

    def test_an_error_of_torchs_is_a_fail_and_want_of_memory_is_not(self) -> None:
        for kind, verdict in (("launch", "fail"), ("memory", "unknown")):
            checks = self.found["broken"][kind]
            self.assertEqual([c[:2] for c in checks], [["linear", verdict], ["mlp", verdict]])
        self.assertIn("unspecified launch failure", self.found["broken"]["launch"][0][2])

    def test_a_judge_that_sees_nothing_makes_the_run_void(self) -> None:
        self.assertEqual(self.found["blind"], ["linear.canary-gradient"])

    def test_the_loss_of_an_epoch_is_not_that_of_its_last_batch(self) -> None:
        self.assertGreater(self.found["uneven"], 0.01)


class Healthy(unittest.TestCase):
    @pytest.mark.slow
    def test_no_healthy_seed_is_accused(self) -> None:
        torch_python()  # skips where no CPU build can be had; threads cannot
        found: dict[str, list[str]] = {}
        halves = [
            threading.Thread(target=lambda first=first: found.update(scenario("seeds", str(first), str(first + 16))))
            for first in (500, 516)
        ]
        for half in halves:
            half.start()
        for half in halves:
            half.join()
        self.assertEqual(len(found), 32)
        self.assertEqual({seed: names for seed, names in found.items() if names}, {})


if __name__ == "__main__":
    unittest.main()
