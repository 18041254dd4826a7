"""Deliberate faults that must be found: a judge that sees nothing makes the run void."""

from __future__ import annotations

import copy

from gpuprov.proof.check import UNHEALTHY, check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context, Part

NAME = "canary.readings"
#: What is planted in the reading of the first GPU that answers, one at a time: the values, and what it is.
PLANTED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"ecc.volatile.uncorrected": 7}, "7 uncorrected memory errors"),
    ({"remapped": [0, 1, True, False]}, "a pending row remapping"),
    ({"throttle": 0x80}, "a power brake"),
    ({"pcie.width": 1, "pcie.width_max": 16}, "a PCIe link of 1 lane instead of 16"),
)
LOST = {"error": "GpuIsLost"}


def of_readings(context: Context, parts: Sequence[Part], reading: Message) -> Message:
    """Return the check that each planted fault makes the checks of *parts* worse. Pure."""
    if _chosen(reading) is None:
        return check(NAME, "skip", "no GPU answered: there is no reading to plant a fault in")
    before = _bad(context, parts, reading)
    missed = [what for values, what in PLANTED if not _bad(context, parts, _planted(reading, values)) - before]
    if not _bad(context, parts, _with_lost(reading)) - before:
        missed.append("a lost GPU")
    count = len(PLANTED) + 1
    if missed:
        reason = f"deliberate faults were not found ({', '.join(missed)}): this run is void"
        return check(NAME, "fail", reason, measured=count - len(missed), expected=count)
    return check(NAME, "pass", f"{count} deliberate faults in a copy of the readings were found", count, count)


def _bad(context: Context, parts: Sequence[Part], reading: Message) -> set[tuple[str, str, str]]:
    found = [one for part in parts for one in part.run(context, reading)]
    return {(one["name"], one["device"], one["reason"]) for one in found if one["verdict"] in (*UNHEALTHY, "warn")}


def _planted(reading: Message, values: dict[str, Any]) -> Message:
    spoiled = copy.deepcopy(reading)
    gpu = _chosen(spoiled)
    assert gpu is not None
    gpu["values"].update(values)
    return spoiled


def _chosen(reading: Message) -> Message | None:
    """Return the first GPU that answers."""
    answering = (gpu for gpu in reading["gpus"] if isinstance(gpu["values"].get("uuid"), str) and "hung" not in gpu)
    return next(answering, None)


def _with_lost(reading: Message) -> Message:
    spoiled = copy.deepcopy(reading)
    gpu = _chosen(spoiled)
    assert gpu is not None
    gpu["values"] = dict.fromkeys(gpu["values"], LOST)
    return spoiled
