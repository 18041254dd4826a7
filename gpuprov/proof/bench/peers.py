"""From GPU to GPU without the host: every pair in both directions, one after the other, compared on arrival."""

from __future__ import annotations

from gpuprov.proof.bench import hbm, ladder
from gpuprov.proof.check import check, measurement
from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Dict, Tuple

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context
    from gpuprov.proof.worker import Report

    Reaches = Callable[[str, str], bool]
    #: GB/s by (from, to).
    Speeds = Dict[Tuple[int, int], float]

SIZE = 1 << 28
BUDGET_S = 0.04
#: Faster than any PCIe 5.0 x16: pairs of NVLinks. How far PCIe pairs are apart differs in healthy hosts.
NVLINK_GB_S = 70.0


def copied(
    devices: Sequence[str], pair: tuple[int, int], size: int, seed: int, tamper: hbm.Tamper | None = None
) -> tuple[list[float], str]:
    """Copy from one device to another; return the speeds in GB/s, and what did not arrive as it was."""
    import torch

    from gpuprov.proof.bench import device as on

    source = torch.empty(size // 8, dtype=torch.int64, device=devices[pair[0]])
    target = torch.zeros(size // 8, dtype=torch.int64, device=devices[pair[1]])
    hbm.fill(source, "random", 0, seed + 16 * pair[0])
    on.wait(devices[pair[0]])
    seconds = on.sampled(devices[pair[0]], lambda: target.copy_(source, non_blocking=True), BUDGET_S)
    on.wait(devices[pair[0]])
    on.wait(devices[pair[1]])
    if tamper is not None:
        tamper(target)
    bad = hbm.compare(target, "random", 0, seed + 16 * pair[0])
    wrong = f"to {devices[pair[1]]}: {bad.text(0)}" if bad.count else ""
    if not wrong and not hbm.sees(target, "random", 0, seed + 16 * pair[0]):
        wrong = hbm.BLIND
    return [size / s / 1e9 for s in seconds], wrong


def links(speeds: Mapping[tuple[int, int], float], count: int) -> Message:
    """Return the check that no pair is far slower than the others. Pure.

    Only where all are NVLinks, and only where few are slow: else the wiring differs, which is no fault.
    """
    both = {(a, b): min(v, speeds[b, a]) for (a, b), v in speeds.items() if a < b and (b, a) in speeds}
    name = "p2p.links"
    if count < 3 or len(both) < 3:
        return check(name, "skip", f"{len(both)} pairs of GPUs reach each other: there is nothing to compare")
    if max(both.values()) < NVLINK_GB_S:
        reason = "GPUs reach each other by PCIe, where healthy pairs differ by where they sit: not compared here"
        return check(name, "skip", reason)
    slow, fast = ladder.slow_pairs([both])
    found = ladder.localise(count, slow, fast)
    data = {"evidence": [f"{a}-{b}: {both[a, b]:.0f} GB/s" for a, b in sorted(slow, key=lambda p: both[p])][:10]}
    best = max(both.values())
    if found.healthy:
        reason = f"all {len(both)} pairs of GPUs are within {100 * (1 - ladder.SLOW):.0f} % of the fastest"
        return check(name, "pass", reason, min(both.values()), ladder.SLOW * best, "GB/s")
    if not found.plausible(count):
        reason = f"{len(slow)} of {len(both)} pairs are slower than the others: these GPUs are not all wired alike"
        return check(name, "skip", reason, data=data)
    lowest = min(both[pair] for pair in slow)
    reason = f"slow: {found.text()} ({lowest:.0f} GB/s where the fastest pair has {best:.0f})"
    return check(name, "warn", reason, lowest, ladder.SLOW * best, "GB/s", action="monitor", data=data)


def measure(
    context: Context, report: Report, reaches: Reaches, size: int = 0, tamper: hbm.Tamper | None = None
) -> None:
    """Report a check for each device, then one for all pairs. *reaches* says which device sees another's memory.

    size: bytes of a copy (0: SIZE).
    """
    from gpuprov.proof.bench import device as on

    devices = context.devices
    speeds: Speeds = {}
    for at, device in enumerate(devices):
        reached: dict[int, list[float]] = {}
        wrong: list[str] = []
        with on.prepared(device):
            for other in range(len(devices)):
                if other != at and reaches(device, devices[other]):
                    report.stage(f"copying from {device} to {devices[other]}")
                    reached[other], bad = copied(devices, (at, other), size or SIZE, context.seed, tamper)
                    wrong += [bad] if bad else []
        for other, found in reached.items():
            speeds[at, other] = sorted(found)[len(found) // 2]
        one = judged(device, devices, reached, wrong)
        report.check(dict(one, data=dict(one["data"], **on.identity(device))))
    report.check(links(speeds, len(devices)))


def _run(context: Context, report: Report) -> None:
    import torch

    from gpuprov.proof.bench import device as on

    if context.rank:
        return  # one process sees all GPUs
    if not on.on_gpu(context.device):
        report.check(check("cpu.p2p", "skip", "the device is the CPU: there are no pairs of GPUs", device="cpu"))
        return
    measure(context, report, torch.cuda.can_device_access_peer)


def judged(device: str, devices: Sequence[str], reached: Mapping[int, list[float]], wrong: list[str]) -> Message:
    """Return the check of all copies from *device*: a sample is the median speed to one other GPU. Pure."""
    if not reached:
        reason = "no other GPU reaches this one's memory: copies between GPUs go through the host"
        return check("p2p", "skip", reason, device=device)
    middle = {other: sorted(found)[len(found) // 2] for other, found in reached.items()}
    data: Message = {"peers": {devices[other]: round(speed, 1) for other, speed in middle.items()}}
    samples = list(middle.values())
    if wrong:
        data = dict(data, evidence=wrong[:8])
        void = wrong[0].startswith("canary")
        reason = wrong[0] if void else f"bytes change on the way {wrong[0]}"
        action = "none" if void else "isolate"
        return measurement("p2p", samples, "GB/s", "higher", reason, device, "fail", data, action)
    missing = len(devices) - 1 - len(reached)
    reason = f"copies to {len(reached)} other GPUs arrived as they were"
    reason += f"; {missing} cannot be reached without the host" if missing else ""
    return measurement("p2p", samples, "GB/s", "higher", reason, device, data=data)


PARTS = (Part("p2p", "nightly", "group", _run, "256 MiB from each GPU to each other one", deadline_s=90.0, loads=True),)
