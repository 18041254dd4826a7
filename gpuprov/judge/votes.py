"""What has to be equal bit by bit: the same model, software, seed and computation give the same digest. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Who computed it, as the caller knows them.
Voter = tuple[str, str, str]

#: What a second look says of a suspect: it differs again; no more; it never did, and whom it differed from did.
AGAIN, GONE, CLEARED = "again", "gone", "cleared"


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


def second_look(first: Mapping[Voter, str], second: Mapping[Voter, str]) -> dict[Voter, str]:
    """Return AGAIN, GONE or CLEARED for each suspect of *first* that has computed a *second* time. Pure.

    With a majority, a suspect's second digest is compared with those of the others. Without one, both digests of all
    are counted: of two GPUs the one that agrees with itself is believed, when the other one does not.
    """
    those, most = suspects(first)
    if not most and those.keys() <= second.keys():
        counts = Counter([*first.values(), *second.values()]).most_common(2)
        if len(counts) < 2 or counts[0][1] > counts[1][1]:
            return {one: _alone(first[one], second[one], counts[0][0]) for one in those}
    still, _ = suspects({**first, **second})
    return {one: AGAIN if one in still else GONE for one in those if one in second}


def _alone(first: str, second: str, most: str) -> str:
    if second != most:
        return AGAIN
    return CLEARED if first == most else GONE


def grouped(votes: Sequence[tuple[tuple[str, ...], Voter, str]]) -> dict[tuple[str, ...], dict[Voter, str]]:
    """Return group -> voter -> digest."""
    found: dict[tuple[str, ...], dict[Voter, str]] = {}
    for group, voter, digest in votes:
        found.setdefault(group, {})[voter] = digest
    return found
