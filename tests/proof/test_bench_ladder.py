"""Localisation: whatever single thing is slow among 3 to 16 devices is found, in O(log n) rounds."""

from __future__ import annotations

import math
import random
import unittest

from gpuprov.proof.bench import ladder


def diagnosed(count: int, speed) -> tuple[ladder.Finding, int]:
    """Do what the ranks do: the rounds, then what is asked for."""
    measured = [{pair: speed(pair) for pair in pairs} for pairs in ladder.rounds(count)]
    found = ladder.localise(count, *ladder.slow_pairs(measured))
    measured += [{pair: speed(pair) for pair in pairs} for pairs in found.ask]
    return ladder.localise(count, *ladder.slow_pairs(measured)), len(measured)


def noisy(seed: int, slow) -> object:
    chance = random.Random(seed)
    return lambda pair: chance.uniform(95.0, 100.0) * (0.5 if slow(pair) else 1.0)


class Rounds(unittest.TestCase):
    def test_pairs_of_a_round_share_no_device_and_rounds_are_few(self) -> None:
        for count in range(2, 33):
            rounds = ladder.rounds(count)
            self.assertEqual(len(rounds), math.ceil(math.log2(count)))
            for pairs in rounds:
                devices = [device for pair in pairs for device in pair]
                self.assertEqual(len(devices), len(set(devices)))
            self.assertEqual({d for pairs in rounds for pair in pairs for d in pair}, set(range(count)))

    def test_blocks_double_up_to_all(self) -> None:
        self.assertEqual(ladder.blocks(8)[1], [[0, 1, 2, 3], [4, 5, 6, 7]])
        self.assertEqual(ladder.blocks(6), [[[0, 1], [2, 3], [4, 5]], [[0, 1, 2, 3]], [[0, 1, 2, 3, 4, 5]]])
        self.assertEqual(ladder.blocks(2), [[[0, 1]]])


class Localised(unittest.TestCase):
    def test_nothing_is_slow(self) -> None:
        for count in range(3, 17):
            found, rounds = diagnosed(count, noisy(count, lambda pair: False))
            self.assertTrue(found.healthy, count)
            self.assertEqual(rounds, math.ceil(math.log2(count)))

    def test_each_slow_device_is_named_alone(self) -> None:
        for count in range(4, 17):
            for device in range(count):
                found, rounds = diagnosed(count, noisy(device, lambda pair, device=device: device in pair))
                self.assertEqual((found.devices, found.links, found.unsure), ([device], [], []), (count, device))
                self.assertLessEqual(rounds, math.ceil(math.log2(count)) + 2)

    def test_each_slow_link_that_is_measured_is_named_alone(self) -> None:
        for count in range(4, 17):
            for bad in {pair for pairs in ladder.rounds(count) for pair in pairs}:
                found, _ = diagnosed(count, noisy(7, lambda pair, bad=bad: pair == bad))
                self.assertEqual((found.devices, found.links, found.unsure), ([], [bad], []), (count, bad))

    def test_two_slow_devices(self) -> None:
        for a in range(8):
            for b in range(a + 1, 8):
                found, _ = diagnosed(8, noisy(a, lambda pair, two=(a, b): bool(set(pair) & set(two))))
                self.assertEqual((found.devices, found.links), ([a, b], []), (a, b))

    def test_a_device_and_a_link_elsewhere(self) -> None:
        found, _ = diagnosed(8, noisy(1, lambda pair: 0 in pair or pair == (6, 7)))
        self.assertEqual((found.devices, found.links), ([0], [(6, 7)]))
        self.assertEqual(found.text(), "GPU 0 with every other; the link between GPU 6 and GPU 7")

    def test_what_one_measurement_cannot_tell_is_asked_for_and_said(self) -> None:
        # Device 4 of five is measured with device 0 alone.
        first = ladder.localise(5, {(0, 4)}, {(0, 1), (2, 3), (0, 2), (1, 3)})
        self.assertEqual((first.devices, first.links, first.unsure), ([], [], [(4, 0)]))
        self.assertEqual(first.text(), "GPU 4 or its link to GPU 0")
        self.assertEqual(first.ask, [[(1, 4)], [(2, 4)]])

    def test_wiring_that_differs_round_by_round_is_not_slow(self) -> None:
        speeds = {1: 100.0, 2: 50.0, 4: 25.0}  # neighbours by bridge, then by switch, then by socket
        found, _ = diagnosed(8, lambda pair: speeds[pair[0] ^ pair[1]])
        self.assertTrue(found.healthy)

    def test_many_slow_pairs_are_wiring_and_no_fault(self) -> None:
        found, _ = diagnosed(8, lambda pair: 100.0 if pair in ((0, 1), (0, 2), (0, 4)) else 40.0)
        self.assertFalse(found.healthy or found.plausible(8))

    def test_a_block_is_slow_and_no_smaller_one(self) -> None:
        pairs = {(0, 1): 99.0, (2, 3): 98.0, (4, 5): 97.0, (6, 7): 99.0}
        self.assertEqual(ladder.slow_blocks([pairs, {(0, 3): 90.0, (4, 7): 50.0}, {(0, 7): 50.0}]), [(4, 7)])
        inside = dict(pairs)
        inside[4, 5] = 40.0
        self.assertEqual(ladder.slow_blocks([inside, {(0, 3): 90.0, (4, 7): 40.0}, {(0, 7): 40.0}]), [(4, 5)])
        self.assertEqual(ladder.slow_blocks([pairs, {(0, 3): 90.0, (4, 7): 89.0}, {(0, 7): 40.0}]), [])


if __name__ == "__main__":
    unittest.main()
