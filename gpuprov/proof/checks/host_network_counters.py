"""Error counters of InfiniBand and RoCE ports.

They count since the driver was loaded. So their rate since the start is judged here, with patience, and
`differences` judges what they counted during a run.
"""

from __future__ import annotations

from typing import NamedTuple

from gpuprov.proof.check import check
from gpuprov.proof.checks.host_files import Absent, Untold, host_part, names, number, some, there, uptime_s
from gpuprov.proof.checks.host_network import NO_CARD, TOP, cards

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

#: A day with this many lost links is a bad cable (Azure's limit); a start or two are none.
LINK_DOWNS_PER_DAY_WARN = 5.0
#: A bit error rate of 1e-12, which InfiniBand allows, is about 120 an hour.
SYMBOL_ERRORS_PER_HOUR_WARN = 120.0
ERRORS_PER_HOUR_WARN = 10.0
#: counters/ of InfiniBand; each says that packets were lost or damaged.
ERRORS = (
    "link_error_recovery",
    "local_link_integrity_errors",
    "excessive_buffer_overrun_errors",
    "port_rcv_errors",
    "port_rcv_remote_physical_errors",
    "port_xmit_discards",
)
COUNTED = ("link_downed", "symbol_error", *ERRORS)
#: hw_counters/: packets that had to be sent again; only their growth during a run is judged.
SENT_AGAIN = ("packet_seq_err", "local_ack_timeout_err")
#: So many of those are how Ethernet lives with a full switch; out_of_sequence is no sign at all: adaptive routing.
FEW_SENT_AGAIN = 100


class Counters(NamedTuple):
    """Port -> counter -> value since the driver was loaded."""

    of: dict[str, dict[str, int]]
    uptime_s: float


def _ports(context: Context) -> list[tuple[str, str]]:
    return [(card, port) for card in names(context, TOP) for port in names(context, f"{TOP}{card}/ports")]


def snapshot(context: Context) -> dict[str, dict[str, int]]:
    """Return the counters of all ports: what `differences` compares. Raises Untold."""
    found: dict[str, dict[str, int]] = {}
    for card in names(context, TOP):
        for port in names(context, f"{TOP}{card}/ports"):
            top = f"{TOP}{card}/ports/{port}/"
            values = {key: number(context, f"{top}counters/{key}") for key in COUNTED}
            values.update({key: number(context, f"{top}hw_counters/{key}") for key in SENT_AGAIN})
            found[f"{card}:{port}"] = {key: value for key, value in values.items() if value is not None}
    return found


def read_counters(context: Context) -> Counters:
    """Return the counters of all ports with the time since the start."""
    if not cards(context):
        raise Absent(NO_CARD)
    found = {port: values for port, values in snapshot(context).items() if values}
    if not found:
        if not any(there(context, f"{TOP}{card}/ports/{p}/counters") for card, p in _ports(context)):
            raise Absent("the cards here have no such counters, as Amazon's EFA")
        raise Untold("no port tells its counters")
    return Counters(found, uptime_s(context))


def judge_counters(found: Counters) -> list[Message]:
    """Judge the counters by their rate since the start. Pure."""
    hours = max(found.uptime_s / 3600.0, 1.0)
    checks = [bad for port, values in sorted(found.of.items()) for bad in _rates(port, values, hours)]
    total = sum(values.get("link_downed", 0) for values in found.of.values())
    reason = f"{some(len(found.of), 'port')}: links lost {total} times since the driver was loaded, few errors"
    return checks or [check("ib.errors", "pass", reason, total, unit="links lost")]


def _rates(port: str, values: dict[str, int], hours: float) -> list[Message]:
    limits = {"link_downed": LINK_DOWNS_PER_DAY_WARN / 24.0, "symbol_error": SYMBOL_ERRORS_PER_HOUR_WARN}
    found = []
    for key in COUNTED:
        count, limit = values.get(key, 0), limits.get(key, ERRORS_PER_HOUR_WARN)
        if count >= LINK_DOWNS_PER_DAY_WARN and count / hours >= limit:
            reason = f"{port}: {key} counted {count} in {hours:.0f} h: a bad cable, transceiver or switch port"
            more = {"evidence": [f"{port} {key} = {count}"]}
            found.append(
                check(
                    "ib.errors", "warn", reason, round(count / hours, 2), f"< {limit:.3g}", "1/h", port, "monitor", more
                )
            )
    return found


def differences(before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]) -> list[Message]:
    """Judge what was counted during a run: a link that was lost fails, damaged packets warn. Pure."""
    checks = []
    for port in sorted(before):
        if port not in after:
            reason = f"{port} was there before the run and is gone"
            checks.append(check("ib.errors-now", "fail", reason, device=port, action="reboot"))
            continue
        for key in sorted(before[port]):
            grown = after[port].get(key, 0) - before[port][key]
            if grown > (FEW_SENT_AGAIN if key in SENT_AGAIN else 0):
                checks.append(_grown(port, key, before[port][key], grown))
    return checks


def _grown(port: str, key: str, before: int, grown: int) -> Message:
    lost = key == "link_downed"
    what = "lost its link" if lost else f"counted {key}"
    reason = f"{port} {what} {grown} times during this run"
    more = {"evidence": [f"{port} {key}: {before} -> {before + grown}"]}
    verdict, action = ("fail", "isolate") if lost else ("warn", "monitor")
    return check("ib.errors-now", verdict, reason, grown, 0, "", port, action, more)


PARTS = (host_part("ib.errors", read_counters, judge_counters, TOP + "*/ports/*/counters/*"),)
