"""`gpuprov_driver_check` on simulated hosts: loaded = installed = pinned, one difference at a time."""

from __future__ import annotations

import shutil
import unittest

from gpuprov.agent.modules import arguments, base, gpuprov_driver_check
from gpuprov.agent.perform import failed, perform
from tests.support.survey_tree import Tree

OLD, NEW = "580.95.05", "580.178.04"
KERNEL = "6.1.0-18-amd64"
GPU = ("0000:01:00.0", "10de", "2330", "030200")
HELD = ["libnvidia-compute-580", "nvidia-dkms-580-open"]


class DriverCheckTest(unittest.TestCase):
    def setUp(self) -> None:
        self.tree = Tree(self)
        self.tree.kernel(KERNEL).pci(*GPU)
        self.debian("hold")
        self.tree.put("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so." + NEW, "")
        self.tree.link("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", "libnvidia-ml.so." + NEW)
        self.tree.module("/lib/modules/%s/updates/dkms/nvidia.ko" % KERNEL, NEW, "Dual MIT/GPL")
        self.loaded(NEW)

    def debian(self, want: str) -> None:
        packages = "".join(
            "Package: %s\nStatus: %s ok installed\nArchitecture: amd64\nVersion: %s-1\n\n" % (name, want, NEW)
            for name in HELD
        )
        self.tree.put("/var/lib/dpkg/status", packages)
        self.tree.put("/usr/bin/apt-get", "")

    def loaded(self, version: str, kind: str = "Open Kernel Module") -> None:
        self.tree.loaded("nvidia", version)
        self.tree.put(
            "/proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX %s for x86_64  %s  Release\n" % (kind, version)
        )

    def call(self, check: bool = False, pending: tuple = (), **args: object) -> dict:
        args = {"version": NEW, "flavour": "open", "held": HELD, **args}
        given, wrong = arguments.check(gpuprov_driver_check.SPEC, args)
        self.assertEqual(wrong, [])
        module = gpuprov_driver_check.MODULE(base.Call(given, self.tree.system, check=check, pending=set(pending)))
        module.root = self.tree.root
        try:
            return perform(module, lambda: self.fail("it only looks"))
        except base.NeedsEarlierChange as reason:
            return {"outcome": "unknown", "skip": str(reason)}
        except base.ModuleError as error:
            return failed(error)

    def test_all_three_are_one(self) -> None:
        done = self.call()
        self.assertEqual(done["outcome"], "ok", done)
        self.assertEqual((done["result"]["loaded"], done["result"]["libraries"]), (NEW, NEW))

    def fails(self, code: str, **args: object) -> str:
        done = self.call(**args)
        self.assertEqual((done["outcome"], done.get("fault", {}).get("code")), ("failed", code), done)
        return str(done["fault"]["message"])

    def test_each_difference_names_both_values(self) -> None:
        self.loaded(OLD)
        self.assertEqual(
            self.fails("driver-not-loaded"), "driver %s is loaded, wanted and installed is %s" % (OLD, NEW)
        )
        self.loaded(NEW, "Kernel Module")
        self.assertIn("the proprietary kernel module is loaded", self.fails("driver-not-loaded"))
        self.assertIn("driver %s is installed, wanted is 9.9" % NEW, self.fails("driver-not-installed", version="9.9"))

    def test_what_is_not_on_hold_is_named(self) -> None:
        self.debian("install")
        self.assertIn(", ".join(HELD), self.fails("driver-not-held"))
        self.assertEqual(self.call(held=[])["outcome"], "ok")

    def test_where_nothing_can_be_loaded_it_is_skipped_and_never_ok(self) -> None:
        shutil.rmtree(self.tree.root + "/lib/modules/" + KERNEL)
        done = self.call()
        self.assertEqual(done["outcome"], "skipped", done)
        self.assertTrue(done["skip"].startswith("lab kernel: " + KERNEL))
        self.debian("install")  # what can be looked at is, all the same
        self.fails("driver-not-held")

    def test_without_a_gpu_it_says_so(self) -> None:
        shutil.rmtree(self.tree.root + "/sys/bus/pci/devices")
        self.tree.folder("/sys/bus/pci/devices")
        done = self.call()
        self.assertEqual((done["outcome"], done["skip"]), ("skipped", "driver installed, no GPU on the PCI bus"), done)

    def test_in_check_mode_an_earlier_change_of_packages_makes_it_unknown(self) -> None:
        done = self.call(check=True, pending=("package nvidia-dkms-580-open",))
        self.assertEqual(done["outcome"], "unknown")

    def test_patterns_of_versionlock_are_holds(self) -> None:
        covers = gpuprov_driver_check.covers
        self.assertTrue(covers("nvidia-driver-cuda-3:580.178.04-1.el9.*", "nvidia-driver-cuda"))
        self.assertTrue(covers("nvidia-*", "nvidia-driver-cuda"))
        self.assertFalse(covers("nvidia-driver", "nvidia-driver-cuda"))
