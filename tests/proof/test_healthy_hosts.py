"""Healthy hosts of other kinds than the usual one have no warning from the host's checks."""

from __future__ import annotations

import os
import unittest
from unittest import mock

from gpuprov.proof.checks import host_disk, host_processes
from gpuprov.proof.checks.host_disk import Space
from tests.support.host_tree import MEMINFO, healthy, one, run, task

CPU = "/sys/devices/system/cpu/"


class Case(unittest.TestCase):
    def setUp(self) -> None:
        self.tree = healthy(self)

    def fine(self, name: str, *verdicts: str, **expect: object) -> dict:
        found = run(self.tree, name, **expect)
        self.assertEqual({item["verdict"] for item in found}, set(verdicts or ("pass",)), found)
        return found[0]


class Kernels(Case):
    def test_a_processor_that_sets_its_own_clock(self) -> None:
        for driver in ("intel_pstate", "amd-pstate-epp"):
            for cpu in range(4):
                top = f"{CPU}cpu{cpu}/cpufreq/"
                self.tree.put(top + "scaling_governor", "powersave").put(top + "scaling_driver", driver)
                self.tree.put(top + "energy_performance_preference", "balance_performance")
            self.assertIn("performance is steadier", self.fine("cpu.governor")["reason"])
        self.tree.put(CPU + "cpu2/cpufreq/energy_performance_preference", "power")
        self.assertEqual(one(self.tree, "cpu.governor")["verdict"], "warn")
        self.tree.put(CPU + "cpu2/cpufreq/scaling_driver", "acpi-cpufreq")
        self.assertEqual(one(self.tree, "cpu.governor")["verdict"], "warn")

    def test_tools_that_write_registers_leave_a_taint_that_is_none(self) -> None:
        self.tree.put("/proc/sys/kernel/tainted", str(1 << 12 | 1 << 2))
        self.fine("kernel.taint")

    def test_processors_off_line_that_the_inventory_does_not_count_on(self) -> None:
        self.tree.put(CPU + "online", "0-2")
        self.fine("cpu.online", cpus=3)
        self.fine("cpu.online", "fail", cpus=4)

    def test_an_iommu_above_a_single_gpu(self) -> None:
        for address in os.listdir(self.tree.root + "/sys/bus/pci/devices"):
            self.tree.put(f"/sys/bus/pci/devices/{address}/iommu_group/type", "DMA-FQ")
        self.fine("kernel.iommu", "warn")
        self.tree.put("/sys/bus/pci/devices/0000:9b:00.0/vendor", "0x1a03")  # the screen of a BMC
        os.rename(self.tree.root + "/sys/class/infiniband", self.tree.root + "/sys/class/gone")
        self.fine("kernel.iommu")

    def test_no_package_can_ask_for_a_reboot_without_dpkg(self) -> None:
        os.rmdir(self.tree.root + "/var/lib/dpkg")
        self.fine("kernel.reboot-pending", "skip")

    def test_swapped_out_pages_that_nobody_needs(self) -> None:
        self.tree.put("/proc/meminfo", MEMINFO.replace("SwapTotal:             0", "SwapTotal:  8000000"))
        self.assertIn("nobody has needed", self.fine("memory.swap")["reason"])


class Processes(Case):
    def setUp(self) -> None:
        super().setUp()
        patched = mock.patch.object(host_processes, "STILL_S", 0.0)
        patched.start()
        self.addCleanup(patched.stop)

    def test_a_thread_of_the_kernel_that_always_waits_so(self) -> None:
        task(self.tree, 55, "hv_balloon", "D", "hv_balloon_thread")
        stat = f"55 (hv_balloon) D {' '.join(str(n) for n in range(1, 6))} {0x00208040} {'0 ' * 40}\n"
        for path in ("/proc/55/stat", "/proc/55/task/55/stat"):
            self.tree.put(path, stat)
        self.fine("processes.stuck")
        for path in ("/proc/55/stat", "/proc/55/task/55/stat"):
            self.tree.put(path, stat.replace("hv_balloon", "nv_queue"))
        self.fine("processes.stuck", "fail")

    def test_a_gpu_that_starts_for_seconds(self) -> None:
        task(self.tree, 56, "nvidia-smi", "D", "os_acquire_rwlock_write")
        looks = []

        def started(_: float) -> None:
            looks.append(1)
            if len(looks) == 7:
                task(self.tree, 56, "nvidia-smi", "S")

        with mock.patch.object(host_processes.time, "sleep", started):
            self.fine("processes.stuck")
        self.assertEqual(len(looks), 7)


class Disks(Case):
    def test_what_is_left_counts_beside_the_share(self) -> None:
        for point, used, free, verdict in (
            ("/", 90.0, 700e9, "pass"),
            ("/", 90.0, 50e9, "warn"),
            ("/", 90.0, 10e9, "fail"),
            ("/", 81.0, 10e9, "warn"),
            ("/", 70.0, 1e9, "pass"),
            ("/var/lib/docker", 90.0, 10e9, "fail"),
            ("/boot", 84.0, 250e6, "pass"),
            ("/boot", 90.0, 100e6, "warn"),
            ("/boot", 97.0, 30e6, "fail"),
            ("/data", 97.0, 900e9, "pass"),
            ("/data", 97.0, 9e9, "warn"),
        ):
            (found,) = host_disk.judge_space([Space(point, used, int(free), None)])
            self.assertEqual(found["verdict"], verdict, (point, used, free))

    def test_what_belongs_to_containers_is_not_asked(self) -> None:
        table = (
            "/dev/sda1 / ext4 rw 0 0\n"
            "/dev/loop3 /snap/core20/1 squashfs ro 0 0\n"
            "overlay /var/lib/docker/overlay2/ab/merged overlay rw 0 0\n"
            "/dev/sdz /var/lib/kubelet/pods/1-2/volumes/csi/mount ext4 rw 0 0\n"
            "/dev/sdy /gone ext4 rw 0 0\n"
        )
        self.tree.put("/proc/self/mounts", table)
        context = mock.Mock(root=self.tree.root, path=lambda *p: self.tree.root + "".join(p))
        self.assertEqual([space.point for space in host_disk.read_space(context)], ["/"])

    def test_a_place_that_is_a_link_is_mounted_where_it_leads(self) -> None:
        self.tree.put("/etc/fstab", "UUID=1 / ext4 defaults\n/dev/sdb /srv/data xfs defaults\n").folder("/mnt/data")
        self.tree.folder("/srv").link("/srv/data", "../mnt/data")
        self.tree.put("/proc/self/mounts", "/dev/sda1 / ext4 rw 0 0\n/dev/sdb /mnt/data xfs rw 0 0\n")
        self.fine("disk.mounted")

    def test_the_container_of_a_firmwares_raid(self) -> None:
        table = (
            "Personalities : [raid1]\nmd126 : active raid1 sda[1] sdb[0]\n"
            "      99 blocks super external:/md127/0 [2/2] [UU]\n"
            "md127 : inactive sda[1](S) sdb[0](S)\n      10402 blocks super external:imsm\n"
        )
        self.tree.put("/proc/mdstat", table)
        self.fine("disk.raid")
        self.tree.put("/proc/mdstat", table.replace("external:imsm", "1.2"))
        self.fine("disk.raid", "warn")

    def test_a_mount_that_only_its_user_may_see(self) -> None:
        self.tree.put("/proc/self/mounts", "u@h: /home/u/h fuse.sshfs rw 0 0\n")
        for error, verdict in (
            (PermissionError(13, "Permission denied"), "skip"),
            (OSError(107, "not connected"), "warn"),
        ):
            with mock.patch.object(host_disk.os, "statvfs", side_effect=error):
                self.assertEqual([verdict], [item["verdict"] for item in run(self.tree, "disk.servers")])
        self.tree.put("/proc/self/mounts", "h:/x /x nfs rw 0 0\n")
        with mock.patch.object(host_disk.os, "statvfs", side_effect=OSError(116, "Stale file handle")):
            self.assertEqual(one(self.tree, "disk.servers")["verdict"], "fail")


class Network(Case):
    def card(self, number: int, state: str, function: int = 0, **files: str) -> str:
        """Have an Ethernet card that can RoCE, at 400 Gb/s, with these files of its interface."""
        real = f"/sys/devices/pci0000:00/0000:{number + 0x20:02x}:00.{function}"
        top = f"/sys/class/infiniband/mlx5_{number}{function}"
        for name, value in (("fw_ver", "28.43"), ("board_id", "MT_1"), ("hca_type", "MT4129")):
            self.tree.put(f"{top}/{name}", value)
        self.tree.link(top + "/device", self.tree.root + real)
        physical = "5: LinkUp" if state == "4: ACTIVE" else "3: Disabled"
        for name, value in (("state", state), ("phys_state", physical), ("link_layer", "Ethernet")):
            self.tree.put(f"{top}/ports/1/{name}", value)
        self.tree.put(top + "/ports/1/rate", "400 Gb/sec (4X NDR)").put(top + "/ports/1/counters/link_downed", "0")
        for name, value in {"flags": "0x1003", "carrier_up_count": "1", **files}.items():
            self.tree.put(f"{real}/net/eth{number}{function}/{name}", value)
        return top

    def setUp(self) -> None:
        super().setUp()
        os.rename(self.tree.root + "/sys/class/infiniband", self.tree.root + "/sys/class/gone")
        for number in range(4):
            self.card(number, "4: ACTIVE")

    def test_roce_ports_that_were_never_in_use_or_turned_off(self) -> None:
        self.card(4, "1: DOWN", flags="0x1002")  # turned off
        self.card(5, "1: DOWN", carrier_up_count="0")  # set up by habit, never a cable in it
        self.card(0, "1: DOWN", function=1, carrier_up_count="0")
        self.assertEqual(self.fine("ib.ports")["measured"], 4)

    def test_a_roce_port_that_lost_its_link(self) -> None:
        self.card(4, "1: DOWN", carrier_up_count="3")
        self.assertEqual(self.fine("ib.ports", "fail")["device"], "mlx5_40:1")

    def test_virtual_functions_do_what_their_card_does(self) -> None:
        top = self.card(6, "1: DOWN", carrier_up_count="3")
        self.tree.folder(os.path.realpath(self.tree.root + top + "/device")[len(self.tree.root) :] + "/physfn")
        self.fine("ib.ports")

    def test_a_network_of_its_own_may_be_slower_and_a_single_port_may_not(self) -> None:
        port = "/ports/1/rate"
        self.tree.put(self.card(7, "4: ACTIVE") + port, "200 Gb/sec (4X HDR)")
        self.fine("ib.rate", "fail")
        self.tree.put(self.card(8, "4: ACTIVE") + port, "200 Gb/sec (4X HDR)")
        self.fine("ib.rate")
        self.tree.put("/sys/class/infiniband/mlx5_80" + port, "200 Gb/sec (2X NDR)")
        self.fine("ib.rate", "fail")

    def test_slow_ethernet_that_could_do_roce_is_not_there_for_it(self) -> None:
        for number in range(4):
            self.tree.put(f"/sys/class/infiniband/mlx5_{number}0/ports/1/rate", "25 Gb/sec (1X EDR)")
        os.rename(self.tree.root + "/sys/module/nvidia_peermem", self.tree.root + "/sys/module/other")
        self.tree.put("/etc/security/limits.d/90-pinned.conf", "* soft memlock 65536\n")
        for name in ("ib.peermem", "limits.locked-memory"):
            self.fine(name, "skip")
            self.fine(name, "warn", ib_ports=4)

    def test_amazons_cards_count_in_another_way(self) -> None:
        for number in range(4):
            top = f"/sys/class/infiniband/mlx5_{number}0/ports/1/"
            os.unlink(self.tree.root + top + "counters/link_downed")
            os.rmdir(self.tree.root + top + "counters")
            self.tree.put(top + "link_layer", "Unspecified").put(top + "hw_counters/rx_drops", "0")
        self.fine("ib.errors", "skip")
        os.rename(self.tree.root + "/sys/module/nvidia_peermem", self.tree.root + "/sys/module/efa_nv_peermem")
        self.fine("ib.peermem")


class Guests(Case):
    def test_a_virtual_machine_is_not_told_where_its_gpus_hang(self) -> None:
        self.tree.put("/sys/bus/pci/devices/0000:9b:00.0/numa_node", "-1")
        self.fine("numa.devices", "warn")
        self.tree.put("/proc/cpuinfo", "processor : 0\nflags : fpu tsc hypervisor\n")
        self.fine("numa.devices", "skip")


class Engines(Case):
    def test_docker_hands_gpus_on_without_being_told(self) -> None:
        self.tree.put("/usr/bin/dockerd").put("/usr/bin/nvidia-ctk")
        self.fine("container.gpu", "warn")
        self.tree.put("/usr/bin/nvidia-container-runtime-hook")
        self.fine("container.gpu")


if __name__ == "__main__":
    unittest.main()
