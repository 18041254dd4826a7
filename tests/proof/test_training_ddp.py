"""A training shared by processes: what all have alike, what one process would have, and who is named when not."""

from __future__ import annotations

import math
import unittest
from typing import Any, ClassVar

from gpuprov.proof.training import ddp
from tests.proof.test_training_gpt import scenario

KINDS = ("data", "start", "gradients", "weights", "trace", "canary")


class Shared(unittest.TestCase):
    found: ClassVar[dict[str, Any]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.found = scenario("ddp_all")

    def bad(self, case: str) -> dict[str, Any]:
        """Return what is not passed in *case*, by its kind. The canary has to pass whatever is spoiled."""
        checks = {name.rpartition(".")[2]: check for name, check in self.found[case].items()}
        self.assertEqual(tuple(checks), KINDS)
        return {kind: check for kind, check in checks.items() if check["verdict"] != "pass"}

    def test_two_healthy_ranks_pass(self) -> None:
        self.assertEqual(self.bad("two"), {})
        self.assertLess(self.found["two"]["cpu.ddp.trace"]["measured"], 0.5)

    def test_a_rank_with_other_data_is_found_and_named_though_of_two(self) -> None:
        bad = self.bad("other data")
        self.assertEqual(sorted(bad), ["data", "trace"])
        self.assertIn("nobody can tell", bad["data"]["reason"])
        self.assertEqual((bad["trace"]["data"]["ranks"], bad["trace"]["data"]["step"]), ([1], 4))
        self.assertIn("from step 4 on the loss of rank 1 on cpu:1", bad["trace"]["reason"])

    def test_a_rank_with_other_start_values_is_found_though_they_are_overwritten(self) -> None:
        bad = self.bad("other start")
        self.assertEqual(sorted(bad), ["start"])
        self.assertIn("rank 2 on cpu:2 differs", bad["start"]["reason"])

    def test_one_bit_of_a_gradient_or_a_weight_is_found_in_its_step(self) -> None:
        bad = self.bad("other gradient")
        # So small a difference that no weight takes it over: that is why gradients are compared.
        self.assertEqual(sorted(bad), ["gradients"])
        self.assertIn("gradients of step 3: not the same bits on all ranks: rank 1 on", bad["gradients"]["reason"])
        bad = self.bad("other weight")
        self.assertEqual(sorted(bad), ["weights"])
        self.assertIn("weights of step 3: not the same bits on all ranks: rank 2 on", bad["weights"]["reason"])

    def test_one_device_alone_is_skipped_with_the_reason(self) -> None:
        self.assertEqual([c["verdict"] for c in self.found["alone"].values()], ["skip"])


class Judged(unittest.TestCase):
    devices = ("cuda:0", "cuda:1", "cuda:2")
    bits: tuple[Any, ...] = ([[1, 2], [3, 4], [5, 6]],) * 3

    def of(self, losses: Any) -> dict[str, Any]:
        found = ddp.judged("ddp", self.devices, self.bits, losses, [[2.0, 1.9]] * 3, 1000)
        return {check["name"]: check for check in found}

    def test_what_is_not_a_number_fails(self) -> None:
        found = self.of([[2.0, 1.9], [2.0, math.nan], [2.0, 1.9]])["ddp.trace"]
        self.assertEqual((found["verdict"], found["action"], found["data"]["ranks"]), ("fail", "isolate", [1]))

    def test_gradients_that_nobody_averaged_blame_no_single_rank(self) -> None:
        found = self.of([[2.0, 1.7]] * 3)["ddp.trace"]
        self.assertIn("all ranks", found["reason"])

    def test_the_bound_grows_with_what_is_added_up(self) -> None:
        self.assertLess(ddp.bound(1, 1000), 1e-6)
        self.assertAlmostEqual(ddp.bound(12, 16384), 2.0**-23 * (4 + 11 * 128))


if __name__ == "__main__":
    unittest.main()
