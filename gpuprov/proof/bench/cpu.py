"""The host's own CPUs and memory: a product and a copy. What feeds the GPUs may be what is slow."""

from __future__ import annotations

import os

from gpuprov.proof.check import check, measurement
from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context
    from gpuprov.proof.worker import Report

    Tamper = Callable[[Any], None]

N, COPIED = 2048, 1 << 28
BUDGET_S = 1.0


def product(context: Context, n: int = N, budget_s: float = BUDGET_S, tamper: Tamper | None = None) -> Message:
    """Return the check of float32 products on all CPUs that this process may use, compared with float64."""
    from gpuprov.proof.bench import device as on
    from gpuprov.proof.bench import gemm

    with on.prepared("cpu"):
        work = gemm.Product("fp32", n, "cpu", context.seed)
        reference = gemm.Reference(work, context.seed)
        seconds = on.sampled("cpu", work.run, budget_s)
        if tamper is not None:
            tamper(work.c)
        error, value, right, bound, row, column = reference.worst(reference.picked(work.c))
    rates = [2.0 * n**3 / s / 1e12 for s in seconds]
    data: Message = {"threads": _threads(), "computed_by": on.computed_by("cpu")}
    if error <= 1.0:
        reason = f"{len(rates)} samples of {n}^3 products on {data['threads']} threads, within {error:.2g} of the bound"
        return measurement("cpu.gemm", rates, "TFLOPS", "higher", reason, data=data)
    reason = f"wrong result on a CPU: element ({row}, {column}) is {value:.9g} where float64 has {right:.9g}"
    data["evidence"] = [f"rounding explains {bound:.3g} at most"]
    return measurement("cpu.gemm", rates, "TFLOPS", "higher", reason, "", "fail", data, "isolate")


def copy(context: Context, size: int = COPIED, budget_s: float = BUDGET_S, tamper: Tamper | None = None) -> Message:
    """Return the check of copying within the host's memory, read and write counted."""
    import torch

    from gpuprov.proof.bench import device as on
    from gpuprov.proof.bench import hbm

    source = torch.empty(size // 8, dtype=torch.int64)
    target = torch.zeros(size // 8, dtype=torch.int64)
    hbm.fill(source, "random", 0, context.seed)
    seconds = on.sampled("cpu", lambda: target.copy_(source), budget_s)
    if tamper is not None:
        tamper(target)
    bad = hbm.compare(target, "random", 0, context.seed)
    speeds = [2.0 * size / s / 1e9 for s in seconds]
    data: Message = {"threads": _threads(), "size_bytes": size}
    if not bad.count:
        reason = f"{len(speeds)} samples of copying {size >> 20} MiB on {data['threads']} threads, compared"
        return measurement("cpu.copy", speeds, "GB/s", "higher", reason, data=data)
    data["evidence"] = bad.lines(0)
    reason = f"the host's memory does not keep what is written: {bad.text(0)}"
    return measurement("cpu.copy", speeds, "GB/s", "higher", reason, "", "fail", data, "isolate")


def _threads() -> int:
    import torch

    return int(torch.get_num_threads())


def _run(name: str, measured: Callable[[Context], Message]) -> Callable[[Context, Report], None]:
    def run(context: Context, report: Report) -> None:
        report.stage(f"{name}: importing torch")
        try:
            import torch
        except (ImportError, OSError) as error:
            report.check(check(name, "unknown", f"torch cannot be imported, and measures this: {error}"))
            return
        before = torch.get_num_threads()
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        report.stage(f"measuring {name}")
        try:
            report.check(measured(context))
        finally:
            torch.set_num_threads(before)

    return run


_READS = {"cpu.gemm": "float32 products on all CPUs", "cpu.copy": "copies within the host's memory"}
PARTS = (
    Part("cpu.gemm", "weekly", "host", _run("cpu.gemm", product), _READS["cpu.gemm"], deadline_s=60.0),
    Part("cpu.copy", "weekly", "host", _run("cpu.copy", copy), _READS["cpu.copy"], deadline_s=60.0),
)
