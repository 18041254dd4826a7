"""What came out of rounds, as the checks of each host. Pure."""

from __future__ import annotations

from gpuprov.proof.check import check, measurement
from gpuprov.proof.fabric.course import Ended, Group
from gpuprov.proof.fabric.localise import SLOW, blame, good_speeds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterable, List, Mapping, Sequence

    from gpuprov.proof.check import Message
    from gpuprov.proof.fabric.course import Course
    from gpuprov.proof.fabric.localise import Blame, Measured

    Checks = Dict[str, List[Message]]

#: Collectives as the rank names them, and in words.
WORDS = {"allreduce": "all-reduce", "allgather": "all-gather", "alltoall": "all-to-all"}
#: States of a rank that are its own fault. "error" is, too, when its data says so (own).
_OWN = ("died",)


def ended(
    group: Group,
    ranks: Sequence[Sequence[str]],
    outcomes: Mapping[str, Sequence[Mapping[str, Any]]],
    released: str,
    blamed: Iterable[str],
    gone: Sequence[str],
) -> Ended:
    """Judge a round by what every host said of its ranks.

    The first trouble that is heard of is often a consequence: a rank that lost its peer may be quicker to say so
    than the host of the peer. So who caused it is decided when all have spoken.
    """
    said = [(host, one) for host, ones in outcomes.items() for one in ones]
    own = [(host, one) for host, one in said if one["state"] in _OWN or one.get("own")]
    wrong = [(host, one) for host, one in said if one["state"] == "wrong"]
    if own:
        why = "; ".join(f"{host}: {one['text']}" for host, one in own[:3])
        return Ended(group, "failed", why, list(dict.fromkeys(host for host, _ in own)), gone)
    if gone:
        why = released if any(host in released for host in gone) else f"{_some(gone)} gone in the middle of it"
        return Ended(group, "failed", why, gone, gone)
    if released or any(one["state"] not in ("ok", "wrong") for _, one in said) or len(said) != len(ranks):
        stages = list(dict.fromkeys(one["stage"] for _, one in said if one.get("stage")))
        why = (released or "a rank did not end") + (f" (in {', '.join(stages[:3])})" if stages else "")
        return Ended(group, "failed", why, list(blamed), gone)
    data: Mapping[str, Any] = next((one.get("data", {}) for _, one in said if one["rank"] == 0), {})
    if wrong:
        why = "; ".join(f"{host}: {one['text']}" for host, one in wrong[:3])
        return Ended(group, "wrong", why, data=data)
    return Ended(group, "ok", data=data)


def joined(there: Sequence[str], absent: Sequence[str]) -> Checks:
    """Return what every host that came says of who came."""
    total = len(there) + len(absent)
    if len(there) < 2:
        reason = f"nobody else came: {_some(absent)}"
        return {host: [check("fabric.join", "unknown", reason, 1, total, "hosts")] for host in there}
    if absent:
        reason = f"{len(there)} of {total} hosts came; without {_some(absent)}"
        return {host: [check("fabric.join", "warn", reason, len(there), total, "hosts")] for host in there}
    reason = f"all {total} hosts met"
    return {host: [check("fabric.join", "pass", reason, total, total, "hosts")] for host in there}


def not_measured(host: str, reason: str) -> Checks:
    """Return the check of a host that came and is not measured."""
    return {host: [check("fabric.links", "skip", reason[:600])]}


def of_round(one: Ended) -> Checks:
    """Return the checks of a round for each of its hosts."""
    if one.group.what == "pairs":
        first, second = one.group.hosts
        return {first: [_pair(one, first, second)], second: [_pair(one, second, first)]}
    many = f"{len(one.group.hosts)} hosts"
    if one.group.what == "ddp":
        return {host: [_training(one, host, many)] for host in one.group.hosts}
    return {host: [_collective(one, host, name, many) for name in WORDS] for host in one.group.hosts}


def _pair(one: Ended, host: str, peer: str) -> Message:
    device = f"link to {peer}"
    if one.state != "ok":
        return _bad("fabric.pair", one, host, device)
    found = one.data["allreduce"]
    reason = f"all-reduce with {peer}: {found['gb_per_s']:.3g} GB/s bus bandwidth, every sum right"
    return measurement("fabric.pair", found["samples"], "GB/s", "higher", reason, device, data=_data(one, found))


def _collective(one: Ended, host: str, name: str, many: str) -> Message:
    if one.state != "ok":
        return _bad("fabric." + name, one, host, many)
    found = one.data[name]
    reason = f"{WORDS[name]} over {many}: {found['gb_per_s']:.3g} GB/s bus bandwidth, every number right"
    return measurement("fabric." + name, found["samples"], "GB/s", "higher", reason, many, data=_data(one, found))


def _training(one: Ended, host: str, many: str) -> Message:
    if one.state != "ok":
        return _bad("fabric.ddp", one, host, many)
    found = one.data["ddp"]
    reason = (
        f"DistributedDataParallel over {many}: gradients have the same bits on all {found['world']} ranks in "
        f"{found['steps']} steps, and the losses are those of one process with the global batch"
    )
    data = {"evidence": [f"largest relative difference of a loss: {found['difference']:.2g}"], **found}
    return check(
        "fabric.ddp", "pass", reason, found["difference"], f"<= {found['bound']:g}", "", many, data=_bounded(data)
    )


def _data(one: Ended, found: Mapping[str, Any]) -> dict[str, Any]:
    more = {"hosts": len(one.group.hosts), "world": found["world"], "bytes": found["bytes"], "round": one.group.name}
    return {**more, "interface": one.data.get("interface", ""), "backend": one.data.get("backend", "")}


def _bounded(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != "difference"}


def _bad(name: str, one: Ended, host: str, device: str) -> Message:
    """Return the check of a round that went wrong: a fail for who caused it, or for all when nobody can tell."""
    evidence = {"evidence": [f"round: {one.group.name}", one.why], "culprits": list(one.culprits[:20])}
    if one.state == "wrong":
        return check(name, "fail", f"wrong numbers: {one.why}"[:600], device=device, action="isolate", data=evidence)
    if one.culprits and host not in one.culprits:
        reason = f"not measured, since {_some(one.culprits)} failed: {one.why}"[:600]
        return check(name, "unknown", reason, device=device, data=evidence)
    action = "isolate" if one.culprits else "monitor"
    return check(name, "fail", one.why[:600], device=device, action=action, data=evidence)


def of_course(course: Course, hosts: Sequence[str]) -> Checks:
    """Return each host's verdict on its place in the fabric, when all rounds are over."""
    found: Checks = {host: [] for host in hosts}
    nothing = bool(course.pairs) and all(pair.gb_per_s is None for pair in course.pairs)
    blamed = [] if nothing else blame(course.pairs)
    good, mine = good_speeds(course.pairs), _by_host(course.pairs)
    for host in hosts:
        own = [one for one in blamed if host in one.hosts]
        if host in mine:
            found[host].append(_place(mine[host], own, good, len(course.pairs), nothing))
        if host in course.out:
            why = f"left out of the rest, since it {course.out[host]}" if not own else "left out: see fabric.links"
            found[host].append(check("fabric.rest", "unknown", why[:600]))
    return found


def _by_host(pairs: Sequence[Measured]) -> dict[str, list[Measured]]:
    found: dict[str, list[Measured]] = {}
    for pair in pairs:
        for host in pair.hosts:
            found.setdefault(host, []).append(pair)
    return found


def _place(
    mine: Sequence[Measured], own: Sequence[Blame], goods: Mapping[str, float], count: int, nothing: bool
) -> Message:
    speeds = sorted(pair.gb_per_s for pair in mine if pair.gb_per_s is not None)
    good = max((goods[pair.kind] for pair in mine), default=0.0)
    measured = speeds[len(speeds) // 2] if speeds else None
    slow = SLOW["cuda" if mine[0].kind.startswith("cuda") else "cpu"]
    expected = f">= {slow * good:.3g}" if good else None
    if not own:
        verdict, reason = _unblamed(bool(speeds), count, nothing, mine[0].why)
        return check("fabric.links", verdict, reason, measured, expected, "GB/s")
    worst = max(own, key=lambda one: (one.sick, len(one.hosts) == 1))
    verdict = "fail" if worst.sick else "warn"
    action = ("isolate" if worst.sick else "monitor") if len(worst.hosts) == 1 else "monitor"
    evidence = [f"{' - '.join(p.hosts)}: {'failed' if p.gb_per_s is None else f'{p.gb_per_s:.3g} GB/s'}" for p in mine]
    data = {"evidence": evidence[:12], "blamed": list(worst.hosts)}
    return check("fabric.links", verdict, sentence(worst), measured, expected, "GB/s", action=action, data=data)


def _unblamed(works: bool, count: int, nothing: bool, why: str) -> tuple[str, str]:
    """Return verdict and reason of a host that nothing is blamed on: no pair that worked is no pass."""
    if nothing:
        return "fail", f"no pair of hosts got anything through: {why}"[:600]
    if not works:
        return "unknown", f"none of its pairs worked, and its partners are blamed for that: {why}"[:600]
    if count == 1:
        return "pass", "one pair alone: nothing to compare it with"
    return "pass", "its pairs are like those of the others, or the partner is to blame"


def sentence(one: Blame) -> str:
    """Say who is at fault, and what to look at."""
    if len(one.hosts) == 1:
        where, look = f"host {one.hosts[0]}: all its pairs", "its network card, cable or switch port"
    else:
        where, look = f"link {one.hosts[0]} - {one.hosts[1]}: this pair alone", "the way between the two"
    if one.part is None:
        why = f" ({one.why[:300]})" if one.why else ""
        return f"{where} fail{'s' if len(one.hosts) == 2 else ''}{why}; look at {look}"
    verb = "reaches" if len(one.hosts) == 2 else "reach"
    return f"{where} {verb} {one.part:.0%} of the {one.good_gb_per_s:.3g} GB/s of good pairs; look at {look}"


def _some(hosts: Sequence[str]) -> str:
    return ", ".join(hosts[:5]) + (f" and {len(hosts) - 5} more" if len(hosts) > 5 else "")
