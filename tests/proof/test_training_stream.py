"""The stream of known entropy, the bounds on losses, and comparisons of bits: without torch."""

from __future__ import annotations

import itertools
import math
import random
import unittest

from gpuprov.proof.training import bits, stream
from gpuprov.proof.training.sizes import Size

CPU = ("gpt", "cpu")


def walked(chain: stream.Chain, count: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    tokens = [0]
    for _ in range(count):
        tokens.append(chain.successors[tokens[-1]][stream.PICKS[rng.randrange(8)]])
    return tokens


class Entropy(unittest.TestCase):
    def test_the_floor_is_the_entropy_of_the_chances(self) -> None:
        self.assertAlmostEqual(stream.FLOOR, 1.75 * math.log(2.0), places=14)
        chances = [0.5**n for n in stream.HALVINGS]
        self.assertEqual(sum(chances), 1.0)
        variance = sum(p * (math.log(p) + stream.FLOOR) ** 2 for p in chances)
        self.assertAlmostEqual(stream.SPREAD, math.sqrt(variance), places=14)

    def test_three_bits_pick_with_those_chances(self) -> None:
        for k, halvings in enumerate(stream.HALVINGS):
            self.assertEqual(stream.PICKS.count(k) / 8, 0.5**halvings)

    def test_each_token_has_four_successors_and_is_four_tokens_successor(self) -> None:
        for vocabulary in (16, 32, 256):
            chain = stream.Chain(vocabulary, 7)
            self.assertEqual({len(set(row)) for row in chain.successors}, {4})
            for k in range(4):
                self.assertEqual(sorted(row[k] for row in chain.successors), list(range(vocabulary)))

    def test_a_long_walk_has_that_entropy(self) -> None:
        chain = stream.Chain(32, 7)
        surprise = chain.surprise(walked(chain, 200_000, 3))
        self.assertLess(abs(surprise - stream.FLOOR), stream.drift(200_000))

    def test_what_cannot_come_is_infinitely_surprising(self) -> None:
        chain = stream.Chain(16, 7)
        other = next(token for token in range(16) if token not in chain.successors[0])
        self.assertEqual(chain.surprise([0, other]), math.inf)

    def test_no_learner_gets_below_the_allowance(self) -> None:
        # A learner that counts, and sees only the past: the likelihood ratio is a martingale.
        for seed in range(50):
            chain = stream.Chain(16, seed)
            tokens = walked(chain, 2000, seed)
            counts = [[1.0] * 16 for _ in range(16)]
            excess = 0.0
            for number, (before, after) in enumerate(itertools.pairwise(tokens), 1):
                row = counts[before]
                excess += math.log(chain.chance(before, after)) - math.log(row[after] / sum(row))
                self.assertGreater(excess / number, -stream.allowance(number))
                row[after] += 1.0


class Bounds(unittest.TestCase):
    truths: tuple[float, ...] = (1.2,) * 10

    def test_a_loss_below_the_floor_fails_and_names_the_step(self) -> None:
        losses = [2.0] * 10
        self.assertEqual(stream.above_floor(*CPU, losses, self.truths, 10_000)["verdict"], "pass")
        losses[6] = 1.19
        found = stream.above_floor(*CPU, losses, self.truths, 10_000)
        self.assertEqual((found["verdict"], found["data"]["step"]), ("fail", 7))
        self.assertIn("leaks", found["reason"])

    def test_a_little_in_each_step_adds_up(self) -> None:
        # Each step alone is within its allowance of 0.002; ten of them together are not.
        found = stream.above_floor(*CPU, [1.1985] * 10, self.truths, 10_000)
        self.assertEqual(found["verdict"], "fail")
        self.assertGreater(found["data"]["step"], 1)

    def test_what_is_not_a_number_fails_everywhere(self) -> None:
        bad = [2.8, 2.0, math.nan, math.nan, math.nan, math.nan, math.nan]
        self.assertEqual(stream.above_floor(*CPU, bad, self.truths[:7], 1000)["verdict"], "fail")
        self.assertEqual(stream.learns(*CPU, bad, 1.5)["verdict"], "fail")
        self.assertIn("step 3 is nan", stream.learns(*CPU, bad, 1.5)["reason"])
        self.assertEqual(stream.steady(*CPU, bad)["verdict"], "fail")
        self.assertEqual(stream.starts(*CPU, bad[2:], 16)["verdict"], "fail")

    def test_a_loss_has_to_start_at_the_logarithm_and_cross_its_bound(self) -> None:
        self.assertEqual(stream.starts(*CPU, [math.log(16)], 16)["verdict"], "pass")
        self.assertEqual(stream.starts(*CPU, [math.log(16) - 0.5], 16)["verdict"], "fail")
        self.assertEqual(stream.learns(*CPU, [2.8, 1.4, 1.4, 1.4, 1.4, 1.4], 1.5)["verdict"], "pass")
        self.assertEqual(stream.learns(*CPU, [2.8, 1.4, 1.4, 1.4, 1.4, 2.4], 1.5)["verdict"], "fail")

    def test_one_spiked_or_lost_gradient_is_named(self) -> None:
        for value in (30.0, 0.01, 0.0):
            norms = [1.0] * 20
            norms[11] = value
            found = stream.steady(*CPU, norms)
            self.assertEqual(found["verdict"], "fail")
            self.assertIn("step 12's", found["reason"])

    def test_another_stream_is_no_proof(self) -> None:
        self.assertEqual(stream.true_stream(*CPU, [1.213] * 10, 1000)["verdict"], "pass")
        self.assertEqual(stream.true_stream(*CPU, [1.35] * 10, 1000)["verdict"], "fail")

    def test_a_gpu_is_to_be_isolated_a_cpu_is_not(self) -> None:
        for device, action in (("cuda:0", "isolate"), ("cpu", "none")):
            self.assertEqual(stream.learns("gpt", device, [9.0], 1.5)["action"], action)


class Bits(unittest.TestCase):
    def test_the_first_difference_has_a_step_and_a_kind(self) -> None:
        one = [(1, 2, 3), (4, 5, 6), (7, 8, 9)]
        self.assertEqual(bits.first_difference(one, list(one)), (0, ""))
        self.assertEqual(bits.first_difference(one, [one[0], (4, 5, 0), (0, 0, 0)]), (2, "weights"))
        self.assertEqual(bits.first_difference(one, [one[0], (4, 0, 0), one[2]]), (2, "gradients"))
        self.assertEqual(bits.first_difference(one, one[:2]), (3, "end"))

    def test_nothing_compared_is_not_equal(self) -> None:
        self.assertEqual(bits.first_difference([], []), (1, "absence"))

    def test_the_odd_one_is_named_unless_nobody_can_tell(self) -> None:
        self.assertEqual(bits.odd_ones([5, 5, 5, 5]), [])
        self.assertEqual(bits.odd_ones([5, 5, 6, 5]), [2])
        self.assertEqual(bits.odd_ones([5, 6]), [0, 1])
        self.assertEqual(bits.odd_ones([5, 5, 6, 6]), [0, 1, 2, 3])
        self.assertEqual(bits.odd_ones([5]), [])


class Sizes(unittest.TestCase):
    def test_parameters_and_operations(self) -> None:
        its = Size(layers=12, width=768, heads=12, context=1024, batch=8, steps=50)
        self.assertEqual(its.parameters, 12 * (12 * 768**2 + 13 * 768) + (512 + 1024) * 768 + 2 * 768)
        # 6 per token and weight, and attention on top
        self.assertAlmostEqual(its.operations / its.tokens / its.parameters, 6.6, delta=0.2)

    def test_the_bound_is_between_the_floor_and_knowing_nothing(self) -> None:
        its = Size(2, 32, 2, 32, 8, 40, vocabulary=16, bound=0.3)
        self.assertTrue(stream.FLOOR < its.loss_bound < math.log(16))


if __name__ == "__main__":
    unittest.main()
