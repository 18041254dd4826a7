"""InfiniBand and RoCE: ports, rates, firmware. Their counters are in host_network_counters.py."""

from __future__ import annotations

import re
from typing import NamedTuple

from gpuprov.proof.check import check
from gpuprov.proof.checks.host_files import (
    Absent,
    host_part,
    listed,
    names,
    needed,
    some,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

TOP = "/sys/class/infiniband/"
NO_CARD = "no InfiniBand or RoCE card"


class Port(NamedTuple):
    """A port. kind: what makes ports comparable. rate_gb_s in gigabits, as sysfs says it; None where it does not."""

    name: str
    kind: str
    state: str
    physical: str
    rate_gb_s: float | None
    layer: str

    @property
    def active(self) -> bool:
        """Whether packets can go."""
        return self.state == "ACTIVE"

    @property
    def off(self) -> bool:
        """Whether somebody turned it off."""
        return self.physical == "Disabled"


class Ports(NamedTuple):
    """All ports, and what the inventory expects."""

    ports: list[Port]
    expected_ports: int | None
    expected_rate_gb_s: float | None


def cards(context: Context) -> list[str]:
    """Return the cards' names. Raises Absent where there are none and the inventory expects none."""
    found = names(context, TOP)
    if not found and not _expected(context):
        raise Absent(NO_CARD)
    return found


def _expected(context: Context) -> bool:
    return bool(context.expect.get("ib_ports")) or bool(context.expect.get("ib_rate_gb_s"))


def read_ports(context: Context) -> Ports:
    """Return the ports of all cards."""
    found: list[Port] = []
    for card in cards(context):
        model = text(context, f"{TOP}{card}/board_id") or text(context, f"{TOP}{card}/hca_type") or ""
        ports = names(context, f"{TOP}{card}/ports")
        found.extend(_port(context, f"{card}:{port}", f"{TOP}{card}/ports/{port}/", model, port) for port in ports)
    return Ports(found, context.expect.get("ib_ports"), context.expect.get("ib_rate_gb_s"))


def _port(context: Context, name: str, top: str, model: str, number_: str) -> Port:
    state, physical = (needed(context, top + file).partition(":")[2].strip() for file in ("state", "phys_state"))
    layer = text(context, top + "link_layer") or "InfiniBand"
    rate = re.match(r"([\d.]+) Gb/sec", text(context, top + "rate") or "")
    kind = f"{layer} {model} port {number_}".replace("  ", " ")
    return Port(name, kind, state, physical, float(rate.group(1)) if rate else None, layer)


def judge_ports(found: Ports) -> list[Message]:
    """Judge the state of every port; one check for each that is down, else one for all. Pure."""
    name, active = "ib.ports", [port for port in found.ports if port.active]
    checks = [bad for port in found.ports if not port.active for bad in _down(port, found)]
    wanted = found.expected_ports
    if not found.ports:
        reason = "no InfiniBand or RoCE card is here, but the inventory expects one"
        return [check(name, "fail", reason, 0, wanted, "ports", action="isolate")]
    if wanted is not None and len(active) < wanted:
        reason = f"{some(len(active), 'port')} active, the inventory expects {wanted}"
        more = {"evidence": [f"{p.name}: {p.state}, {p.physical}" for p in found.ports]}
        checks.append(check(name, "fail", reason, len(active), wanted, "ports", action="isolate", data=more))
    if not checks:
        off = len(found.ports) - len(active)
        unused = f"; {some(off, 'port')} not in use" if off else ""
        reason = f"{some(len(active), 'port')} active{unused}"
        checks.append(check(name, "pass", reason, len(active), wanted, "ports"))
    return checks


def _down(port: Port, found: Ports) -> list[Message]:
    """Judge a port that is not active: its likes say whether it should be."""
    name, state = "ib.ports", f"{port.state}, {port.physical}"
    likes = [other for other in found.ports if other.kind == port.kind and other.active]
    more = {"evidence": [f"{port.name}: {state}", *(f"{other.name}: {other.state}" for other in likes[:8])]}
    if port.off or (
        found.expected_ports is not None and len([p for p in found.ports if p.active]) >= found.expected_ports
    ):
        return []
    if port.physical == "LinkUp" and port.layer == "InfiniBand":
        reason = f"{port.name} has a link but is {port.state}: no subnet manager has set it up"
        return [check(name, "fail", reason, state, "ACTIVE", "", port.name, "monitor", more)]
    if likes:
        reason = f"{port.name} is {state}, while {some(len(likes), 'port')} of its kind work: cable or switch"
        return [check(name, "fail", reason, state, "ACTIVE", "", port.name, "isolate", more)]
    if any(p.active for p in found.ports):
        return []  # no other of this kind is in use: an unused second port
    reason = f"{port.name} is {state}, and no other port of the host is active"
    return [check(name, "warn", reason, state, "ACTIVE", "", port.name, "monitor", more)]


def judge_rates(found: Ports) -> list[Message]:
    """Judge the rate of every active port against the best of its kind, and what the inventory expects. Pure."""
    name, active = "ib.rate", [port for port in found.ports if port.active]
    if not active:
        return [check(name, "skip", "no port is active")]
    untold = [port.name for port in active if port.rate_gb_s is None]
    if untold:
        return [check(name, "unknown", f"the rate of {listed(untold)} is not told")]
    checks = []
    for port in active:
        rate = port.rate_gb_s or 0.0
        best = max(other.rate_gb_s or 0.0 for other in active if other.kind == port.kind)
        floor = max(best, found.expected_rate_gb_s or 0.0)
        if rate < floor:
            why = "its likes have" if best >= floor else "the inventory expects"
            reason = f"{port.name} runs at {rate:g} Gb/s, {why} {floor:g}: cable or switch port are slower"
            checks.append(check(name, "fail", reason, rate, floor, "Gb/s", port.name, "isolate"))
    rates = sorted({port.rate_gb_s or 0.0 for port in active})
    good = f"{some(len(active), 'active port')} at {listed(f'{rate:g}' for rate in rates)} Gb/s"
    return checks or [check(name, "pass", good, rates[0], found.expected_rate_gb_s, "Gb/s")]


def read_firmware(context: Context) -> dict[str, tuple[str, str]]:
    """Return card -> its model and its firmware's version."""
    found = cards(context)
    if not found:
        raise Absent(NO_CARD)
    return {
        card: (text(context, f"{TOP}{card}/board_id") or "unknown", needed(context, f"{TOP}{card}/fw_ver"))
        for card in found
    }


def judge_firmware(found: dict[str, tuple[str, str]]) -> list[Message]:
    """Judge whether cards of one model have the same firmware. Pure."""
    by_model: dict[str, set[str]] = {}
    for model, version in found.values():
        by_model.setdefault(model, set()).add(version)
    mixed = [
        f"{model}: {listed(sorted(versions))}" for model, versions in sorted(by_model.items()) if len(versions) > 1
    ]
    versions = sorted({version for _, version in found.values()})
    if not mixed:
        reason = f"{some(len(found), 'card')}, firmware {listed(versions)}, the same on all of one model"
        return [check("ib.firmware", "pass", reason, measured=versions)]
    more = {"evidence": [f"{card} ({model}): {version}" for card, (model, version) in sorted(found.items())]}
    reason = f"cards of the same model have different firmware: {listed(mixed)}"
    return [check("ib.firmware", "warn", reason, versions, "one for each model", "", "", "monitor", more)]


PARTS = (
    host_part("ib.ports", read_ports, judge_ports, TOP + "*/ports/*/{state,phys_state}"),
    host_part("ib.rate", read_ports, judge_rates, TOP + "*/ports/*/rate"),
    host_part("ib.firmware", read_firmware, judge_firmware, TOP + "*/fw_ver"),
)
