"""Who measures with whom, and who is blamed, on made-up fleets: no sockets, no torch."""

from __future__ import annotations

import random
import unittest

from gpuprov.proof.fabric import localise, schedule, verdicts
from gpuprov.proof.fabric.course import Course, Ended, Group
from gpuprov.proof.fabric.localise import Measured

#: What a healthy pair of GPU hosts reaches, and how far healthy pairs part: 1.2 % between GPUs, 0.4 % between runs.
GOOD_GB_PER_S = 180.0
SPREAD = 0.013


class Fleet:
    """A made-up fleet: what each pair reaches, by its sick hosts and links. part 0.0: nothing gets through."""

    def __init__(self, count: int, hosts: dict | None = None, links: dict | None = None, seed: int = 1) -> None:
        self.names = [f"gpu{number:03}" for number in range(count)]
        self.hosts = {self.names[at]: part for at, part in (hosts or {}).items()}
        self.links = {(self.names[a], self.names[b]): part for (a, b), part in (links or {}).items()}
        self.rng = random.Random(seed)
        self.rounds: list[list[Group]] = []

    def part(self, group: Group) -> float:
        parts = [self.hosts.get(host, 1.0) for host in group.hosts]
        parts += [part for link, part in self.links.items() if set(link) <= set(group.hosts)]
        return min(parts)

    def run(self, group: Group) -> Ended:
        part = self.part(group)
        if not part:
            return Ended(group, "failed", "did not end within 60 s")
        speed = GOOD_GB_PER_S * part * self.rng.gauss(1.0, SPREAD)
        found = {"gb_per_s": speed, "samples": [speed], "bytes": 1, "world": 2}
        ddp = {"world": 2, "steps": 20, "difference": 0.0, "bound": 1e-5}
        return Ended(group, "ok", data={"allreduce": found, "allgather": found, "alltoall": found, "ddp": ddp})

    def course(self, parts: tuple = ("pairs", "collectives", "ddp")) -> Course:
        course = Course(dict.fromkeys(self.names, "cuda 8 x NVIDIA H100"), parts)
        rounds = course.rounds()
        groups = next(rounds)
        while True:
            self.rounds.append(groups)
            try:
                groups = rounds.send([self.run(group) for group in groups])
            except StopIteration:
                return course

    def blamed(self) -> set[tuple[str, ...]]:
        return {one.hosts for one in localise.blame(self.course(("pairs",)).pairs)}


class Schedule(unittest.TestCase):
    def test_pairings_meet_enough_in_few_rounds(self) -> None:
        for count in [*range(1, 70), 100, 255, 256, 257, 400]:
            rounds = schedule.pairings(count)
            met: set = set()
            for pairs in rounds:
                taken = [one for pair in pairs for one in pair]
                self.assertEqual(len(taken), len(set(taken)), "a host measures with two others at the same time")
                self.assertFalse(met & set(pairs), "a pair is measured twice")
                met |= set(pairs)
            partners = [sum(one in pair for pair in met) for one in range(count)]
            self.assertGreaterEqual(min(partners), min(3, count - 1), count)
            self.assertLessEqual(len(rounds), (count - 1).bit_length() + 3)

    def test_the_ladder(self) -> None:
        self.assertEqual(schedule.ladder(1), [])
        self.assertEqual(schedule.ladder(2), [[[0, 1]]])
        self.assertEqual(schedule.ladder(4), [[[0, 1, 2, 3]]])
        self.assertEqual(schedule.ladder(5), [[[0, 1, 2, 3]], [[0, 1, 2, 3, 4]]])
        sizes = [[len(group) for group in rung] for rung in schedule.ladder(30)]
        self.assertEqual(sizes, [[4] * 7 + [2], [8, 8, 8, 6], [16, 14], [30]])


class Localise(unittest.TestCase):
    def test_a_healthy_fleet_blames_nobody(self) -> None:
        for seed in range(200):
            for count in (2, 3, 4, 5, 8, 13):
                self.assertEqual(Fleet(count, seed=seed).blamed(), set())

    def test_one_slow_host(self) -> None:
        for count in (3, 4, 5, 6, 8, 13, 16, 100):
            for sick in range(min(count, 16)):
                for part in (0.6, 0.33, 0.0):
                    fleet = Fleet(count, {sick: part}, seed=sick)
                    self.assertEqual(fleet.blamed(), {(fleet.names[sick],)}, (count, sick, part))

    def test_one_slow_link(self) -> None:
        for count in (4, 5, 8, 16, 100):
            for pair in [pair for pairs in schedule.pairings(count) for pair in pairs][:40]:
                for part in (0.6, 0.1, 0.0):
                    fleet = Fleet(count, links={pair: part})
                    self.assertEqual(fleet.blamed(), {(fleet.names[pair[0]], fleet.names[pair[1]])}, (count, pair))

    def test_two_slow_hosts(self) -> None:
        for count in (4, 8, 16, 33):
            for first in range(count):
                for second in range(first):
                    fleet = Fleet(count, {first: 0.4, second: 0.5}, seed=first)
                    expected = {(fleet.names[first],), (fleet.names[second],)}
                    self.assertEqual(fleet.blamed(), expected, (count, first, second))

    def test_a_slow_host_and_a_slow_link(self) -> None:
        fleet = Fleet(16, {3: 0.5}, {(8, 9): 0.5})
        self.assertEqual(fleet.blamed(), {("gpu003",), ("gpu008", "gpu009")})

    def test_what_was_slow_once_is_measured_again_and_not_blamed(self) -> None:
        fleet = Fleet(8)
        honest, disturbed = fleet.run, [True]

        def run(group: Group) -> Ended:
            ended = honest(group)
            if group.hosts == ("gpu002", "gpu003") and disturbed.pop() if disturbed else False:
                ended.data["allreduce"]["gb_per_s"] = 20.0
            return ended

        fleet.run = run  # type: ignore[method-assign]
        course = fleet.course(("pairs",))
        again = [group.hosts for group in fleet.rounds[-1] if group.name == "pairs again"]
        self.assertEqual(again, [("gpu002", "gpu003")])
        self.assertEqual(localise.blame(course.pairs), [])

    def test_fast_pairs_in_one_chassis_make_nobody_slow(self) -> None:
        fleet = Fleet(8)
        fleet.part = lambda g: 5.0 if int(g.hosts[0][3:]) // 2 == int(g.hosts[1][3:]) // 2 else 1.0  # type: ignore[method-assign]
        self.assertEqual(fleet.blamed(), set())

    def test_a_mixed_fleet_compares_equals_alone(self) -> None:
        pairs = [Measured((a, b), 180.0, "cuda H100") for a, b in (("a", "b"), ("a", "c"), ("b", "c"))]
        pairs += [Measured((a, b), 20.0, "cuda T4") for a, b in (("x", "y"), ("x", "z"), ("y", "z"))]
        self.assertEqual(localise.blame(pairs), [])

    def test_cpus_are_blamed_for_gross_differences_alone(self) -> None:
        slow = [Measured(("a", "b"), 0.3), Measured(("a", "c"), 0.3), Measured(("b", "c"), 1.0)]
        self.assertEqual(localise.blame(slow), [])
        gross = [Measured(("a", "b"), 0.02), Measured(("a", "c"), 0.03), Measured(("b", "c"), 1.0)]
        self.assertEqual([one.hosts for one in localise.blame(gross)], [("a",)])

    def test_when_nothing_works_nobody_is_singled_out_and_nobody_passes(self) -> None:
        for count in (2, 4, 8):
            fleet = Fleet(count, dict.fromkeys(range(count), 0.0))
            course = fleet.course()
            again = [g for groups in fleet.rounds for g in groups if g.name == "pairs again"]
            self.assertEqual(again, [])
            found = verdicts.of_course(course, fleet.names)
            self.assertEqual({found[host][0]["verdict"] for host in fleet.names}, {"fail"})
            self.assertIn("no pair of hosts got anything through", found["gpu000"][0]["reason"])


class Order(unittest.TestCase):
    def test_a_dead_host_is_left_out_and_the_others_are_proved(self) -> None:
        fleet = Fleet(8, {5: 0.0})
        course = fleet.course()
        self.assertEqual(list(course.out), ["gpu005"])
        last = fleet.rounds[-1][0]
        self.assertEqual((last.what, len(last.hosts)), ("ddp", 7))
        found = verdicts.of_course(course, fleet.names)
        mine = {check["name"]: check for check in found["gpu005"]}
        self.assertEqual((mine["fabric.links"]["verdict"], mine["fabric.links"]["action"]), ("fail", "isolate"))
        self.assertIn("host gpu005: all its pairs fail (did not end within 60 s)", mine["fabric.links"]["reason"])
        self.assertEqual(mine["fabric.rest"]["verdict"], "unknown")
        self.assertEqual([check["verdict"] for check in found["gpu001"]], ["pass"])

    def test_a_slow_link_fails_at_both_ends(self) -> None:
        fleet = Fleet(8, links={(2, 6): 0.3})
        found = verdicts.of_course(fleet.course(), fleet.names)
        for host in ("gpu002", "gpu006"):
            self.assertEqual(found[host][0]["verdict"], "fail")
            self.assertIn("link gpu002 - gpu006: this pair alone reaches 30% of the", found[host][0]["reason"])
        self.assertEqual(
            {found[host][0]["verdict"] for host in fleet.names if host not in ("gpu002", "gpu006")}, {"pass"}
        )

    def test_a_rung_that_hangs_takes_its_hosts_out_and_no_others(self) -> None:
        fleet = Fleet(16)
        honest = fleet.run

        def run(group: Group) -> Ended:
            if group.what == "collectives" and {"gpu004", "gpu006", "gpu007"} <= set(group.hosts):
                return Ended(group, "failed", "did not end within 60 s")
            return honest(group)

        fleet.run = run  # type: ignore[method-assign]
        course = fleet.course()
        self.assertEqual(list(course.out), ["gpu004", "gpu005", "gpu006", "gpu007"])
        self.assertEqual(len(fleet.rounds[-1][0].hosts), 12)

    def test_who_caused_it_is_decided_when_all_have_spoken(self) -> None:
        group = Group("4 hosts", "collectives", ("a", "b"))
        ranks = [["a", "cpu"], ["b", "cpu"]]
        lost = {"rank": 0, "state": "error", "text": "Connection closed by peer", "stage": "allreduce", "own": False}
        died = {"rank": 1, "state": "died", "text": "its process of cpu was killed by SIGKILL", "stage": "allreduce"}
        one = verdicts.ended(group, ranks, {"a": [lost], "b": [died]}, "a: Connection closed by peer", [], [])
        self.assertEqual((one.state, one.culprits), ("failed", ("b",)))
        mine, other = verdicts.of_round(one)["b"][0], verdicts.of_round(one)["a"][0]
        self.assertEqual((mine["verdict"], other["verdict"]), ("fail", "unknown"))
        self.assertIn("since b failed", other["reason"])

    def test_a_wrong_number_is_a_fail_for_all_of_the_round(self) -> None:
        group = Group("pairs 1 of 1", "pairs", ("a", "b"))
        said = {
            h: [{"rank": n, "state": "wrong", "text": "a sum: number 3 is 7, must be 9"}] for n, h in enumerate("ab")
        }
        one = verdicts.ended(group, [["a", "cpu"], ["b", "cpu"]], said, "", [], [])
        self.assertEqual({c[0]["verdict"] for c in verdicts.of_round(one).values()}, {"fail"})
        self.assertIsNone(one.gb_per_s)

    def test_a_round_without_all_its_ranks_is_never_a_pass(self) -> None:
        group = Group("pairs 1 of 1", "pairs", ("a", "b"))
        one = verdicts.ended(
            group, [["a", "cpu"], ["b", "cpu"]], {"a": [{"rank": 0, "state": "ok", "data": {}}]}, "", [], []
        )
        self.assertEqual(one.state, "failed")


if __name__ == "__main__":
    unittest.main()
