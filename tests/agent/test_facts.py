"""Facts of this machine, against its own programs."""

from __future__ import annotations

import json
import os
import platform
import pwd
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from gpuprov.agent import facts, facts_gpu, facts_machine
from gpuprov.agent.system import System


class FakeSystem(System):
    """Files of another machine: only what is in *files* can be read."""

    def __init__(self, files: dict) -> None:
        self.files = files

    def read(self, path: str, limit: int = -1) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(2, "No such file", path)
        return self.files[path].encode()


def said(*words: str) -> str:
    return subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout.decode().strip()


class HereTest(unittest.TestCase):
    def setUp(self) -> None:
        self.facts = facts.gather(System())

    def test_kernel_and_name(self) -> None:
        self.assertEqual(self.facts["kernel"], said("uname", "-r"))
        self.assertEqual(self.facts["architecture"], said("uname", "-m"))
        self.assertEqual(self.facts["hostname"], said("uname", "-n").split(".")[0])

    def test_numbers(self) -> None:
        self.assertEqual(self.facts["processor_vcpus"], os.cpu_count())
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024 // 1024
        self.assertAlmostEqual(self.facts["memtotal_mb"], pages, delta=2)
        self.assertLess(abs(int(self.facts["date_time"]["epoch"]) - time.time()), 5)

    def test_python_and_user(self) -> None:
        self.assertEqual(self.facts["python_version"], platform.python_version())
        self.assertEqual(self.facts["python"]["version"]["minor"], sys.version_info[1])
        self.assertEqual(self.facts["user_id"], pwd.getpwuid(os.geteuid()).pw_name)
        self.assertEqual(self.facts["env"]["PATH"], os.environ["PATH"])

    def test_identity(self) -> None:
        with open("/proc/sys/kernel/random/boot_id") as f:
            self.assertEqual(self.facts["boot_id"], f.read().strip())
        self.assertEqual(self.facts["gpuprov"]["glibc"], platform.libc_ver()[1])

    def test_default_route(self) -> None:
        try:
            route = said("ip", "-4", "-j", "route", "get", "192.0.2.55")
        except (OSError, subprocess.CalledProcessError):
            self.assertEqual(self.facts["default_ipv4"], {})
            return
        self.assertEqual(self.facts["default_ipv4"]["address"], json.loads(route)[0]["prefsrc"])

    def test_they_survive_the_wire(self) -> None:
        self.assertEqual(json.loads(json.dumps(self.facts)), self.facts)

    def test_they_cost_little(self) -> None:
        """No processes, a few milliseconds; the limit leaves room for a loaded machine."""
        least = 1.0
        for _ in range(5):
            started = time.process_time()
            facts.gather(System())
            least = min(least, time.process_time() - started)
        self.assertLess(least, 0.02)


class ElsewhereTest(unittest.TestCase):
    def test_distributions(self) -> None:
        for text, debian_version, expected in (
            (
                'ID=ubuntu\nVERSION_ID="24.04"\nID_LIKE=debian\nVERSION_CODENAME=noble\nNAME="Ubuntu"\n',
                "trixie/sid",
                ("Ubuntu", "24.04", "24", "noble", "Debian"),
            ),
            (
                'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n',
                "12.11\n",
                ("Debian", "12.11", "12", "bookworm", "Debian"),
            ),
            ('ID="rocky"\nVERSION_ID="9.4"\nID_LIKE="rhel centos fedora"\n', "", ("Rocky", "9.4", "9", "NA", "RedHat")),
            ('ID="sles"\nVERSION_ID="15.6"\nID_LIKE="suse"\n', "", ("SLES", "15.6", "15", "NA", "Suse")),
        ):
            system = FakeSystem({"/etc/os-release": text, "/etc/debian_version": debian_version})
            found = facts._distribution(system)
            keys = ("distribution", "distribution_version", "distribution_major_version")
            keys += ("distribution_release", "os_family")
            self.assertEqual(tuple(found[key] for key in keys), expected)

    def test_processors_with_sockets(self) -> None:
        text = "".join(
            "processor\t: %d\nvendor_id\t: X\nmodel name\t: M\nphysical id\t: %d\ncpu cores\t: 2\n\n" % (n, n // 4)
            for n in range(8)
        )
        found = facts_machine.processor(text)
        self.assertEqual(
            (found["processor_count"], found["processor_cores"], found["processor_threads_per_core"]), (2, 2, 2)
        )
        self.assertEqual((found["processor_vcpus"], found["processor"][:3]), (8, ["0", "X", "M"]))

    def test_full_name_from_the_hosts_file(self) -> None:
        system = FakeSystem({"/etc/hosts": "127.0.0.1 localhost\n10.0.0.7 gpu7.example.org gpu7 # rack 2\n"})
        self.assertEqual(facts._fqdn(system, "gpu7"), "gpu7.example.org")
        self.assertEqual(facts._fqdn(system, "gpu8"), "gpu8")

    def test_own_address(self) -> None:
        route = (
            "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU\neth0 00000000 0100000A 3 0 0 0 00000000 0\n"
        )
        route += "eth0 0000000A 00000000 1 0 0 0 00FFFFFF 0\n"
        trie = "Local:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 127.0.0.1\n        /32 host LOCAL\n"
        trie += "     |-- 10.0.0.42\n        /32 host LOCAL\n"
        found = facts_machine.network(FakeSystem({"/proc/net/route": route, "/proc/net/fib_trie": trie}))[
            "default_ipv4"
        ]
        self.assertEqual((found["interface"], found["gateway"], found["address"]), ("eth0", "10.0.0.1", "10.0.0.42"))

    def test_driver_version_by_its_own_file(self) -> None:
        for line, version in (
            ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.10  Thu Jan 23 10:00:00 UTC 2025", "570.86.10"),
            ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build", "580.65.06"),
        ):
            self.assertEqual(facts_gpu._proc_version(FakeSystem({"/proc/driver/nvidia/version": line})), version)

    def test_fact_files(self) -> None:
        self.assertEqual(facts.fact_text('{"a": [1]}'), {"a": [1]})
        self.assertEqual(facts.fact_text("# x\n[One]\nKey = a=b\n"), {"One": {"key": "a=b"}})
        self.assertIn("error", facts.fact_text("nonsense"))


class GpuTest(unittest.TestCase):
    def test_pci_bus(self) -> None:
        """A bus with an H100, its audio function, and somebody else's display."""
        import shutil
        import tempfile

        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        for address, vendor, kind, device in (
            ("0000:17:00.0", "0x10de", "0x030200", "0x2330"),
            ("0000:17:00.1", "0x10de", "0x040300", "0x22bd"),
            ("0000:01:00.0", "0x1a03", "0x030000", "0x2000"),
        ):
            os.mkdir(os.path.join(folder, address))
            for name, value in (("vendor", vendor), ("class", kind), ("device", device)):
                with open(os.path.join(folder, address, name), "w") as f:
                    f.write(value + "\n")
        os.symlink("../../drivers/nvidia", os.path.join(folder, "0000:17:00.0", "driver"))
        old, facts_gpu.PCI = facts_gpu.PCI, folder
        try:
            found = facts_gpu.gather(System())
        finally:
            facts_gpu.PCI = old
        expected = {"address": "0000:17:00.0", "device": "0x2330", "class": "0x030200", "driver": "nvidia"}
        self.assertEqual((found["gpu_count"], found["gpus"]), (1, [expected]))


if __name__ == "__main__":
    unittest.main()
