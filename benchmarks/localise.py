"""How often the fabric's localisation finds a bad host or link in made-up fleets, and how often it blames a good one.

    python benchmarks/localise.py        # prints the table of docs/fabric.md; a minute

Healthy pairs part by a normal spread between pairs (1.2 %, as GPUs do) and one between two measurements of the same
pair (0.4 %, then 3 % for a fabric with other traffic on it).
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpuprov.proof.fabric import localise
from gpuprov.proof.fabric.course import Course, Ended, Group

FLEETS = 300
BETWEEN_PAIRS = 0.012
NOISE = (0.004, 0.03)
SIZES = (4, 16, 64)
FAULTS = (
    ("healthy", {}, {}),
    ("one host at 80 %", {0: 0.8}, {}),
    ("one host at 65 %", {0: 0.65}, {}),
    ("one host at 45 %", {0: 0.45}, {}),
    ("one link at 65 %", {}, {(0, 1): 0.65}),
    ("one link dead", {}, {(0, 1): 0.0}),
    ("two hosts at 45 %", {0: 0.45, 2: 0.45}, {}),
    ("a host and another link at 45 %", {0: 0.45}, {(2, 3): 0.45}),
)


class Fleet:
    """A made-up fleet whose hosts are numbered at random, so that the fault is anywhere."""

    def __init__(
        self, size: int, hosts: dict[int, float], links: dict[tuple[int, int], float], noise: float, seed: int
    ):
        self._rng = random.Random(seed)
        self.names = [f"gpu{number:03}" for number in range(size)]
        order = self.names[:]
        self._rng.shuffle(order)
        self._hosts = {order[at]: part for at, part in hosts.items()}
        self._links = {frozenset((order[a], order[b])): part for (a, b), part in links.items()}
        self._pairs: dict[frozenset[str], float] = {}
        self._noise = noise

    def expected(self, met: set[frozenset[str]]) -> set[frozenset[str]]:
        """Return who is to be blamed: bad hosts, and bad links that were measured and are not a bad host's."""
        bad = {frozenset([host]) for host in self._hosts}
        return bad | {link for link in self._links if link in met and not any(host in link for host in self._hosts)}

    def measure(self, group: Group) -> Ended:
        pair = frozenset(group.hosts)
        part = min([self._hosts.get(h, 1.0) for h in pair] + [self._links.get(pair, 1.0)])
        if not part:
            return Ended(group, "failed", "did not end within 60 s")
        own = self._pairs.setdefault(pair, self._rng.gauss(1.0, BETWEEN_PAIRS))
        speed = 100.0 * part * own * self._rng.gauss(1.0, self._noise)
        return Ended(group, "ok", data={"allreduce": {"gb_per_s": speed}})

    def outcome(self) -> tuple[bool, bool]:
        """Return whether all that is bad was blamed, and whether something good was."""
        course = Course(dict.fromkeys(self.names, "cuda 8 x GPU"), ["pairs"])
        rounds = course.rounds()
        try:
            groups = next(rounds)
            while True:
                groups = rounds.send([self.measure(group) for group in groups])
        except StopIteration:
            pass
        blamed = {frozenset(one.hosts) for one in localise.blame(course.pairs)}
        expected = self.expected({frozenset(pair.hosts) for pair in course.pairs})
        return expected <= blamed, bool(blamed - expected)


def main() -> None:
    heads = [f"{size} hosts, noise {noise:.1%}" for size in SIZES for noise in NOISE]
    print("| fault | " + " | ".join(heads) + " |")
    print("|---|" + "---|" * len(heads))
    for name, hosts, links in FAULTS:
        cells = []
        for size in SIZES:
            for noise in NOISE:
                found = [Fleet(size, hosts, links, noise, seed).outcome() for seed in range(FLEETS)]
                all_named, wrongly = (sum(one[at] for one in found) / FLEETS for at in (0, 1))
                cells.append(f"{wrongly:.1%}" if not hosts and not links else f"{all_named:.1%}, {wrongly:.1%}")
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
