"""The modules `sysctl` and `modprobe`."""

from __future__ import annotations

import ctypes
import os
import subprocess
import unittest

from gpuprov.agent.modules import sysctl
from tests.support.module_calls import ModuleCase, isolated

CLONE_NEWNET = 0x40000000
NAME = "net.ipv4.ip_default_ttl"


class SysctlTest(ModuleCase):
    def test_file_only(self) -> None:
        path = self.write("s.conf", "# vm.swappiness = 1\nvm.swappiness=60\nkernel.x = 1\nvm/swappiness = 7\n")
        args = {"name": "vm.swappiness", "value": "10", "sysctl_file": path, "reload": False}
        self.twice("sysctl", args)
        self.assertEqual(self.read("s.conf"), "# vm.swappiness = 1\nvm.swappiness = 10\nkernel.x = 1\n")
        self.twice("sysctl", dict(args, state="absent"))
        self.assertEqual(self.read("s.conf"), "# vm.swappiness = 1\nkernel.x = 1\n")

    def test_a_new_file(self) -> None:
        args = {"name": "vm.a", "value": 1, "sysctl_file": self.path("new.conf"), "reload": False}
        self.twice("sysctl", args)
        self.assertEqual(self.read("new.conf"), "vm.a = 1\n")
        self.assertIn("value is missing", self.call("sysctl", {"name": "vm.a", "sysctl_file": self.path("x")})["msg"])

    def test_blanks_do_not_count(self) -> None:
        path = self.write("s.conf", "net.ipv4.tcp_rmem=4096\t87380  6291456\n")
        args = {"name": "net.ipv4.tcp_rmem", "value": "4096 87380 6291456", "sysctl_file": path}
        self.assertEqual(self.call("sysctl", args)["outcome"], "ok")

    @isolated("/etc")
    def test_the_running_kernel(self) -> None:
        """In a network namespace of its own: the setting is this test's alone."""
        self.own_network()
        path = self.path("s.conf")
        args = {"name": NAME, "value": "33", "sysctl_file": path, "sysctl_set": True}
        self.assertEqual(self.call("sysctl", args, check=True)["outcome"], "changed")
        self.assertNotEqual(self.kernel(), "33")
        self.pending.clear()
        self.assertEqual(self.call("sysctl", args)["outcome"], "changed")
        self.assertEqual(self.kernel(), "33")
        self.assertEqual(self.call("sysctl", args)["outcome"], "ok")
        with open("/proc/sys/net/ipv4/ip_default_ttl", "w") as f:
            f.write("44\n")
        self.assertEqual(self.call("sysctl", dict(args, sysctl_set=False))["outcome"], "ok")
        self.assertEqual(self.call("sysctl", args)["outcome"], "changed")
        self.assertEqual(self.kernel(), "33")
        self.assertEqual(self.call("sysctl", {"name": NAME, "value": "34", "sysctl_file": path})["outcome"], "changed")
        self.assertEqual(self.kernel(), "34")  # reload gives the file to the kernel

    @isolated("/etc")
    def test_refusals(self) -> None:
        self.own_network()
        said = self.fails("sysctl-refused", "sysctl", {"name": NAME, "value": "100000", "sysctl_file": self.path("a")})
        self.assertIn("100000", said)
        args = {"name": "net.ipv4.no_such", "value": "1", "sysctl_file": self.path("b")}
        self.fails("sysctl-unknown", "sysctl", args)
        self.assertEqual(self.call("sysctl", dict(args, ignoreerrors=True, value="2"))["outcome"], "changed")
        self.fails("sysctl-unknown", "sysctl", dict(args, sysctl_set=True, value="2"))
        subprocess.run(["mount", "--bind", "-o", "ro", "/proc/sys", "/proc/sys"], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", "/proc/sys"], check=True)
        said = self.fails("sysctl-read-only", "sysctl", {"name": NAME, "value": "35", "sysctl_file": self.path("c")})
        self.assertIn("a container", said)

    def own_network(self) -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
            raise AssertionError("unshare: %s" % os.strerror(ctypes.get_errno()))

    def kernel(self) -> str:
        with open("/proc/sys/net/ipv4/ip_default_ttl") as f:
            return f.read().strip()

    def test_names_of_interfaces(self) -> None:
        """As sysctl(8): the first separator says which one it is."""
        self.assertEqual(sysctl._path("net.ipv4.conf.eth0/1.x"), "/proc/sys/net/ipv4/conf/eth0.1/x")
        self.assertEqual(sysctl._path("net/ipv4/conf/eth0.1/x"), "/proc/sys/net/ipv4/conf/eth0.1/x")


class ModprobeTest(ModuleCase):
    @isolated("/etc")
    def test_a_module_that_is_not_there(self) -> None:
        args = {"name": "gpuprov_no_such"}
        done = self.call("modprobe", args)
        self.assertEqual(done["outcome"], "failed")
        self.assertIn(done["fault"]["code"], ("kernel-module-missing", "modprobe-failed", "program-missing"))
        self.assertEqual(self.call("modprobe", dict(args, state="absent"))["outcome"], "ok")

    @isolated("/etc")
    def test_at_boot(self) -> None:
        args = {"name": "gpuprov_no_such", "state": "absent", "persistent": "present", "params": "a=1 b=2"}
        self.assertEqual(self.call("modprobe", args, check=True)["outcome"], "changed")
        self.pending.clear()
        self.assertEqual(self.call("modprobe", args)["outcome"], "changed")
        with open("/etc/modules-load.d/gpuprov_no_such.conf") as f:
            self.assertEqual(f.read(), "gpuprov_no_such\n")
        with open("/etc/modprobe.d/gpuprov_no_such.conf") as f:
            self.assertEqual(f.read(), "options gpuprov_no_such a=1 b=2\n")
        self.assertEqual(self.call("modprobe", args)["outcome"], "ok")
        gone = dict(args, persistent="absent")
        self.assertEqual(self.call("modprobe", gone)["outcome"], "changed")
        self.assertFalse(os.path.exists("/etc/modules-load.d/gpuprov_no_such.conf"))
        self.assertEqual(self.call("modprobe", gone)["outcome"], "ok")

    def test_what_is_loaded_is_ok(self) -> None:
        name = next(name for name in sorted(os.listdir("/sys/module")) if "-" not in name)
        self.assertEqual(self.call("modprobe", {"name": name.replace("_", "-")})["outcome"], "ok")

    def test_reasons_by_their_texts(self) -> None:
        """What modprobe of kmod says in situations that cannot be made here."""
        task = self.make("modprobe", {"name": "nvidia"})
        task.probe()
        for code, text in (
            ("kernel-module-missing", "modprobe: FATAL: Module nvidia not found in directory /lib/modules/6.1"),
            ("root-needed", "modprobe: ERROR: could not insert 'nvidia': Operation not permitted"),
            ("secure-boot", "modprobe: ERROR: could not insert 'nvidia': Key was rejected by service"),
            ("busy", "modprobe: FATAL: Module nvidia is in use."),
            ("modprobe-failed", "modprobe: ERROR: could not insert 'nvidia': No such device"),
        ):
            with self.subTest(text=text):
                self.assertEqual(task._refused(text, 1).code, code)


if __name__ == "__main__":
    unittest.main()
