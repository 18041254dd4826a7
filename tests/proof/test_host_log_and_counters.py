"""The rules for the kernel's log, line by line; clocks; what counters did during a run; the disk's speed."""

from __future__ import annotations

import json
import os
import tempfile
import unittest
from unittest import mock

from gpuprov.proof import kernel_log
from gpuprov.proof.checks import (
    host_clock,
    host_counters,
    host_cpu,
    host_disk_speed,
    host_kernel_log,
    host_memory,
    host_network_counters,
)
from gpuprov.proof.checks.host_files import Untold
from gpuprov.proof.checks.kernel_rules import RULES
from gpuprov.proof.parts import Context
from tests.support.host_tree import Report, healthy, one, parts, run

#: rule, a line as the kernel writes it.
LINES = (
    ("nvidia-hung", "INFO: task nvidia-smi:41233 blocked for more than 120 seconds."),
    ("nvidia-hung", "INFO: task nv_queue:811 blocked for more than 241 seconds."),
    ("nvidia-init", "NVRM: GPU 0000:1b:00.0: RmInitAdapter failed! (0x62:0x40:2477)"),
    ("nvidia-mismatch", "NVRM: API mismatch: the client has the version 580.65.06, but"),
    ("peermem-context", "nvidia-peermem nv_get_p2p_free_callback:127 ERROR detected invalid context, skipping further"),
    ("nccl-segfault", "python3[991]: segfault at 8 ip 00007f sp 00007f error 4 in libnccl.so.2.27.3[7f00+1000]"),
    ("out-of-memory", "Out of memory: Killed process 4242 (python3) total-vm:1kB, anon-rss:1kB"),
    ("blocked-task", "INFO: task kworker/u64:3:1234 blocked for more than 120 seconds."),
    ("blocked-task", "INFO: task dd:99 blocked in I/O wait for more than 122 seconds."),
    ("hard-lockup", "watchdog: Watchdog detected hard LOCKUP on cpu 12"),
    ("soft-lockup", "watchdog: BUG: soft lockup - CPU#3 stuck for 26s! [python3:811]"),
    ("rcu-stall", "rcu: INFO: rcu_preempt self-detected stall on CPU"),
    ("rcu-stall", "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:"),
    ("oops", "BUG: unable to handle page fault for address: ffffc90000"),
    ("oops", "BUG: kernel NULL pointer dereference, address: 0000000000000008"),
    ("oops", "Oops: 0000 [#1] PREEMPT SMP NOPTI"),
    ("machine-check", "mce: Uncorrected hardware memory error in user-access at 3f8e00000"),
    ("machine-check", "{1}[Hardware Error]: event severity: fatal"),
    ("machine-check-logged", "mce: [Hardware Error]: Machine check events logged"),
    ("machine-check-logged", "{2}[Hardware Error]: event severity: corrected"),
    ("edac-uncorrected", "EDAC MC1: 1 UE memory read error on CPU_SrcID#1_MC#0_Chan#0_DIMM#0 (channel:0 slot:0)"),
    ("edac-corrected", "EDAC MC0: 1 CE memory scrubbing error on CPU_SrcID#0_MC#1_Chan#1_DIMM#0"),
    ("pcie-uncorrected", "pcieport 0000:15:01.0: AER: Uncorrectable (Fatal) error message received from 0000:1b:00.0"),
    ("pcie-uncorrected", "nvidia 0000:1b:00.0: PCIe Bus Error: severity=Uncorrected (Fatal), type=Transaction Layer"),
    ("pcie-survived", "nvidia 0000:1b:00.0: PCIe Bus Error: severity=Uncorrected (Non-Fatal), type=Transaction Layer"),
    ("pcie-survived", "pcieport 0000:15:01.0: AER: Multiple Uncorrected (Non-Fatal) error received: 0000:1b:00.0"),
    ("pcie-corrected", "pcieport 0000:15:01.0: AER: Corrected error received: 0000:1b:00.0"),
    ("pcie-corrected", "pcieport 0000:15:01.0: AER: Multiple Correctable error message received from 0000:1b:00.0"),
    ("read-only", "EXT4-fs (sda1): Remounting filesystem read-only"),
    ("read-only", "XFS (dm-3): Corruption of in-memory data (0x8) detected at xfs_x. Shutting down filesystem"),
    ("read-only", "BTRFS info (device sdb: state EA): forced readonly"),
    ("file-system", "EXT4-fs error (device nvme0n1p2): ext4_lookup:1855: inode #2: comm ls: deleted inode"),
    ("nvme-gone", "nvme nvme3: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0xffff"),
    ("nvme-gone", "nvme nvme3: Disabling device after reset failure: -19"),
    ("nvme-timeout", "nvme nvme0: I/O 812 QID 3 timeout, aborting"),
    ("nvme-timeout", "nvme nvme0: I/O tag 812 (132c) opcode 0x1 (I/O Cmd) QID 3 timeout, aborting req_op:WRITE(1)"),
    ("disk-error", "blk_update_request: I/O error, dev sdc, sector 2048 op 0x0:(READ) flags 0x0"),
    ("disk-error", "critical medium error, dev nvme0n1, sector 17 op 0x0:(READ)"),
    ("raid", "md/raid1:md0: Disk failure on sda1, disabling device."),
    ("mlx5-dead", "mlx5_core 0000:86:00.0: poll_health:800:(pid 0): device's health compromised - reached miss count"),
    (
        "mlx5-power",
        "mlx5_core 0000:86:00.0: mlx5_pcie_event:301:(pid 9): Detected insufficient power on the PCIe slot (27W).",
    ),
    ("mlx5-module", "mlx5_core 0000:86:00.0: Port module event[error]: module 0, Cable error, Bus stuck"),
    ("cpu-hot", "mce: CPU3: Package temperature is above threshold, cpu clock is throttled (total events = 9)"),
    ("file-server", "nfs: server 10.0.0.9 not responding, still trying"),
    ("neighbours", "neighbour: arp_cache: neighbor table overflow!"),
    ("conntrack", "nf_conntrack: nf_conntrack: table full, dropping packet"),
)
#: Ordinary lines that look like those.
HARMLESS = (
    "Memory cgroup out of memory: Killed process 7 (data loader) total-vm:1kB",
    "tsc: Marking TSC unstable due to running on Hyper-V",
    "EXT4-fs (sda1): re-mounted 1b2c ro. Quota mode: none.",
    "EXT4-fs (sda1): mounted filesystem with ordered data mode. Opts: errors=remount-ro",
    "mlx5_core 0000:86:00.0: PCIe slot advertised sufficient power (27W).",
    "mlx5_core 0000:86:00.0: Port module event: module 0, Cable plugged",
    "nvme nvme0: 64/0/0 default/read/poll queues",
    "I/O error, dev loop3, sector 0 op 0x0:(READ)",
    "I/O error, dev sr0, sector 0",
    "mce: CPU0: Thermal monitoring enabled (TM1)",
    "EDAC MC0: Giving out device to module i10nm_edac controller Intel_10nm Socket#0 IMC#0",
    "pcieport 0000:00:01.0: AER: enabled with IRQ 24",
    "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.65.06",
    "rcu: Hierarchical RCU implementation.",
    "tsc: Refined TSC clocksource calibration: 2000.000 MHz",
    "md/raid1:md0: active with 2 out of 2 mirrors",
    "clocksource: Switched to clocksource tsc",
    "Command line: BOOT_IMAGE=/vmlinuz panic=1 oops=panic",
)


class Rules(unittest.TestCase):
    def test_every_line_is_told_by_its_rule(self) -> None:
        for key, line in LINES:
            rule = host_kernel_log.match(line)
            self.assertEqual(rule and rule.key, key, line)
        self.assertEqual({key for key, _ in LINES}, {rule.key for rule in RULES})

    def test_ordinary_lines_are_told_by_none(self) -> None:
        for line in HARMLESS:
            self.assertIsNone(host_kernel_log.match(line), line)

    def test_the_check_names_who_how_often_and_when(self) -> None:
        line = "[863000.000000] Out of memory: Killed process 4242 (python3) total-vm:1kB\n"
        found = one(healthy(self).put("/etc/gpuprov-lab/kmsg", line * 6), "kernel.log")
        self.assertEqual(
            (found["name"], found["verdict"], found["action"]), ("kernel.log.out-of-memory", "warn", "restart job")
        )
        self.assertIn("(python3): 6 lines since the start, the last 16.7 min ago", found["reason"])
        self.assertEqual(len(found["data"]["evidence"]), 4)

    def test_what_corrects_itself_is_worth_a_word_only_when_it_goes_on(self) -> None:
        line = "[ 1.0] EDAC MC0: 1 CE memory scrubbing error on CPU_SrcID#0\n"
        for times, verdict in ((9, "pass"), (10, "warn")):
            found = one(healthy(self).put("/etc/gpuprov-lab/kmsg", line * times), "kernel.log")
            self.assertEqual(found["verdict"], verdict)

    def test_what_is_over_is_told_and_not_warned_of(self) -> None:
        tree = healthy(self)
        for at_s, verdict in ((100.0, "pass"), (863000.0, "warn")):
            line = "[%f] nfs: server 10.0.0.9 not responding, still trying\n" % at_s
            found = one(tree.put("/etc/gpuprov-lab/kmsg", line * 3), "kernel.log")
            self.assertEqual(found["verdict"], verdict)
            self.assertIn("file-server (3 lines)" if verdict == "pass" else "did not answer", found["reason"])
        found = one(tree.put("/etc/gpuprov-lab/kmsg", "[100.0] Oops: 0000 [#1] PREEMPT SMP NOPTI\n"), "kernel.log")
        self.assertEqual(found["verdict"], "fail")

    def test_a_start_of_the_driver_that_failed_before_one_that_did_not(self) -> None:
        failed = "[50.0] NVRM: GPU 0000:1b:00.0: RmInitAdapter failed! (0x62:0x40:2477)\n"
        loaded = "[60.0] NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.65.06\n"
        for text, verdict in ((failed + loaded, "pass"), (loaded + failed, "fail")):
            found = one(healthy(self).put("/etc/gpuprov-lab/kmsg", text), "kernel.log")
            self.assertEqual(found["verdict"], verdict)

    def test_each_rule_with_lines_has_a_check_of_its_own(self) -> None:
        text = "".join("[863990.0] %s\n" % line for _, line in LINES for _ in range(100))
        found = run(healthy(self).put("/etc/gpuprov-lab/kmsg", text), "kernel.log")
        self.assertEqual([c["name"] for c in found], ["kernel.log." + rule.key for rule in RULES])

    def test_a_log_whose_beginning_is_lost_says_so(self) -> None:
        log = {"entries": [{"at_s": 9.0, "text": "quiet"}], "truncated": True, "now_s": 10.0}
        self.assertIn("its beginning is lost", host_kernel_log.judge(log)[0]["reason"])

    def test_a_log_that_cannot_be_read_is_unknown(self) -> None:
        with mock.patch.object(kernel_log, "read", return_value={"error": "no permission"}):
            tree = healthy(self)
            self.assertEqual(one(tree, "kernel.log")["verdict"], "unknown")
            tree.put("/run/.containerenv")
            self.assertEqual(one(tree, "kernel.log")["verdict"], "unknown")  # it has GPUs: their XIDs would be there
            os.rename(tree.root + "/sys/bus/pci", tree.root + "/sys/bus/gone")
            self.assertEqual(one(tree, "kernel.log")["verdict"], "skip")


def clock(**changes):
    values = {
        "kernel": host_clock.Kernel(True, 12, 9000),
        "keepers": ("chronyd",),
        "offset_ms": None,
        "by": "",
        "following": True,
        "untold": "",
        "in_container": False,
    }
    return host_clock.judge_offset(host_clock.Clock(**dict(values, **changes)))[0]


class Clocks(unittest.TestCase):
    def test_answers_of_the_services(self) -> None:
        # what chronyc 4.3 printed, following another chronyd
        line = "7F000001,127.0.0.1,11,1795646086.004269594,-0.000002458,0.000000087,0.000001404,0.031,0.003,0.388"
        offset, following = host_clock.chrony_offset(line + ",0.000006275,0.000003777,1.0,Normal\n")
        self.assertEqual((round(offset, 6), following), (-0.002458, True))
        lost = line.replace(",11,", ",0,") + ",1.0,1.0,0.0,Not synchronised\n"
        self.assertEqual(host_clock.chrony_offset(lost), (None, False))
        times = "1000000 1250000 1250100 1000300"
        said = "(uuuuittayttttbtt) 0 4 4 2 -24 1000 2000 4 10 0 0 9 %s false 7 120"
        self.assertEqual(host_clock.timesyncd_offset(said % times), (249.9, True))
        self.assertEqual(host_clock.timesyncd_offset(said % "0 0 0 0"), (None, False))
        self.assertEqual(host_clock.ntpd_offset("leap=00, stratum=3,\noffset=-1.250\n"), (-1.25, True))
        self.assertEqual(host_clock.ntpd_offset("leap=11, stratum=16, offset=0.000"), (None, False))

    def test_answers_of_another_form_are_unknown(self) -> None:
        for read in (host_clock.chrony_offset, host_clock.timesyncd_offset, host_clock.ntpd_offset):
            for answer in ("", "506 Cannot talk to daemon", "a,b,c"):
                self.assertRaises(Untold, read, answer)

    def test_verdicts(self) -> None:
        for changes, verdict, piece in (
            ({"offset_ms": 0.3, "by": "chronyd"}, "pass", "0.3 ms off"),
            ({"offset_ms": -250.0, "by": "chronyd"}, "warn", "250 ms off"),
            ({"offset_ms": 90000.0, "by": "ntpd"}, "fail", "ms off"),
            ({"by": "chronyd", "following": False}, "warn", "follows no source"),
            ({}, "pass", "kept by chronyd"),
            ({"keepers": ()}, "pass", "something that does not run here"),
            (
                {"keepers": (), "kernel": host_clock.Kernel(False, 16000000, 16000000)},
                "warn",
                "nothing keeps this clock",
            ),
            ({"kernel": host_clock.Kernel(False, 0, 0), "untold": "chronyc is not installed"}, "unknown", "chronyc"),
            ({"kernel": None, "keepers": (), "untold": "adjtimex: no"}, "unknown", "adjtimex: no"),
            ({"kernel": None, "keepers": (), "in_container": True}, "skip", "ask the host"),
            ({"keepers": (), "kernel": host_clock.Kernel(False, 0, 0), "in_container": True}, "skip", "ask the host"),
            ({"keepers": (), "in_container": True}, "pass", "kept, by something"),
        ):
            found = clock(**changes)
            self.assertEqual(found["verdict"], verdict, found)
            self.assertIn(piece, found["reason"])

    def test_the_running_kernel_answers(self) -> None:
        found = host_clock.kernel_clock()
        self.assertGreaterEqual(found.maximum_error_us, 0)
        self.assertIn(found.synchronised, (True, False))


class DuringARun(unittest.TestCase):
    def test_ports(self) -> None:
        tree = healthy(self)
        context = Context(root=tree.root)
        before = host_network_counters.snapshot(context)
        self.assertEqual(host_network_counters.differences(before, before), [])
        top = "/sys/class/infiniband/mlx5_0/ports/1/"
        tree.put(top + "counters/link_downed", "1").put(top + "hw_counters/packet_seq_err", "400")
        found = host_network_counters.differences(before, host_network_counters.snapshot(context))
        self.assertEqual([c["verdict"] for c in found], ["fail", "warn"])
        self.assertEqual(found[0]["data"]["evidence"], ["mlx5_0:1 link_downed: 0 -> 1"])
        gone = host_network_counters.differences(before, {})
        self.assertEqual([c["verdict"] for c in gone], ["fail", "fail"])

    def test_memory_and_processors(self) -> None:
        for module, verdict, path in (
            (host_memory, "fail", "/sys/devices/system/edac/mc/mc0/ue_count"),
            (host_memory, "warn", "/sys/devices/system/edac/mc/mc0/ce_count"),
            (host_cpu, "warn", "/sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count"),
        ):
            tree = healthy(self)
            before = module.snapshot(Context(root=tree.root))
            tree.put(path, "3")
            (found,) = module.differences(before, module.snapshot(Context(root=tree.root)))
            self.assertEqual(found["verdict"], verdict)
            self.assertIn(": 0 -> 3", found["data"]["evidence"][0])

    def test_all_of_them_together(self) -> None:
        tree = healthy(self)
        context = Context(root=tree.root)
        before = json.loads(json.dumps(host_counters.snapshot(context)))
        self.assertEqual(host_counters.differences(before, host_counters.snapshot(context)), [])
        tree.put("/sys/devices/system/edac/mc/mc0/ue_count", "1")
        tree.put("/sys/class/infiniband/mlx5_0/ports/1/counters/link_downed", "?")
        found = host_counters.differences(before, host_counters.snapshot(context))
        self.assertEqual(
            [(c["name"], c["verdict"]) for c in found], [("memory.errors-now", "fail"), ("ib.counters-now", "unknown")]
        )


class Disk(unittest.TestCase):
    def test_a_real_disk_is_measured_and_nothing_is_left(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            speeds = host_disk_speed.measure(folder, size=1 << 20, repeats=2)
            self.assertEqual(os.listdir(folder), [])
        write, read = host_disk_speed.judge(speeds)
        self.assertEqual((write["name"], read["name"], read["verdict"]), ("disk.write", "disk.read", "pass"))
        self.assertEqual((write["data"]["kind"], len(write["data"]["samples"])), ("measurement", 2))

    def test_data_that_came_back_changed_fail(self) -> None:
        found = host_disk_speed.judge(host_disk_speed.Speeds([1.0], [1.0], False))[1]
        self.assertEqual((found["verdict"], found["action"]), ("fail", "isolate"))

    def test_a_spoiled_byte_is_seen(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "f")
            with open(path, "wb") as f:
                f.write(b"abcdabcx")
            self.assertEqual(
                [host_disk_speed._read_s(path, block)[1] for block in (b"abcd", b"abcdabcx")], [False, True]
            )

    def test_memory_and_little_room_are_reasons_not_to(self) -> None:
        tree = healthy(self).put("/proc/self/mounts", "tmpfs / tmpfs rw 0 0")
        for least, table, piece in (
            (0, "tmpfs / tmpfs rw 0 0", "in memory"),
            (1 << 62, "/dev/a / ext4 rw 0 0", "GB are free"),
        ):
            tree.put("/proc/self/mounts", table)
            report = Report()
            with mock.patch.object(host_disk_speed, "LEAST_FREE_BYTES", least):
                parts()["disk.speed"].run(Context(root=tree.root, scratch=tree.root), report)
            (found,) = report.checks
            self.assertEqual(found["verdict"], "skip")
            self.assertIn(piece, found["reason"])


if __name__ == "__main__":
    unittest.main()
