"""What is compared bit by bit: the first difference of two trainings, and who of several is the odd one. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

#: What the numbers of a step are, in the order in which they come to be.
KINDS = ("loss", "gradients", "weights")


def first_difference(one: Sequence[tuple[int, ...]], other: Sequence[tuple[int, ...]]) -> tuple[int, str]:
    """Return the first step (from 1) that differs and what of it does, (0, "") when none does. Pure."""
    for number, (a, b) in enumerate(zip(one, other), 1):
        for kind, x, y in zip(KINDS, a, b):
            if x != y:
                return number, kind
    if len(one) != len(other):
        return min(len(one), len(other)) + 1, "end"
    return (0, "") if one else (1, "absence")


def odd_ones(values: Sequence[object]) -> list[int]:
    """Return the places of values that are not the most frequent one; all of them when no value is. Pure.

    Of two that differ nobody can tell which one is wrong.
    """
    counts = [list(values).count(one) for one in values]
    most = max(counts)
    winners = {repr(one) for one, count in zip(values, counts) if count == most}
    return [at for at, count in enumerate(counts) if count < most or len(winners) > 1]
