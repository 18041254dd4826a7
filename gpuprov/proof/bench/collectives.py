"""All devices of the host together: collectives, right by construction, and their bandwidth on the bus.

Every rank sends numbers that depend on rank and place, so each element that arrives has one right value.
"""

from __future__ import annotations

from gpuprov.proof.bench import pairs
from gpuprov.proof.bench.numbers import bus_gb_s
from gpuprov.proof.check import check, measurement
from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context
    from gpuprov.proof.worker import Report

    #: Gets (kind, what arrived) before it is looked at: tests spoil there.
    Tamper = Callable[[str, Any], None]

MIB = 1 << 20
KINDS = ("allreduce", "allgather", "reducescatter", "alltoall")
#: Bytes: as many as memory and time allow, since only large ones fill the links. Powers of two, so that nights compare.
LARGEST, SMALLEST, PROBE, CPU_SIZE = 4096 * MIB, 16 * MIB, 64 * MIB, MIB
SWEEP = (MIB, 16 * MIB, 256 * MIB)
#: Free memory that every rank has to have, else none begins: one that stops in the middle leaves the others waiting.
NEEDED = 2048 * MIB


class Buffers:
    """What one rank sends and receives in a collective of *kind* with *size* bytes."""

    def __init__(self, kind: str, size: int, context: Context) -> None:
        import torch

        self.kind, self.rank, self.world, self.device = kind, context.rank, context.world, context.device
        self.blind = False
        self.part = size // 4 // self.world
        every = self.part * self.world
        sent = self.part if kind == "allgather" else every
        arrives = self.part if kind == "reducescatter" else every
        self.size = every * 4
        self.send = torch.zeros(sent, dtype=torch.float32, device=context.device)
        # An all-reduce writes its sums where the numbers were.
        self.receive = (
            self.send if kind == "allreduce" else torch.zeros(arrives, dtype=torch.float32, device=context.device)
        )

    def run(self) -> None:
        """Do the collective once."""
        import torch.distributed as dist

        if self.kind == "allreduce":
            dist.all_reduce(self.send)
        elif self.kind == "allgather":
            _gather()(self.receive, self.send)
        elif self.kind == "reducescatter":
            _scatter()(self.receive, self.send)
        else:
            dist.all_to_all_single(self.receive, self.send)

    def wrong(self, tamper: Tamper | None = None) -> int:
        """Do the collective with known numbers and return how many elements that arrived are not right."""
        from gpuprov.proof.bench import together

        together.fill(self.send, self.rank)
        self.run()
        if tamper is not None:
            tamper(self.kind, self.receive)
        count = self._compared()
        self.receive[0] += 1.0  # the canary
        self.blind = self._compared() == count and not count
        return count

    def _compared(self) -> int:
        from gpuprov.proof.bench import together

        ranks = 13.0 * sum(range(self.world))
        if self.kind == "allreduce":
            return together.wrong(self.receive, 0, self.world, ranks)
        mine = self.part * self.rank
        if self.kind == "reducescatter":
            return together.wrong(self.receive, mine, self.world, ranks)
        start = mine if self.kind == "alltoall" else 0
        pieces = self.receive.split(self.part)
        return sum(together.wrong(piece, start, 1, 13.0 * rank) for rank, piece in enumerate(pieces))


def _gather() -> Any:
    import torch.distributed as dist

    return getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # renamed in torch 2.13


def _scatter() -> Any:
    import torch.distributed as dist

    return getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def fitting(free: int, probe_s: float, budget_s: float) -> int:
    """Return the bytes of a collective: at most LARGEST, two and a half of them in *free* bytes, eight in time. Pure.

    probe_s is how long one of PROBE bytes took.
    """
    size = LARGEST
    while size > SMALLEST and (2.5 * size > free or 8 * probe_s * size / PROBE > budget_s):
        size //= 2
    return size


def measure(context: Context, kind: str, budget_s: float, sweep: bool = False, tamper: Tamper | None = None) -> Message:
    """Return the check of one collective. All ranks call it together and get the same answer."""
    from gpuprov.proof.bench import device as on
    from gpuprov.proof.bench import together

    device, name = context.device, on.named(context.device, kind)
    size = CPU_SIZE
    sizes: dict[str, float] = {}
    if on.on_gpu(device):
        probe = Buffers(kind, PROBE, context)
        on.timed(device, probe.run)
        probe_s = together.agreed(on.timed(device, probe.run, 3), device)
        size = fitting(int(together.agreed(on.free_bytes(device, 0), device, least=True)), probe_s, budget_s)
        for small in SWEEP if sweep else ():
            buffers = Buffers(kind, small, context)
            middle = sorted(together.sampled(device, buffers.run, 0.1))[2]
            sizes[str(small)] = round(bus_gb_s(kind, context.world, buffers.size, middle), 1)
    buffers = Buffers(kind, size, context)
    seconds = together.sampled(device, buffers.run, budget_s)
    bad = [int(one[0]) for one in together.gathered([float(buffers.wrong(tamper))], device)]
    blind = together.agreed(float(buffers.blind), device)
    speeds = [bus_gb_s(kind, context.world, buffers.size, s) for s in seconds]
    data: dict[str, Any] = {"size_bytes": buffers.size, "world": context.world}
    if sizes:
        data["smaller"] = sizes
    if blind:
        reason = "canary: a wrong element was not noticed when what had arrived was compared: this run proves nothing"
        return measurement(name, speeds, "GB/s", "higher", reason, "", "fail", data)
    if any(bad):
        ranks = [rank for rank, count in enumerate(bad) if count]
        data["evidence"] = [f"rank {rank} on {context.devices[rank]}: {bad[rank]} wrong elements" for rank in ranks][:8]
        reason = f"wrong numbers arrived: {sum(bad)} elements, on {', '.join(context.devices[r] for r in ranks)[:100]}"
        action = "isolate" if on.on_gpu(device) else "none"
        return measurement(name, speeds, "GB/s", "higher", reason, "", "fail", data, action)
    reason = f"{context.world} ranks, {buffers.size >> 20} MiB: every element that arrived is right"
    return measurement(name, speeds, "GB/s", "higher", reason, data=data)


def _run(context: Context, report: Report) -> None:
    from gpuprov.proof.bench import device as on
    from gpuprov.proof.bench import together

    def tell(found: Message) -> None:
        if not context.rank:
            report.check(found)

    size = pairs.SIZE if on.on_gpu(context.device) else pairs.CPU_SIZE
    report.stage(f"joining {context.world} ranks")
    with together.joined(context):
        free = together.agreed(on.free_bytes(context.device, NEEDED), context.device, least=True)
        if free < NEEDED:
            reason = f"a GPU has only {free / (1 << 30):.1f} GiB of memory free, and ranks need {NEEDED >> 30} GiB"
            for kind in (*KINDS, "ladder"):
                tell(check(on.named(context.device, kind), "unknown", reason, action="restart job"))
            return
        for kind in KINDS:
            report.stage(f"{kind} of {context.world} ranks")
            sweep = kind == "allreduce" and context.deep("weekly")
            tell(measure(context, kind, on.uses(context, 0.5, 2.0, 30.0), sweep))
        if context.world < 3:
            reason = f"{context.world} ranks are one pair: there is nothing to compare"
            tell(check(on.named(context.device, "ladder"), "skip", reason))
            return
        report.stage("pairs exchange their numbers, round by round")
        tell(pairs.by_rounds(context, size))
        if context.deep("weekly"):
            report.stage("all-reduce in blocks of 2, 4, ... devices")
            tell(pairs.by_blocks(context, size))


_READS = "{}, then pairs in log2 n rounds: every element is compared".format(", ".join(KINDS))
PARTS = (Part("collectives", "nightly", "group", _run, _READS, deadline_s=120.0, loads=True),)
