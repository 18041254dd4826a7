"""Who measures with whom: pairings and the doubling ladder. Pure; hosts are numbers here."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, Sequence, Tuple

    Pair = Tuple[int, int]

#: With one partner nobody can tell a slow host from a slow link; with three, two sick hosts of four are told apart.
LEAST_PARTNERS = 3


def pairings(count: int) -> list[list[Pair]]:
    """Return rounds of disjoint pairs in which every host meets at least three others (if there are as many).

    Round k pairs each host with the one whose number differs in bit k, so it crosses level k of a tree of switches.
    Hosts that this leaves over (count is no power of two) meet each other, if they have not yet. Rounds:
    log2(count), rounded up, and at most three more.
    """
    met: set[Pair] = set()
    rounds = []
    for bit in range(max(0, count - 1).bit_length()):
        pairs = [(one, one ^ 1 << bit) for one in range(count) if one < one ^ 1 << bit < count]
        rounds.append(_kept(pairs + _matched(_left(range(count), pairs), met), met))
    while True:
        lonely = [one for one in range(count) if _partners(one, met) < min(LEAST_PARTNERS, count - 1)]
        if not lonely:
            return rounds
        rest = [one for one in range(count) if one not in lonely]
        rounds.append(_kept(_matched([*lonely, *rest], met, len(lonely)), met))


def _kept(pairs: list[Pair], met: set[Pair]) -> list[Pair]:
    met.update(pairs)
    return pairs


def _left(hosts: Iterable[int], pairs: Sequence[Pair]) -> list[int]:
    taken = {one for pair in pairs for one in pair}
    return [one for one in hosts if one not in taken]


def _partners(one: int, met: set[Pair]) -> int:
    return sum(one in pair for pair in met)


def _matched(hosts: list[int], met: set[Pair], most: int | None = None) -> list[Pair]:
    """Return disjoint new pairs; the first *most* of *hosts* are those that need one (None: all of them)."""
    free = list(hosts)
    needy = hosts[:most]
    pairs = []
    for one in needy:
        if one not in free:
            continue
        other = next((o for o in free if o != one and (min(one, o), max(one, o)) not in met), None)
        if other is not None:
            pairs.append((min(one, other), max(one, other)))
            free = [o for o in free if o not in (one, other)]
    return pairs


def ladder(count: int) -> list[list[list[int]]]:
    """Return the rungs: groups of 4, 8, ... hosts next to each other, at last all of them.

    Pairs have been measured before. A rung's last group may be smaller; one host alone is none.
    """
    rungs = []
    size = 4
    while size < count:
        groups = [list(range(at, min(at + size, count))) for at in range(0, count, size)]
        rungs.append([group for group in groups if len(group) > 1])
        size *= 2
    return [*rungs, [list(range(count))]] if count > 1 else []
