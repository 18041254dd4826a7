"""One verified property as a plain mapping (the fields of gpuprov.results.Check)."""

from __future__ import annotations

import math

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Dict

    Message = Dict[str, Any]

#: Worst last.
VERDICTS = ("pass", "skip", "warn", "unknown", "fail")
#: Verdicts of a host that is not healthy: exit code 3.
UNHEALTHY = ("unknown", "fail")


def check(
    name: str,
    verdict: str,
    reason: str,
    measured: Any = None,
    expected: Any = None,
    unit: str = "",
    device: str = "",
    action: str = "none",
    data: Message | None = None,
) -> Message:
    """Return one check. Pure. reason is one sentence, also when the verdict is pass."""
    assert verdict in VERDICTS
    return {
        "name": name,
        "verdict": verdict,
        "measured": measured,
        "expected": expected,
        "unit": unit,
        "reason": reason,
        "device": device,
        "action": action,
        "duration_s": 0.0,
        "tier": "",
        "reads": "",
        "simulated": False,
        "data": data or {},
    }


def within(
    name: str,
    measured: float,
    bound: float,
    good: str,
    bad: str,
    unit: str = "",
    device: str = "",
    data: Message | None = None,
) -> Message:
    """Return a check that passes when 0 <= *measured* <= *bound*. Pure; NaN and infinity fail."""
    passed = 0.0 <= measured <= bound
    return check(
        name,
        "pass" if passed else "fail",
        good if passed else bad,
        measured=measured,
        expected=f"<= {bound:g}",
        unit=unit,
        device=device,
        action="none" if passed else "isolate",
        data=dict(data or {}, bound=bound),
    )


def worst(verdicts: Iterable[str]) -> str:
    """Return the worst verdict of all, "unknown" when there is none: nothing measured proves nothing."""
    found = set(verdicts)
    return next((v for v in reversed(VERDICTS) if v in found), "unknown")


def finite(value: Any) -> Any:
    """Return *value* with NaN and infinity as text, so that it is JSON everywhere. Pure."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def thinned(series: list[float], most: int = 100) -> list[float]:
    """Return at most *most* values of *series*, first and last among them, with 5 digits. Pure.

    What travels in one JSON line stays under 4 KiB, the longest line that every reader keeps.
    """
    count = len(series)
    picked = series if count <= most else [series[i * (count - 1) // (most - 1)] for i in range(most)]
    return [float(f"{value:.5g}") for value in picked]


def measurement(
    name: str,
    samples: list[float],
    unit: str,
    better: str,
    reason: str,
    device: str = "",
    verdict: str = "pass",
    data: Message | None = None,
    action: str = "none",
) -> Message:
    """Return the check of a measured speed or time: measured is the median of *samples*. Pure.

    better: "higher" or "lower". The host has nothing to compare it with: expected comes from the judge, by the
    model's specification, the neighbours, the fleet and the past. data has samples, better, and p10, the value
    that the worst tenth of the samples does not reach.
    """
    assert better in ("higher", "lower")
    assert samples
    ordered = sorted(samples, reverse=better == "lower")
    worse = ordered[(len(ordered) - 1) // 10]
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    more = dict(data or {}, kind="measurement", samples=thinned(samples, 32), better=better, p10=worse)
    return check(name, verdict, reason, measured=median, unit=unit, device=device, action=action, data=more)
