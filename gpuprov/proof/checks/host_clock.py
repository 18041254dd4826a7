"""The clock: what ticks it, and how far off it is.

A host whose clock is minutes off loses TLS, Kerberos and munge, and its logs cannot be laid beside those of others.
That a time service runs is not asked for its own sake: what counts is an offset that somebody measured.
"""

from __future__ import annotations

import ctypes
import os
import re
from typing import NamedTuple

from gpuprov.proof.check import check
from gpuprov.proof.checks.host_files import Absent, Untold, host_part, in_container, names, said, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

_SOURCE = "/sys/devices/system/clocksource/clocksource0/"
#: Read without leaving the process. kvm-clock and Hyper-V's page read the TSC themselves.
FAST_SOURCES = ("tsc", "tsc-early", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter")
#: Names of processes (cut to 15 characters by the kernel) that keep a clock.
KEEPERS = ("chronyd", "systemd-timesyn", "ntpd", "ntpd-rs-daemon", "phc2sys")
WARN_MS = 100.0
FAIL_MS = 30000.0
_UNSYNCHRONISED = 0x40  # STA_UNSYNC
#: A microsecond clock of the kernel counts its largest error up to here, and then knows nothing.
_NO_IDEA_US = 16000000


class Kernel(NamedTuple):
    """What adjtimex says."""

    synchronised: bool
    estimated_error_us: int
    maximum_error_us: int


class Clock(NamedTuple):
    """offset_ms: of the service that was asked, None where none tells. untold: why not."""

    kernel: Kernel | None
    keepers: tuple[str, ...]
    offset_ms: float | None
    by: str
    following: bool
    untold: str
    in_container: bool


class _Timex(ctypes.Structure):
    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("more", ctypes.c_byte * 512),
    ]


def kernel_clock() -> Kernel:
    """Ask the running kernel; changes nothing. Raises Untold."""
    timex = _Timex()  # modes is 0: read only
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.adjtimex(ctypes.byref(timex)) < 0:
        raise Untold(f"adjtimex: {os.strerror(ctypes.get_errno())}")
    return Kernel(not timex.status & _UNSYNCHRONISED, timex.esterror, timex.maxerror)


def read_source(context: Context) -> tuple[str, str]:
    """Return the clock source in use, and those that could be."""
    current = text(context, _SOURCE + "current_clocksource")
    if current is None:
        raise Untold(f"cannot read {_SOURCE}current_clocksource: there is no such file")
    return current, text(context, _SOURCE + "available_clocksource") or ""


def judge_source(found: tuple[str, str]) -> list[Message]:
    """Judge the clock source. Pure."""
    current, available = found
    more = {"available": available.split()}
    if current in FAST_SOURCES:
        reason = f"the kernel's clock source is {current}"
        return [check("clock.source", "pass", reason, measured=current, expected="tsc", data=more)]
    why = "the kernel has found the TSC unstable or was told not to use it" if "tsc" not in more["available"] else ""
    reason = f"the clock source is {current}: each look at the time costs a system call" + (f"; {why}" if why else "")
    return [check("clock.source", "warn", reason, measured=current, expected="tsc", action="monitor", data=more)]


def read_offset(context: Context) -> Clock:
    """Ask the kernel, then whichever service keeps the clock."""
    live = os.path.realpath(context.root) == "/"
    keepers = tuple(sorted(_processes(context) & set(KEEPERS)))
    kernel, untold = None, "" if live else "the kernel is asked only about the running host"
    try:
        kernel = kernel_clock() if live else None
    except Untold as error:
        untold = str(error)
    offset_ms, by, following = None, "", True
    for keeper, ask in (("chronyd", _chrony), ("systemd-timesyn", _timesyncd), ("ntpd", _ntpd)):
        if keeper in keepers:
            try:
                offset_ms, following = ask(context)
                by = keeper
            except Untold as error:
                untold = str(error)
    if kernel is None and not by and not keepers and not live:
        raise Absent("this is a folder, not a running host: it has no clock")
    return Clock(kernel, keepers, offset_ms, by, following, untold, in_container(context))


def _processes(context: Context) -> set[str]:
    pids = [name for name in names(context, "/proc") if name.isdigit()]
    return {text(context, f"/proc/{pid}/comm") or "" for pid in pids}


def _chrony(context: Context) -> tuple[float | None, bool]:
    return chrony_offset(_asked(context, ["chronyc", "-c", "tracking"]))


def _timesyncd(context: Context) -> tuple[float | None, bool]:
    place = ["org.freedesktop.timesync1", "/org/freedesktop/timesync1", "org.freedesktop.timesync1.Manager"]
    return timesyncd_offset(_asked(context, ["busctl", "get-property", *place, "NTPMessage"]))


def _ntpd(context: Context) -> tuple[float | None, bool]:
    return ntpd_offset(_asked(context, ["ntpq", "-c", "rv 0 leap,stratum,offset"]))


def _asked(context: Context, argv: list[str]) -> str:
    answer = said(context, argv)
    if answer is None:
        raise Untold(f"{argv[0]} is not installed, so the service cannot be asked")
    return answer


def chrony_offset(answer: str) -> tuple[float | None, bool]:
    """Read `chronyc -c tracking`: the offset in ms, and whether it follows a source. Pure. Raises Untold."""
    fields = answer.strip().split(",")
    try:
        offset_s, following = float(fields[4]), int(fields[2]) > 0 and fields[13] != "Not synchronised"
    except (IndexError, ValueError):
        raise Untold(f"chronyc gave an answer of another form: {answer[:80]!r}") from None
    return (offset_s * 1000.0 if following else None), following


def timesyncd_offset(answer: str) -> tuple[float | None, bool]:
    """Read timesyncd's last answer from D-Bus, (uuuuittayttttbtt): the offset in ms. Pure. Raises Untold.

    The offset is ((receive - originate) + (transmit - destination)) / 2, as in RFC 5905.
    """
    words = answer.split()[1:]
    try:
        after_reference = 8 + int(words[7])
        originate, receive, transmit, destination = (int(word) for word in words[after_reference : after_reference + 4])
    except (IndexError, ValueError):
        raise Untold(f"timesyncd gave an answer of another form: {answer[:80]!r}") from None
    if not destination:
        return None, False  # no server has answered yet
    return ((receive - originate) + (transmit - destination)) / 2000.0, True


def ntpd_offset(answer: str) -> tuple[float | None, bool]:
    """Read `ntpq -c rv`: the offset in ms. Pure. Raises Untold."""
    values = dict(re.findall(r"(\w+)=([-+.\w]+)", answer))
    try:
        following = int(values["stratum"]) < 16 and values.get("leap") not in ("3", "11", "leap_alarm")
        return (float(values["offset"]) if following else None), following
    except (KeyError, ValueError):
        raise Untold(f"ntpq gave an answer of another form: {answer[:80]!r}") from None


def judge_offset(clock: Clock) -> list[Message]:
    """Judge how far off the clock is, by what was measured. Pure."""
    name, more = "clock.offset", _evidence(clock)
    if clock.offset_ms is not None:
        return [_judged_offset(clock.offset_ms, clock.by, more)]
    keepers = ", ".join(clock.keepers)
    if clock.by and not clock.following:
        reason = f"{clock.by} runs but follows no source: the clock drifts freely"
        return [check(name, "warn", reason, expected="synchronised", action="monitor", data=more)]
    if clock.kernel and clock.kernel.synchronised:
        error_ms = clock.kernel.estimated_error_us / 1000.0
        by = f" by {keepers}" if keepers else ", by something that does not run here"
        reason = f"the kernel says that its clock is kept{by}, estimated error {error_ms:.3g} ms"
        return [check(name, "pass", reason, measured=error_ms, expected=f"<= {WARN_MS:g}", unit="ms", data=more)]
    if clock.in_container and not keepers:
        reason = "a container has its host's clock, which nobody keeps as far as can be told here: ask the host"
        return [check(name, "skip", reason, data=more)]
    if clock.kernel is None or keepers:
        reason = f"the offset could not be measured: {clock.untold or keepers + ' tells none'}"
        return [check(name, "unknown", reason, expected=f"<= {WARN_MS:g}", unit="ms", data=more)]
    reason = "nothing keeps this clock: no time service runs and the kernel says that it is not synchronised"
    return [check(name, "warn", reason, expected="synchronised", action="monitor", data=more)]


def _judged_offset(offset_ms: float, by: str, more: Message) -> Message:
    size, expected = abs(offset_ms), f"<= {WARN_MS:g}"
    verdict = "pass" if size <= WARN_MS else "warn" if size <= FAIL_MS else "fail"
    reason = f"the clock is {size:.3g} ms off, as {by} measures it"
    action = "none" if verdict == "pass" else "monitor"
    return check("clock.offset", verdict, reason, round(offset_ms, 6), expected, "ms", action=action, data=more)


def _evidence(clock: Clock) -> Message:
    lines = [f"time services: {', '.join(clock.keepers) or 'none'}"]
    if clock.kernel:
        known = clock.kernel.maximum_error_us < _NO_IDEA_US
        error = f"maximum error {clock.kernel.maximum_error_us} us" if known else "maximum error unknown"
        lines.append(f"adjtimex: {'synchronised' if clock.kernel.synchronised else 'not synchronised'}, {error}")
    if clock.untold:
        lines.append(clock.untold)
    return {"evidence": lines}


PARTS = (
    host_part("clock.source", read_source, judge_source, _SOURCE),
    host_part("clock.offset", read_offset, judge_offset, "adjtimex, chronyc, timesyncd, ntpq", deadline_s=8.0),
)
