"""What has to be equal bit by bit: the same model, software, seed and computation give the same digest. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Who computed it, as the caller knows them.
Voter = tuple[str, str, str]


def suspects(digests: Mapping[Voter, str]) -> tuple[dict[Voter, str], str]:
    """Return voter -> sentence for each whose digest is not that of the most, and that digest, "" without a majority.

    The most is the mode, never a mean. Without a majority of its own nobody can be told apart: all are suspects.
    """
    counts = Counter(digests.values())
    if len(counts) < 2:
        return {}, next(iter(counts), "")
    (first, most), (_, second) = counts.most_common(2)
    count = len(digests)
    if most == second:
        text = f"{len(counts)} different results of one computation, and no majority among {count}"
        return dict.fromkeys(digests, text), ""
    return {
        voter: f"other bits than {most} of {count} computed alike: silent data corruption is likely"
        for voter, digest in digests.items()
        if digest != first
    }, first


def grouped(votes: Sequence[tuple[tuple[str, ...], Voter, str]]) -> dict[tuple[str, ...], dict[Voter, str]]:
    """Return group -> voter -> digest."""
    found: dict[tuple[str, ...], dict[Voter, str]] = {}
    for group, voter, digest in votes:
        found.setdefault(group, {})[voter] = digest
    return found
