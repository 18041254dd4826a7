"""The proof's checks as the report has them, and what they say about a host. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from gpuprov.report import clean
from gpuprov.results import Check, HostReport
from gpuprov.wire.outcome import VERDICTS

#: What a check costs besides its texts, in bytes.
CHECK_BYTES = 500
#: Names of checks between hosts begin so: they run on CPUs, too, and name hosts that may be called gpu01.
BETWEEN_HOSTS = "fabric."
#: What a check asks a person to do, the mildest first; any other is milder still.
ACTIONS = ("none", "monitor", "restart job", "reset GPU", "reboot", "isolate")
#: Checks that only a GPU can answer, by the words of their names and devices.
_GPU_WORDS = re.compile(
    r"(?i)(?:^|[^a-z])(?:gpus?|cuda|cudnn|nccl|nvml|nvlink|nvswitch|xid|ecc|pcie?|driver)(?:[^a-z]|$)"
)

#: Reasons for a skip that a host with its GPUs would not give; others ("one GPU needs no NCCL") are fine.
_NO_GPU = re.compile(r"(?i)\bno (?:\w+ )?gpus?\b")


def checks_of(given: object, budget: clean.Budget) -> tuple[Check, ...]:
    """Return the checks in a list of objects from a host; what is none, or does not fit, is left out."""
    if not isinstance(given, list):
        return ()
    checks = []
    for item in given[:2000]:
        if not isinstance(item, Mapping) or "name" not in item or "verdict" not in item:
            continue
        if not budget.take(CHECK_BYTES):
            break
        checks.append(_check(item, budget))
    return tuple(checks)


def _check(item: Mapping[str, Any], budget: clean.Budget) -> Check:
    verdict = clean.line(item["verdict"], 40)
    reason = clean.line(item.get("reason"))
    if verdict not in VERDICTS:
        verdict, reason = "unknown", f"the host reported the verdict {verdict or '(none)'}, which means nothing here"
    data = item.get("data")
    return Check(
        name=clean.line(item["name"], 100) or "(nameless)",
        verdict=verdict,
        measured=clean.plain(item.get("measured"), budget),
        expected=clean.plain(item.get("expected"), budget),
        unit=clean.line(item.get("unit"), 40),
        reason=reason,
        device=clean.line(item.get("device"), 100),
        action=clean.line(item.get("action"), 40) or "none",
        duration_s=max(0.0, clean.number(item.get("duration_s"))),
        tier=clean.line(item.get("tier"), 20),
        reads=clean.line(item.get("reads"), 200),
        simulated=item.get("simulated") is True,
        data=(clean.plain(data, budget) or {}) if isinstance(data, Mapping) else {},
    )


def proof_verdict(
    checks: tuple[Check, ...], expected_gpus: int | None = None, found_gpus: int | None = None
) -> tuple[str, str]:
    """Return the worst verdict of *checks* and the sentence that explains a bad one.

    A skipped check makes no host unhealthy, unless GPUs are expected and it is about them:
    then the proof is incomplete, and that is a fail.
    """
    verdict = max((c.verdict for c in checks), key=VERDICTS.index, default="")
    missing = _missing(checks, expected_gpus, found_gpus) if expected_gpus else ""
    if verdict == "fail":
        return verdict, _sentence(checks, verdict)
    if missing:
        return "fail", missing
    return verdict, _sentence(checks, verdict) if verdict in ("warn", "unknown") else ""


def host_verdict(report: HostReport, checks: tuple[Check, ...]) -> tuple[str, str]:
    """Return what *report* would say of itself with *checks* instead of its own: verdict and sentence."""
    verdict, sentence = proof_verdict(checks, report.expected_gpus, report.found_gpus)
    idle = idle_driver(report.stack, report.found_gpus)
    return ("unknown", idle) if idle and verdict != "fail" else (verdict, sentence)


def idle_driver(stack: Mapping[str, Any], found_gpus: int | None) -> str:
    """Return the sentence about a driver on a host without GPUs, "" when that is not so."""
    driver = stack.get("driver")
    if not isinstance(driver, Mapping) or found_gpus != 0:
        return ""
    return f"driver {driver.get('version')} is installed, no GPU on the PCI bus: nothing was measured"


def _missing(checks: tuple[Check, ...], expected: int | None, found: int | None) -> str:
    """Return what is missing from the proof of the expected GPUs, "" when nothing is."""
    own = [c for c in checks if not c.name.startswith(BETWEEN_HOSTS)]
    about_gpus = [c for c in own if _GPU_WORDS.search(f"{c.name} {c.device}") or "gpu" in c.reason.lower()]
    measured = [c for c in about_gpus if c.verdict in ("pass", "warn", "fail")]
    gpus = f"{expected} GPU{'s' if expected != 1 else ''} expected"
    if not measured:
        return f"{gpus}, none measured"
    if found is not None and expected is not None and found < expected:
        return f"{gpus}, {found} found"
    devices = {c.device for c in measured if c.device.startswith("cuda:")}
    if devices and len(devices) < (expected or 0):
        return f"{gpus}, {len(devices)} measured"
    left = [c for c in about_gpus if c.verdict == "unknown" or (c.verdict == "skip" and _NO_GPU.search(c.reason))]
    if left:
        names = ", ".join(dict.fromkeys(c.name for c in left[:5]))
        return f"{gpus}, but not measured: {names}{' ...' if len(left) > 5 else ''}"
    return ""


def _sentence(checks: tuple[Check, ...], verdict: str) -> str:
    """Return one sentence about the gravest check with *verdict*, and the names of others that have it too."""
    those = [c for c in checks if c.verdict == verdict]
    check = max(those, key=_gravity)
    names = [name for name in dict.fromkeys(c.name for c in those) if name != check.name]
    more = f" (and {', '.join(names[:3])}{' ...' if len(names) > 3 else ''})" if names else ""
    return f"{check.name}{f' on {check.device}' if check.device else ''}: {_finding(check)}{more}"


def _gravity(check: Check) -> int:
    return ACTIONS.index(check.action) if check.action in ACTIONS else -1


def advice(host: HostReport) -> str:
    """Return what the checks of an unhealthy host ask a person to do, "" for nothing: "reboot (gpu.lost, xid)"."""
    bad = [c for c in host.checks if c.verdict in ("fail", "unknown") and _gravity(c) > ACTIONS.index("monitor")]
    if not bad or not host.exit_code:
        return ""
    most = max(bad, key=_gravity).action
    names = list(dict.fromkeys(c.name for c in bad if c.action == most))
    return f"{most} ({', '.join(names[:3])}{' ...' if len(names) > 3 else ''})"


def _finding(check: Check) -> str:
    if check.reason:
        return check.reason
    if check.measured is None:
        return "could not be measured" if check.verdict == "unknown" else check.verdict
    wanted = f", expected {shown(check.expected)}" if check.expected is not None else ""
    return f"measured {shown(check.measured, check.unit)}{wanted}"


def busy(hosts: Iterable[HostReport]) -> dict[str, tuple[str, ...]]:
    """Return, by host, the GPUs of which something was not measured because somebody uses them."""
    found = {
        h.host: dict.fromkeys(c.device for c in h.checks if c.verdict == "skip" and c.data.get("busy")) for h in hosts
    }
    return {host: tuple(devices) for host, devices in found.items() if devices}


def shown(value: Any, unit: str = "") -> str:
    """Return a measured value as a person reads it."""
    if isinstance(value, float):
        as_text = f"{value:.6g}"
    elif isinstance(value, bool):
        as_text = "yes" if value else "no"
    elif isinstance(value, Mapping):
        as_text = ", ".join(f"{k} {shown(v)}" for k, v in value.items())
    elif isinstance(value, list | tuple):
        as_text = ", ".join(shown(v) for v in value)
    else:
        as_text = str(value)
    return f"{as_text} {unit}" if unit else as_text


def coverage(checks: tuple[Check, ...]) -> str:
    """Return how much of the proof ran: "checks: 14 of 20 ran, 6 skipped: no NVIDIA GPU"."""
    ran = sum(c.verdict not in ("skip", "unknown") for c in checks)
    parts = [f"checks: {ran} of {len(checks)} ran"]
    for verdict, word in (("skip", "skipped"), ("unknown", "not measurable")):
        those = [c for c in checks if c.verdict == verdict]
        reasons = list(dict.fromkeys(c.reason for c in those if c.reason))
        if those:
            why = f": {'; '.join(reasons[:3])}{'; ...' if len(reasons) > 3 else ''}" if reasons else ""
            parts.append(f"{len(those)} {word}{why}")
    return ", ".join(parts)
