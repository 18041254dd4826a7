"""How long it takes to give the device something to do: thousands of kernels that do next to nothing."""

from __future__ import annotations

import time

from gpuprov.proof.check import measurement
from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context
    from gpuprov.proof.worker import Report

#: Kernels of a sample, and how many samples.
KERNELS, SAMPLES = 1000, 15


def latency(context: Context, tamper: Callable[[Any], None] | None = None) -> Message:
    """Return the check of the time from one kernel to the next, as a program sees it: torch, driver and device.

    Each kernel adds 1 to one number, so a kernel that did not run shows.
    """
    import torch

    from gpuprov.proof.bench import device as on

    device, name = context.device, on.named(context.device, "launch")
    with on.prepared(device), context.alone():
        number = torch.zeros(1, dtype=torch.int64, device=device)
        micros = []
        for _ in range(SAMPLES + 1):
            on.wait(device)
            start = time.perf_counter()
            for _ in range(KERNELS):
                number += 1
            on.wait(device)
            micros.append((time.perf_counter() - start) / KERNELS * 1e6)
        if tamper is not None:
            tamper(number)
        ran = int(number)
    wanted = KERNELS * (SAMPLES + 1)
    data = on.identity(context.device)
    if ran == wanted:
        reason = f"{SAMPLES} samples of {KERNELS} kernels, one after the other; all of them ran"
        return measurement(name, micros[1:], "us", "lower", reason, device=device, data=data)
    reason = f"{wanted} kernels were started, and {ran} left their mark: the device loses or repeats work"
    action = "isolate" if on.on_gpu(device) else "none"
    return measurement(name, micros[1:], "us", "lower", reason, device, "fail", data, action)


def _run(context: Context, report: Report) -> None:
    report.stage(f"starting kernels on {context.device}")
    report.check(latency(context))


PARTS = (Part("launch", "nightly", "device", _run, f"{SAMPLES * KERNELS} tiny kernels", deadline_s=60.0, loads=True),)
