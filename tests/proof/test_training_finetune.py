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
        for kind, count in (("lora", 6), ("full", 4)):
            checks = self.found["finetune." + kind]
            self.assertEqual(len(checks), count)
            self.assertEqual({check["verdict"] for check in checks.values()}, {"pass"}, checks)
            memory = checks[f"cpu.finetune.{kind}.memory"]
            self.assertEqual(str(memory["measured"]), memory["expected"])

    def test_one_bit_of_a_frozen_weight_is_found_and_named(self) -> None:
        self.assertEqual(list(self.found["flipped"]), ["cpu.finetune.lora.frozen"])
        self.assertIn("blocks.1.up.frozen.weight", self.found["flipped"]["cpu.finetune.lora.frozen"])

    def test_a_comparison_that_sees_nothing_makes_the_run_void(self) -> None:
        self.assertEqual(list(self.found["blind"]), ["cpu.finetune.lora.canary"])

    def test_memory_that_ran_out_is_judged_and_not_raised(self) -> None:
        (check,) = self.found["exhausted"].values()
        self.assertIn("memory ran out", check["reason"])
        self.assertIn(check["verdict"], ("unknown", "fail"))


if __name__ == "__main__":
    unittest.main()
