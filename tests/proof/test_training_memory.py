"""How large a fine-tune is, and what is said of memory that was measured, or ran out: without torch."""

from __future__ import annotations

import unittest

from gpuprov.proof.parts import Context
from gpuprov.proof.training import finetune, memory

GIB = 1 << 30


def size(kind: str, free_gib: float, tier: str = "weekly", half: bool = True) -> finetune.Size:
    return finetune.size(kind, Context(tier, device="cuda:0"), int(free_gib * GIB), half)


class Plan(unittest.TestCase):
    def test_four_fifths_of_any_memory_are_filled(self) -> None:
        for free in (14.5, 23, 39, 79, 139, 178):
            for kind in finetune.KINDS:
                its = size(kind, free)
                part = memory.plan(kind, its, True).total / (free * GIB)
                layer = memory.plan(kind, its.but(layers=its.layers + 1), True).total / (free * GIB)
                self.assertLessEqual(part, 0.8)
                if its.layers < memory.MOST_LAYERS:
                    self.assertGreater(layer, 0.8)

    def test_without_bfloat16_attention_keeps_its_scores(self) -> None:
        its = size("full", 14.5, half=False)
        self.assertGreater(its.layers, 1)
        plan = memory.plan("full", its, False)
        self.assertLessEqual(plan.total / (14.5 * GIB), 0.8)
        self.assertGreater(plan.working - memory.plan("full", its, True).working, 16 * 2048**2 * 4)

    def test_frozen_weights_make_room_for_a_larger_model(self) -> None:
        self.assertGreater(size("lora", 79).parameters, 5 * size("full", 79).parameters)

    def test_no_memory_no_layers(self) -> None:
        self.assertEqual(size("full", 0.1).layers, 0)

    def test_a_burn_in_takes_more_steps(self) -> None:
        self.assertGreater(size("full", 79, "burnin").steps, size("full", 79).steps)

    def test_small_matrices_are_few(self) -> None:
        its = size("lora", 79)
        # four matrices per layer with RANK rows and columns beside them
        per_layer = memory.RANK * ((1 + 3) + (1 + 1) + (1 + 4) + (4 + 1)) * its.width
        self.assertEqual(memory.adapters(its), its.layers * per_layer)
        self.assertLess(memory.trained("lora", its) / its.parameters, 0.01)

    def test_full_training_takes_16_bytes_a_number(self) -> None:
        its = size("full", 79)
        self.assertEqual(memory.plan("full", its, True).weights, 16 * its.parameters)


class Measured(unittest.TestCase):
    planned = memory.Plan(60 * GIB, 3 * GIB, GIB)

    def verdict(self, peak_gib: float) -> str:
        return memory.compared("f", "cuda:0", int(peak_gib * GIB), self.planned, 80 * GIB, False)["verdict"]

    def test_a_peak_near_the_plan_passes_and_another_warns(self) -> None:
        self.assertEqual([self.verdict(gib) for gib in (64, 50, 40, 75)], ["pass", "pass", "warn", "warn"])

    def test_what_others_took_is_unknown_and_not_the_devices_fault(self) -> None:
        def ran_out(held: int, others: int) -> tuple[str, str]:
            found = memory.exhausted("f", "cuda:0", 64 * GIB, 80 * GIB, held * GIB, others * GIB, 0)
            return found["verdict"], found["action"]

        self.assertEqual(ran_out(30, 40), ("unknown", "restart job"))
        self.assertEqual(ran_out(60, 0), ("unknown", "monitor"))
        self.assertEqual(ran_out(30, 0), ("fail", "reset GPU"))


class Frozen(unittest.TestCase):
    def test_a_changed_tensor_is_named(self) -> None:
        before = {"a.weight": 1, "b.weight": 2}
        self.assertEqual(finetune.unchanged("f", "cuda:0", before, dict(before))["verdict"], "pass")
        found = finetune.unchanged("f", "cuda:0", before, {**before, "b.weight": 3})
        self.assertEqual((found["verdict"], found["action"]), ("fail", "isolate"))
        self.assertIn("b.weight", found["reason"])

    def test_nothing_compared_is_no_pass(self) -> None:
        self.assertEqual(finetune.unchanged("f", "cpu", {}, {})["verdict"], "fail")


if __name__ == "__main__":
    unittest.main()
