"""Pairs and blocks of devices: which device, or which link, is slow (ladder.py says how that is told)."""

from __future__ import annotations

import functools

from gpuprov.proof.bench import ladder
from gpuprov.proof.bench.numbers import bus_gb_s
from gpuprov.proof.check import check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

#: Bytes that go each way, and that an all-reduce of a block has.
SIZE, CPU_SIZE = 256 << 20, 1 << 20


def exchange(context: Context, pairs: list[ladder.Pair], size: int) -> tuple[float, int]:
    """Send to and receive from this rank's partner in *pairs* at once; return the seconds and wrong elements.

    A rank without a partner returns (0, 0) at once.
    """
    import torch
    import torch.distributed as dist

    from gpuprov.proof.bench import device as on
    from gpuprov.proof.bench import together

    mine = next((pair for pair in pairs if context.rank in pair), None)
    if mine is None:
        return 0.0, 0
    partner = mine[0] if mine[1] == context.rank else mine[1]
    send = torch.empty(size // 4, dtype=torch.float32, device=context.device)
    receive = torch.zeros_like(send)
    together.fill(send, context.rank)

    def work() -> None:
        operations = [dist.P2POp(dist.isend, send, partner), dist.P2POp(dist.irecv, receive, partner)]
        for one in dist.batch_isend_irecv(operations):
            one.wait()

    on.timed(context.device, work, 2)
    # The shortest: whatever else happens on the host makes a good link slow at times, nothing makes a slow one fast.
    seconds = min(on.timed(context.device, work, 2) for _ in range(5))
    return seconds, together.wrong(receive, 0, 1, 13.0 * partner)


def by_rounds(context: Context, size: int, slowed: Callable[[float], float] | None = None) -> Message:
    """Return the check that finds a slow device or link by rounds of pairs. All ranks get the same answer.

    *slowed* changes this rank's seconds: tests make a slow link with it.
    """
    from gpuprov.proof.bench import device as on
    from gpuprov.proof.bench import together

    measured: list[dict[ladder.Pair, float]] = []
    bad: list[str] = []

    def run(pairs: list[ladder.Pair]) -> dict[ladder.Pair, float]:
        together.agreed(0.0, context.device)
        seconds, count = exchange(context, pairs, size)
        every = together.gathered([slowed(seconds) if slowed else seconds, float(count)], context.device)
        bad.extend(f"{int(one[1])} elements on {context.devices[rank]}" for rank, one in enumerate(every) if one[1])
        return {(a, b): size / max(every[a][0], every[b][0]) / 1e9 for a, b in pairs}

    measured += [run(pairs) for pairs in ladder.rounds(context.world)]
    slow, _ = ladder.slow_pairs(measured)
    for number, one in enumerate(measured):
        if slow & one.keys():  # a second look before anything is accused
            measured[number] = {pair: max(speed, one[pair]) for pair, speed in run(list(one)).items()}
    found = ladder.localise(context.world, *ladder.slow_pairs(measured))
    if found.ask:
        measured += [run(pairs) for pairs in found.ask]
        found = ladder.localise(context.world, *ladder.slow_pairs(measured))
    return judged(on.named(context.device, "ladder"), context, measured, found, bad)


def judged(
    name: str, context: Context, measured: list[dict[ladder.Pair, float]], found: ladder.Finding, bad: list[str]
) -> Message:
    """Return the check of the rounds. Pure."""
    values = {pair: speed for one in measured for pair, speed in one.items()}
    noun = "GPU" if context.device.startswith("cuda") else "rank"
    best, least = max(values.values()), min(values.values())
    lines = [f"{a}-{b}: {speed:.3g} GB/s" for (a, b), speed in sorted(values.items(), key=lambda item: item[1])]
    data = {"rounds": len(measured), "evidence": lines[:10]}
    if bad:
        reason = f"wrong numbers arrived when pairs exchanged theirs: {'; '.join(bad)[:200]}"
        action = "isolate" if noun == "GPU" else "none"
        return check(name, "fail", reason, least, unit="GB/s", action=action, data=data)
    if found.healthy:
        reason = f"{len(values)} pairs in {len(measured)} rounds: none is far slower than the best of its round"
        return check(name, "pass", reason, least, unit="GB/s", data=data)
    if not found.plausible(context.world):
        reason = f"many of {len(values)} pairs are slower than others of their round: not all are wired alike"
        return check(name, "skip", reason, least, unit="GB/s", data=data)
    reason = (
        f"slow: {found.text(noun)} ({least:.3g} GB/s, the best pair has {best:.3g}), found in {len(measured)} rounds"
    )
    return check(name, "warn", reason, least, unit="GB/s", action="monitor", data=data)


def by_blocks(context: Context, size: int) -> Message:
    """Return the check of all-reduces in blocks of 4, 8, ... devices, all blocks of a size at once."""
    import torch
    import torch.distributed as dist

    from gpuprov.proof.bench import device as on
    from gpuprov.proof.bench import together

    levels: list[dict[ladder.Pair, float]] = []
    numbers = torch.zeros(size // 4, dtype=torch.float32, device=context.device)

    def run(blocks: list[list[int]], group: Any) -> dict[ladder.Pair, float]:
        seconds = 0.0
        together.agreed(0.0, context.device)
        if any(context.rank in block for block in blocks):
            work = functools.partial(dist.all_reduce, numbers, group=group)
            on.timed(context.device, work, 2)
            seconds = min(on.timed(context.device, work, 2) for _ in range(5))
        every = [one[0] for one in together.gathered([seconds], context.device)]
        slowest = {(block[0], block[-1]): (len(block), max(every[rank] for rank in block)) for block in blocks}
        return {block: bus_gb_s("allreduce", n, size, s) for block, (n, s) in slowest.items()}

    for blocks in ladder.blocks(context.world):
        groups = [dist.new_group(block) for block in blocks]
        mine = next((group for group, block in zip(groups, blocks) if context.rank in block), None)
        speeds = run(blocks, mine)
        if ladder.slow_blocks([speeds]):  # a second look before anything is accused
            speeds = {block: max(speed, speeds[block]) for block, speed in run(blocks, mine).items()}
        levels.append(speeds)
        if mine is not None:
            dist.destroy_process_group(mine)
    return judged_blocks(on.named(context.device, "allreduce.blocks"), levels)


def judged_blocks(name: str, levels: list[dict[ladder.Pair, float]]) -> Message:
    """Return the check of the blocks. Pure."""
    speeds = {f"{a}-{b}": float(f"{speed:.4g}") for one in levels for (a, b), speed in one.items()}
    slow = ladder.slow_blocks(levels)
    data = {"blocks": speeds}
    least = min(levels[-1].values())
    if not slow:
        reason = f"all-reduce in {len(speeds)} blocks: none is far slower than the best of its size"
        return check(name, "pass", reason, least, unit="GB/s", data=data)
    where = ", ".join(f"{a}-{b} ({speeds[f'{a}-{b}']:g} GB/s)" for a, b in slow)
    reason = f"all-reduce is slow within the devices {where}, and in no smaller block of them"
    return check(name, "warn", reason, least, unit="GB/s", action="monitor", data=dict(data, evidence=[where]))
