"""The survey of odd hosts, from trees of their files: what cannot be served, secure boot, drivers, toolkits."""

from __future__ import annotations

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.support.survey_case import NVIDIA, UBUNTU, SurveyCase
from tests.support.survey_tree import EFI, SHIM, Tree

#: A virtual GPU's configuration space: power management at 0x60, then the capability that says "VF".
VGPU = bytearray(256)
VGPU[0x06], VGPU[0x34], VGPU[0x60:0x62], VGPU[0x68:0x6D] = 0x10, 0x60, b"\x01\x68", b"\x09\x00\x10VF"


class OddHostsTest(SurveyCase):
    def kind(self, tree):
        found = tree.debian().survey()
        return found["virtualization"], found["untold"]

    def test_wsl(self):
        tree = Tree(self).put("/proc/sys/kernel/osrelease", "5.15.153.1-microsoft-standard-WSL2\n")
        self.assertIs(self.kind(tree)[0]["wsl"], True)

    def test_azure_is_not_wsl(self):
        tree = Tree(self).put("/proc/sys/kernel/osrelease", "6.8.0-1015-azure\n")
        for name, text in (("sys_vendor", "Microsoft Corporation"), ("product_name", "Virtual Machine")):
            tree.put("/sys/class/dmi/id/" + name, text + "\n")
        found = self.kind(tree)[0]
        self.assertEqual((found["wsl"], found["kind"]), (False, "hyperv"))

    def test_jetson(self):
        tree = Tree(self).put("/proc/device-tree/compatible", "nvidia,p3737-0000+p3701-0005\0nvidia,tegra234\0")
        self.assertIs(self.kind(tree)[0]["jetson"], True)

    def test_images(self):
        for path, text, expected in (
            ("/run/ostree-booted", "", "ostree"),
            ("/etc/os-release", "ID=flatcar\n", "flatcar"),
            ("/etc/os-release", 'ID="sle-micro"\n', "sle-micro"),
            ("/etc/os-release", "ID=ubuntu\n", None),
        ):
            self.assertEqual(self.kind(Tree(self).put(path, text))[0]["image_based"], expected)
        tree = Tree(self).put("/proc/self/mounts", "/dev/vda3 / btrfs ro,relatime 0 0\n")
        tree.put("/usr/sbin/transactional-update")
        self.assertEqual(self.kind(tree)[0]["image_based"], "transactional-update")

    def test_virtual_gpu(self):
        tree = Tree(self).put("/sys/class/dmi/id/sys_vendor", "QEMU\n")
        tree.pci("0000:00:05.0", "10de", "1eb8", "030200", config=bytes(256))
        self.assertEqual((self.kind(tree)[0]["vgpu_guest"], self.kind(tree)[0]["kind"]), (False, "kvm"))
        tree.pci("0000:00:06.0", "10de", "1eb8", "030200", config=bytes(VGPU))
        self.assertIs(self.kind(tree)[0]["vgpu_guest"], True)

    def test_other_capabilities_are_no_virtual_gpu(self):
        other, neither = bytearray(VGPU), bytearray(VGPU)
        other[0x6B:0x6D] = b"P2"  # a vendor's own capability, as passed-through GPUs have
        neither[0x68] = 0x10
        for config in (other, neither):
            tree = Tree(self).pci("0000:00:05.0", "10de", "1eb8", "030200", config=bytes(config))
            self.assertIs(self.kind(tree)[0]["vgpu_guest"], False)
        tree = Tree(self).pci("0000:00:05.1", "10de", "10f8", "040300", config=bytes(VGPU))
        self.assertIs(self.kind(tree)[0]["vgpu_guest"], False)

    def test_a_configuration_space_that_is_cut_off(self):
        tree = Tree(self).pci("0000:00:05.0", "10de", "1eb8", "030200", config=bytes(VGPU)[:64])
        found, untold = self.kind(tree)
        self.assertNotIn("vgpu_guest", found)
        self.assertIn("root", untold["virtualization.vgpu_guest"])

    def test_containers(self):
        for path, text, expected in (
            ("/.dockerenv", "", "docker"),
            ("/run/.containerenv", "", "podman"),
            ("/run/systemd/container", "systemd-nspawn\n", "systemd-nspawn"),
            ("/proc/1/environ", "A=b\0container=lxc\0", "lxc"),
        ):
            self.assertEqual(self.kind(Tree(self).put(path, text))[0]["container"], expected)

    def test_machines(self):
        for vendor, product, expected in (
            ("Amazon EC2", "p5.48xlarge", "kvm"),
            ("Amazon EC2", "g4dn.metal", None),
            ("VMware, Inc.", "VMware7,1", "vmware"),
            ("Supermicro", "SYS-821GE-TNHR", None),
        ):
            tree = Tree(self).put("/sys/class/dmi/id/sys_vendor", vendor).put("/sys/class/dmi/id/product_name", product)
            self.assertEqual(self.kind(tree)[0]["kind"], expected)

    def test_a_hypervisor_without_a_name(self):
        tree = Tree(self).put("/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu hypervisor lahf_lm\n")
        self.assertEqual(self.kind(tree)[0]["kind"], "other")

    def test_nothing_of_the_kernel_can_be_seen(self):
        tree = Tree(self).debian()
        os.rmdir(tree.root + "/sys/bus")
        os.rmdir(tree.root + "/sys/module")
        os.unlink(tree.root + "/proc/sys/kernel/osrelease")
        found = tree.survey()
        for key in ("pci", "nvswitches", "nvlink5_bridges", "kernel", "modules"):
            self.assertNotIn(key, found)
            self.assertTrue(found["untold"][key])
        self.assertNotIn("vgpu_guest", found["virtualization"])
        self.assertNotIn("installed_by", found["driver"])

    def test_a_damaged_record(self):
        for text in ("{", "[]"):
            found = Tree(self).debian().put("/var/lib/gpuprov/applied.json", text).survey()
            self.assertNotIn("applied", found)
            self.assertIn("damaged", found["untold"]["applied"])

    def test_neither_dpkg_nor_rpm(self):
        found = Tree(self).survey()
        for key in ("packages", "holds", "package_lock", "driver", "repositories", "proxy", "dpkg_broken"):
            self.assertNotIn(key, found)
            self.assertIn("neither", found["untold"][key])


class SecureBootTest(SurveyCase):
    def setUp(self):
        self.tree = Tree(self).debian()
        self.folder = "/sys/firmware/efi/efivars/"

    def variable(self, name, data):
        return self.tree.put(self.folder + name, b"\x06\x00\x00\x00" + data)

    def both(self):
        found = self.tree.survey()
        return found["secure_boot"], found["mok_enrolled"], found["untold"]

    def test_on_and_off(self):
        self.variable("SecureBoot-" + EFI, b"\x01")
        self.assertEqual(self.both()[:2], (True, False))
        self.assertNotIn("secure_boot", self.both()[2])
        self.variable("MokSBStateRT-" + SHIM, b"\x01")  # validation is switched off in shim
        self.assertEqual(self.both()[0], False)
        self.variable("MokSBStateRT-" + SHIM, b"\x00")
        self.assertEqual(self.both()[0], True)
        self.variable("SecureBoot-" + EFI, b"\x00")
        self.assertEqual(self.both()[0], False)

    def test_firmware_that_says_nothing(self):
        self.tree.folder("/sys/firmware/efi")
        found = self.both()
        self.assertEqual(found[:2], (None, None))
        self.assertIn("not mounted", found[2]["secure_boot"])
        other = Tree(self).debian()
        os.rmdir(other.root + "/sys/firmware/memmap")  # as in containers
        found = other.survey()
        self.assertEqual((found["secure_boot"], found["mok_enrolled"]), (None, None))
        self.assertIn("hidden", found["untold"]["mok_enrolled"])

    def test_a_damaged_variable(self):
        self.tree.put(self.folder + "SecureBoot-" + EFI, b"\x06")
        self.assertIsNone(self.both()[0])

    def test_the_key_of_dkms(self):
        self.variable("SecureBoot-" + EFI, b"\x01").put("/var/lib/dkms/mok.pub", b"\x30\x82KEY")
        self.assertIs(self.both()[1], False)
        self.variable("MokListRT-" + SHIM, b"header\x30\x82OTHER")
        self.assertIs(self.both()[1], False)
        self.variable("MokListRT1-" + SHIM, b"header\x30\x82KEYmore")
        self.assertIs(self.both()[1], True)
        self.tree.put("/etc/dkms/framework.conf.d/org.conf", "mok_certificate=/etc/pki/org.der\n")
        self.assertIs(self.both()[1], False)  # DKMS signs with another key now
        self.tree.put("/etc/pki/org.der", b"\x30\x82OTHER")
        self.assertIs(self.both()[1], True)

    def test_what_the_kernel_demands(self):
        self.tree.put("/sys/module/module/parameters/sig_enforce", "Y\n")
        self.tree.put("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
        self.expect(self.tree.survey(), "module_signing", {"enforced": True, "lockdown": "integrity"})


class DriverTest(SurveyCase):
    def test_runfile(self):
        tree = Tree(self).debian().kernel("6.1.0-18-amd64").put("/usr/bin/nvidia-uninstall", "", 0o755)
        tree.module("/lib/modules/6.1.0-18-amd64/kernel/drivers/video/nvidia.ko", "570.86.10", "NVIDIA")
        tree.put("/usr/lib64/libnvidia-ml.so.570.86.10").link(
            "/usr/lib64/libnvidia-ml.so.1", "libnvidia-ml.so.570.86.10"
        )
        driver = tree.survey()["driver"]
        self.assertEqual((driver["installed_by"], driver["version"]), ("runfile", "570.86.10"))
        self.assertEqual((driver["flavour"], driver["repository_origin"]), ("proprietary", None))

    def test_runfile_over_packages(self):
        tree = Tree(self).debian(("nvidia-driver-580", "580.1.2-1ubuntu1", "install ok installed", NVIDIA))
        driver = tree.put("/var/lib/nvidia/log", "").survey()["driver"]
        self.assertEqual((driver["installed_by"], list(driver["packages"])), ("runfile", ["nvidia-driver-580"]))

    def test_a_driver_of_unknown_origin(self):
        tree = Tree(self).debian().put("/usr/lib/libnvidia-ml.so.570.1")
        tree.link("/usr/lib/libnvidia-ml.so.1", "libnvidia-ml.so.570.1")
        found = tree.survey()
        self.assertNotIn("installed_by", found["driver"])
        self.assertIn("no package", found["untold"]["driver.installed_by"])
        self.expect(found, "driver.version", "570.1")

    def test_debians_own(self):
        maker = "Debian NVIDIA Maintainers <pkg-nvidia-devel@lists.alioth.debian.org>"
        names = ("nvidia-driver", "nvidia-kernel-dkms", "libcuda1")
        tree = Tree(self).debian(*((name, "535.247.01-1~deb12u1", "install ok installed", maker) for name in names))
        tree.kernel("6.1.0-18-amd64").module(
            "/lib/modules/6.1.0-18-amd64/updates/dkms/nvidia-current.ko", "535.247.01", "NVIDIA"
        )
        tree.put("/lib/modules/6.1.0-18-amd64/updates/dkms/nvidia-current-uvm.ko")
        top = "/usr/lib/x86_64-linux-gnu/"
        tree.link(top + "libnvidia-ml.so.1", "/etc/alternatives/glx--libnvidia-ml.so.1")
        tree.link("/etc/alternatives/glx--libnvidia-ml.so.1", top + "nvidia/current/libnvidia-ml.so.1")
        tree.link(top + "nvidia/current/libnvidia-ml.so.1", "libnvidia-ml.so.535.247.01")
        tree.put(top + "nvidia/current/libnvidia-ml.so.535.247.01")
        found = tree.survey()
        self.expect(found, "modules.nvidia.on_disk", "535.247.01")
        driver = found["driver"]
        self.assertEqual(
            (driver["version"], driver["flavour"], driver["repository_origin"]),
            ("535.247.01", "proprietary", "distribution"),
        )

    def test_two_origins(self):
        tree = Tree(self).debian(
            ("libnvidia-compute-580", "580.1-1", "install ok installed", NVIDIA),
            ("nvidia-dkms-580-open", "580.2-1", "install ok unpacked", UBUNTU),
        )
        driver = tree.survey()["driver"]
        self.assertEqual((driver["repository_origin"], driver["version"], driver["flavour"]), ("mixed", None, "open"))

    def test_other_packages_of_nvidias_are_no_driver(self):
        names = (
            "nvidia-container-toolkit",
            "libnvidia-container1",
            "nvidia-cuda-toolkit",
            "nvidia-cudnn",
            "cuda-toolkit-12-8",
        )
        names += ("nvidia-driver-pinning-580", "nvidia-driver-assistant")
        driver = Tree(self).debian(*((name, "1.0-1") for name in names)).survey()["driver"]
        self.assertIsNone(driver["installed_by"])
        self.assertEqual(list(driver["packages"]), ["nvidia-driver-pinning-580"])


class ToolkitTest(SurveyCase):
    def toolkits(self, tree):
        found = tree.survey()
        return [(t["prefix"], t["version"], t.get("installed_by")) for t in found["toolkits"]], found["untold"]

    def test_how_they_came(self):
        tree = Tree(self).debian(
            ("cuda-libraries-11-8", "11.8.0-1"), ("nvidia-cuda-toolkit", "11.8.89~11.8.0-5~deb12u1")
        )
        tree.put("/usr/local/cuda-11.8/version.json", '{"cuda": {"version": "11.8.0"}}')
        tree.put("/usr/local/cuda-12.4/bin/cuda-uninstaller").put("/opt/cuda-13.0/bin/nvcc")
        tree.put("/opt/cuda/version.txt", "CUDA Version 10.2.89\n").folder("/usr/local/cudax")
        found, untold = self.toolkits(tree)
        expected = [
            ("/opt/cuda", "10.2.89", None),
            ("/opt/cuda-13.0", "13.0", None),
            ("/usr", "11.8.0", "package"),
            ("/usr/local/cuda-11.8", "11.8.0", "package"),
            ("/usr/local/cuda-12.4", "12.4", "runfile"),
        ]
        self.assertEqual(sorted(found, key=str), expected)
        self.assertIn("no package", untold["toolkits:/opt/cuda-13.0"])

    def test_a_damaged_one_leaves_the_others(self):
        tree = (
            Tree(self)
            .debian()
            .put("/usr/local/cuda-12.4/bin/cuda-uninstaller")
            .put("/usr/local/cuda-12.5/version.json", "{")
        )
        found, untold = self.toolkits(tree)
        self.assertEqual(found, [("/usr/local/cuda-12.4", "12.4", "runfile")])
        self.assertIn("version.json", untold["toolkits:/usr/local/cuda-12.5"])


if __name__ == "__main__":
    unittest.main()
