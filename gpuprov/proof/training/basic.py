"""The two trainings whose every number is known, as parts of the proof."""

from __future__ import annotations

import os

from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.parts import Context
    from gpuprov.proof.worker import Report


def _prove(name: str, context: Context, report: Report) -> None:
    from gpuprov.proof.training import device as on_device
    from gpuprov.proof.training import prove

    several = len(context.devices) > 1
    folder = context.options.get("folder") or context.scratch
    if several:
        folder = os.path.join(folder, context.device.replace(":", "-"))
    os.makedirs(folder, exist_ok=True)
    on_device.prepare()
    epochs, drawn = context.options.get("epochs"), bool(context.options.get("drawn"))
    prove.prove(name, context.device, report, folder, context.seed, epochs, drawn)
    report.text(prove.scope(context.device))


def linear(context: Context, report: Report) -> None:
    """Train the line on the context's device."""
    _prove("linear", context, report)


def mlp(context: Context, report: Report) -> None:
    """Train the small network on the context's device."""
    _prove("mlp", context, report)


_READS = "trains on the device, compared with float64 on the CPU"
PARTS = (
    Part("linear", "nightly", "device", linear, _READS, deadline_s=60.0),
    Part("mlp", "nightly", "device", mlp, _READS, deadline_s=60.0),
)
