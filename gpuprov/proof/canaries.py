"""Deliberate faults that must be found: a judge that sees nothing makes the run void."""

from __future__ import annotations

import copy
import traceback

from gpuprov.proof.check import UNHEALTHY, check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context, Part

NAME = "canary.readings"
#: What is planted in the reading of the first GPU that answers, one at a time: for which part, the values, what it is.
PLANTED: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("ecc.uncorrected", {"ecc.volatile.uncorrected": 7}, "7 uncorrected memory errors"),
    ("memory.remapped", {"remapped": [0, 1, True, False]}, "a pending row remapping"),
    ("gpu.throttle", {"throttle": 0x80}, "a power brake"),
    ("pcie.width", {"pcie.width": 1, "pcie.width_max": 16}, "a PCIe link of 1 lane instead of 16"),
)
LOST = {"error": "GpuIsLost"}
LOST_PART = "gpu.lost"


def of_readings(context: Context, parts: Sequence[Part], reading: Message) -> Message:
    """Return the check that the fault planted for each of *parts* makes its checks worse. Pure, never raises."""
    try:
        return _of_readings(context, {part.name: part for part in parts}, reading)
    except Exception as error:  # a judge that breaks on a fault does not find it either
        traceback.print_exc()
        reason = f"a check breaks on a deliberate fault ({type(error).__name__}: {error}): this run is void"
        return check(NAME, "fail", reason)


def _of_readings(context: Context, parts: dict[str, Part], reading: Message) -> Message:
    if _chosen(reading) is None:
        return check(NAME, "skip", "no GPU answered: there is no reading to plant a fault in")
    planted = [(name, _planted(reading, values), what) for name, values, what in PLANTED if name in parts]
    if LOST_PART in parts:
        planted.append((LOST_PART, _with_lost(reading), "a lost GPU"))
    if not planted:
        return check(NAME, "skip", "none of the checks that were asked for has a deliberate fault")
    missed = []
    for name, spoiled, what in planted:
        if not _bad(context, parts[name], spoiled) - _bad(context, parts[name], reading):
            missed.append(what)
    count = len(planted)
    if missed:
        reason = f"deliberate faults were not found ({', '.join(missed)}): this run is void"
        return check(NAME, "fail", reason, measured=count - len(missed), expected=count)
    return check(NAME, "pass", f"{count} deliberate faults in a copy of the readings were found", count, count)


def _bad(context: Context, part: Part, reading: Message) -> set[tuple[str, str, str]]:
    found = part.run(context, reading)
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
