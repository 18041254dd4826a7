"""From what pairs of hosts reached to the host or the link that is at fault. Pure.

A sick host is bad with everybody, a sick link only with one. What looks bad is measured a second time before it is
blamed, and the better of both counts: a neighbour's job may have disturbed the first.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Iterable, Sequence, Tuple

    Link = Tuple[str, str]
    Best = Dict[Link, "Measured"]

#: Below this part of what good pairs reach a pair is slow (warn), and below that one it is sick (fail). Equal GPUs
#: with equal network cards part by a few percent. CPUs share cores and buses with all that runs on their host.
SLOW = {"cuda": 0.7, "cpu": 0.25}
SICK = {"cuda": 0.5, "cpu": 0.1}


class Measured:
    """What a pair reached: gb_per_s, or None when it failed, and why. kind: pairs of one kind can be compared."""

    __slots__ = ("gb_per_s", "hosts", "kind", "why")

    def __init__(self, hosts: Link, gb_per_s: float | None, kind: str = "cpu", why: str = "") -> None:
        self.hosts = (min(hosts), max(hosts))
        self.gb_per_s = gb_per_s
        self.kind = kind
        self.why = why


class Blame:
    """A host, or a link (two hosts), that is at fault.

    part: what it reaches of *good_gb_per_s*, the speed of good pairs; None when it does not work at all.
    """

    __slots__ = ("good_gb_per_s", "hosts", "part", "sick", "why")

    def __init__(self, hosts: tuple[str, ...], part: float | None, sick: bool, good_gb_per_s: float, why: str) -> None:
        self.hosts = hosts
        self.part = part
        self.sick = sick
        self.good_gb_per_s = good_gb_per_s
        self.why = why


def good_speeds(results: Iterable[Measured]) -> dict[str, float]:
    """Return what good pairs of each kind reach, 0.0 where none worked."""
    by_kind: dict[str, list[Measured]] = {}
    for result in best_of(results).values():
        by_kind.setdefault(result.kind, []).append(result)
    return {kind: _good(pairs, SLOW[_device(kind)]) for kind, pairs in by_kind.items()}


def _good(pairs: list[Measured], slow: float) -> float:
    """Return the highest speed beside which few are sick: the best one, that of the best quarter, or the median.

    Not simply the median: of four hosts with two sick ones five of six pairs are slow. Not simply the best: two
    hosts in one chassis are quicker with each other than any others can be, which makes nobody sick.
    """
    speeds = sorted(pair.gb_per_s for pair in pairs if pair.gb_per_s is not None)
    if not speeds:
        return 0.0
    everybody = {host for pair in pairs for host in pair.hosts}
    for good in (speeds[-1], speeds[3 * len(speeds) // 4]):
        bad = [pair for pair in pairs if (pair.gb_per_s or 0.0) < slow * good]
        hosts, links = _explained(pairs, bad)
        if 2 * len(hosts) <= len(everybody) and len(links) <= max(1, len(pairs) // 8):
            return good
    return speeds[len(speeds) // 2]


def best_of(results: Iterable[Measured]) -> Best:
    """Return the best result of each pair."""
    best: Best = {}
    for result in results:
        before = best.get(result.hosts)
        if before is None or (before.gb_per_s or -1.0) < (result.gb_per_s or -1.0):
            best[result.hosts] = result
    return best


def bad_pairs(results: Sequence[Measured]) -> list[Measured]:
    """Return the pairs that failed, or are slow beside other pairs of their kind."""
    good = good_speeds(results)
    return [r for r in best_of(results).values() if _part(r, good) < SLOW[_device(r.kind)]]


def suspects(results: Sequence[Measured]) -> tuple[list[str], list[Link]]:
    """Return the hosts that are bad with everybody, and the bad links that none of them explains."""
    return _explained(list(best_of(results).values()), bad_pairs(results))


def _explained(pairs: Sequence[Measured], bad: Sequence[Measured]) -> tuple[list[str], list[Link]]:
    """Return the hosts all of whose (at least two) pairs are bad, and the bad pairs of no such host."""
    sick = {pair.hosts for pair in bad}
    found: dict[str, list[bool]] = {}
    for pair in pairs:
        for host in pair.hosts:
            found.setdefault(host, []).append(pair.hosts in sick)
    hosts = _enough({host for host, those in found.items() if len(those) > 1 and all(those)}, bad)
    return sorted(hosts), sorted(pair.hosts for pair in bad if not set(pair.hosts) & set(hosts))


def _enough(candidates: set[str], bad: Sequence[Measured]) -> list[str]:
    """Return the fewest of *candidates* that explain what they can of *bad*, those with most bad pairs first.

    A healthy host that met only sick ones is bad with everybody, too; they explain its pairs.
    """
    left = list(bad)
    chosen: list[str] = []
    while True:
        counted = sorted((-sum(host in r.hosts for r in left), host) for host in candidates)
        if not counted or not counted[0][0]:
            return chosen
        chosen.append(counted[0][1])
        candidates = candidates - {counted[0][1]}
        left = [r for r in left if counted[0][1] not in r.hosts]


def again(results: Sequence[Measured], hosts: Sequence[str]) -> list[list[Link]]:
    """Return rounds of pairs to be measured again before anybody is blamed.

    Suspected links once more; suspected hosts with good ones that they have not met, if there are such. Nothing when
    most pairs are bad: then it is not one of them.
    """
    sick, links = suspects(results)
    if 2 * (len(sick) + len(links)) > len(hosts) or all(result.gb_per_s is None for result in results):
        return []
    met = best_of(results)
    tainted = {*sick, *(host for link in links for host in link)}
    healthy = [host for host in hosts if host not in tainted]
    wanted: list[Link] = list(links)
    for at, host in enumerate(sick):
        others = healthy[at % len(healthy) :] + healthy[: at % len(healthy)] if healthy else []
        new = [o for o in others if (min(host, o), max(host, o)) not in met] or others
        wanted += [(min(host, o), max(host, o)) for o in new[:1]]
    return disjoint(wanted)


def disjoint(pairs: Iterable[Link]) -> list[list[Link]]:
    """Return *pairs* in as many rounds as it takes for nobody to be in two pairs of a round."""
    rounds: list[list[Link]] = []
    for pair in pairs:
        free = (r for r in rounds if not any(set(pair) & set(other) for other in r))
        found = next(free, None)
        if found is None:
            rounds.append([pair])
        else:
            found.append(pair)
    return rounds


def blame(results: Sequence[Measured]) -> list[Blame]:
    """Return who is at fault, hosts first."""
    hosts, links = suspects(results)
    best, good = best_of(results), good_speeds(results)
    return [_of((host,), [r for r in best.values() if host in r.hosts], good) for host in hosts] + [
        _of(link, [best[link]], good) for link in links
    ]


def _of(hosts: tuple[str, ...], own: list[Measured], good: dict[str, float]) -> Blame:
    """Return the blame of *hosts*, by the best of their pairs: what the partner lacks is not theirs."""
    top = max(own, key=lambda r: _part(r, good))
    part = _part(top, good) if top.gb_per_s is not None else None
    sick = part is None or part < SICK[_device(top.kind)]
    why = next((r.why for r in own if r.why), "")
    return Blame(hosts, part, sick, good[top.kind], why)


def _part(result: Measured, good: dict[str, float]) -> float:
    return result.gb_per_s / good[result.kind] if result.gb_per_s is not None and good[result.kind] else 0.0


def _device(kind: str) -> str:
    return "cuda" if kind.startswith("cuda") else "cpu"
