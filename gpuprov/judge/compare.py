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
#: So far below the fleet's centre no other comparison has to agree: a slow host has slow neighbours, a new one no past.
FLEET_ALONE, SIGMAS_ALONE = 0.08, 6.0
#: So many other GPUs of the same model and software make a fleet.
FLEET_LEAST = 4
#: In a fleet of so many GPUs at most, those of the own host are no part of the middle.
FLEET_SMALL = 128
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
    """What one comparison says. against is None when there was nothing to compare with, and why says so.

    alone: a fail that no other comparison has to agree with.
    """

    source: str
    verdict: str
    against: float | None
    why: str
    alone: bool = False


def by_floor(one: Measured, floor: Floor | None, why: str) -> Opinion:
    """Compare with the specification."""
    if floor is None:
        return Opinion("floor", "pass", None, why)
    verdict = "fail" if one.median < floor.fail else "warn" if one.median < floor.warn else "pass"
    return Opinion("floor", verdict, floor.fail, f"{one.median / floor.peak:.0%} of the model's peak", True)


def by_neighbours(one: Measured, others: Sequence[float]) -> Opinion:
    """Compare with the medians, turned, of the host's other GPUs."""
    if not others:
        return Opinion("neighbours", "pass", None, "no other GPU on this host")
    centre = statistics.median(others)
    below = 1 - one.value(one.median) / centre if centre else 0.0
    verdict = "fail" if below > NEIGHBOUR_FAIL else "warn" if below > NEIGHBOUR_WARN else "pass"
    return Opinion("neighbours", verdict, one.value(centre), _apart(below))


@dataclass(frozen=True, slots=True)
class Crowd:
    """The middle of all GPUs of one model and software: of their medians and p10s, turned, and the spread of both.

    samples are those of the GPU that is nearest to the middle, turned and in order.
    """

    size: int
    centre: float
    sigma: float
    centre_p10: float
    sigma_p10: float
    samples: tuple[float, ...]


def crowd(members: Sequence[Measured]) -> Crowd:
    """Return the middle of *members*, at least one. The value that is compared with it may be in it."""
    medians = [one.value(one.median) for one in members]
    p10s = [one.value(one.p10) for one in members]
    centre, centre_p10 = statistics.median(medians), statistics.median(p10s)
    # the lowest name settles a tie: the order of hosts means nothing
    middle = min(zip(medians, members, strict=True), key=lambda at: (abs(at[0] - centre), at[1].host, at[1].device))[1]
    return Crowd(
        len(members), centre, robust_sigma(medians), centre_p10, robust_sigma(p10s), tuple(sorted(turned(middle)))
    )


def turned(one: Measured) -> Sequence[float]:
    """Return the samples such that more is better."""
    return [one.value(sample) for sample in one.samples] if one.lower_is_better else one.samples


def by_fleet(one: Measured, others: Crowd | None) -> Opinion:
    """Compare with all GPUs of the same model and software: median, p10, and the whole distribution."""
    count = others.size - 1 if others else 0
    if others is None or count < FLEET_LEAST:
        return Opinion("fleet", "pass", None, f"{count} other GPUs like it, {FLEET_LEAST} make a fleet")
    centre, centre_p10 = others.centre, others.centre_p10
    low = one.value(one.median) < centre - max(FLEET_MEDIAN * centre, SIGMAS * others.sigma)
    low_p10 = one.value(one.p10) < centre_p10 - max(FLEET_P10 * centre_p10, SIGMAS * others.sigma_p10)
    alike = similarity(turned(one), others.samples)
    why = _apart(1 - one.value(one.median) / centre if centre else 0.0) + f", distribution {alike:.2f} alike"
    if low or low_p10:
        alone = one.value(one.median) < centre - max(FLEET_ALONE * centre, SIGMAS_ALONE * others.sigma)
        return Opinion("fleet", "fail", one.value(centre), why + ("" if low else "; its slowest tenth is"), alone)
    return Opinion("fleet", "warn" if alike < SIMILARITY else "pass", one.value(centre), why)


def by_past(one: Measured, newest: Sequence[float], oldest: Sequence[float] = ()) -> Opinion:
    """Compare with the good values of the same GPU under the same software: the newest, or the oldest when better.

    What gets slower by little each night is like its newest values.
    """
    centres = [statistics.median(map(one.value, numbers)) for numbers in (newest, oldest) if numbers]
    if not centres:
        return Opinion("past", "pass", None, "no earlier value of this GPU with this software")
    centre = max(centres)
    below = 1 - one.value(one.median) / centre if centre else 0.0
    verdict = "fail" if below > PAST_FAIL else "warn" if below > PAST_WARN else "pass"
    slowly = " its first values" if len(centres) > 1 and centres[1] > centres[0] else ""
    return Opinion("past", verdict, one.value(centre), _apart(below) + slowly)


def verdict_of(opinions: Sequence[Opinion]) -> str:
    """Return the verdict of all comparisons: two have to agree on a fail, unless one counts alone."""
    fails = [one for one in opinions if one.verdict == "fail"]
    if len(fails) > 1 or any(one.alone for one in fails):
        return "fail"
    return "warn" if any(one.verdict != "pass" for one in opinions) else "pass"


def robust_sigma(values: Sequence[float]) -> float:
    """Return the standard deviation of a normal distribution with the same median absolute deviation."""
    centre = statistics.median(values)
    return 1.4826 * statistics.median(abs(value - centre) for value in values)


def similarity(one: Sequence[float], reference: Sequence[float]) -> float:
    """Return how alike two samples are, 0 to 1, looking only at how far *one* is below *reference*.

    1 - integral of max(0, S_ref - S_one) / integral of max(S_one, S_ref), with S the part of the sample above t:
    for two constants a < b this is a / b. Both integrals are taken over the quantiles: the area between two curves
    does not depend on the axis, and that of S is the mean.
    """
    a, b = sorted(one), sorted(reference)
    if len(a) == len(b):
        below = (
            0.0 if a[0] >= b[-1] else sum([max(right - left, 0.0) for left, right in zip(a, b, strict=True)]) / len(a)
        )
    else:
        steps = sorted({*(i / len(a) for i in range(len(a) + 1)), *(i / len(b) for i in range(len(b) + 1))})
        below = sum(
            max(0.0, _quantile(b, (left + right) / 2) - _quantile(a, (left + right) / 2)) * (right - left)
            for left, right in itertools.pairwise(steps)
        )
    total = sum(a) / len(a) + below
    return 1.0 - below / total if total else 1.0


def _quantile(ordered: Sequence[float], part: float) -> float:
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)]


def _apart(below: float) -> str:
    return f"{abs(below):.1%} {'below' if below > 0 else 'above'}"
