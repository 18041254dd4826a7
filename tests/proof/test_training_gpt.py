"""The GPT on the CPU: healthy it passes, and whatever is spoiled on purpose is found by the check that is meant to."""

from __future__ import annotations

import functools
import json
import subprocess
import unittest
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.support.torch_env import torch_python

ROOT = Path(__file__).parents[2]


@functools.cache
def scenario(*words: str) -> Any:
    argv = [torch_python(), "-W", "ignore:Failed to initialize NumPy", "-m", "tests.proof.training_scenarios", *words]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Gpt(unittest.TestCase):
    found: ClassVar[dict[str, Any]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.found = scenario("gpt_all")
        cls.checks = {name: check for part in cls.found["parts"].values() for name, check in part.items()}

    def test_a_healthy_training_passes_and_says_what_a_cpu_lacks(self) -> None:
        bad = {name: c for name, c in self.checks.items() if c["verdict"] != "pass"}
        self.assertEqual(sorted(bad), ["cpu.gpt.allocator"])
        self.assertEqual(bad["cpu.gpt.allocator"]["verdict"], "skip")
        self.assertEqual([name for name in self.checks if not name.startswith("cpu.")], [])
        self.assertTrue(all(len(json.dumps(c)) < 3000 for c in self.checks.values()))

    def test_the_speed_is_a_measurement(self) -> None:
        found = self.checks["cpu.gpt.throughput"]
        self.assertEqual((found["data"]["kind"], found["unit"]), ("measurement", "tokens/s"))
        self.assertGreaterEqual(len(found["data"]["samples"]), 5)

    def test_the_process_gets_its_modes_back(self) -> None:
        self.assertEqual(self.found["modes"], [2, "highest"])

    def test_bits_are_the_same_in_every_run_and_others_for_another_seed(self) -> None:
        bits = self.checks["cpu.gpt.deterministic"]["data"]
        self.assertEqual(bits["bits"], self.found["again"])
        self.assertNotEqual(bits["bits"], self.found["other"])
        self.assertIn("torch", bits["bits_of"])

    def test_a_flipped_bit_of_any_class_is_found_in_its_step(self) -> None:
        for kind in ("sign", "top exponent", "low exponent", "top mantissa", "mid mantissa", "last mantissa"):
            found = self.found["spoiled"][kind]
            self.assertEqual(list(found), ["cpu.gpt.deterministic"])
            self.assertIn("from step 7 on, first in its weights", found["cpu.gpt.deterministic"])
        for kind in ("last bit of a gradient", "gradient spiked, seen twice"):
            self.assertIn("step 7 on, first in its gradients", self.found["spoiled"][kind]["cpu.gpt.deterministic"])

    def test_a_gradient_spiked_once_is_found_in_a_single_training(self) -> None:
        found = self.found["spoiled"]["gradient spiked"]
        self.assertEqual(list(found), ["cpu.gpt.gradients"])
        self.assertIn("step 21's gradient", found["cpu.gpt.gradients"])

    def test_an_exploding_weight_is_found_in_a_single_training(self) -> None:
        self.assertIn("cpu.gpt.gradients", self.found["spoiled"]["exponent of a weight"])

    def test_a_comparison_that_sees_nothing_makes_the_run_void(self) -> None:
        self.assertEqual(self.found["blind"]["floor"], "fail")
        self.assertEqual(list(self.found["blind"]["bits"]), ["cpu.gpt.deterministic.canary"])

    def test_wrong_attention_and_spoiled_copies_are_found(self) -> None:
        wrong = self.found["wrong"]
        self.assertEqual((wrong["one number"], wrong["future"]), ("fail", "fail"))
        self.assertFalse(wrong["copies"])
        error, bound = wrong["bfloat16"]
        self.assertTrue(bound / 16 < error < bound / 2)


class Seeds(unittest.TestCase):
    @pytest.mark.slow
    def test_no_healthy_seed_is_accused(self) -> None:
        self.assertEqual(scenario("gpt_seeds", "2000", "2040")["bad"], {})


if __name__ == "__main__":
    unittest.main()
