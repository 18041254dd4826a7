"""What lines of the kernel's log mean, as data: what to look for, how bad it is, what to do, in words for a person.

NVIDIA's XID and SXid lines, and PCIe's error counters, have checks of their own. A group named "who" in a pattern
is who it is about: it is shown, and counted apart.
"""

from __future__ import annotations

import re
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from re import Pattern


class Rule(NamedTuple):
    """least: so many lines it takes; what corrects itself is worth a word only when it goes on.

    passes: it is over when it is over: lines of more than a day ago are told, and not warned of.
    """

    key: str
    pattern: Pattern[str]
    verdict: str
    action: str
    means: str
    least: int = 1
    passes: bool = False


def _rule(
    key: str, pattern: str, verdict: str, action: str, means: str, least: int = 1, *, passes: bool = False
) -> Rule:
    return Rule(key, re.compile(pattern), verdict, action, means, least, passes)


#: The first that fits a line has it.
RULES = (
    _rule(
        "nvidia-hung",
        r"INFO: task (?P<who>(?:nvidia|nv_|nvkms|UVM|irq/\d+-nvidia)\S*?):\d+ blocked (?:in I/O wait )?for more than",
        "fail",
        "reboot",
        "NVIDIA's driver has hung in the kernel",
    ),
    _rule(
        "nvidia-init",
        r"NVRM: .*(?:RmInitAdapter failed|rm_init_adapter failed)",
        "fail",
        "reboot",
        "the NVIDIA driver could not start a GPU",
    ),
    _rule(
        "nvidia-mismatch",
        r"NVRM: API mismatch",
        "warn",
        "restart job",
        "a program came with an NVIDIA library of another version than the loaded driver; "
        "driver.versions tells of the host's own",
        passes=True,
    ),
    _rule(
        "peermem-context",
        r"nvidia-peermem .*ERROR detected invalid context",
        "warn",
        "restart job",
        "nvidia_peermem lost a program's GPU context: it ended while a network card still had its memory",
        passes=True,
    ),
    _rule(
        "nccl-segfault",
        r"(?P<who>\S+)\[\d+\]: (?:segfault|general protection fault).* in libnccl",
        "warn",
        "restart job",
        "a program crashed in NCCL",
        passes=True,
    ),
    _rule(
        "out-of-memory",
        r"Out of memory: Killed process \d+ \((?P<who>[^)]*)\)",  # not that of a cgroup: a job met its own limit
        "warn",
        "restart job",
        "the kernel killed a process for want of memory",
        passes=True,
    ),
    _rule(
        "blocked-task",
        r"INFO: task (?P<who>.{1,40}?):\d+ blocked (?:in I/O wait )?for more than \d+ seconds",
        "warn",
        "monitor",
        "a process did not leave the kernel for minutes: a disk, a file server or a driver does not answer",
        passes=True,
    ),
    _rule("hard-lockup", r"Watchdog detected hard LOCKUP", "fail", "reboot", "a processor no longer took interrupts"),
    _rule(
        "soft-lockup",
        r"BUG: soft lockup - CPU#\d+ stuck",
        "warn",
        "monitor",
        "a processor was stuck in the kernel",
        passes=True,
    ),
    _rule(
        "rcu-stall",
        r"rcu: INFO: rcu_\w+ (?:self-)?detected (?:expedited )?stalls?",
        "warn",
        "monitor",
        "a processor did not come by the kernel's scheduler in time",
        passes=True,
    ),
    _rule(
        "oops",
        r"^(?:kernel BUG at|BUG: unable to handle|BUG: kernel NULL|Oops: |Unable to handle kernel|general protection)",
        "fail",
        "reboot",
        "the kernel itself has crashed in part",
    ),
    _rule(
        "machine-check",
        r"(?:Uncorrected hardware memory error|Memory failure: 0x|event severity: (?:fatal|recoverable)"
        r"|Machine Check Exception)",
        "fail",
        "isolate",
        "the hardware reported an error that could not be corrected",
    ),
    _rule(
        "machine-check-logged",
        r"(?:\[Hardware Error\]: Machine check events logged|event severity: corrected)",
        "warn",
        "monitor",
        "the hardware reported errors again and again; most are corrected ones",
        least=10,
    ),
    _rule(
        "edac-uncorrected",
        r"EDAC (?P<who>MC\d+): \d+ UE ",
        "fail",
        "isolate",
        "a memory module had an error that could not be corrected",
    ),
    _rule(
        "edac-corrected",
        r"EDAC (?P<who>MC\d+): \d+ CE ",
        "warn",
        "monitor",
        "memory errors were corrected, again and again",
        least=10,
    ),
    _rule(
        "pcie-uncorrected",
        r"(?P<who>[0-9a-f:]{10}\.[0-7]): (?:AER: (?:Multiple )?|PCIe Bus Error: severity=)Uncorrect\w+ \(Fatal\)",
        "fail",
        "isolate",
        "a PCIe link had a fatal error",
    ),
    _rule(
        "pcie-survived",
        r"(?P<who>[0-9a-f:]{10}\.[0-7]): (?:AER: (?:Multiple )?|PCIe Bus Error: severity=)Uncorrect",
        "warn",
        "monitor",
        "a PCIe device reported an error that could not be corrected, and went on",
        passes=True,
    ),
    _rule(
        "pcie-corrected",
        r"(?:AER: (?:Multiple )?Correct(?:ed|able) error|PCIe Bus Error: severity=Correct)",
        "warn",
        "monitor",
        "a PCIe link corrects errors again and again",
        least=100,
    ),
    _rule(
        "read-only",
        r"(?:Remounting filesystem read-only|forced readonly|[:.] +Shutting down filesystem|remounting read-only)",
        "fail",
        "isolate",
        "a file system gave up after an error of its disk",
    ),
    _rule(
        "file-system",
        r"(?:EXT4-fs error \(device (?P<who>[^)]+)\)|XFS \(\S+\): (?:Metadata corruption|Corruption)|BTRFS: error)",
        "warn",
        "monitor",
        "a file system found itself damaged",
    ),
    _rule(
        "nvme-gone",
        r"(?P<who>nvme\d+): (?:controller is down|Removing after probe failure|Disabling device after reset failure"
        r"|Device not ready; aborting)",
        "fail",
        "isolate",
        "an NVMe drive stopped answering",
    ),
    _rule(
        "nvme-timeout",
        r"(?P<who>nvme\d+): I/O (?:tag )?\d+.* QID \d+ timeout",
        "warn",
        "monitor",
        "an NVMe drive answers late",
        passes=True,
    ),
    _rule(
        "disk-error",
        r"(?:blk_update_request: )?(?:critical medium|I/O|critical target) error, dev (?P<who>(?!loop|sr|fd)\w+)",
        "warn",
        "monitor",
        "a disk could not read or write",
    ),
    _rule(
        "raid",
        r"md/raid\S*: ?(?P<who>md\w+): (?:Disk failure|Cannot continue operation|not enough operational)",
        "warn",
        "monitor",
        "a RAID lost a disk",
    ),
    _rule(
        "mlx5-dead",
        r"(?P<who>mlx5_core \S+):.*(?:health compromised|handling bad device|device is not responding"
        r"|reached miss count|timeout\. Will cause a leak)",
        "fail",
        "reboot",
        "a network card's firmware no longer answers",
    ),
    _rule(
        "mlx5-power",
        r"(?P<who>mlx5_core \S+):.*Detected insufficient power",
        "warn",
        "monitor",
        "a network card gets too little power from its slot",
    ),
    _rule(
        "mlx5-module",
        r"(?P<who>mlx5_core \S+):.*Port module event\[error\]",
        "warn",
        "monitor",
        "a network card finds its cable or transceiver faulty",
    ),
    _rule(
        "cpu-hot",
        r"CPU\d+: (?:Core|Package) temperature (?:is )?above threshold",
        "warn",
        "monitor",
        "processors were throttled by heat",
        least=10,
        passes=True,
    ),
    _rule(
        "file-server",
        r"nfs: server (?P<who>\S+) not responding",
        "warn",
        "monitor",
        "a file server did not answer",
        passes=True,
    ),
    _rule(
        "neighbours",
        r"neighbour: (?:arp_cache|ndisc_cache): neighbor table overflow",
        "warn",
        "monitor",
        "the table of neighbours is full (net.ipv4.neigh.default.gc_thresh3): connections in a large fleet fail",
        passes=True,
    ),
    _rule(
        "conntrack",
        r"nf_conntrack: .*table full, dropping packet",
        "warn",
        "monitor",
        "the firewall's table of connections is full, packets are dropped",
        passes=True,
    ),
)
