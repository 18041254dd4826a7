"""NVLink: every link that the GPU has is up, without errors; fabric state; who reaches whom. Pure."""

from __future__ import annotations

import re

from gpuprov.proof.check import check
from gpuprov.proof.checks.each import (
    CANNOT,
    Found,
    Gpu,
    answered,
    each,
    gpus_of,
    minutes_up,
    told,
    unread,
    virtual,
)
from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

#: Models whose links go through bridges that a host may do without.
_BRIDGED = re.compile(r"(?i)pcie|nvl\b|\ba30\b|\ba40\b|rtx|quadro|geforce|titan|a6000|a5000|a4500|\bactive\b")
#: Bridges join links by so many.
_OF_A_BRIDGE = 4
#: Models each of whose links leads to one certain other GPU, which in a virtual machine may be somebody else's.
_MESH = re.compile(r"[PV]100-SXM")
#: NVML's states of a link that works: active, and asleep until there is something to send (NVLink 5).
UP = (1, 2)
#: Errors of a link, a day, from which on it is watched.
MANY_ERRORS = 5
ERRORS = ("replay", "recovery", "crc_flit", "crc_data")
#: What NVML's fabric states say.
NOT_SUPPORTED, NOT_STARTED, IN_PROGRESS, COMPLETED = range(4)
#: NVML's levels of the nearest thing that two GPUs share.
ANCESTORS = {0: "board", 10: "switch", 20: "switches", 30: "host bridge", 40: "NUMA node", 50: "system"}
#: Answers of nvmlDeviceGetP2PStatus other than 0: fine.
P2P = {
    1: "the chipset does not support it",
    2: "the GPU does not support it",
    3: "the topology does not support it",
    4: "it is switched off in the driver's registry",
    5: "it is not supported",
    6: "the driver does not know why",
}
#: Those that a pair of GPUs has by how the host is built: nothing is sick.
_BY_DESIGN = (1, 2, 3, 5)


def had(gpu: Gpu) -> list[tuple[int, Message]]:
    """Return the links that the GPU has, with their numbers: all but those that it says it does not."""
    return [
        (number, link)
        for number, link in enumerate(gpu.links)
        if not (isinstance(link.get("state"), dict) and link["state"].get("error") in CANNOT)
    ]


def links(context: Context, reading: Message) -> list[Message]:
    """Judge whether all links are up. Where no GPU has one up, what that means depends on the model."""
    name = "nvlink.links"
    nothing = unread(name, context, reading)
    if nothing:
        return [nothing]
    gpus = [gpu for gpu in gpus_of(reading) if not gpu.lost]
    guest = virtual(context)

    def judge(gpu: Gpu, context: Context) -> Found:  # noqa: ARG001 - one shape for all judges
        alike = [other for other in gpus if other.get("name") == gpu.get("name")]
        its = had(gpu)
        if its and not _up(gpu):
            down = [number for number, link in its if answered(link, "state") not in UP]
            why = _none_needed(gpu, len(gpus))
            if why and len(down) == len(its):
                return Found("skip", None, why)
        built = its and _as_built(gpu, alike, guest)
        if built:
            return Found("pass", _up(gpu), f"{gpu.device}: {_up(gpu)} of {len(its)} links are up, {built}")
        return _links(gpu, max(len(had(other)) for other in alike))

    return told(name, judge, "all NVLinks that they have to have are up", "links", context, reading)


def _up(gpu: Gpu) -> int:
    return sum(link.get("state") in UP for _, link in had(gpu))


def _none_needed(gpu: Gpu, count: int) -> str:
    """Return why a GPU that has links may have none up, "" where it may not. Pure."""
    if gpu.sliced:
        return "MIG is on: a sliced GPU has no use for its NVLinks, and some models turn them off"
    if count == 1:
        return "no NVLink is up, and a single GPU needs none"
    if _BRIDGED.search(str(gpu.get("name", ""))):
        return "no NVLink is up: this card has no bridge to another, or one that makes no contact"
    return ""


def _as_built(gpu: Gpu, alike: list[Gpu], guest: bool) -> str:
    """Return why fewer links than there are may be up, "" where they may not. Pure."""
    ups = [_up(other) for other in alike if _up(other)]
    up, has = _up(gpu), len(had(gpu))
    if not up or up == has:
        return ""
    if _BRIDGED.search(str(gpu.get("name", ""))) and up == max(ups) and up % _OF_A_BRIDGE == 0:
        return "as many as its bridges have"
    if guest and (_MESH.search(str(gpu.get("name", ""))) or (len(ups) > 1 and len(set(ups)) == 1)):
        return "the others lead to GPUs that this virtual machine does not have"
    return ""


def _links(gpu: Gpu, most: int) -> Found:
    its = had(gpu)
    if not its and not most:
        return Found("skip", None, "this model has no NVLink")
    down = [number for number, link in its if answered(link, "state") not in UP]
    missing = most - len(its)
    if not down and not missing:
        return Found("pass", len(its), expected=most)
    which = (
        f"link{'s' if len(down) > 1 else ''} {', '.join(map(str, down))} down" if down else f"{missing} links missing"
    )
    reason = f"has {len(its) - len(down)} of {most} NVLinks up, {which}"
    return Found("fail", len(its) - len(down), reason, "reset GPU", most, [f"link {number}: down" for number in down])


def errors(gpu: Gpu, context: Context) -> Found:
    """No link has had to replay or recover more than now and then; CRC errors are judged by rate (differences.py)."""
    its = had(gpu)
    if not its:
        return Found("skip", None, "this model has no NVLink")
    up = [(number, link) for number, link in its if link.get("state") in UP]
    if not up:
        return Found("skip", None, "no NVLink is up")
    counts = {number: _counts(link) for number, link in up}
    most = MANY_ERRORS * max(1.0, (minutes_up(context) or 0.0) / (24 * 60))
    bad = {n: count for n, count in counts.items() if count.get("replay", 0) + count.get("recovery", 0) >= most}
    total = {kind: sum(count.get(kind, 0) for count in counts.values()) for kind in ERRORS}
    expected = f"< {MANY_ERRORS} replays and recoveries a day on each link"
    if bad:
        told_ = [f"link {n}: {', '.join(f'{kind} {number}' for kind, number in c.items())}" for n, c in bad.items()]
        reason = f"has NVLinks that replay or recover again and again: link {', '.join(map(str, bad))}"
        return Found("warn", total, reason, "monitor", expected, told_)
    return Found("pass", total, expected=expected)


def _counts(link: Message) -> dict[str, int]:
    """Return what a link has counted. Not every generation counts all kinds; the first two have to be there."""
    counts = {}
    for kind in ERRORS:
        value = link.get(f"errors.{kind}")
        without = isinstance(value, dict) and value.get("error") in CANNOT
        if not without or kind in ("replay", "recovery"):
            counts[kind] = answered(link, f"errors.{kind}")
    return counts


def fabric(gpu: Gpu, context: Context) -> Found:  # noqa: ARG001 - one shape for all judges
    """The GPU has joined the NVLink fabric, where there is one."""
    state = gpu["fabric"]
    if state == NOT_SUPPORTED:
        return Found("skip", None, "no NVLink fabric that this GPU could join")
    if state == COMPLETED:
        status = gpu["fabric.status"]
        if status:
            reason = f"joined the NVLink fabric with an error (NVML's code {status}): see the fabric manager's log"
            return Found("fail", f"completed, error {status}", reason, "reset GPU", "completed")
        return Found("pass", "completed", expected="completed")
    if state == IN_PROGRESS:
        reason = "has not joined the NVLink fabric yet: CUDA does not start on it until it has"
        return Found("fail", "in progress", reason, "monitor", "completed")
    if state == NOT_STARTED:
        reason = (
            "has not been asked to join the NVLink fabric: is nvidia-fabricmanager running, of the driver's version?"
        )
        return Found("fail", "not started", reason, "reset GPU", "completed")
    return Found("unknown", state, f"the fabric state {state} is unknown to gpuprov")


def peers(context: Context, reading: Message) -> list[Message]:
    """Judge whether GPUs reach each other's memory: all pairs alike, and by NVLink where a switch joins them."""
    name = "gpu.peers"
    nothing = unread(name, context, reading)
    if nothing:
        return [nothing]
    gpus = {str(gpu.index): gpu for gpu in gpus_of(reading) if not gpu.lost}
    if len(gpus) < 2:
        return [check(name, "skip", "one GPU has no peer" if gpus else "no GPU answers")]
    pairs = [(gpu, gpus[other], its) for gpu in gpus.values() for other, its in gpu.peers.items() if other in gpus]
    wanted = len(gpus) * (len(gpus) - 1) // 2
    reads = [(one, other, its.get("p2p.read")) for one, other, its in pairs]
    known = [pair for pair in reads if isinstance(pair[2], int)]
    if not known:
        why = _why(reads)
        return [
            check(name, "skip" if why in CANNOT else "unknown", f"how GPUs reach each other: {CANNOT.get(why, why)}")
        ]
    able = [pair for pair in known if pair[2] == 0]
    ways = sorted({_way(its) for _, _, its in pairs})
    data: Message = {"evidence": [f"nearest common: {', '.join(ways)}"]}
    if not able:
        why = P2P.get(known[0][2], known[0][2])
        reason = f"no GPU reaches another's memory directly: {why}; transfers go through the host"
        return [check(name, "skip", reason, measured=0, expected=wanted, unit="pairs", data=data)]
    if len(able) < wanted:
        told_ = {(one.index, other.index) for one, other, _ in known}
        sliced = sum((one.sliced or other.sliced) and (one.index, other.index) not in told_ for one, other, _ in reads)
        return [_fewer(name, known, able, wanted, sliced, data)]
    reason = f"{wanted} of {wanted} pairs of GPUs reach each other's memory directly ({', '.join(ways)})"
    return [check(name, "pass", reason, measured=wanted, expected=wanted, unit="pairs", data=data)]


def _fewer(
    name: str,
    known: list[tuple[Gpu, Gpu, Any]],
    able: list[tuple[Gpu, Gpu, Any]],
    wanted: int,
    sliced: int,
    data: Message,
) -> Message:
    """Judge pairs of which some do not reach each other: in a cube mesh of V100s half of them do not, by design.

    sliced: how many pairs have no answer and a GPU with MIG, which reaches no other.
    """
    bad = [pair for pair in known if pair[2] and pair[2] not in _BY_DESIGN and not (pair[0].sliced or pair[1].sliced)]
    which = [
        f"{one.device} and {other.device}: {P2P.get(status, status)}" for one, other, status in bad or known if status
    ]
    reason = f"{len(able)} of {wanted} pairs of GPUs reach each other's memory directly"
    if bad:
        data["evidence"] = which[:6]
        return check(name, "warn", reason, len(able), wanted, "pairs", action="reboot", data=data)
    untold = wanted - len(known) - sliced
    if untold > 0:
        return check(name, "unknown", f"{reason}, of {untold} it could not be read", data=data)
    data["evidence"] = which[:6]
    return check(name, "pass", f"{reason}; the others not, as this host is built", len(able), unit="pairs", data=data)


def _why(reads: list[tuple[Gpu, Gpu, object]]) -> str:
    errors_ = [its.get("error", "Unknown") for _, _, its in reads if isinstance(its, dict)]
    return str(errors_[0]) if errors_ else "NotAsked"


def _way(its: Message) -> str:
    if its.get("p2p.nvlink") == 0:
        return "NVLink"
    level = its.get("ancestor")
    return ANCESTORS.get(level, f"level {level}") if isinstance(level, int) else "unknown"


PARTS = (
    Part("nvlink.links", "quick", "reading", links, "NVML: state of each NVLink"),
    Part(
        "nvlink.errors",
        "quick",
        "reading",
        each("nvlink.errors", errors, "no NVLink that replays or recovers"),
        "NVML: error counters of each NVLink",
    ),
    Part(
        "nvlink.fabric",
        "quick",
        "reading",
        each("nvlink.fabric", fabric, "joined the NVLink fabric"),
        "NVML: fabric state",
    ),
    Part("gpu.peers", "quick", "reading", peers, "NVML: P2P status, common ancestor of each pair"),
)
