"""How a run is to be done: numbers and switches of the command line, with their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpuprov.fleet.session import Timeouts


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of one run.

    forks is the number of SSH sessions that may be open at once. All times are seconds:
    gate_timeout_s until a host without an agent counts as unreachable, reconnect_s how long a
    lost host is sought, reboot_s how long a boot may take, total_s for the whole run of one
    host (None: no limit).
    """

    run: str
    owner: str = ""
    check: bool = False
    diff: bool = False
    forks: int = 256
    threads: int = 50
    gate_timeout_s: float = 60.0
    reconnect_s: float = 300.0
    reboot_s: float = 900.0
    total_s: float | None = None
    skip_refused: bool = False
    take_over: bool = False
    resume: bool = False
    timeouts: Timeouts = field(default_factory=Timeouts)
