"""Formulae of the measurements: error bounds, bus factors, how often to repeat, trends. Pure, without torch."""

from __future__ import annotations

import math

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

#: No sum of products with random signs gets farther from zero than this times the root of the sum of their squares
#: (Hoeffding: 2 exp(-LAMBDA**2 / 2) = 2.5e-14 for each sum, 1e-6 for all partial sums of all compared elements).
LAMBDA = 8.0
#: Unit roundoff of what is written, by dtype; int8 sums to exact int32, fp8 is written as bfloat16.
WRITTEN = {
    "fp64": 2.0**-53,
    "fp32": 2.0**-24,
    "tf32": 2.0**-24,
    "bf16": 2.0**-8,
    "fp16": 2.0**-11,
    "fp8": 2.0**-8,
    "int8": 0.0,
}
#: Error of one addition, relative to the sum so far. Tensor cores cut off instead of rounding: twice as much as IEEE.
ADDED = {"fp64": 2.0**-52, "fp32": 2.0**-23, "tf32": 2.0**-23, "bf16": 2.0**-23, "fp16": 2.0**-23, "int8": 0.0}
#: Tensor cores of the first fp8 generations keep about 14 bits of a sum, and add 32 products at a time.
FP8_ADDED = 2.0**-13
FP8_GROUP = 32
#: Half the least step of float16: below its normal numbers the error is no longer relative.
LEAST_STEP = {"fp16": 2.0**-25}

#: Bytes that cross a link, by bytes of the operation and n ranks, times the bandwidth seen: what makes the numbers of
#: different operations comparable with the link. Bytes are those of nccl-tests: all that a rank ends up with or gives.
BUS_FACTORS = {
    "allreduce": lambda n: 2.0 * (n - 1) / n,
    "allgather": lambda n: (n - 1) / n,
    "reducescatter": lambda n: (n - 1) / n,
    "alltoall": lambda n: (n - 1) / n,
}


def error_bound(dtype: str, k: int) -> tuple[float, float, float]:
    """Return (a, b, c): an element of a product over *k* may be off by a * root + b * |element| + c.

    root is the root of the sum of the k products' squares. Each of the k additions is off by at most ADDED times the
    partial sum, which is at most LAMBDA * root, as signs are random: a = k * LAMBDA * ADDED. The reference, itself in
    float64, is covered by the same amount again for fp64. For fp8, where that would say nothing (a > 1), the
    errors of products are counted as random (they have the products' signs): LAMBDA * sqrt(2k); those of the sums
    in full: two root per group of 32 on average over the way, 2/3 of k/32 groups: k/24.
    """
    if dtype == "fp8":
        random, kept = LAMBDA * math.sqrt(2.0 * k), 2.0 * (2.0 / 3.0) * k / FP8_GROUP
        return FP8_ADDED * (random + kept), WRITTEN[dtype], 0.0
    a = k * LAMBDA * ADDED[dtype] * (2.0 if dtype == "fp64" else 1.0)
    return a, WRITTEN[dtype], LEAST_STEP.get(dtype, 0.0)


def bus_gb_s(kind: str, world: int, size_bytes: int, seconds: float) -> float:
    """Return the bus bandwidth of a collective of *kind* in GB/s (10**9)."""
    return float(BUS_FACTORS[kind](world)) * size_bytes / seconds / 1e9


def repeats(call_s: float, budget_s: float, least: int = 5, most: int = 32, sample_s: float = 0.02) -> tuple[int, int]:
    """Return (calls per sample, samples) so that all samples take about *budget_s*, but at least *least* samples.

    A sample lasts at least *sample_s* where the budget allows: short ones measure the start more than the work.
    """
    calls = max(1, math.ceil(sample_s / call_s), int(budget_s / (most * call_s)))
    calls = min(calls, max(1, int(budget_s / (least * call_s))))
    return calls, max(least, min(most, int(budget_s / (calls * call_s))))


def thirds(series: Sequence[float]) -> float:
    """Return the mean of the last third over that of the first; NaN for fewer than three values."""
    part = len(series) // 3
    if not part:
        return math.nan
    return (sum(series[-part:]) / part) / (sum(series[:part]) / part)


def lowest_moving_average(series: Sequence[float], width: int = 5) -> float:
    """Return the lowest moving average over the mean of all; NaN for fewer than *width* values."""
    if len(series) < width:
        return math.nan
    means = [sum(series[i : i + width]) / width for i in range(len(series) - width + 1)]
    return min(means) / (sum(series) / len(series))


def ranges(positions: Sequence[int], gap: int = 1) -> list[tuple[int, int]]:
    """Return ascending *positions* as ranges (first, last); those at most *gap* apart are one."""
    found: list[tuple[int, int]] = []
    for position in positions:
        if found and position - found[-1][1] <= gap:
            found[-1] = (found[-1][0], position)
        else:
            found.append((position, position))
    return found


def cpus(text: str) -> set[int]:
    """Return the numbers of a CPU list of the kernel's ("0-3,8"). Raises ValueError."""
    found: set[int] = set()
    for piece in text.strip().split(","):
        first, _, last = piece.partition("-")
        if piece:
            found.update(range(int(first), int(last or first) + 1))
    return found
