"""What one host is told about a run over the fabric: JSON on stdin, as the controller makes it."""

from __future__ import annotations

from gpuprov.proof.fabric.course import PARTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping


class PlanError(Exception):
    """The plan lacks something or has something of the wrong kind."""


class Plan:
    """One host's view of the run.

    host: its name; address: what the controller connects to. hosts: everybody, in one order for all. hub: the host
    that has the hub, hub_address where it is found, ports the candidates, tried in this order. join_s: how long
    everybody is waited for; ready_s: how long the ranks of a round may take to start; round_s: how long to measure.
    bytes_of: payload by kind of device; steps of the training. load_busy: also load GPUs that jobs use.
    """

    __slots__ = (
        "address",
        "bytes_of",
        "deadline_s",
        "host",
        "hosts",
        "hub",
        "hub_address",
        "join_s",
        "load_busy",
        "parts",
        "ports",
        "ready_s",
        "round_s",
        "steps",
        "token",
    )

    def __init__(self, given: Mapping[str, Any]) -> None:
        try:
            self.token = str(given["token"])
            self.host = str(given["host"])
            self.address = str(given["address"])
            self.hosts = [str(host) for host in given["hosts"]]
            self.hub = str(given["hub"])
            self.hub_address = str(given["hub_address"])
            self.ports = [int(port) for port in given["ports"]]
            self.parts = [str(part) for part in given.get("parts", PARTS)]
            self.join_s = float(given.get("join_s", 60.0))
            self.ready_s = float(given.get("ready_s", 60.0))
            self.round_s = float(given.get("round_s", 60.0))
            self.load_busy = bool(given.get("load_busy", False))
            self.deadline_s = float(given.get("deadline_s", 600.0))
            self.bytes_of = {**BYTES_OF, **given.get("bytes_of", {})}
            self.steps = int(given.get("steps", 20))
        except KeyError as error:
            raise PlanError(f"the plan has no {error.args[0]}") from None
        except (TypeError, ValueError) as error:
            raise PlanError(f"the plan is not as it must be: {error}") from None
        for name in (self.host, self.hub):
            if name not in self.hosts:
                raise PlanError(f"{name} is not among the plan's hosts")
        if not self.ports or not set(self.parts) <= set(PARTS):
            raise PlanError("the plan has no port, or a part other than {}".format(", ".join(PARTS)))


#: Payload of a collective in bytes: enough for a GPU's network cards to reach their speed; CPUs have no time for more.
BYTES_OF = {"cuda": 256 << 20, "cpu": 4 << 20}
