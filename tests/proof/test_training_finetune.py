"""Fine-tunes on the CPU: what they need is what was planned, and a frozen bit that changes is found."""

from __future__ import annotations

import unittest
from typing import Any, ClassVar

from tests.proof.test_training_gpt import scenario


class Tuned(unittest.TestCase):
    found: ClassVar[dict[str, Any]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.found = scenario("finetune_all")

    def test_both_pass_and_take_the_memory_that_was_planned(self) -> None:
        for kind, count in (("lora", 8), ("full", 6)):
            checks = self.found["finetune." + kind]
            self.assertEqual(len(checks), count)
            self.assertEqual({check["verdict"] for check in checks.values()}, {"pass"}, checks)
            memory = checks[f"cpu.finetune.{kind}.memory"]
            self.assertEqual(str(memory["measured"]), memory["expected"])

    def test_one_bit_of_a_frozen_weight_is_found_and_named(self) -> None:
        self.assertEqual(sorted(self.found["flipped"]), ["cpu.finetune.lora.deterministic", "cpu.finetune.lora.frozen"])
        self.assertIn("blocks.1.up.frozen.weight", self.found["flipped"]["cpu.finetune.lora.frozen"])

    def test_a_comparison_that_sees_nothing_makes_the_run_void(self) -> None:
        self.assertEqual(list(self.found["blind"]), ["cpu.finetune.lora.canary"])
        self.assertIn("cpu.finetune.full.canary-bits", self.found["hashes nothing"])

    def test_the_last_bit_of_one_gradient_is_found_with_its_step(self) -> None:
        for kind in ("lora", "full"):
            found = self.found["last bit, " + kind]
            self.assertEqual(list(found), [f"cpu.finetune.{kind}.deterministic"])
            self.assertIn("differ from step 10 on, first in its gradients", *found.values())

    def test_where_nothing_is_deterministic_one_training_is_judged_and_the_bits_are_unknown(self) -> None:
        checks = self.found["no deterministic way"]
        self.assertEqual(checks.pop("cpu.finetune.full.deterministic")["verdict"], "unknown")
        self.assertEqual(len(checks), 5)
        self.assertEqual({check["verdict"] for check in checks.values()}, {"pass"})

    def test_memory_that_ran_out_is_judged_and_not_raised(self) -> None:
        (check,) = self.found["exhausted"].values()
        self.assertIn("memory ran out", check["reason"])
        self.assertIn(check["verdict"], ("unknown", "fail"))


if __name__ == "__main__":
    unittest.main()
