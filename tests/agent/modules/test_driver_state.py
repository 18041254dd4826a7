"""`gpuprov_driver_state` on simulated hosts: folders for sysfs and /proc, doubles for rmmod, modprobe and systemctl."""

from __future__ import annotations

import os
import shutil
import unittest

from gpuprov.agent.modules import arguments, base, gpuprov_driver_state
from gpuprov.agent.perform import failed, perform
from tests.support.survey_tree import Tree

OLD, NEW = "580.95.05", "580.178.04"
KERNEL = "6.1.0-18-amd64"
GPU = ("0000:01:00.0", "10de", "2330", "030200")


class DriverCase(unittest.TestCase):
    def setUp(self) -> None:
        self.tree = Tree(self)
        self.tree.kernel(KERNEL).pci(*GPU)
        self.tree.debian(("libnvidia-compute-580", NEW + "-1"), ("nvidia-dkms-580-open", NEW + "-1"))
        self.on_disk(NEW)
        self.active = []
        self.did = []
        self.fails_to_load = False
        self.tree.system.which = lambda name, path=None: "/sbin/" + name
        self.tree.system.programs.update(rmmod=self.rmmod, modprobe=self.modprobe, systemctl=self.systemctl)

    def on_disk(self, version: str, license_name: str = "Dual MIT/GPL", kernel: str = KERNEL) -> None:
        self.tree.module("/lib/modules/%s/updates/dkms/nvidia.ko" % kernel, version, license_name)

    def loaded(self, version: str, kind: str = "Open Kernel Module") -> None:
        self.tree.loaded("nvidia", version).loaded("nvidia_uvm").loaded("nvidia_drm")
        self.tree.put(
            "/proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX %s for x86_64  %s  Release\n" % (kind, version)
        )

    def rmmod(self, words: list) -> object:
        self.did.append("rmmod " + words[0])
        shutil.rmtree(self.tree.root + "/sys/module/" + words[0])
        return ""

    def modprobe(self, words: list) -> object:
        self.did.append("modprobe " + words[0])
        if self.fails_to_load:
            return 1
        self.loaded(NEW)
        return ""

    def systemctl(self, words: list) -> object:
        if words[0] == "is-active":
            return "" if words[-1] in self.active else 3
        self.did.append("%s %s" % (words[0], words[-1]))
        return ""

    def call(self, **args: object) -> dict:
        given, wrong = arguments.check(gpuprov_driver_state.SPEC, args)
        self.assertEqual(wrong, [])
        call = base.Call(given, self.tree.system, check=bool(getattr(self, "check", False)), pending=set())
        module = gpuprov_driver_state.MODULE(call)
        module.root = self.tree.root
        try:
            return perform(module, lambda: None)
        except base.ModuleError as error:
            return failed(error)

    def decides(self, action: str, reason: str, **args: object) -> dict:
        done = self.call(**args)
        self.assertEqual((done["outcome"], done["result"]["decision"]), ("ok", action), done)
        self.assertIn(reason, "; ".join(done["result"]["reasons"]))
        self.assertEqual(done["result"]["reboot_required"], action == "reboot")
        return done["result"]

    def wrong(self, code: str, message: str, **args: object) -> dict:
        done = self.call(**args)
        self.assertEqual((done["outcome"], done["fault"]["code"]), ("failed", code), done)
        self.assertIn(message, done["msg"])
        return done


class DecisionTest(DriverCase):
    def test_nothing_to_do(self) -> None:
        self.loaded(NEW)
        result = self.decides("none", "the one on the disk: " + NEW, version=NEW, flavour="open")
        self.assertEqual((result["loaded"], result["on_disk"], result["libraries"]), (NEW, NEW, NEW))

    def test_another_version_is_loaded(self) -> None:
        self.loaded(OLD)
        result = self.decides("reload", "580.95.05 is loaded, 580.178.04 is on the disk")
        self.assertTrue(result["reload_required"])

    def test_another_flavour_is_loaded(self) -> None:
        self.loaded(NEW, "Kernel Module")
        self.decides("reload", "the proprietary module is loaded, the open one is on the disk")

    def test_switches_need_a_reboot(self) -> None:
        self.loaded(OLD)
        self.tree.pci("0000:05:00.0", "10de", "22a3", "068000")
        self.decides("reboot", "the NVSwitch fabric is set up anew")

    def test_nouveau_needs_a_reboot(self) -> None:
        self.tree.loaded("nouveau")
        self.decides("reboot", "nouveau is loaded and holds the GPUs")

    def test_a_module_for_the_next_kernel_only(self) -> None:
        os.unlink(self.tree.root + "/lib/modules/%s/updates/dkms/nvidia.ko" % KERNEL)
        self.tree.kernel("6.1.0-20-amd64").link("/vmlinuz", "boot/vmlinuz-6.1.0-20-amd64")
        self.on_disk(NEW, kernel="6.1.0-20-amd64")
        result = self.decides("reboot", "the module is built for kernel 6.1.0-20-amd64, which boots next")
        self.assertIn("kernel 6.1.0-20-amd64 boots next", result["notes"][0])

    def test_no_module_for_the_next_kernel(self) -> None:
        self.loaded(NEW)
        self.tree.kernel("6.1.0-20-amd64").link("/vmlinuz", "boot/vmlinuz-6.1.0-20-amd64")
        self.assertIn("after a reboot it is gone", self.decides("none", "")["notes"][1])

    def test_no_gpu(self) -> None:
        shutil.rmtree(self.tree.root + "/sys/bus/pci/devices/" + GPU[0])
        self.decides("none", "no NVIDIA GPU is on the PCI bus", version=NEW)
        self.wrong("driver-other", "driver 580.178.04 is installed, wanted is 590.1", version="590.1")

    def test_a_kernel_that_is_not_this_systems(self) -> None:
        """A container has its machine's kernel: never a pass, and nothing is tried."""
        shutil.rmtree(self.tree.root + "/lib/modules")
        done = self.call(reload=True)
        self.assertEqual(done["outcome"], "ok")
        self.assertIn("lab kernel: 6.1.0-18-amd64 has no modules on this system", done["result"]["skip"])
        self.assertEqual(self.did, [])

    def test_what_no_reload_mends(self) -> None:
        self.on_disk(OLD)
        self.wrong("driver-mixed", "kernel module 580.95.05 and libraries 580.178.04 do not fit")
        self.on_disk(NEW)
        self.wrong("driver-other", "driver 580.178.04 is installed, wanted is 580.95.05", version=OLD)
        self.wrong("driver-other", "the open kernel module is installed", flavour="proprietary")
        os.unlink(self.tree.root + "/lib/modules/%s/updates/dkms/nvidia.ko" % KERNEL)
        done = self.wrong("module-missing", "the driver has no module for the running kernel " + KERNEL)
        self.assertIn("dkms status", done["fault"]["hint"])

    def test_unknown_is_no_answer(self) -> None:
        os.unlink(self.tree.root + "/usr/sbin/modinfo")
        self.wrong("unknown", "the state of the driver cannot be told: modules.nvidia.on_disk: the host has no modinfo")


class ReloadTest(DriverCase):
    def test_services_out_modules_exchanged_services_back(self) -> None:
        self.loaded(OLD)
        self.active = ["nvidia-persistenced.service", "nvidia-dcgm.service"]
        done = self.call(reload=True)
        self.assertEqual((done["outcome"], done["result"]["loaded"]), ("changed", NEW), done)
        self.assertEqual(
            self.did,
            [
                "stop nvidia-dcgm.service",
                "stop nvidia-persistenced.service",
                "rmmod nvidia_drm",
                "rmmod nvidia_uvm",
                "rmmod nvidia",
                "modprobe nvidia",
                "modprobe nvidia_uvm",
                "modprobe nvidia_modeset",
                "start nvidia-persistenced.service",
                "start nvidia-dcgm.service",
            ],
        )
        self.assertEqual(self.call(reload=True)["outcome"], "ok")

    def test_check_mode(self) -> None:
        self.loaded(OLD)
        self.check = True
        self.assertEqual((self.call(reload=True)["outcome"], self.did), ("changed", []))

    def test_a_module_that_is_not_loaded_yet(self) -> None:
        self.assertEqual(self.call()["outcome"], "changed")
        self.assertEqual(self.did[0], "modprobe nvidia")

    def test_a_job_is_never_killed(self) -> None:
        self.loaded(OLD)
        self.tree.process(4242, "python3", ["/dev/nvidia0"])
        done = self.wrong("gpu-busy", "the GPUs are used by python3 (process 4242 of ", reload=True)
        self.assertIn("gpuprov kills no job", done["fault"]["hint"])
        self.assertEqual(self.did, [])

    def test_a_service_is_no_job(self) -> None:
        self.loaded(OLD)
        self.tree.process(800, "nvidia-persiste", ["/dev/nvidiactl"])
        self.tree.put("/proc/800/cgroup", "0::/system.slice/nvidia-persistenced.service\n")
        self.assertEqual(self.call(reload=True)["outcome"], "changed")

    def test_jobs_are_drained(self) -> None:
        self.loaded(OLD)
        self.tree.process(4242, "python3", ["/dev/nvidia0"])

        def drain(words: list) -> str:
            shutil.rmtree(self.tree.root + "/proc/4242")
            return "moved\n"

        self.tree.system.programs["sh"] = drain
        self.assertEqual(self.call(reload=True, drain_command="scontrol ...")["outcome"], "changed")

    def test_a_drain_that_does_not(self) -> None:
        self.loaded(OLD)
        self.tree.process(4242, "python3", ["/dev/nvidia0"])
        self.tree.system.programs["sh"] = 1
        self.wrong("drain-failed", "drain_command did not succeed", reload=True, drain_command="false")
        self.tree.system.programs["sh"] = ""
        self.wrong("gpu-busy", "the GPUs are still used by python3", reload=True, drain_command="true")
        self.assertEqual(self.did, [])

    def test_services_run_again_when_a_module_does_not_load(self) -> None:
        self.loaded(OLD)
        self.active, self.fails_to_load = ["nvidia-persistenced.service"], True
        self.wrong("modprobe-failed", "modprobe nvidia", reload=True)
        self.assertEqual(self.did[-1], "start nvidia-persistenced.service")

    def test_a_module_in_use_needs_a_reboot(self) -> None:
        """A console on the GPU: nobody has the device open, and the kernel does not let go."""
        self.loaded(OLD)
        self.tree.loaded("nvidia_drm", refcnt="1").loaded("nvidia", OLD, refcnt="2")
        self.tree.folder("/sys/module/nvidia/holders/nvidia_uvm").folder("/sys/module/nvidia/holders/nvidia_drm")
        self.active = ["nvidia-persistenced.service"]
        done = self.call(reload=True)
        self.assertEqual((done["outcome"], done["result"]["reboot_required"]), ("ok", True), done)
        self.assertIn("kernel module nvidia_drm is in use", done["result"]["reasons"][-1])
        self.assertEqual(self.did, ["stop nvidia-persistenced.service", "start nvidia-persistenced.service"])


if __name__ == "__main__":
    unittest.main()
