"""Counters before and after a load: only what grew is blamed, and it is said that it grew under our own load. Pure.

    differences(before, after, seconds, loaded) -> [check, ...]

Both are Readings; `xids` in them, from checks.xid.seen, are the events of the kernel's log (None: not readable).
"""

from __future__ import annotations

from gpuprov.proof.check import check
from gpuprov.proof.checks import nvlink, pcie, xid
from gpuprov.proof.checks.each import CANNOT, Gpu, data_of, gpus_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any, Optional, Tuple

    from gpuprov.proof.check import Message

    #: Verdict, action, what is told: None when the growth is none to blame.
    Blame = Optional[Tuple[str, str, str]]
    Rule = Callable[[int, Gpu, float], Blame]

NAME = "load."
_NS_PER_MS = 1e6
#: CRC errors of NVLinks that are blamed, per second.
CRC_PER_SECOND = 100.0
#: Corrected memory errors that are blamed, per minute: none is normal in so short a time, a burst is a bad cell.
CORRECTED_PER_MINUTE = 10.0
#: Milliseconds, and the share of a load, for which clocks have to be held down to be blamed.
HELD_DOWN_MS, HELD_DOWN_SHARE = 100, 0.01


def _any_fails(action: str, words: str) -> Rule:
    def rule(grew: int, gpu: Gpu, seconds: float) -> Blame:  # noqa: ARG001 - one shape for all rules
        return ("fail", action, words) if grew else None

    return rule


def _held_down(words: str) -> Rule:
    """Return the rule of milliseconds for which clocks were held down: a moment in which a load begins is none."""

    def rule(grew: int, gpu: Gpu, seconds: float) -> Blame:  # noqa: ARG001 - one shape for all rules
        return ("warn", "monitor", words) if grew >= max(HELD_DOWN_MS, seconds * 1000 * HELD_DOWN_SHARE) else None

    return rule


def _replays(grew: int, gpu: Gpu, seconds: float) -> Blame:
    generation, lanes = gpu.get("pcie.generation_max"), gpu.get("pcie.width")
    most = pcie.allowed(generation, lanes, seconds / 60) if generation and lanes else None
    if grew and (most is None or grew > most):
        return "warn", "monitor", f"PCIe replays; noise explains {'an unknown number' if most is None else most}"
    return None


def _corrected(grew: int, gpu: Gpu, seconds: float) -> Blame:  # noqa: ARG001 - one shape for all rules
    if grew > CORRECTED_PER_MINUTE * max(seconds / 60, 1.0):
        return "warn", "monitor", "corrected memory errors"
    return None


#: Name of the check, NVML's key (or a list's key and place), rule.
COUNTERS: tuple[tuple[str, str, int | None, Rule], ...] = (
    ("ecc.uncorrected", "ecc.volatile.uncorrected", None, _any_fails("reset GPU", "uncorrected memory errors")),
    ("ecc.corrected", "ecc.volatile.corrected", None, _corrected),
    ("ecc.sram", "ecc.volatile.sram.uncorrected", None, _any_fails("reset GPU", "uncorrectable SRAM errors")),
    ("memory.remapped", "remapped", 1, _any_fails("reset GPU", "rows remapped for uncorrectable errors")),
    ("memory.pending", "remapped", 2, _any_fails("reset GPU", "rows that wait for a reset to be remapped")),
    ("pcie.replays", "pcie.replays", None, _replays),
    ("violation.thermal", "violation.thermal", None, _held_down("ms held down by temperature")),
    ("violation.board_limit", "violation.board_limit", None, _held_down("ms held down by the board's limit")),
)
#: Of violations that a loaded, healthy GPU has: measured, not blamed.
MEASURED = ("violation.power", "violation.reliability")
LINK_COUNTERS = ("replay", "recovery", "crc_flit", "crc_data")
#: A replay now and then is how a link lives with noise; a recovery is a link that was lost for a moment.
_MOST_IN_A_LOAD = {"replay": nvlink.MANY_ERRORS - 1, "recovery": 0}


def differences(
    before: Message, after: Message, seconds: float = 0.0, loaded: Collection[str] | None = None
) -> list[Message]:
    """Return the checks of what grew between two Readings of the same host, *seconds* apart.

    loaded: the PCI addresses of the GPUs that had our load, None for all of them.
    """
    pairs, gone = _pairs(before, after)
    checks = [
        check(
            NAME + "gpu.lost",
            "fail",
            f"{gpu.device} was lost under our load: {why}",
            device=gpu.device,
            action="reboot",
            data=data_of(gpu),
        )
        for gpu, why in gone
    ]
    checks += [item for row in COUNTERS for item in _counter(row, pairs, seconds)]
    checks += _links(pairs, seconds)
    checks.append(_measured(pairs))
    return [*checks, *_xids(before.get("xids"), after.get("xids"), loaded)]


def _pairs(before: Message, after: Message) -> tuple[list[tuple[Gpu, Gpu]], list[tuple[Gpu, str]]]:
    """Return each GPU before and after, and those that were lost between; by UUID, else by index."""
    later = {str(gpu.get("uuid", gpu.index)): gpu for gpu in gpus_of(after)}
    by_index = {gpu.index: gpu for gpu in gpus_of(after)}
    pairs, gone = [], []
    for gpu in gpus_of(before):
        if gpu.lost:
            continue
        now = later.get(str(gpu.get("uuid", gpu.index))) or by_index.get(gpu.index)
        if now is None or now.lost:
            gone.append((gpu, now.lost if now else "NVML does not list it any more"))
        else:
            pairs.append((gpu, now))
    return pairs, gone


def grown(before: Any, after: Any) -> int | None:
    """Return by how much a counter grew; None when it was not read twice. One that was reset counts from zero."""
    if not isinstance(before, int) or not isinstance(after, int):
        return None
    return after - before if after >= before else after


def _at(gpu: Gpu, key: str, place: int | None) -> Any:
    value = gpu.get(key)
    if place is None:
        return value
    return value[place] if isinstance(value, list) and len(value) > place else None


def _counter(row: tuple[str, str, int | None, Rule], pairs: list[tuple[Gpu, Gpu]], seconds: float) -> list[Message]:
    name, key, place, rule = row
    checks, fine, unread = [], [], []
    for one, two in pairs:
        was, now = _at(one, key, place), _at(two, key, place)
        grew = grown(was, now)
        if grew is None:
            unread.append((two, key))
            continue
        if key.startswith("violation."):
            grew = int(grew / _NS_PER_MS)
        blame = rule(grew, two, seconds)
        if blame:
            verdict, action, words = blame
            checks.append(
                _grew(name, two, f"{grew} {words}", (verdict, action), f"{key}: {was} before, {now} after", grew)
            )
        else:
            fine.append(grew)
    return [*checks, *_rest(name, fine, unread)]


def _grew(name: str, gpu: Gpu, what: str, blame: tuple[str, str], evidence: str, measured: Any) -> Message:
    reason = f"{gpu.device} had {what} under our own load, which is known to be good code"
    data = dict(data_of(gpu, [evidence]), own_load=True)
    return check(NAME + name, blame[0], reason, measured, 0, device=gpu.device, action=blame[1], data=data)


def _rest(name: str, fine: list[int], unread: list[tuple[Gpu, str]]) -> list[Message]:
    """Return one check of all GPUs whose counter is fine, and one of all that have no such counter."""
    checks = []
    able = [gpu for gpu, key in unread if not _cannot(gpu.values.get(key))]
    if able:
        who = ", ".join(gpu.device for gpu in able)
        checks.append(check(NAME + name, "unknown", f"the counter could not be read before and after on {who}"))
    elif unread and not fine:
        checks.append(check(NAME + name, "skip", "these GPUs do not have this counter"))
    if fine:
        reason = f"{len(fine)} GPUs: nothing to blame grew under our load" if len(fine) > 1 else "nothing to blame grew"
        checks.append(check(NAME + name, "pass", reason, measured=max(fine), expected=0))
    return checks


def _cannot(value: Any) -> bool:
    return isinstance(value, dict) and value.get("error") in CANNOT


def _links(pairs: list[tuple[Gpu, Gpu]], seconds: float) -> list[Message]:
    """Judge the error counters of NVLinks: recoveries, more than a few replays, CRC errors by rate, lost links."""
    checks, fine = [], []
    for one, two in pairs:
        bad, measured = [], 0
        for number, (was, now) in enumerate(zip(one.links, two.links)):
            if was.get("state") in nvlink.UP and now.get("state") == 0:
                bad.append(f"link {number} went down")
            for kind in LINK_COUNTERS:
                grew = grown(was.get(f"errors.{kind}"), now.get(f"errors.{kind}")) or 0
                measured += grew
                most = CRC_PER_SECOND * max(seconds, 1.0) if kind.startswith("crc") else _MOST_IN_A_LOAD[kind]
                if grew > most:
                    bad.append(f"link {number}: {grew} {kind} errors")
        if bad:
            down = any("went down" in text for text in bad)
            blame = ("fail", "reset GPU") if down else ("warn", "monitor")
            checks.append(_grew("nvlink.errors", two, f"NVLink errors ({'; '.join(bad[:3])})", blame, bad[0], measured))
        elif any(isinstance(link.get("state"), int) for link in two.links):
            fine.append(measured)
    if not checks and not fine:
        return [check(NAME + "nvlink.errors", "skip", "these GPUs have no NVLink")]
    return [*checks, *_rest("nvlink.errors", fine, [])]


def _measured(pairs: list[tuple[Gpu, Gpu]]) -> Message:
    """Tell for how long power and voltage held GPUs down: what a healthy GPU under load has."""
    measured = {}
    for one, two in pairs:
        for key in MEASURED:
            grew = grown(one.get(key), two.get(key))
            if grew is not None:
                measured[f"{two.device} {key.partition('.')[2]}"] = int(grew / _NS_PER_MS)
    name = NAME + "violation.power"
    if not measured:
        return check(name, "skip", "these GPUs do not count for how long power holds them down")
    reason = f"held down by power or voltage for at most {max(measured.values())} ms, which a loaded GPU may be"
    return check(name, "pass", reason, measured=measured, unit="ms")


def _xids(before: list[Message] | None, after: list[Message] | None, loaded: Collection[str] | None) -> list[Message]:
    """Judge XIDs that came under our load: those that NVIDIA blames on a job are the GPU's when the job is ours."""
    name = NAME + "xid"
    if before is None or after is None:
        return [check(name, "unknown", "the kernel's log could not be read before and after the load")]
    was = {_key(event): event["count"] for event in before}
    new = [event for event in after if event["count"] > was.get(_key(event), 0)]
    checks = [found for found in (_xid(name, event, loaded) for event in new) if found]
    return checks or [check(name, "pass", "no XID came under our load that needs anything done", measured=len(new))]


def _xid(name: str, event: Message, loaded: Collection[str] | None) -> Message | None:
    verdict, action, meaning = xid.judged(event["kind"], event["code"], event["text"])
    if verdict == "pass":
        return None
    ours = event["kind"] == "sxid" or loaded is None or event["pci"] in loaded
    what = f"{'XID' if event['kind'] == 'xid' else 'SXid'} {event['code']} on {event['pci']}"
    reason = f"{what} came during our load, on a GPU that we did not load: {meaning}"
    if ours:
        verdict, action = "fail", "isolate" if action in ("restart job", "monitor", "none") else action
        reason = f"{what} came under our own load, which is known to be good code: {meaning}"
    data = {"evidence": [event["line"]], "address": event["pci"], "code": event["code"], "own_load": ours}
    return check(name, verdict, reason, event["code"], "none", device=event["pci"], action=action, data=data)


def _key(event: Message) -> tuple[Any, ...]:
    return event["kind"], event["pci"], event["code"], event["minute"]
