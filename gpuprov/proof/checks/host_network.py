"""InfiniBand and RoCE: ports, rates, firmware. Their counters are in host_network_counters.py."""

from __future__ import annotations

import os
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
    there,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

TOP = "/sys/class/infiniband/"
NO_CARD = "no InfiniBand or RoCE card"
SLOW_CARDS = "only Ethernet cards below 100 Gb/s that could do RoCE, and nobody said that they do (ib_ports)"


#: So many gigabits make an Ethernet card one that is there for RDMA: slower ones can it, and are there for the rest.
LEAST_ROCE_GB_S = 100.0


class Port(NamedTuple):
    """A port. kind: what makes ports comparable. rate_gb_s in gigabits, as sysfs says it; None where it does not.

    lost: had a link since its driver was loaded. second: it is not the first one of its card.
    """

    name: str
    kind: str
    state: str
    physical: str
    rate_gb_s: float | None
    layer: str
    lanes: str = ""
    admin_up: bool = False
    lost: bool = False
    second: bool = False

    @property
    def active(self) -> bool:
        """Whether packets can go."""
        return self.state == "ACTIVE"

    @property
    def off(self) -> bool:
        """Whether somebody turned it off. Ethernet's says Disabled without a cable, too: there its interface tells."""
        return self.physical == "Disabled" and not self.admin_up

    @property
    def spare(self) -> bool:
        """Whether it was never in use: a second port, or an interface that is up by habit, without a link so far."""
        return not self.lost and (self.second or (self.layer == "Ethernet" and self.admin_up))


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


def physical(context: Context) -> list[str]:
    """Return the cards but for virtual functions, which do what their card does. Raises Absent as cards."""
    return [card for card in cards(context) if not there(context, f"{TOP}{card}/device/physfn")]


def for_rdma(context: Context) -> bool:
    """Say whether a card here is for RDMA: InfiniBand, fast Ethernet, EFA, or the inventory says so. Raises Untold."""
    if _expected(context):
        return True
    for card in names(context, TOP):
        for port in names(context, f"{TOP}{card}/ports"):
            rate = re.match(r"([\d.]+) Gb/sec", text(context, f"{TOP}{card}/ports/{port}/rate") or "")
            layer = text(context, f"{TOP}{card}/ports/{port}/link_layer") or "InfiniBand"
            if layer != "Ethernet" or (rate and float(rate.group(1)) >= LEAST_ROCE_GB_S):
                return True
    return False


def _expected(context: Context) -> bool:
    return bool(context.expect.get("ib_ports")) or bool(context.expect.get("ib_rate_gb_s"))


def read_ports(context: Context) -> Ports:
    """Return the ports of all cards."""
    found: list[Port] = []
    for card in physical(context):
        model = text(context, f"{TOP}{card}/board_id") or text(context, f"{TOP}{card}/hca_type") or ""
        ports = names(context, f"{TOP}{card}/ports")
        found.extend(_port(context, card, model, port) for port in ports)
    return Ports(found, context.expect.get("ib_ports"), context.expect.get("ib_rate_gb_s"))


def _port(context: Context, card: str, model: str, number_: str) -> Port:
    top = f"{TOP}{card}/ports/{number_}/"
    state, physical_ = (needed(context, top + file).partition(":")[2].strip() for file in ("state", "phys_state"))
    layer = text(context, top + "link_layer") or "InfiniBand"
    rate = re.match(r"([\d.]+) Gb/sec(?: \((\d+X))?", text(context, top + "rate") or "")
    function = _function(context, card)
    kind = f"{layer} {model} port {number_} {function}".replace("  ", " ").strip()
    admin_up, changes = _interfaces(context, card)
    received = text(context, top + "counters/port_rcv_data") or "0"
    lost = (text(context, top + "counters/link_downed") or "0") != "0" or received != "0"
    return Port(
        f"{card}:{number_}",
        kind,
        state,
        physical_,
        float(rate.group(1)) if rate else None,
        layer,
        rate.group(2) or "" if rate else "",
        admin_up,
        changes if layer == "Ethernet" else lost,
        number_ != "1" or bool(function),
    )


def _function(context: Context, card: str) -> str:
    """Return the PCI function of a card's port, "" for the first: the second port of a card is its function 1."""
    number_ = os.path.realpath(context.path(f"{TOP}{card}/device")).rpartition(".")[2]
    return f"function {number_}" if re.fullmatch("[1-7]", number_) else ""


def _interfaces(context: Context, card: str) -> tuple[bool, bool]:
    """Return whether a card's network interface is set up, and whether it has had a link so far."""
    up = had = False
    for interface in names(context, f"{TOP}{card}/device/net"):
        top = f"{TOP}{card}/device/net/{interface}/"
        flags = text(context, top + "flags") or "0"
        up = up or bool(int(flags, 0) & 1)
        had = had or (text(context, top + "carrier_up_count") or "0") != "0"
    return up, had


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
    if port.spare and any(p.active for p in found.ports):
        return []
    if port.physical == "LinkUp" and port.layer == "InfiniBand":
        reason = f"{port.name} has a link but is {port.state}: no subnet manager has set it up"
        return [check(name, "fail", reason, state, "ACTIVE", "", port.name, "monitor", more)]
    if likes:
        reason = f"{port.name} is {state}, while {some(len(likes), 'port')} of its kind work: cable or switch"
        return [check(name, "fail", reason, state, "ACTIVE", "", port.name, "isolate", more)]
    if any(p.active for p in found.ports):
        return []  # no other of this kind is in use: an unused port
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
        if rate < floor and not (found.expected_rate_gb_s is None and _slower_by_choice(port, active)):
            why = "its likes have" if best >= floor else "the inventory expects"
            reason = f"{port.name} runs at {rate:g} Gb/s, {why} {floor:g}: cable or switch port are slower"
            checks.append(check(name, "fail", reason, rate, floor, "Gb/s", port.name, "isolate"))
    rates = sorted({port.rate_gb_s or 0.0 for port in active})
    good = f"{some(len(active), 'active port')} at {listed(f'{rate:g}' for rate in rates)} Gb/s"
    return checks or [check(name, "pass", good, rates[0], found.expected_rate_gb_s, "Gb/s")]


def _slower_by_choice(port: Port, active: list[Port]) -> bool:
    """Say whether another of its kind has the same rate on as many lanes as the best: a network of its own. Pure."""
    likes = [other for other in active if other.kind == port.kind]
    best = max(likes, key=lambda other: other.rate_gb_s or 0.0)
    return sum(p.rate_gb_s == port.rate_gb_s for p in likes) > 1 and port.lanes == best.lanes


def read_firmware(context: Context) -> dict[str, tuple[str, str]]:
    """Return card -> its model and its firmware's version."""
    found = physical(context)
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
