"""Between the host's memory and the GPU's: how fast, the same bytes, and the PCIe link as it is under load."""

from __future__ import annotations

import contextlib
import glob
import os

from gpuprov.proof.bench import hbm
from gpuprov.proof.bench.numbers import cpus
from gpuprov.proof.check import check, measurement
from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context
    from gpuprov.proof.worker import Report

SIZE = GIB = 1 << 30
NO_BUS = "the device is the CPU: there is no bus to it"
WORDS = {"h2d": "from pinned host memory to the GPU", "d2h": "from the GPU to pinned host memory"}


def transfer(
    context: Context, direction: str, budget_s: float, size: int = 0, tamper: hbm.Tamper | None = None
) -> Message:
    """Return the check of copying *size* bytes (0: SIZE) in *direction* ("h2d" or "d2h"), alone on the bus.

    The data go to the host and back: what does not come back right was spoiled on the way where the host's copy
    is still right, or not. On a CPU both memories are the host's.
    """
    import torch

    from gpuprov.proof.bench import device as on

    device, name, gpu = context.device, on.named(context.device, direction), on.on_gpu(context.device)
    size = size or SIZE
    data = dict(on.identity(context.device), size_bytes=size)
    with on.prepared(device):
        with near(device, context):
            host = on.pinned(size) if gpu else torch.zeros(size // 8, dtype=torch.int64)
        source = torch.empty(size // 8, dtype=torch.int64, device=device)
        target = torch.zeros(size // 8, dtype=torch.int64, device=device)
        hbm.fill(source, "random", 0, context.seed)
        host.copy_(source, non_blocking=True)
        to, of = (target, host) if direction == "h2d" else (host, source)
        on.wait(device)
        with context.alone():
            seconds = on.sampled(device, lambda: to.copy_(of, non_blocking=True), budget_s)
        if tamper is not None:
            tamper(to)
        if direction == "d2h":
            target.copy_(host, non_blocking=True)
        bad = hbm.compare(target, "random", 0, context.seed)
        wrong = _blame(bad, host, context.seed) if bad.count else ""
        if not wrong and not hbm.sees(target, "random", 0, context.seed):
            wrong = hbm.BLIND
    speeds = [size / s / 1e9 for s in seconds]
    if not wrong:
        reason = f"{len(seconds)} samples of copying {size >> 20} MiB {WORDS[direction]}; what came back is the same"
        return measurement(name, speeds, "GB/s", "higher", reason, device=device, data=data)
    data["evidence"] = bad.lines(0) if bad.count else []
    return measurement(name, speeds, "GB/s", "higher", wrong, device, "fail", data, on.blamed(device, wrong))


def available_bytes(context: Context) -> int:
    """Return how much of the host's memory could be had now; 0 where the kernel does not say."""
    with contextlib.suppress(OSError, ValueError), open(context.path("proc/meminfo"), encoding="ascii") as f:
        for line in f:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def _blame(bad: hbm.Bad, host: Any, seed: int) -> str:
    """Say on which way the first bad word was spoiled: the host has it right, or not."""
    at = bad.words[0]
    right = int(hbm.expected(1, "random", at, seed, "cpu")[0]) == int(host[at])
    return f"bytes change on the way {WORDS['h2d' if right else 'd2h']}: {bad.text(0)}"


@contextlib.contextmanager
def near(device: str, context: Context) -> Iterator[None]:
    """Run on CPUs next to the GPU meanwhile, so that memory which is touched now lies on its side of the host.

    Where the kernel does not say which these are, or this process may not choose, nothing changes.
    """
    from gpuprov.proof.bench import device as on

    before = os.sched_getaffinity(0)
    wanted = local_cpus(on.identity(device).get("uuid", "no GPU"), context) & before
    if not wanted:
        yield
        return
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, wanted)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, before)


def local_cpus(uuid: str, context: Context) -> set[int]:
    """Return the CPUs next to the GPU with *uuid*; none where driver or kernel do not say."""
    address = pci_address(uuid, context)
    if not address:
        return set()
    try:
        with open(context.path("sys/bus/pci/devices", address, "local_cpulist"), encoding="ascii") as f:
            return cpus(f.read())
    except (OSError, ValueError):
        return set()


def pci_address(uuid: str, context: Context) -> str:
    """Return the GPU's address as sysfs has it, by what the driver writes in /proc; "" where it does not say."""
    for path in glob.glob(context.path("proc/driver/nvidia/gpus/*/information")):
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as f:
            if any(line.split() == ["GPU", "UUID:", uuid] for line in f):
                return os.path.basename(os.path.dirname(path)).lower()
    return ""


def judged_link(name: str, device: str, seen: list[Message], data: Message) -> Message:
    """Return the check of the PCIe link by what NVML said during copies. Pure.

    At rest the link is slower to save power: only under load does its generation mean something.
    """
    best = {key: max((int(one[key]) for one in seen if key in one), default=0) for key in ("generation", "width")}
    most = {key: max((int(one[key + "_max"]) for one in seen if key + "_max" in one), default=0) for key in best}
    if not all((*best.values(), *most.values())):
        reason = "NVML does not say generation and width of this GPU's PCIe link: nothing was compared"
        return check(name, "skip", reason, device=device, data=data)
    found = "generation {generation} x{width}".format(**best)
    wanted = "generation {generation} x{width}".format(**most)
    data["evidence"] = [f"{len(seen)} readings during copies: at best {found}, possible {wanted}"]
    if best["generation"] >= most["generation"] and best["width"] >= most["width"]:
        reason = f"under load the PCIe link is {found}, which is all that GPU and slot can"
        return check(name, "pass", reason, found, wanted, device=device, data=data)
    reason = f"under load the PCIe link is only {found} of {wanted}: reseat the GPU, look at riser and slot"
    return check(name, "fail", reason, found, wanted, device=device, action="isolate", data=data)


def _link(context: Context, report: Report) -> None:
    import torch

    from gpuprov.proof.bench import device as on
    from gpuprov.proof.bench.sensors import PCIE, Sensors

    device, name = context.device, on.named(context.device, "pcie.under-load")
    if not on.on_gpu(device):
        report.check(check(name, "skip", NO_BUS, device=device))
        return
    report.stage(f"reading the PCIe link of {device} during copies")
    data = on.identity(context.device)
    sensors = Sensors(data.get("uuid", ""))
    if sensors.reason:
        report.check(check(name, "skip", sensors.reason, device=device, data=data))
        return
    seen = []
    with on.prepared(device), near(device, context):
        host = on.pinned(SIZE // 4)
        target = torch.empty_like(host, device=device)
        for _ in range(12):
            for _ in range(8):
                target.copy_(host, non_blocking=True)
            values = sensors.read(PCIE)  # the copies that were just started take longer than this
            seen.append({key[len("pcie.") :]: value for key, value in values.items()})
            on.wait(device)
    report.check(judged_link(name, device, seen, data))


def _part(direction: str) -> Part:
    def run(context: Context, report: Report) -> None:
        from gpuprov.proof.bench import device as on

        if not on.on_gpu(context.device):
            report.check(check(on.named(context.device, direction), "skip", NO_BUS, device=context.device))
            return
        available = available_bytes(context)
        if available < 2 * SIZE * len(context.devices):
            reason = f"the host has only {available / GIB:.1f} GiB of memory available, and copying needs 2 GiB per GPU"
            found = check(direction, "unknown", reason, device=context.device, data=on.identity(context.device))
            report.check(found)
            return
        if on.room(context.device, 2 * SIZE):
            reason, more = on.room(context.device, 2 * SIZE), on.identity(context.device)
            report.check(check(direction, "unknown", reason, device=context.device, action="restart job", data=more))
            return
        report.stage(f"copying {WORDS[direction]}, {context.device} in its turn")
        report.check(transfer(context, direction, on.uses(context, 0.15, 0.5, 5.0)))

    reads = f"1 GiB {WORDS[direction]}, one GPU after the other"
    return Part(direction, "nightly", "device", run, reads, deadline_s=120.0, loads=True)


PARTS = (
    _part("h2d"),
    _part("d2h"),
    Part("pcie.under-load", "nightly", "device", _link, "NVML's PCIe link during copies", deadline_s=60.0, loads=True),
)
