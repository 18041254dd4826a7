"""The same product for a minute or longer: does the GPU hold its speed when it is hot, and its bits?"""

from __future__ import annotations

import time

from gpuprov.proof.bench import gemm
from gpuprov.proof.bench.numbers import lowest_moving_average, thirds
from gpuprov.proof.check import check, measurement, thinned
from gpuprov.proof.checks.thermal import reasons
from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context
    from gpuprov.proof.worker import Report

    #: Returns power (mW), temperature (degrees C), clock.sm (MHz) and throttle (bits), as far as there are any.
    Read = Callable[[], Message]

#: The last third may be this part of the first, and a moving average this part of all, without a word.
HELD, DIPPED = 0.95, 0.90
#: Samples of a soak: enough for a curve; each one is compared bit by bit.
SAMPLES = 120
#: Degrees between the first and the last third from which on heat is named as the reason of a decline.
WARMER_C = 5.0
MOST_CURVE = 32


def soak(
    context: Context, budget_s: float, read: Read | None = None, n: int = 0, tamper: gemm.Tamper | None = None
) -> Message:
    """Return the check of one product repeated for *budget_s*; *read* is asked in the middle of each sample.

    n: size of the product, of the device's own choosing when 0.
    """
    import torch

    from gpuprov.proof.bench import device as on

    device = context.device
    capability = torch.cuda.get_device_capability(device) if on.on_gpu(device) else None
    dtype = usual(capability)
    n = n or gemm.size(dtype, capability)
    reason = on.room(device, gemm.taken(dtype, n))
    if reason:
        return check(on.named(device, "soak"), "unknown", reason, device=device, action="restart job")
    rates: list[float] = []
    sums: list[str] = []
    readings: list[Message] = []
    with on.prepared(device):
        product = gemm.Product(dtype, n, device, context.seed)
        on.timed(device, product.run)
        call_s = max(on.timed(device, product.run), 1e-7)
        calls = max(1, int(budget_s / SAMPLES / call_s))
        ends_at = time.monotonic() + budget_s
        while time.monotonic() < ends_at or len(rates) < 6:
            seconds = on.timed(device, product.run, calls)
            product.run()  # readings are of a GPU at work
            readings.append(read() if read is not None else {})
            on.wait(device)
            if tamper is not None:
                tamper(len(rates), product.c)
            rates.append(2.0 * product.n**3 / seconds / 1e12)
            sums.append(on.checksum(product.c))
        data = dict(on.identity(device), bits_of=f"soak {dtype} {product.n}^3, {on.computed_by(device)}")
    return judged(on.named(device, "soak"), device, rates, readings, sums, data)


def usual(capability: tuple[int, int] | None) -> str:
    """Return the number format that draws the most power in trainings; float32 on a CPU. Pure."""
    fits = [dtype for dtype in ("bf16", "fp16", "fp32") if not gemm.lacks(dtype, capability)]
    return "fp32" if capability is None else fits[0]


def judged(
    name: str, device: str, rates: list[float], readings: Sequence[Message], sums: Sequence[str], data: Message
) -> Message:
    """Return the check of a soak. Pure. Other bits and a GPU that slows itself down fail, a decline warns."""
    trend, dip = thirds(rates), lowest_moving_average(rates)
    heat = [float(one["temperature"]) for one in readings if "temperature" in one]
    power = [one["power"] / 1000.0 for one in readings if "power" in one]
    mask = 0
    for one in readings:
        mask |= int(one.get("throttle", 0))
    data = dict(
        data,
        bits=max(set(sums), key=list(sums).count),
        trend=round(trend, 4),
        dip=round(dip, 4),
        curve=thinned(rates, MOST_CURVE),
    )
    data.update({"temperature_c": thinned(heat, MOST_CURVE)} if heat else {})
    data.update({"power_w": thinned(power, MOST_CURVE)} if power else {})
    verdict, action, reason = _verdict(trend, dip, heat, mask, sums)
    if verdict != "pass":
        data["evidence"] = _evidence(rates, heat, power, mask)
        action = action if device.startswith("cuda") else "none"
    return measurement(name, rates, "TFLOPS", "higher", reason, device, verdict, data, action)


def _verdict(trend: float, dip: float, heat: list[float], mask: int, sums: Sequence[str]) -> tuple[str, str, str]:
    others = len(sums) - max((list(sums).count(one) for one in set(sums)), default=0)
    if others:
        said = f"the same product gave other bits {others} of {len(sums)} times"
        return "fail", "isolate", f"silent data corruption: {said}"
    held = [(said, its, action) for said, its, action in reasons(mask) if its != "pass"]
    for verdict in ("fail", "warn"):
        worst = [(said, action) for said, its, action in held if its == verdict]
        if worst:
            told = " and ".join(said for said, _ in worst)
            fell = f"; its speed fell by {100 * (1 - trend):.0f} %" if trend < HELD else ""
            return verdict, worst[0][1], f"under load the GPU slows itself down: {told}{fell}"
    if trend < HELD:
        third = len(heat) // 3
        warmer = _mean(heat[-third:]) - _mean(heat[:third]) if third else 0.0
        why = ""
        if warmer >= WARMER_C:
            why = f" while it got {warmer:.0f} C warmer, up to {max(heat):.0f} C: look at fans, air and heat sink"
        return "warn", "monitor", f"speed fell by {100 * (1 - trend):.1f} % from the first to the last third{why}"
    if dip < DIPPED:
        return "warn", "monitor", f"speed dipped to {100 * dip:.0f} % of its mean for five samples in a row"
    warm = f", up to {max(heat):.0f} C" if heat else "; no temperature was read"
    return "pass", "none", f"{len(sums)} samples: speed held (last third {trend:.3f} of the first), same bits{warm}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _evidence(rates: list[float], heat: list[float], power: list[float], mask: int) -> list[str]:
    lines = [f"TFLOPS: first {rates[0]:.4g}, lowest {min(rates):.4g}, last {rates[-1]:.4g}"]
    lines += [f"temperature: first {heat[0]:.0f} C, highest {max(heat):.0f} C, last {heat[-1]:.0f} C"] if heat else []
    lines += [f"power: first {power[0]:.0f} W, highest {max(power):.0f} W, last {power[-1]:.0f} W"] if power else []
    return [*lines, f"clock reasons: {mask:#x} ({', '.join(said for said, _, _ in reasons(mask)) or 'none'})"]


def _run(context: Context, report: Report) -> None:
    from gpuprov.proof.bench import device as on
    from gpuprov.proof.bench.sensors import LOAD, Sensors

    read = None
    if on.on_gpu(context.device):
        sensors = Sensors(on.identity(context.device).get("uuid", ""))
        if sensors.reason:
            report.text(f"soak without temperature and power: {sensors.reason}")
        read = lambda: sensors.read(LOAD)  # noqa: E731 - nothing to name
    report.stage(f"heating {context.device}")
    report.check(soak(context, on.uses(context, 10.0, 60.0, 3600.0), read))


PARTS = (
    Part("soak", "weekly", "device", _run, "one product over and over, NVML beside it", deadline_s=4500.0, loads=True),
)
