"""All counters of the host that a run is to be measured by: read before and after, only what grew is blamed."""

from __future__ import annotations

from gpuprov.proof.check import check
from gpuprov.proof.checks import host_cpu, host_memory, host_network_counters
from gpuprov.proof.checks.host_files import Untold, short

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

#: Key in a snapshot, which is also the first word of the checks' names -> who counts.
_FAMILIES = {"cpu": host_cpu, "memory": host_memory, "ib": host_network_counters}


def snapshot(context: Context) -> Message:
    """Return the counters as they are now, JSON-able: a family's counters, or the text why they are not known."""
    found: Message = {}
    for family, module in _FAMILIES.items():
        try:
            found[family] = module.snapshot(context)
        except Untold as error:
            found[family] = str(error)
    return found


def differences(before: Message, after: Message) -> list[Message]:
    """Judge what grew between two snapshots. Pure; what could not be read either time is unknown."""
    checks = []
    for family, module in _FAMILIES.items():
        untold = [part[family] for part in (before, after) if isinstance(part[family], str)]
        if untold:
            reason = f"what {family} counted during this run is not known: {untold[0]}"
            checks.append(check(f"{family}.counters-now", "unknown", reason))
        else:
            checks += module.differences(before[family], after[family])
    return [short(found) for found in checks]
