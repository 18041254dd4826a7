"""The proof over several hosts: after each host has proved itself, all of them together (docs/fabric.md).

One more run of the fleet with a plan of one task per host. What the hosts measured of each other is added to their
reports; hosts that cannot take part get a check that says why.
"""

from __future__ import annotations

import ipaddress
import random
import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gpuprov.agent.modules import PROOFS
from gpuprov.agent.modules.gpuprov_proof import PATIENCE_S
from gpuprov.fleet.hostrun import HostRun
from gpuprov.fleet.run import Fleet
from gpuprov.proof.fabric.course import PARTS
from gpuprov.proof.fabric.network import drawn_ports
from gpuprov.report.fold import HostFold
from gpuprov.report.proof import proof_verdict
from gpuprov.results import Check, HostReport
from gpuprov.store.names import new_run_id
from gpuprov.wire import PROTOCOL
from gpuprov.wire.outcome import VERDICTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gpuprov.fleet.options import RunOptions
    from gpuprov.fleet.run import Folder, View
    from gpuprov.transport.ways import Ways

#: Candidates for the hub's port: one of them may belong to somebody by now.
PORTS = 4
#: How long a host is sought that is lost meanwhile: its part is over when it comes back.
RECONNECT_S = 30.0
#: The variable that names the address which other hosts reach, where it is not the one that the controller connects to.
ADDRESS_VARIABLE = "gpuprov_fabric_address"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long is waited at most: for everybody to come, for a round's ranks to start, for a round to measure."""

    join_s: float = 60.0
    ready_s: float = 60.0
    round_s: float = 60.0

    def total_s(self, hosts: int) -> float:
        """Return what a run over *hosts* may take. Healthy rounds take seconds; one in three may take all of it."""
        rounds = 3 * max(1, (hosts - 1).bit_length()) + 6
        return self.join_s + rounds * (self.ready_s + self.round_s) / 3


@dataclass(frozen=True, slots=True)
class Partner:
    """A host that takes part: how others reach it, and the interpreter that has torch."""

    host: str
    address: str
    python: str


def prove(
    hosts: Sequence[HostRun],
    reports: Sequence[HostReport],
    settings: Callable[[str], Mapping[str, Any]],
    ways: Ways,
    view: View,
    folder: Folder,
    options: RunOptions,
    parts: Sequence[str] = PARTS,
    limits: Limits = Limits(),
    more: Mapping[str, Any] | None = None,
) -> tuple[HostReport, ...]:
    """Prove the fabric between *hosts* whose own proof is in *reports*; return the reports with what came out.

    settings(host) gives its rendered gpuprov_* variables; *more* are fields of the plan (docs/fabric.md). Blocks for
    a minute or two.
    """
    addresses = {host.name: address_of(host, settings(host.name)) for host in hosts}
    partners, left_out = candidates(reports, addresses)
    prepared = {host.name: host.prepared for host in hosts}

    def run(partners: Sequence[Partner]) -> dict[str, HostReport]:
        deadline_s = limits.total_s(len(partners))
        again = options_of(options, deadline_s)
        roots = frozenset(partner.host for partner in partners if prepared[partner.host].become.root)
        compiler = Plans(again.run, plans(partners, parts, limits, more), deadline_s, roots)
        runs = [HostRun(prepared[partner.host], HostFold(partner.host)) for partner in partners]
        results = Fleet(compiler, ways, view, _Beside(folder), again).run(runs)
        return {report.host: report for report in results}

    found: dict[str, HostReport] = {}
    if partners:
        view.message(f"the fabric between {len(partners)} hosts: {', '.join(parts)}")
        found = run(partners)
        rest = without_hub(partners, found)
        if rest:
            text = f"{partners[0].host}, which had the hub, was lost: once more with the other {len(rest)} hosts"
            view.message(text, "warning")
            found = {**found, **run(rest)}
    return tuple(merged(report, found.get(report.host), left_out.get(report.host, "")) for report in reports)


def without_hub(partners: Sequence[Partner], found: Mapping[str, HostReport]) -> list[Partner]:
    """Return who can be proved without the first host, when that took the hub with it; else nobody. Pure."""
    hub, *others = partners
    if found[hub.host].outcome in ("ok", "changed", "interrupted"):
        return []
    rest = [partner for partner in others if found[partner.host].outcome in ("ok", "changed")]
    return rest if len(rest) > 1 else []


def address_of(host: HostRun, settings: Mapping[str, Any]) -> str:
    """Return the address by which others reach *host*, "" when nothing says it.

    A number that the controller connects to is taken. A name is not: on the host itself it may mean 127.0.1.1, and here
    something that ssh_config says. Then it is the address that the host's default route has.
    """
    given = settings.get(ADDRESS_VARIABLE)
    if given:
        return str(given)
    target = host.prepared.target
    if target.connection != "local" and _is_number(target.address):
        return str(target.address)
    default = host.facts.get("default_ipv4") or {}
    found = str(default.get("address") or "") if isinstance(default, dict) else ""
    return found or ("" if target.connection == "local" else str(target.address))


def _is_number(address: str) -> bool:
    """Say whether *address* is one, and not the machine that every host calls itself."""
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        return False
    return str(number) not in ("127.0.0.1", "::1")


def candidates(reports: Sequence[HostReport], addresses: Mapping[str, str]) -> tuple[list[Partner], dict[str, str]]:
    """Return who takes part, and for each of the others why not. Pure."""
    partners: list[Partner] = []
    left_out: dict[str, str] = {}
    for report in reports:
        python = interpreter(report)
        why = _why_not(report, python, addresses.get(report.host, ""))
        if why:
            left_out[report.host] = why
        else:
            partners.append(Partner(report.host, addresses[report.host], python))
    if len(partners) == 1:
        left_out[partners.pop().host] = "no other host takes part, and one alone has no fabric"
    return partners, left_out


def _why_not(report: HostReport, python: str, address: str) -> str:
    if report.outcome not in ("ok", "changed"):
        return f"the host is {report.outcome}"
    if report.simulated:
        return "simulated GPU"
    if report.verdict == "fail":
        return f"its own proof failed: {report.cause}" if report.cause else "its own proof failed"
    if not python:
        return "no environment with torch has been proved on it"
    if not address:
        return f"nothing says how others reach it: set {ADDRESS_VARIABLE}"
    return ""


def interpreter(report: HostReport) -> str:
    """Return the interpreter with torch that the host's proof ran in, "" when none did. Pure."""
    for task in report.tasks:
        versions = task.result.get("versions") if task.action in PROOFS else None
        if versions and versions.get("torch"):
            return str(versions.get("executable") or "")
    return ""


def options_of(options: RunOptions, deadline_s: float) -> RunOptions:
    """Return the options of the second run: a run of its own on the hosts, that waits for nobody at the gate."""
    total_s = deadline_s + 2 * PATIENCE_S
    reconnect_s = min(options.reconnect_s, RECONNECT_S)
    again = replace(options, run=new_run_id(), total_s=total_s, reconnect_s=reconnect_s)
    return replace(again, skip_refused=True, resume=False, check=False)


def plans(
    partners: Sequence[Partner], parts: Sequence[str], limits: Limits, more: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Return the arguments of each host's task. The first host has the hub."""
    hub = partners[0]
    shared = {
        "token": secrets.token_hex(16),
        "hosts": [partner.host for partner in partners],
        "hub": hub.host,
        "hub_address": hub.address,
        "ports": drawn_ports(PORTS, random.SystemRandom()),
        "parts": list(parts),
        "join_s": limits.join_s,
        "ready_s": limits.ready_s,
        "round_s": limits.round_s,
        **(more or {}),
    }
    return {
        partner.host: {
            "python": partner.python,
            "plan": {**shared, "host": partner.host, "address": partner.address},
        }
        for partner in partners
    }


@dataclass(frozen=True, slots=True)
class _Plan:
    """What Fleet wants of a compiled plan."""

    plan: dict[str, Any]
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    stack: Mapping[str, Any] | None = None


class Plans:
    """Gives each host its plan of one task; there is nothing to compile. roots: hosts on which the agent is root."""

    def __init__(
        self, run: str, args: Mapping[str, Mapping[str, Any]], deadline_s: float, roots: frozenset[str]
    ) -> None:
        self._run = run
        self._args = args
        self._deadline_s = deadline_s
        self._roots = roots

    def learn(self, host: str, facts: dict[str, Any]) -> None:
        """No plan here names another host's facts."""

    def forget(self) -> None:
        """There is nothing to forget."""

    def plan(self, host: str, facts: dict[str, Any]) -> _Plan:  # noqa: ARG002 - one shape for all compilers
        """Return the plan of *host*."""
        args = {**self._args[host], "deadline_s": self._deadline_s}
        task = {
            "kind": "task",
            "id": "fabric.t1",
            "name": "The fabric between hosts",
            "action": "gpuprov_fabric",
            "args": args,
            "position": "gpuprov verify",
            "become": host in self._roots,
        }
        play = {"id": "fabric", "name": "Several hosts at once", "nodes": [task], "handlers": []}
        head = {"protocol": PROTOCOL, "run": self._run, "host": host, "check": False, "diff": False}
        token = str(args["plan"]["token"])
        return _Plan({**head, "plays": [play], "vars": {}, "blobs": {}, "jinja": False, "secrets": [token]})


class _Beside:
    """The run's journal under names of its own: `gpuprov resume` counts the events of the first run alone."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def append(self, host: str, event: bytes) -> None:
        """Keep one event."""
        self._folder.append(f"{host} (fabric)", event)

    def tick(self, now: float) -> None:
        """Write what is due."""
        self._folder.tick(now)


def merged(report: HostReport, fabric: HostReport | None, left_out: str) -> HostReport:
    """Return *report* with the second run's checks, or one that says why there are none. Pure.

    Who was lost or could not run in the second run stays what it was in the first, with a check that is not green.
    """
    if fabric is None:
        verdict = "skip" if report.outcome in ("ok", "changed") else "unknown"
        checks: tuple[Check, ...] = (Check("fabric.join", verdict, reason=left_out, simulated=report.simulated),)
        return replace(report, checks=(*report.checks, *checks))
    checks = fabric.checks
    if fabric.outcome not in ("ok", "changed"):
        why = f"the host was {fabric.outcome} in the proof over several hosts: {fabric.cause}"
        checks = (*checks, Check("fabric.join", "unknown", reason=why))
    elif not checks:
        checks = (Check("fabric.join", "unknown", reason="the proof over several hosts measured nothing"),)
    every = (*report.checks, *checks)
    verdict, sentence = proof_verdict(every, report.expected_gpus, report.found_gpus)
    if report.verdict and VERDICTS.index(report.verdict) > VERDICTS.index(verdict):
        verdict = report.verdict  # for a reason that is in no check: the driver is there, and no GPU
    return replace(
        report,
        checks=every,
        tasks=(*report.tasks, *fabric.tasks),
        verdict=verdict,
        cause=report.cause or sentence,
        duration_s=report.duration_s + fabric.duration_s,
        warnings=tuple(dict.fromkeys((*report.warnings, *fabric.warnings))),
    )
