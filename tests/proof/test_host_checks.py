"""The host's checks on trees: a healthy one, and one for each thing that can be wrong."""

from __future__ import annotations

import json
import os
import re
import socket
import unittest
from unittest import mock

from gpuprov.proof.check import VERDICTS
from gpuprov.proof.checks import host_processes
from tests.support.host_tree import CPUINFO, GPUS, MEMINFO, changed, healthy, one, parts, run

ACTIONS = ("none", "monitor", "restart job", "reset GPU", "reboot", "isolate")
#: What a folder cannot tell: these need the running host, or are about what the healthy tree does not have.
SKIPPED = {
    "clock.offset": "this is a folder",
    "network.hostname": "this is a folder",
    "disk.nvme": "no NVMe drive",
    "disk.raid": "no software RAID",
    "disk.servers": "no network file system",
    "disk.speed": "no scratch folder",
    "container.engine": "neither docker nor containerd",
    "container.gpu": "no container engine",
}
CARD = "/sys/class/infiniband/mlx5_1/"
PORT = CARD + "ports/1/"
EDAC = "/sys/devices/system/edac/mc/mc1/"
CPU = "/sys/devices/system/cpu/"
GPU = "/sys/bus/pci/devices/" + GPUS[1]


def kmsg(line, times=1):
    return "/etc/gpuprov-lab/kmsg", "".join("[ 100.%06d] %s\n" % (n, line) for n in range(times))


#: part, files that differ from the healthy host's, verdict, action, a piece of the reason.
SICK = (
    (
        "clock.source",
        [("/sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet")],
        "warn",
        "monitor",
        "hpet",
    ),
    ("kernel.taint", [("/proc/sys/kernel/tainted", "128")], "fail", "reboot", "oopsed"),
    ("kernel.taint", [("/proc/sys/kernel/tainted", "16400")], "warn", "monitor", ""),
    ("kernel.iommu", [(GPU + "/iommu_group/type", "DMA-FQ")], "warn", "monitor", "iommu=pt"),
    (
        "kernel.reboot-pending",
        [("/run/reboot-required", ""), ("/run/reboot-required.pkgs", "linux-base\n")],
        "warn",
        "reboot",
        "linux-base",
    ),
    ("kernel.nouveau", [("/sys/module/nouveau/refcnt", "0")], "warn", "monitor", "beside nvidia"),
    ("processes.tasks", [("/proc/loadavg", "1 1 1 1/4100000 9")], "fail", "monitor", "pid_max"),
    ("processes.open-files", [("/proc/sys/fs/file-nr", "9900 0 10000")], "fail", "monitor", "of 10000"),
    ("cpu.online", [(CPU + "online", "0-2")], "warn", "monitor", "off line: 3"),
    (
        "cpu.microcode",
        [("/proc/cpuinfo", CPUINFO % 0 + "\n" + CPUINFO % 1 + "\n" + (CPUINFO % 2).replace("590", "111"))],
        "warn",
        "reboot",
        "2 have not",
    ),
    ("cpu.governor", [(CPU + "cpu3/cpufreq/scaling_governor", "powersave")], "warn", "monitor", "powersave on 1"),
    ("cpu.throttled", [(CPU + "cpu3/thermal_throttle/package_throttle_count", "99999")], "warn", "monitor", "an hour"),
    ("memory.available", [("/proc/meminfo", MEMINFO.replace("950000000", "950000"))], "warn", "monitor", "0.9 of"),
    (
        "memory.swap",
        [("/proc/meminfo", MEMINFO.replace("SwapTotal:             0", "SwapTotal:  8000000").replace(" 95", "  5"))],
        "warn",
        "monitor",
        "swap",
    ),
    (
        "memory.huge-pages",
        [
            (
                "/proc/meminfo",
                MEMINFO.replace("Total:       0", "Total: 300000").replace("Free:        0", "Free: 300000"),
            )
        ],
        "warn",
        "monitor",
        "58%",
    ),
    (
        "memory.errors",
        [(EDAC + "ue_count", "1"), (EDAC + "dimm3/dimm_ue_count", "1"), (EDAC + "dimm3/dimm_label", "CPU1_DIMM_B1")],
        "fail",
        "isolate",
        "CPU1_DIMM_B1",
    ),
    ("memory.errors", [(EDAC + "ce_count", "5000")], "warn", "monitor", "500.0 a day"),
    ("numa.memory", [("/sys/devices/system/node/node1/meminfo", "Node 1 MemTotal: 0 kB")], "warn", "monitor", "node 1"),
    ("numa.devices", [(GPU + "/numa_node", "-1")], "warn", "monitor", GPUS[1]),
    ("numa.balancing", [("/proc/sys/kernel/numa_balancing", "1")], "warn", "monitor", "kernel.numa_balancing=0"),
    (
        "disk.read-only",
        [("/proc/self/mounts", "/dev/sda1 / ext4 ro,relatime 0 0")],
        "fail",
        "isolate",
        "/dev/sda1 at /",
    ),
    (
        "disk.mounted",
        [("/etc/fstab", "UUID=1 / ext4 defaults\n/dev/md0 /data\\040set xfs defaults\n")],
        "fail",
        "monitor",
        "/data set (/dev/md0)",
    ),
    (
        "disk.mounted",
        [("/etc/fstab", "UUID=1 / ext4 defaults\n/dev/md0 /data xfs nofail\n")],
        "warn",
        "monitor",
        "/data",
    ),
    ("disk.nvme", [("/sys/class/nvme/nvme0/state", "dead")], "fail", "isolate", "nvme0 is dead"),
    (
        "disk.nvme",
        [("/sys/class/nvme/nvme0/state", "live"), ("/sys/class/nvme/nvme0/hwmon3/temp1_alarm", "1")],
        "warn",
        "monitor",
        "too hot",
    ),
    (
        "disk.raid",
        [
            (
                "/proc/mdstat",
                "Personalities : [raid1]\nmd0 : active raid1 sdb[1] sda[0](F)\n      99 blocks [2/1] [_U]\n",
            )
        ],
        "warn",
        "monitor",
        "md0 [_U]",
    ),
    (
        "ib.ports",
        [(PORT + "state", "1: DOWN"), (PORT + "phys_state", "2: Polling")],
        "fail",
        "isolate",
        "mlx5_1:1 is DOWN, Polling",
    ),
    ("ib.ports", [(PORT + "state", "2: INIT")], "fail", "monitor", "no subnet manager"),
    ("ib.rate", [(PORT + "rate", "200 Gb/sec (2X NDR)")], "fail", "isolate", "its likes have 400"),
    ("ib.firmware", [(CARD + "fw_ver", "28.40.1000")], "warn", "monitor", "28.40.1000, 28.43.1014"),
    ("ib.errors", [(PORT + "counters/link_downed", "200")], "warn", "monitor", "link_downed counted 200"),
    ("ib.errors", [(PORT + "counters/symbol_error", "65535")], "warn", "monitor", "symbol_error"),
    (
        "limits.locked-memory",
        [("/etc/security/limits.d/90-pinned.conf", "* soft memlock 65536\n")],
        "warn",
        "monitor",
        "a login may lock 64 MiB",
    ),
    (
        "limits.locked-memory",
        [("/etc/systemd/system.conf.d/pinned.conf", "[Manager]\n#DefaultLimitMEMLOCK=infinity\n")],
        "warn",
        "monitor",
        "a service may lock 8 MiB",
    ),
    (
        "container.gpu",
        [("/usr/bin/dockerd", ""), ("/usr/bin/nvidia-ctk", "")],
        "warn",
        "monitor",
        "nvidia-ctk runtime configure",
    ),
    (
        "container.gpu",
        [("/usr/bin/dockerd", ""), ("/usr/bin/nvidia-ctk", ""), ("/etc/docker/daemon.json", "{oops")],
        "warn",
        "monitor",
        "not JSON",
    ),
    (
        "container.engine",
        [("/usr/bin/dockerd", ""), ("/etc/systemd/system/multi-user.target.wants/docker.service", "")],
        "warn",
        "monitor",
        "docker is to start",
    ),
)
#: part, files that cannot be what they should be: never a pass, never an exception.
ODD = (
    ("kernel.taint", "/proc/sys/kernel/tainted", "lots"),
    ("kernel.uptime", "/proc/uptime", ""),
    ("processes.tasks", "/proc/loadavg", "x"),
    ("processes.open-files", "/proc/sys/fs/file-nr", "1 2"),
    ("processes.zombies", "/proc/1/stat", "1 (systemd S"),
    ("cpu.online", CPU + "online", "all of them"),
    ("cpu.throttled", CPU + "cpu0/thermal_throttle/core_throttle_count", "hot"),
    ("memory.total", "/proc/meminfo", "nothing"),
    ("memory.total", "/sys/devices/system/memory/block_size_bytes", "big"),
    ("memory.errors", EDAC + "ue_count", "?"),
    ("memory.transparent-huge-pages", "/sys/kernel/mm/transparent_hugepage/enabled", "yes"),
    ("numa.memory", "/sys/devices/system/node/node1/meminfo", ""),
    ("numa.devices", GPU + "/numa_node", "near"),
    ("disk.space", "/proc/self/mounts", "proc /proc proc rw 0 0"),
    ("ib.errors", PORT + "counters/symbol_error", "N/A (no PMA)"),
    ("ib.rate", PORT + "rate", "fast"),
)
#: part, a file without which nothing can be said.
NEEDED = (
    ("kernel.taint", "/proc/sys/kernel/tainted"),
    ("clock.source", "/sys/devices/system/clocksource/clocksource0/current_clocksource"),
    ("kernel.log", "/etc/gpuprov-lab/kmsg"),
    ("memory.available", "/proc/meminfo"),
    ("disk.space", "/proc/self/mounts"),
    ("ib.ports", PORT + "state"),
    ("ib.firmware", CARD + "fw_ver"),
)


class HostChecks(unittest.TestCase):
    def setUp(self) -> None:
        self.tree = healthy(self)
        patched = mock.patch.object(host_processes, "STILL_S", 0.0)
        patched.start()
        self.addCleanup(patched.stop)

    def test_a_healthy_host_has_no_warning(self) -> None:
        for name in parts():
            if name in ("disk.space", "disk.inodes", "services.failed"):
                continue  # the tree lies on a disk of this machine; systemctl tells of the running host only
            for found in run(self.tree, name):
                skipped = SKIPPED.get(name)
                wanted = "skip" if skipped else "pass"
                self.assertEqual(found["verdict"], wanted, found)
                self.assertIn(skipped or "", found["reason"])
                self.assertEqual(found["action"], "none")

    def test_each_sickness_is_found_and_named_with_its_action(self) -> None:
        for name, files, verdict, action, piece in SICK:
            with self.subTest(name, files=files), changed(self.tree, *files) as tree:
                found = run(tree, name)
                worst = max(found, key=lambda item: VERDICTS.index(item["verdict"]))
                self.assertEqual((worst["verdict"], worst["action"]), (verdict, action), found)
                self.assertIn(piece, worst["reason"])
                self.assertIn(worst["action"], ACTIONS)
                self.assertTrue(worst["name"].startswith(name))

    def test_what_is_of_another_form_is_unknown(self) -> None:
        for name, path, data in ODD:
            with self.subTest(name, data=data), changed(self.tree, (path, data)) as tree:
                found = one(tree, name)
                self.assertEqual(found["verdict"], "unknown", found)

    def test_what_is_not_there_is_unknown(self) -> None:
        for name, path in NEEDED:
            with self.subTest(name), changed(self.tree, (path, None)) as tree:
                self.assertEqual(one(tree, name)["verdict"], "unknown")

    def test_what_cannot_be_read_is_unknown(self) -> None:
        for name, path in NEEDED:
            with self.subTest(name), changed(self.tree, (path, None)) as tree:
                tree.folder(path)  # root may read everything, but not a folder as a file
                found = one(tree, name)
                os.rmdir(tree.root + path)
                self.assertEqual(found["verdict"], "unknown")
                self.assertRegex(found["reason"], "cannot read|could not be read")

    def test_an_empty_root_gives_no_pass_on_anything_that_was_not_read(self) -> None:
        self.tree.root += "/run"  # a folder that has nothing of a host
        for name in parts():
            with self.subTest(name):
                for found in run(self.tree, name):
                    if name == "disk.mounted":
                        continue  # no marker is the good sign itself
                    self.assertIn(found["verdict"], ("skip", "unknown"), found)

    def test_a_line_of_the_wire_is_never_too_long(self) -> None:
        self.tree.put("/proc/self/mounts", "/dev/sda1 / ext4 rw 0 0")
        long = "".join("/dev/sdb%d /%s%d ext4 defaults\n" % (n, "x" * 3000, n) for n in range(50))
        self.tree.put("/etc/fstab", long)
        found = one(self.tree, "disk.mounted")
        self.assertEqual(found["verdict"], "fail")
        self.assertLess(len(json.dumps(found)), 4000)


class Expected(unittest.TestCase):
    def setUp(self) -> None:
        self.tree = healthy(self)

    def test_memory(self) -> None:
        self.assertEqual(one(self.tree, "memory.total", memory_gb=1024)["verdict"], "pass")
        found = one(self.tree, "memory.total", memory_gb=1088)
        self.assertEqual((found["verdict"], found["measured"]), ("fail", 1024.0))
        self.assertEqual(one(self.tree, "memory.total", memory_gb=512)["verdict"], "warn")

    def test_ports(self) -> None:
        self.assertEqual(one(self.tree, "ib.ports", ib_ports=2)["verdict"], "pass")
        self.assertEqual(run(self.tree, "ib.ports", ib_ports=8)[-1]["verdict"], "fail")
        self.assertEqual({c["verdict"] for c in run(self.tree, "ib.rate", ib_rate_gb_s=800)}, {"fail"})

    def test_no_card_is_a_skip_unless_one_is_expected(self) -> None:
        tree = healthy(self)
        os.rename(tree.root + "/sys/class/infiniband", tree.root + "/sys/class/gone")
        for name in ("ib.ports", "ib.rate", "ib.errors", "ib.firmware", "ib.peermem"):
            self.assertEqual(one(tree, name)["verdict"], "skip")
        for expect in ({"ib_ports": 2}, {"ib_rate_gb_s": 400}):
            self.assertEqual(one(tree, "ib.ports", **expect)["verdict"], "fail")

    def test_a_port_that_was_turned_off_is_no_fault(self) -> None:
        self.tree.put(PORT + "state", "1: DOWN").put(PORT + "phys_state", "3: Disabled")
        found = one(self.tree, "ib.ports")
        self.assertEqual((found["verdict"], found["measured"]), ("pass", 1))

    def test_an_unused_second_port_is_no_fault(self) -> None:
        second = CARD + "ports/2/"
        for name, value in (("state", "1: DOWN"), ("phys_state", "2: Polling"), ("link_layer", "InfiniBand")):
            self.tree.put(second + name, value)
        self.assertEqual(one(self.tree, "ib.ports")["verdict"], "pass")

    def test_drives_and_processors(self) -> None:
        self.assertEqual(one(self.tree, "disk.nvme", nvme_drives=8)["verdict"], "fail")
        self.assertEqual(one(self.tree, "cpu.online", cpus=8)["verdict"], "fail")

    def test_hyper_threads_that_are_off_are_no_fault(self) -> None:
        self.tree.put(CPU + "online", "0-1").put(CPU + "smt/control", "off")
        self.assertEqual(one(self.tree, "cpu.online")["verdict"], "pass")

    def test_dma_buf_does_without_peermem(self) -> None:
        os.rename(self.tree.root + "/sys/module/nvidia_peermem", self.tree.root + "/sys/module/other")
        self.assertEqual(one(self.tree, "ib.peermem")["verdict"], "warn")
        self.tree.put(
            "/proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06"
        )
        self.assertEqual(one(self.tree, "ib.peermem")["measured"], "DMA-BUF")
        self.tree.put("/proc/sys/kernel/osrelease", "5.4.0-generic")
        self.assertEqual(one(self.tree, "ib.peermem")["verdict"], "warn")

    def test_nouveau_on_the_gpu_fails(self) -> None:
        os.unlink(self.tree.root + GPU + "/driver")
        self.tree.link(GPU + "/driver", "../../../bus/pci/drivers/nouveau").loaded("nouveau")
        found = one(self.tree, "kernel.nouveau")
        self.assertEqual((found["verdict"], found["action"]), ("fail", "reboot"))

    def test_an_engine_that_answers_and_hands_gpus_on(self) -> None:
        self.tree.put("/usr/bin/dockerd").put("/usr/bin/nvidia-ctk").put("/etc/cdi/nvidia.yaml", "kind: nvidia.com/gpu")
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(self.tree.root + "/run/docker.sock")
            s.listen(1)
            self.assertEqual(one(self.tree, "container.engine")["verdict"], "pass")
        self.assertEqual(one(self.tree, "container.engine")["verdict"], "skip")  # refused, and not enabled
        self.assertEqual(one(self.tree, "container.gpu")["measured"], ["/etc/cdi/nvidia.yaml"])

    def test_mounts_inside_a_container_are_not_judged(self) -> None:
        self.tree.put("/run/.containerenv", "").put("/proc/self/mounts", "/dev/sda1 / ext4 ro 0 0")
        for name in ("disk.read-only", "disk.mounted"):
            self.assertEqual(one(self.tree, name)["verdict"], "skip")


class Names(unittest.TestCase):
    def test_every_part_is_named_once_and_all_are_in_the_docs(self) -> None:
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        with open(os.path.join(root, "docs", "checks-host.md"), encoding="utf-8") as f:
            told = set(re.findall(r"^\| `([a-z.-]+)` \| (\w+) ", f.read(), re.MULTILINE))
        self.assertLessEqual({(part.name, part.tier) for part in parts().values()}, told)


if __name__ == "__main__":
    unittest.main()
