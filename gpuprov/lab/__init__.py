"""A rehearsal fleet of real sshd hosts on this machine: each a copy-on-write view of its root."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpuprov.lab.lab import HostStatus, Lab
    from gpuprov.lab.options import HostOptions, User

__all__ = ["HostOptions", "HostStatus", "Lab", "User"]


def __getattr__(name: str) -> Any:
    # The supervisor stays for as long as the lab: it imports of this room only what it needs.
    if name in ("HostOptions", "User"):
        from gpuprov.lab import options

        return getattr(options, name)
    if name in ("HostStatus", "Lab"):
        from gpuprov.lab import lab

        return getattr(lab, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
