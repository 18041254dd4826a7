"""The parts of the proof: what there is, where each runs, in which tier, and what it gets to see.

A part is one small unit with a name. Where it runs decides what it is called with:

    host     run(context, report), in a process that reads /sys, /proc and /etc
    reading  run(context, reading) -> [check, ...], pure: what NVML said of all GPUs (nvml/reading.py)
    device   run(context, report), in a process of its device (context.device), all devices at the same time
    group    run(context, report), in as many processes as there are devices (context.rank of context.world)
    torch    run(context, found) -> [check, ...], pure: what versions.collect found, in a process that imported torch

A process that hangs is killed at the deadline of the part that it was in (supervisor.py), and what it
did not come to is reported as unknown.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

#: Tiers by depth; each has all of the ones before it.
TIERS = ("quick", "nightly", "weekly", "burnin")
#: What a tier may take on a host with eight GPUs, in seconds.
TIER_BUDGET_S = {"quick": 10.0, "nightly": 60.0, "weekly": 300.0, "burnin": 4 * 3600.0}
WHERE = ("host", "reading", "torch", "device", "group")


class Part:
    """One part. loads: it puts load on GPUs, which is not done to GPUs that jobs use unless asked."""

    __slots__ = ("deadline_s", "loads", "name", "reads", "run", "tier", "where")

    def __init__(
        self,
        name: str,
        tier: str,
        where: str,
        run: Callable[..., Any],
        reads: str = "",
        deadline_s: float = 10.0,
        loads: bool = False,
    ) -> None:
        assert tier in TIERS, tier
        assert where in WHERE, where
        self.name = name
        self.tier = tier
        self.where = where
        self.run = run
        self.reads = reads
        self.deadline_s = deadline_s
        self.loads = loads


class Context:
    """What a part gets to see.

    root: the folder that has sys, proc and etc ("/" but in tests). device: "cuda:N", "cpu", or "" outside of
    device and group parts. rank, world and rendezvous ("tcp://127.0.0.1:PORT" or "file:///..."): of group parts.
    expect: what the inventory wants to find (docs/proof.md). simulated: the GPUs are doubles. scratch: a private
    folder, the same for all processes of the run. options: of single parts, by name.
    """

    __slots__ = (
        "device",
        "devices",
        "expect",
        "options",
        "rank",
        "rendezvous",
        "root",
        "scratch",
        "seed",
        "simulated",
        "tier",
        "world",
    )

    def __init__(
        self,
        tier: str = "quick",
        root: str = "/",
        device: str = "",
        devices: Sequence[str] = (),
        rank: int = 0,
        world: int = 1,
        rendezvous: str = "",
        expect: dict[str, Any] | None = None,
        seed: int = 7,
        scratch: str = "",
        simulated: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.tier = tier
        self.root = root
        self.device = device
        self.devices = tuple(devices)
        self.rank = rank
        self.world = world
        self.rendezvous = rendezvous
        self.expect = expect or {}
        self.seed = seed
        self.scratch = scratch
        self.simulated = simulated
        self.options = options or {}

    def path(self, *names: str) -> str:
        """Return the path of a file of the host: names are joined below the root, with or without a leading slash."""
        return os.path.join(self.root, *(name.lstrip("/") for name in names))

    def deep(self, tier: str) -> bool:
        """Say whether this run goes at least as deep as *tier*."""
        return TIERS.index(self.tier) >= TIERS.index(tier)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the other devices' processes off: for measurements that share a bus or the CPUs with theirs."""
        with open(os.path.join(self.scratch, "alone"), "w") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            yield


def chosen(parts: Sequence[Part], tier: str, names: Sequence[str] = ()) -> list[Part]:
    """Return the parts of *tier* ("" for none) and those that are named, in the order of *parts*. Pure.

    A name takes the parts that have it, and those below it: "gemm" takes gemm.bf16.
    """
    depth = TIERS.index(tier) if tier else -1

    return [part for part in parts if TIERS.index(part.tier) <= depth or named(part, names)]


def named(part: Part, names: Sequence[str]) -> bool:
    """Say whether *part* is one of those that *names* ask for. Pure."""
    return any(part.name == name or part.name.startswith(name + ".") for name in names)
