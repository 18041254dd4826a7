"""One driver: its library, its kernel module, and what the stack was resolved to, are the same version."""

from __future__ import annotations

import re

from gpuprov.proof.check import check
from gpuprov.proof.checks.each import unread
from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

_VERSION = re.compile(r"\b(\d{3,4}\.\d+(?:\.\d+)?)\b")


def versions(context: Context, reading: Message) -> list[Message]:
    """Judge whether the driver's parts have one version."""
    name = "driver.versions"
    nothing = _mismatch(name, context, reading) or unread(name, context, reading)
    if nothing:
        return [nothing]
    found = _found(context, reading)
    missing = [part for part in ("driver", "library") if found[part] is None]
    if missing:
        return [check(name, "unknown", f"NVML did not give the version of the {' and the '.join(missing)}")]
    data = {"evidence": [f"{part} {version or 'unknown'}" for part, version in found.items()]}
    there = {version for version in found.values() if version}
    if len(there) > 1:
        told = ", ".join(f"{part} {version}" for part, version in found.items() if version)
        reason = f"parts of the driver have different versions: {told}; the newer one was installed without a reboot"
        return [check(name, "fail", reason, found, "one version", action="reboot", data=data)]
    module = "" if found["kernel module"] else "; /sys and /proc show no kernel module here, as in a container"
    reason = f"driver, library and kernel module are {found['driver']}{module}"
    return [check(name, "pass", reason, measured=found["driver"], data=data)]


def expected(context: Context, reading: Message) -> list[Message]:
    """Judge whether the driver is the one that the stack was resolved to."""
    name = "driver.expected"
    wanted = (context.expect.get("versions") or {}).get("driver")
    nothing = unread(name, context, reading)
    if not wanted and (nothing is None or nothing["verdict"] != "skip"):
        return [check(name, "skip", "nobody said which driver to expect")]
    if nothing:
        return [nothing]
    has = _text(reading["library"].get("driver"))
    if has is None:
        return [check(name, "unknown", "NVML did not give the driver's version", expected=wanted)]
    if not same_version(has, str(wanted)):
        reason = f"driver {wanted} was resolved, {has} is loaded"
        return [check(name, "fail", reason, measured=has, expected=wanted, action="reboot")]
    return [check(name, "pass", f"driver {has} is loaded, as resolved", measured=has, expected=wanted)]


def same_version(has: str, wanted: str) -> bool:
    """Say whether *has* is *wanted*, which may be a package's: 580.95.05-0ubuntu1, 3:580.95.05-1.el9. Pure."""
    bare = wanted.rpartition(":")[2].partition("-")[0]
    return has == bare or has.startswith(bare + ".")


def _mismatch(name: str, context: Context, reading: Message) -> Message | None:
    """Return the check of a mismatch that keeps NVML from starting, None when there is none."""
    error = reading.get("error")
    if not error or error["error"] != "LibRmVersionMismatch":
        return None
    module = _module(context)
    told = f"the loaded kernel module is {module or 'of another version'}, the library on disk is a different one"
    return check(name, "fail", told, measured=module, expected="one version", action="reboot")


def _found(context: Context, reading: Message) -> dict[str, str | None]:
    driver = _text(reading["library"].get("driver"))
    nvml = _text(reading["library"].get("nvml"))
    # NVML's own version is the driver's with a CUDA major version before it: 13.580.95.05
    library = nvml.partition(".")[2] if nvml and re.match(r"\d{1,2}\.", nvml) else nvml
    return {"driver": driver, "library": library, "kernel module": _module(context)}


def _module(context: Context) -> str | None:
    """Return the version of the kernel module that is loaded, None where the kernel shows none."""
    for path in ("sys/module/nvidia/version", "proc/driver/nvidia/version"):
        try:
            with open(context.path(path), encoding="ascii", errors="replace") as f:
                found = _VERSION.search(f.read())
        except OSError:
            continue
        if found:
            return found.group(1)
    return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


PARTS = (
    Part("driver.versions", "quick", "reading", versions, "NVML's versions, /sys/module/nvidia/version"),
    Part("driver.expected", "quick", "reading", expected, "NVML's version of the driver, the resolved stack"),
)
