"""A root folder like that of a healthy host: two sockets, two GPUs, two InfiniBand cards."""

from __future__ import annotations

import contextlib
import importlib
import os

from gpuprov.proof.parts import Context
from tests.support.survey_tree import Tree

FAMILIES = [
    "clock",
    "kernel",
    "kernel_log",
    "processes",
    "cpu",
    "memory",
    "numa",
    "disk",
    "network",
    "network_counters",
    "rdma",
    "container",
    "limits",
    "services",
    "disk_speed",
]
GPUS = ("0000:1b:00.0", "0000:9b:00.0")
COUNTERS = ("link_downed", "symbol_error", "port_rcv_errors", "port_xmit_discards", "link_error_recovery")
MEMINFO = """\
MemTotal:       1056000000 kB
MemFree:        900000000 kB
MemAvailable:   950000000 kB
SwapTotal:             0 kB
SwapFree:              0 kB
HugePages_Total:       0
HugePages_Free:        0
Hugepagesize:       2048 kB
"""
CPUINFO = "processor : %d\nmodel name : Xeon\nflags : fpu tsc constant_tsc\nmicrocode : 0x2b000590\n"


class Report:
    def __init__(self):
        self.checks = []
        self.stages = []

    def check(self, found):
        self.checks.append(found)

    def stage(self, text):
        self.stages.append(text)

    def text(self, text):
        raise AssertionError(text)


def healthy(case):
    """Return such a tree; *case* is the test, which removes it."""
    tree = Tree(case)
    cpus = "/sys/devices/system/cpu/"
    tree.put(cpus + "present", "0-3\n").put(cpus + "online", "0-3\n").put(cpus + "smt/control", "on\n")
    for cpu in range(4):
        tree.put("%scpu%d/cpufreq/scaling_governor" % (cpus, cpu), "performance\n")
        for kind in ("core", "package"):
            tree.put("%scpu%d/thermal_throttle/%s_throttle_count" % (cpus, cpu, kind), "0\n")
    tree.put("/proc/cpuinfo", "\n".join(CPUINFO % cpu for cpu in range(4)))
    _memory(tree)
    _devices(tree)
    _proc(tree)
    source = "/sys/devices/system/clocksource/clocksource0/"
    tree.put(source + "current_clocksource", "tsc\n").put(source + "available_clocksource", "tsc hpet acpi_pm \n")
    tree.put("/etc/fstab", "UUID=1 / ext4 errors=remount-ro 0 1\nUUID=2 none swap sw 0 0\n")
    tree.put("/etc/gpuprov-lab/kmsg", "[    0.000000] Linux version 6.8.0\n[    9.100000] EXT4-fs (sda1): mounted\n")
    tree.folder("/run/systemd/system").folder("/var/lib/dpkg")
    return tree.put("/etc/security/limits.d/90-pinned.conf", "* - memlock unlimited\n").put(
        "/etc/systemd/system.conf.d/pinned.conf", "[Manager]\nDefaultLimitMEMLOCK=infinity\n"
    )


def _memory(tree):
    nodes = "/sys/devices/system/node/"
    tree.put(nodes + "has_cpu", "0-1\n").put("/sys/devices/system/memory/block_size_bytes", "2000000000\n")
    for node in range(2):
        tree.put("%snode%d/meminfo" % (nodes, node), "Node %d MemTotal:       528000000 kB\n" % node)
        for block in range(4):
            tree.folder("%snode%d/memory%d" % (nodes, node, 4 * node + block))
    for controller in range(2):
        for kind in ("ce", "ue"):
            tree.put("/sys/devices/system/edac/mc/mc%d/%s_count" % (controller, kind), "0\n")
    tree.put("/proc/meminfo", MEMINFO).put("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")


def _devices(tree):
    for index, address in enumerate(GPUS):
        tree.pci(address, "10de", "2330", "030200", driver="nvidia")
        top = "/sys/bus/pci/devices/" + address
        tree.put(top + "/numa_node", "%d\n" % index).put(top + "/iommu_group/type", "identity\n")
        card = "/sys/class/infiniband/mlx5_%d/" % index
        for name, value in (("fw_ver", "28.43.1014"), ("board_id", "MT_0000000838"), ("device/numa_node", str(index))):
            tree.put(card + name, value + "\n")
        port = card + "ports/1/"
        for name, value in (("state", "4: ACTIVE"), ("phys_state", "5: LinkUp"), ("link_layer", "InfiniBand")):
            tree.put(port + name, value + "\n")
        tree.put(port + "rate", "400 Gb/sec (4X NDR)\n")
        for name in COUNTERS:
            tree.put(port + "counters/" + name, "0\n")
        tree.put(port + "hw_counters/packet_seq_err", "0\n")
    for module in ("nvidia", "nvidia_peermem"):
        tree.loaded(module)


def _proc(tree):
    for name, value in (
        ("sys/kernel/tainted", "4097"),
        ("sys/kernel/numa_balancing", "0"),
        ("sys/kernel/pid_max", "4194304"),
        ("sys/kernel/threads-max", "8000000"),
        ("sys/fs/file-nr", "9000\t0\t9223372036854775807"),
        ("loadavg", "0.10 0.20 0.30 2/900 4242"),
        ("uptime", "864000.00 1000.00"),
        ("self/mounts", "/dev/sda1 / ext4 rw,relatime 0 0\nproc /proc proc rw 0 0"),
    ):
        tree.put("/proc/" + name, value + "\n")
    task(tree, 1, "systemd", "S")


def task(tree, pid, name, state, wchan="0", switches=5):
    """Have a process with one thread."""
    line = "%d (%s) %s %s\n" % (pid, name, state, " ".join(str(n) for n in range(1, 40)))
    for top in ("/proc/%d/" % pid, "/proc/%d/task/%d/" % (pid, pid)):
        tree.put(top + "stat", line)
        tree.put(top + "status", "Name: x\nvoluntary_ctxt_switches:\t%d\nnonvoluntary_ctxt_switches:\t1\n" % switches)
        tree.put(top + "wchan", wchan)
    return tree.put("/proc/%d/comm" % pid, name[:15] + "\n")


@contextlib.contextmanager
def changed(tree, *files):
    """Have a tree with other files, (path, text or None for none), and as it was afterwards."""
    was = {}
    for path, data in files:
        full = tree.root + path
        was[full] = None
        if os.path.exists(full):
            with open(full, "rb") as f:
                was[full] = f.read()
        if data is None:
            os.unlink(full)
        else:
            tree.put(path, data)
    try:
        yield tree
    finally:
        for full, data in was.items():
            if data is not None:
                tree.put(full[len(tree.root) :], data)
            elif os.path.exists(full):
                os.unlink(full)


def parts():
    """Return every part of the host's checks by name."""
    modules = [importlib.import_module("gpuprov.proof.checks.host_" + family) for family in FAMILIES]
    return {part.name: part for module in modules for part in module.PARTS}


def run(tree, name, **expect):
    """Run one part on a tree; return its checks."""
    report = Report()
    parts()[name].run(Context(root=tree.root, expect=expect), report)
    assert report.stages, "a part says what it does before it does it"
    return report.checks


def one(tree, name, **expect):
    """Run one part that gives one check; return it."""
    (found,) = run(tree, name, **expect)
    return found
