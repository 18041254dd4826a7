"""Four numbers beside a measurement: the specification's floor, the neighbours, the fleet, its own past. Pure.

Everything is turned so that more is better before it is compared: a time becomes its reciprocal.
"""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuprov.judge.specs import Floor

#: Neighbours: how far below the median of the host's other GPUs.
NEIGHBOUR_FAIL, NEIGHBOUR_WARN = 0.10, 0.05
#: Fleet: at least so far below the centre, on the median and on the p10, or so many robust sigmas.
FLEET_MEDIAN, FLEET_P10, SIGMAS = 0.05, 0.07, 4.0
#: So many other GPUs of the same model and software make a fleet.
FLEET_LEAST = 4
#: SuperBench's criterion: a similarity of distributions below this.
SIMILARITY = 0.95
#: Own past: there is no spread between GPUs in it.
PAST_FAIL, PAST_WARN = 0.05, 0.03
ORDER = ("pass", "warn", "fail")


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement of one GPU. median, p10 and samples as measured; group: model and software."""

    host: str
    device: str
    uuid: str
    metric: str
    unit: str
    group: tuple[str, ...]
    median: float
    p10: float
    samples: tuple[float, ...]
    lower_is_better: bool = False

    def value(self, number: float) -> float:
        """Return *number* such that more is better."""
        return 1.0 / number if self.lower_is_better and number > 0 else number


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one comparison says. against is None when there was nothing to compare with, and why says so."""

    source: str
    verdict: str
    against: float | None
    why: str


def by_floor(one: Measured, floor: Floor | None, why: str) -> Opinion:
    """Compare with the specification."""
    if floor is None:
        return Opinion("floor", "pass", None, why)
    verdict = "fail" if one.median < floor.fail else "warn" if one.median < floor.warn else "pass"
    return Opinion("floor", verdict, floor.fail, f"{one.median / floor.peak:.0%} of the model's peak")


def by_neighbours(one: Measured, others: Sequence[Measured]) -> Opinion:
    """Compare with the other GPUs of the host."""
    if not others:
        return Opinion("neighbours", "pass", None, "no other GPU on this host")
    centre = statistics.median(other.value(other.median) for other in others)
    below = 1 - one.value(one.median) / centre if centre else 0.0
    verdict = "fail" if below > NEIGHBOUR_FAIL else "warn" if below > NEIGHBOUR_WARN else "pass"
    return Opinion("neighbours", verdict, one.value(centre), _apart(below))


def by_fleet(one: Measured, others: Sequence[Measured]) -> Opinion:
    """Compare with all GPUs of the same model and software: median, p10, and the whole distribution."""
    if len(others) < FLEET_LEAST:
        return Opinion("fleet", "pass", None, f"{len(others)} other GPUs like it, {FLEET_LEAST} make a fleet")
    medians = [other.value(other.median) for other in others]
    p10s = [other.value(other.p10) for other in others]
    centre = statistics.median(medians)
    low = one.value(one.median) < centre - max(FLEET_MEDIAN * centre, SIGMAS * robust_sigma(medians))
    centre_p10 = statistics.median(p10s)
    low_p10 = one.value(one.p10) < centre_p10 - max(FLEET_P10 * centre_p10, SIGMAS * robust_sigma(p10s))
    middle = min(others, key=lambda other: abs(other.value(other.median) - centre))
    alike = similarity([one.value(s) for s in one.samples], [middle.value(s) for s in middle.samples])
    why = _apart(1 - one.value(one.median) / centre if centre else 0.0) + f", distribution {alike:.2f} alike"
    if low or low_p10:
        return Opinion("fleet", "fail", one.value(centre), why + ("" if low else "; its slowest tenth is"))
    return Opinion("fleet", "warn" if alike < SIMILARITY else "pass", one.value(centre), why)


def by_past(one: Measured, past: Sequence[float]) -> Opinion:
    """Compare with the good values of the same GPU under the same software."""
    if not past:
        return Opinion("past", "pass", None, "no earlier value of this GPU with this software")
    centre = statistics.median(one.value(number) for number in past)
    below = 1 - one.value(one.median) / centre if centre else 0.0
    verdict = "fail" if below > PAST_FAIL else "warn" if below > PAST_WARN else "pass"
    return Opinion("past", verdict, one.value(centre), _apart(below))


def verdict_of(opinions: Sequence[Opinion]) -> str:
    """Return the verdict of all comparisons: a floor counts alone, of the others two have to agree on a fail."""
    fails = [one.source for one in opinions if one.verdict == "fail"]
    if "floor" in fails or len(fails) > 1:
        return "fail"
    return "warn" if any(one.verdict != "pass" for one in opinions) else "pass"


def robust_sigma(values: Sequence[float]) -> float:
    """Return the standard deviation of a normal distribution with the same median absolute deviation."""
    centre = statistics.median(values)
    return 1.4826 * statistics.median(abs(value - centre) for value in values)


def similarity(one: Sequence[float], reference: Sequence[float]) -> float:
    """Return how alike two samples are, 0 to 1, looking only at how far *one* is below *reference*.

    1 - integral of max(0, S_ref - S_one) / integral of max(S_one, S_ref), with S the part of the sample above t:
    for two constants a < b this is a / b.
    """
    points = sorted({0.0, *one, *reference})
    below = total = 0.0
    for left, right in itertools.pairwise(points):
        above_one = sum(value >= right for value in one) / len(one)
        above_ref = sum(value >= right for value in reference) / len(reference)
        below += max(0.0, above_ref - above_one) * (right - left)
        total += max(above_one, above_ref) * (right - left)
    return 1.0 - below / total if total else 1.0


def _apart(below: float) -> str:
    return f"{abs(below):.1%} {'below' if below > 0 else 'above'}"
