"""Services that systemd started and that failed."""

from __future__ import annotations

from gpuprov.proof.check import check
from gpuprov.proof.checks.host_files import Absent, Untold, host_part, listed, said, some, there

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

_ASKED = ("systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--full", "--no-pager")


def read(context: Context) -> list[str]:
    """Return the units that failed."""
    if not there(context, "/run/systemd/system"):
        raise Absent("systemd does not run here")
    answer = said(context, _ASKED)
    if answer is None:
        raise Untold("systemctl is not installed, or this is a folder and not a running host")
    return [line.split()[0] for line in answer.splitlines() if line.strip()]


def judge(units: list[str]) -> list[Message]:
    """Judge the failed units. Pure."""
    if not units:
        return [check("services.failed", "pass", "no unit of systemd has failed", 0, 0, "units")]
    reason = (
        f"{some(len(units), 'unit')} of systemd failed: {listed(units)}; systemctl status and journalctl -u tell why"
    )
    return [check("services.failed", "warn", reason, len(units), 0, "units", "", "monitor", {"evidence": units})]


PARTS = (host_part("services.failed", read, judge, "systemctl list-units --state=failed"),)
