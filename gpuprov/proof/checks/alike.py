"""GPUs of one host are alike: model, VBIOS, memory, ECC mode, power limit, part, firmware. Pure."""

from __future__ import annotations

import re

from gpuprov.proof.check import check
from gpuprov.proof.checks.each import CANNOT, Gpu, data_of, gpus_of, named, unread
from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

#: Cards of desktops: their owner mixes models and makers as he likes, and one may be there for the screen alone.
_DESKTOP = re.compile(r"(?i)geforce|titan|quadro|\brtx\b|display|\b[TP]\d{3,4}\b|\bnvs\b|\bgt\b|\bgtx\b")
#: What is compared among cards of one maker only, where owners choose their makers.
_BY_MAKER = ("VBIOS", "power limit", "part")
#: What is compared: its words, NVML's keys, the verdict and the action when it differs.
PROPERTIES = (
    ("model", ("name",), "warn", "none"),
    ("VBIOS", ("vbios",), "warn", "none"),
    ("memory", ("memory.total",), "fail", "isolate"),
    ("ECC mode", ("ecc_mode",), "fail", "reboot"),
    ("power limit", ("power.limit",), "warn", "none"),
    ("part", ("pci.device", "pci.subsystem"), "warn", "none"),
    ("GSP firmware", ("gsp_firmware",), "warn", "reboot"),
)


def alike(context: Context, reading: Message) -> list[Message]:
    """Judge whether what should be equal on all GPUs of the host is."""
    name = "gpus.alike"
    nothing = unread(name, context, reading)
    if nothing:
        return [nothing]
    gpus = [gpu for gpu in gpus_of(reading) if not gpu.lost]
    if len(gpus) < 2:
        reason = "one GPU has no neighbour to be compared with" if gpus else "no GPU answers"
        return [check(name, "skip" if gpus else "unknown", reason)]
    checks = []
    same: Message = {}
    unknown = []
    for words, keys, verdict, action in PROPERTIES:
        groups = _groups(gpus, words)
        odd = [found for group in groups for found in _odd(group, keys)]
        checks += [_differs(name, words, gpu, value, usual, verdict, action) for gpu, value, usual in odd]
        values = _values(gpus, keys)
        if any(len(_values(group, keys)) < len(group) and not _none_can(group, keys) for group in groups):
            unknown.append(words)
        elif not odd and values:
            same[words] = values[0][1] if all(value == values[0][1] for _, value in values) else "by model"
    if unknown:
        checks.append(check(name, "unknown", f"could not be read on all GPUs: {', '.join(unknown)}"))
    if same:
        reason = f"{len(gpus)} of {len(gpus)} GPUs have the same {', '.join(same)}"
        checks.append(check(name, "pass", reason, measured=same))
    return checks


def _groups(gpus: list[Gpu], words: str) -> list[list[Gpu]]:
    """Return the GPUs in groups of those that have to be alike in this."""
    if words == "model":
        return [[gpu for gpu in gpus if not _desktop(gpu)]]
    if words not in _BY_MAKER:
        return _by_model(gpus)
    makers: dict[Any, list[Gpu]] = {}
    for gpu in gpus:
        its = (gpu.get("name"), gpu.get("pci.subsystem") if _desktop(gpu) else None)
        makers.setdefault(its, []).append(gpu)
    return list(makers.values())


def _desktop(gpu: Gpu) -> bool:
    return bool(_DESKTOP.search(str(gpu.get("name", ""))))


def _by_model(gpus: list[Gpu]) -> list[list[Gpu]]:
    models: dict[Any, list[Gpu]] = {}
    for gpu in gpus:
        models.setdefault(gpu.get("name"), []).append(gpu)
    return list(models.values())


def _values(gpus: list[Gpu], keys: tuple[str, ...]) -> list[tuple[Gpu, Any]]:
    """Return the value of each GPU that has one: of several keys, all that there are as text."""
    found = []
    for gpu in gpus:
        values = [gpu.get(key) for key in keys]
        there = [value for value in values if value is not None]
        if there:
            single = (
                there[0] if len(keys) == 1 else " ".join(f"{value:#x}" for value in there if isinstance(value, int))
            )
            found.append((gpu, single))
    return found


def _none_can(gpus: list[Gpu], keys: tuple[str, ...]) -> bool:
    """Say whether no GPU has this: NotSupported on all is no doubt."""
    answers = [gpu.values.get(key) for gpu in gpus for key in keys]
    return all(isinstance(a, dict) and a.get("error") in CANNOT for a in answers)


def _odd(gpus: list[Gpu], keys: tuple[str, ...]) -> list[tuple[Gpu, Any, Any]]:
    """Return each GPU that differs from most, its value, and that of most. With no majority, all but the first."""
    values = _values(gpus, keys)
    if not values:
        return []
    usual = max((value for _, value in values), key=lambda value: sum(other == value for _, other in values))
    return [(gpu, value, usual) for gpu, value in values if value != usual]


def _differs(name: str, words: str, gpu: Gpu, value: Any, usual: Any, verdict: str, action: str) -> Message:
    reason = f"{named([gpu])} has another {words} than the other GPUs of this host: {value}, not {usual}"
    return check(name, verdict, reason, value, usual, device=gpu.device, action=action, data=data_of(gpu))


PARTS = (Part("gpus.alike", "quick", "reading", alike, "NVML: model, VBIOS, memory, ECC mode, power limit, part"),)
