"""Which device, or which link between two, is slow: found in O(log n) rounds of disjoint pairs. Pure, without torch.

In round k device i is measured with device i XOR 2**k, all pairs of a round at once: after ceil(log2 n) rounds each
device has been measured with several others, and where wiring is regular, the pairs of one round are wired alike.
So a pair is slow when it is slower than the best of its round. A pair that is not slow clears both of its devices;
then a slow pair of two cleared devices has a slow link, and a device that is slow with all that it met is slow itself.
Where the rounds do not tell a device from its link, `localise` names the pairs that would.

"Device" may be anything that has links: a GPU, or a host of a fleet.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Tuple

    Pair = Tuple[int, int]

#: A pair below this part of the best of its round is slow. Pairs of healthy NVLinks differ by less than 5 %.
SLOW = 0.75


class Finding:
    """What is slow. unsure: (device, other) where the device or its link is; ask: rounds of pairs that would tell."""

    __slots__ = ("ask", "devices", "links", "unsure")

    def __init__(self, devices: list[int], links: list[Pair], unsure: list[Pair], ask: list[list[Pair]]) -> None:
        self.devices = devices
        self.links = links
        self.unsure = unsure
        self.ask = ask

    @property
    def healthy(self) -> bool:
        """Say whether nothing is slow."""
        return not (self.devices or self.links or self.unsure)

    def plausible(self, count: int) -> bool:
        """Say whether this is a fault rather than the way *count* devices are wired: one device, or few links."""
        return len(self.devices) <= max(1, count // 4) and len(self.links) + len(self.unsure) <= max(1, count // 4)

    def text(self, noun: str = "GPU") -> str:
        """Return what is slow as one phrase."""
        said = [f"{noun} {device} with every other" for device in self.devices]
        said += [f"the link between {noun} {a} and {noun} {b}" for a, b in self.links]
        said += [f"{noun} {a} or its link to {noun} {b}" for a, b in self.unsure]
        return "; ".join(said) or "nothing"


def rounds(count: int) -> list[list[Pair]]:
    """Return ceil(log2 count) rounds of disjoint pairs (lower number first)."""
    found = []
    step = 1
    while step < count:
        found.append([(i, i | step) for i in range(count) if not i & step and i | step < count])
        step *= 2
    return found


def blocks(count: int) -> list[list[list[int]]]:
    """Return the doubling ladder: all blocks of 2, of 4, ... that are full, then all devices."""
    found = []
    size = 2
    while size < count:
        found.append([list(range(i, i + size)) for i in range(0, count - size + 1, size)])
        size *= 2
    return [*found, [list(range(count))]]


def slow_blocks(levels: Sequence[Mapping[Pair, float]], fraction: float = SLOW) -> list[Pair]:
    """Return the smallest blocks (first, last) that are slow: what is slow is in them, and in no smaller block.

    Each level has the speed of its blocks, and a block is slow beside the best of its level. One that is slow though
    its halves are not has a slow way from one half to the other.
    """
    found: list[Pair] = []
    for one in levels:
        best = max(one.values()) if len(one) > 1 else 0.0
        slow = [block for block, value in one.items() if value < fraction * best]
        found += [(a, b) for a, b in slow if not any(a <= first and last <= b for first, last in found)]
    return found


def slow_pairs(measured: Sequence[Mapping[Pair, float]], fraction: float = SLOW) -> tuple[set[Pair], set[Pair]]:
    """Return (slow, not slow) pairs of *measured*, which has a mapping for each round.

    A round of one pair has nothing of its own to be compared with: then the best of all rounds is taken.
    """
    best = max((value for one in measured for value in one.values()), default=0.0)
    slow: set[Pair] = set()
    fast: set[Pair] = set()
    for one in measured:
        yardstick = max(one.values()) if len(one) > 1 else best
        for pair, value in one.items():
            (slow if value < fraction * yardstick else fast).add(pair)
    return slow, fast


def localise(count: int, slow: set[Pair], fast: set[Pair]) -> Finding:
    """Return what explains that *slow* pairs are slow and *fast* ones are not.

    Every device found slow was slow with at least two others, one of which is cleared; every link found slow is
    between two devices that are not slow with others.
    """
    cleared = {device for pair in fast for device in pair}
    met = {d: [pair for pair in slow if d in pair and _other(pair, d) in cleared] for d in range(count)}
    # Slow with two cleared ones: two slow links with one end in common are the less likely story.
    devices = [d for d in range(count) if d not in cleared and len(met[d]) >= 2]
    links, unsure = [], []
    for pair in sorted(slow):
        a, b = pair
        if a in cleared and b in cleared:
            links.append(pair)
        elif a not in devices and b not in devices:
            unsure += [(d, _other(pair, d)) for d in pair if d not in cleared]
    return Finding(devices, links, unsure, _ask(sorted({d for d, _ in unsure}), cleared, slow | fast))


def _other(pair: Pair, device: int) -> int:
    return pair[1] if pair[0] == device else pair[0]


def _ask(devices: list[int], cleared: set[int], known: set[Pair]) -> list[list[Pair]]:
    """Return up to two rounds that pair each of *devices* with a cleared one that it has not met."""
    asked: set[Pair] = set()
    found = []
    for _ in range(2):
        free = set(cleared)
        now: list[Pair] = []
        for device in devices:
            fits = [d for d in sorted(free) if _pair(d, device) not in known | asked]
            if fits:
                now.append(_pair(fits[0], device))
                free.discard(fits[0])
        asked.update(now)
        if now:
            found.append(now)
    return found


def _pair(a: int, b: int) -> Pair:
    return (a, b) if a < b else (b, a)
