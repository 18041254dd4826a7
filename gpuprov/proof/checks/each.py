"""One property, judged on each GPU, told so that a person can read it. Pure.

A judge gets one GPU and returns a Found; a value that NVML did not give ends it by itself: what a model or a
driver cannot say is a skip with that reason, all else that did not come is unknown. Then `each` tells it:
a check for each GPU where it is bad, one for all the others together: "8 of 8 GPUs: ...".
"""

from __future__ import annotations

import os

from gpuprov.proof.check import check
from gpuprov.proof.checks.versions import pci_gpus
from gpuprov.proof.nvml.reading import LOST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Dict, List

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

    Judge = Callable[["Gpu", Context], "Found"]
    Run = Callable[[Context, Dict[str, Any]], List[Message]]

#: Answers that say that there is nothing to ask: the model, or the driver's library, does not have it.
CANNOT = {
    "NotSupported": "this model does not have it",
    "FunctionNotFound": "this driver, or this nvidia-ml-py, does not know the question",
    "ArgumentVersionMismatch": "this driver does not know the question in this form",
    "InvalidArgument": "this driver does not know the question",
    "Deprecated": "this driver does not answer the question any more",
}
#: What other errors mean, in words; those that are not here are given by NVML's name.
_WORDS = {
    "NoPermission": "NVML gives it to root only",
    "NotAvailable": 'NVML says "not available"',
    "NotAsked": "the process that asks ended before it",
    "Unknown": "NVML says no more than Unknown",
}


class Unanswered(Exception):
    """NVML gave no value for *key*."""

    def __init__(self, key: str, error: str) -> None:
        super().__init__(key, error)
        self.key = key
        self.error = error


class Gpu:
    """One GPU of a Reading. `gpu[key]` is a value, or ends the judging with why there is none."""

    __slots__ = ("address", "device", "hung", "index", "links", "peers", "values")

    def __init__(self, of: Message) -> None:
        self.index: int = of["index"]
        self.device = f"gpu:{of['index']}"
        self.address: str = of.get("address") or ""
        self.hung: str = of.get("hung") or ""
        self.values: Message = of.get("values") or {}
        self.links: list[Message] = of.get("links") or []
        self.peers: Message = of.get("peers") or {}

    def __getitem__(self, key: str) -> Any:
        return answered(self.values, key)

    def get(self, key: str, otherwise: Any = None) -> Any:
        """Return the value of *key*, *otherwise* where there is none for whatever reason."""
        value = self.values.get(key)
        return otherwise if value is None or isinstance(value, dict) else value

    @property
    def lost(self) -> str:
        """Why this GPU cannot be judged at all: it hangs, or NVML has lost it. Else ""."""
        if self.hung:
            return f"{self.hung} never returned"
        if not self.values:
            return "the process that asks it ended without an answer"
        errors = {value.get("error", "") if isinstance(value, dict) else "" for value in self.values.values()}
        gone = sorted(errors & set(LOST)) or (sorted(errors) if len(errors) == 1 and "" not in errors else [])
        return f"NVML says {gone[0]}" if gone else ""

    @property
    def sliced(self) -> bool:
        """Whether MIG is on: it is used in slices, and reaches no other GPU."""
        mode = self.get("mig")
        return isinstance(mode, list) and bool(mode[:1] and mode[0])


class Found:
    """What one property of one GPU came to."""

    __slots__ = ("action", "evidence", "expected", "measured", "reason", "verdict")

    def __init__(
        self,
        verdict: str,
        measured: Any = None,
        reason: str = "",
        action: str = "none",
        expected: Any = None,
        evidence: list[str] | None = None,
    ) -> None:
        self.verdict = verdict
        self.measured = measured
        self.reason = reason
        self.action = action
        self.expected = expected
        self.evidence = evidence


def answered(values: Message, key: str) -> Any:
    """Return the value of *key*. Raises Unanswered where NVML gave none."""
    value = values.get(key, {"error": "NotAsked"})
    if isinstance(value, dict):
        raise Unanswered(key, str(value.get("error", "Unknown")))
    return value


def gpus_of(reading: Message) -> list[Gpu]:
    """Return the GPUs of *reading*, lost ones among them."""
    return [Gpu(of) for of in reading.get("gpus") or []]


def each(name: str, judge: Judge, good: str, unit: str = "") -> Run:
    """Return the run of a part that judges one property of each GPU. good: what is true of GPUs that pass."""

    def run(context: Context, reading: Message) -> list[Message]:
        nothing = unread(name, context, reading)
        return [nothing] if nothing else told(name, judge, good, unit, context, reading)

    return run


def unread(name: str, context: Context, reading: Message) -> Message | None:
    """Return the check *name* of a host whose GPUs cannot be asked, None when they can. Reads the PCI bus."""
    if reading.get("gpus"):
        return None
    error = reading.get("error")
    if error is None or error["error"] in ("LibraryNotFound", "DriverNotLoaded", "PynvmlMissing"):
        wanted = context.expect.get("gpus")
        if not pci_gpus(context.path("sys")) and not wanted:
            return check(name, "skip", "no NVIDIA GPU on the PCI bus")
    why = f"NVML does not answer ({error['error']})" if error else "NVML has no GPU"
    return check(name, "unknown", f"not measured: {why}")


def told(name: str, judge: Judge, good: str, unit: str, context: Context, reading: Message) -> list[Message]:
    """Judge each GPU, and return the checks that tell it."""
    gpus = gpus_of(reading)
    asked = [gpu for gpu in gpus if not gpu.lost]
    found = [(gpu, _judged(judge, gpu, context)) for gpu in asked]
    _doubt_odd_ones(found)
    left = "".join(f"; {gpu.device} is not judged: {gpu.lost}" for gpu in gpus if gpu.lost)
    if not asked:
        return [check(name, "unknown", f"not measured on any GPU{left}")]
    checks = [_one(name, unit, gpu, item) for gpu, item in found if item.verdict in ("warn", "fail")]
    checks += _grouped(name, found, "unknown", len(gpus)) + _grouped(name, found, "skip", len(gpus))
    passed = [(gpu, item) for gpu, item in found if item.verdict == "pass"]
    if passed:
        checks.append(_all(name, unit, passed, f"{len(passed)} of {_gpus(len(gpus))}: {good}{left}", len(gpus)))
    return checks


def _judged(judge: Judge, gpu: Gpu, context: Context) -> Found:
    try:
        return judge(gpu, context)
    except Unanswered as missing:
        if missing.error in CANNOT:
            return Found("skip", missing.error, f"{CANNOT[missing.error]} ({missing.key}: {missing.error})")
        words = _WORDS.get(missing.error, f"NVML says {missing.error}")
        return Found("unknown", None, f"{missing.key} could not be read: {words}")


def _doubt_odd_ones(found: list[tuple[Gpu, Found]]) -> None:
    """Make a "not supported" unknown where another GPU of the same model has an answer."""
    able = {gpu.get("name") for gpu, item in found if item.verdict in ("pass", "warn", "fail")}
    for gpu, item in found:
        if item.verdict == "skip" and item.measured in CANNOT and gpu.get("name") in able:
            item.verdict, item.measured = "unknown", None
            item.reason += ", but other GPUs of the same model here have it"


def data_of(gpu: Gpu, evidence: list[str] | None = None) -> Message:
    """Return the data of a check of one GPU: by which it is known again, wherever it turns up."""
    data: Message = {"uuid": gpu.get("uuid", ""), "address": gpu.address, "serial": gpu.get("serial", "")}
    data = {key: value for key, value in data.items() if value}
    return dict(data, evidence=[line[:200] for line in evidence[:6]]) if evidence else data


def _one(name: str, unit: str, gpu: Gpu, item: Found) -> Message:
    reason = f"{gpu.device}{f' ({gpu.address})' if gpu.address else ''} {item.reason}"
    return check(
        name,
        item.verdict,
        reason,
        measured=item.measured,
        expected=item.expected,
        unit=unit,
        device=gpu.device,
        action=item.action,
        data=data_of(gpu, item.evidence),
    )


def _grouped(name: str, found: list[tuple[Gpu, Found]], verdict: str, count: int) -> list[Message]:
    """Return a check for each reason that GPUs have for *verdict*."""
    reasons: dict[str, list[Gpu]] = {}
    for gpu, item in found:
        if item.verdict == verdict:
            reasons.setdefault(item.reason, []).append(gpu)
    checks = []
    for reason, gpus in reasons.items():
        who = _gpus(count) if len(gpus) == count else named(gpus)
        device = gpus[0].device if len(gpus) == 1 and count > 1 else ""
        data = data_of(gpus[0]) if device else {}
        checks.append(check(name, verdict, f"{who}: {reason}", device=device, data=data))
    return checks


def _all(name: str, unit: str, passed: list[tuple[Gpu, Found]], reason: str, count: int) -> Message:
    """Return the check of all GPUs that pass: measured is the value that they share, else that of each."""
    values = [item.measured for _, item in passed]
    expected = passed[0][1].expected
    alike = all(value == values[0] for value in values)
    measured = values[0] if alike else {gpu.device: item.measured for gpu, item in passed}
    notes = [item.reason for _, item in passed if item.reason]
    action = "monitor" if any(item.action == "monitor" for _, item in passed) else "none"
    data: Message = {"gpus": len(passed)}
    if notes:
        data["evidence"] = notes[:6]
    only = passed[0][0]
    if count == 1:
        return check(name, "pass", reason, measured, expected, unit, only.device, action, dict(data_of(only), **data))
    return check(name, "pass", reason, measured, expected, unit, action=action, data=data)


def _gpus(count: int) -> str:
    return f"{count} GPU{'' if count == 1 else 's'}"


def named(gpus: list[Gpu]) -> str:
    """Return the names of GPUs: gpu:1, gpu:3."""
    return ", ".join(gpu.device for gpu in gpus)


def virtual(context: Context) -> bool:
    """Say whether this is a virtual machine, as an x86 processor says; no other processor does."""
    try:
        with open(context.path("proc/cpuinfo"), encoding="utf-8", errors="replace") as f:
            return any(line.startswith("flags") and " hypervisor" in line for line in f)
    except OSError:
        return False


def minutes_up(context: Context) -> float | None:
    """Return for how many minutes the host is up, None when it does not say."""
    try:
        with open(os.path.join(context.root, "proc/uptime"), encoding="ascii") as f:
            return float(f.read().split()[0]) / 60
    except (OSError, ValueError, IndexError):
        return None
