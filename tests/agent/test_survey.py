"""The survey of whole hosts that are not here, from trees of their files."""

from __future__ import annotations

import json
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from gpuprov.agent.survey import _PARTS
from tests.support.survey_case import NVIDIA, UBUNTU, SurveyCase
from tests.support.survey_tree import Tree


class DebianTest(SurveyCase):
    """A bare Debian 12 with an H100 that nobody has installed anything for."""

    def setUp(self):
        tree = Tree(self).kernel("6.1.0-18-amd64", headers=True).kernel("6.1.0-21-amd64")
        tree.debian(
            ("apt",),
            ("linux-image-6.1.0-21-amd64", "6.1.90-1", "hold ok installed"),
            ("gone", "1", "deinstall ok config-files"),
        )
        tree.program("/usr/bin/gcc", "12.2.0\n").program("/usr/bin/python3.11", "3.11.2\n")
        tree.link("/usr/bin/python3", "python3.11").link("/bin", "usr/bin")
        tree.put("/etc/os-release", 'ID=debian\nVERSION_ID="12"\n')
        tree.put(
            "/boot/grub/grub.cfg",
            'set default="0"\nfunction savedefault {\n  true\n}\n'
            "menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1' {\n"
            "\tif [ x = x ]; then\n\t\tinsmod gzio\n\tfi\n\tlinux\t/boot/vmlinuz-6.1.0-21-amd64 root=UUID=1 ro\n}\n",
        )
        tree.pci("0000:17:00.0", "10de", "2330", "030200", "10de:16c1").loaded("nouveau", refcnt="1")
        tree.pci("0000:17:00.1", "10de", "22bd", "040300").pci("0000:01:00.0", "1a03", "2000", "030000")
        tree.put(
            "/etc/apt/sources.list",
            "# deb http://x.test/ no main\ndeb [arch=amd64] http://m.test/debian bookworm main\n",
        )
        self.tree = tree
        self.found = tree.survey()

    def test_nothing_is_untold(self):
        self.assertEqual(self.found["untold"], {})
        keys = [key for _, _, keys in _PARTS for key in keys]
        self.assertEqual(sorted(self.found), sorted([*keys, "untold"]))
        self.assertEqual(json.loads(json.dumps(self.found)), self.found)

    def test_devices(self):
        gpu, sound = self.found["pci"]
        expected = {"address": "0000:17:00.0", "vendor": "10de", "device": "2330", "class": "0302"}
        expected.update(subsystem_vendor="10de", subsystem_device="16c1", driver=None)
        self.assertEqual(gpu, expected)
        self.assertEqual((sound["device"], sound["class"]), ("22bd", "0403"))
        self.assertEqual((self.found["nvswitches"], self.found["nvlink5_bridges"]), ([], []))

    def test_kernels(self):
        headers = {"6.1.0-18-amd64": True, "6.1.0-21-amd64": False}
        self.assertEqual(
            self.found["kernel"], {"running": "6.1.0-18-amd64", "next": "6.1.0-21-amd64", "headers": headers}
        )

    def test_headers_that_are_not_complete(self):
        os.unlink(self.tree.root + "/usr/src/linux-headers-6.1.0-18-amd64/include/generated/autoconf.h")
        self.expect(self.tree.survey(), "kernel.headers", {"6.1.0-18-amd64": False, "6.1.0-21-amd64": False})

    def test_tools(self):
        self.expect(self.found, "gcc", {"version": "12.2.0"})
        self.expect(self.found, "pythons", [{"path": "/usr/bin/python3.11", "version": "3.11.2"}])
        self.expect(self.found, "arch", os.uname().machine)

    def test_modules_and_driver(self):
        self.expect(self.found, "modules.nouveau", {"loaded": True, "users": 1})
        self.expect(self.found, "modules.nvidia_uvm", {"loaded": False})
        nothing = {"version": None, "on_disk": None, "license": None, "flavour": None, "by_kernel": {}}
        self.expect(self.found, "modules.nvidia", {"loaded": False, **nothing})
        nothing = {"installed_by": None, "version": None, "flavour": None, "repository_origin": None}
        self.expect(self.found, "driver", {"packages": {}, **nothing})
        self.expect(self.found, "toolkits", [])

    def test_packages(self):
        self.expect(self.found, "holds", ["linux-image-6.1.0-21-amd64"])
        self.expect(self.found, "dpkg_broken", [])
        self.expect(self.found, "dpkg_interrupted", False)
        expected = {"installed": False, "enabled": False, "program": "unattended-upgrades"}
        self.expect(self.found, "unattended_upgrades", expected)
        self.expect(self.found, "package_lock", None)
        source = {"url": "http://m.test/debian/dists/bookworm/", "reachable": None, "error": None}
        self.expect(self.found, "repositories", [{**source, "file": "/etc/apt/sources.list"}])

    def test_the_machine(self):
        ordinary = {"kind": None, "container": None, "wsl": False, "vgpu_guest": False, "jetson": False}
        self.expect(self.found, "virtualization", {**ordinary, "image_based": None, "dgx_os": None})
        self.expect(self.found, "secure_boot", False)
        self.expect(self.found, "mok_enrolled", False)
        self.expect(self.found, "gpu_processes", [])
        self.expect(self.found, "conda", None)
        self.expect(self.found, "proxy", {})
        self.expect(self.found, "applied", None)
        self.assertEqual(sorted(self.found["disk_free"]), ["/", "/boot", "/usr", "/var"])


class HgxTest(SurveyCase):
    """Ubuntu 24.04 on an HGX H100: NVIDIA's packages, switches, a job, unattended upgrades, a toolkit."""

    def setUp(self):
        tree = (
            Tree(self).put("/proc/sys/kernel/osrelease", "6.8.0-45-generic\n").kernel("6.8.0-45-generic", headers=True)
        )
        version = "580.65.06-0ubuntu1"
        tree.debian(
            ("libnvidia-compute-580", version, "hold ok installed", NVIDIA),
            ("nvidia-dkms-580-open", version, "hold ok installed", NVIDIA),
            ("nvidia-fabricmanager", "580.65.06-1", "install ok installed", NVIDIA),
            ("nvidia-container-toolkit", "1.17.8-1", "install ok installed", NVIDIA),
            ("cuda-nvcc-12-8", "12.8.93-1", "install ok installed", NVIDIA),
            ("libnccl2", "2.27.7-1+cuda12.9", "install ok installed", NVIDIA),
            ("unattended-upgrades", "2.9", "install ok installed", UBUNTU),
            ("linux-image-generic", "6.8.0-45", "install ok half-configured", UBUNTU),
        )
        apt = 'APT::Periodic::Unattended-Upgrade "1";\nAcquire::http::Proxy "http://u:pw@p.test:3128/";\n'
        tree.program("/usr/bin/apt-config", apt)
        tree.link("/etc/systemd/system/timers.target.wants/apt-daily-upgrade.timer", "/lib/systemd/system/x.timer")
        for n in range(2):
            tree.pci("0000:1%d:00.0" % n, "10de", "2330", "030200", driver="nvidia")
        tree.pci("0000:05:00.0", "10de", "22a3", "068000").pci("0000:06:00.0", "10de", "22a3", "068000")
        tree.loaded("nvidia", "580.65.06", "37").loaded("nvidia_uvm", refcnt="4")
        tree.put(
            "/proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release\n",
        )
        tree.module("/lib/modules/6.8.0-45-generic/updates/dkms/nvidia.ko.zst", "580.65.06", "Dual MIT/GPL", "h key")
        tree.module("/lib/modules/6.8.0-45-generic/updates/dkms/nvidia-uvm.ko.zst", "580.65.06", "Dual MIT/GPL")
        libraries = "/usr/lib/x86_64-linux-gnu/"
        tree.put(libraries + "libnvidia-ml.so.580.65.06").link(
            libraries + "libnvidia-ml.so.1", "libnvidia-ml.so.580.65.06"
        )
        tree.put("/usr/local/cuda-12.8/version.json", '{"cuda": {"version": "12.8.1"}}').put(
            "/usr/local/cuda-12.8/bin/nvcc"
        )
        tree.link("/usr/local/cuda", "/etc/alternatives/cuda").link("/etc/alternatives/cuda", "/usr/local/cuda-12.8")
        tree.put("/dev/nvidia0").process(100, "python3", ["/dev/null", "/dev/nvidia0"]).process(
            200, "sshd", ["/dev/null"]
        )
        tree.put("/etc/dgx-release", 'DGX_NAME="DGX Server"\nDGX_OTA_VERSION="7.1.0"\n')
        tree.put("/var/lib/gpuprov/applied.json", '{"run": "r1"}')
        tree.put("/sys/class/dmi/id/sys_vendor", "Supermicro\n")
        self.tree = tree
        self.found = tree.survey()

    def test_switches(self):
        self.expect(self.found, "nvswitches", ["0000:05:00.0", "0000:06:00.0"])
        self.assertEqual([d["driver"] for d in self.found["pci"]], [None, None, "nvidia", "nvidia"])

    def test_the_driver(self):
        nvidia = self.found["modules"]["nvidia"]
        self.assertEqual((nvidia["loaded"], nvidia["users"], nvidia["version"]), (True, 37, "580.65.06"))
        self.assertEqual(
            (nvidia["on_disk"], nvidia["license"], nvidia["flavour"]), ("580.65.06", "Dual MIT/GPL", "open")
        )
        file = nvidia["by_kernel"]["6.8.0-45-generic"]
        self.assertEqual(file["path"], "/lib/modules/6.8.0-45-generic/updates/dkms/nvidia.ko.zst")
        self.assertEqual(file["signer"], "h key")
        driver = self.found["driver"]
        names = ["libnvidia-compute-580", "nvidia-dkms-580-open", "nvidia-fabricmanager"]
        self.assertEqual((driver["installed_by"], sorted(driver["packages"])), ("package", names))
        self.assertEqual((driver["version"], driver["flavour"]), ("580.65.06", "open"))
        self.assertEqual(driver["repository_origin"], "nvidia")

    def test_packages(self):
        versions = {
            "nvidia-container-toolkit": "1.17.8-1",
            "libnccl2": "2.27.7-1+cuda12.9",
            "cuda-nvcc-12-8": "12.8.93-1",
        }
        self.assertEqual({name: self.found["packages"][name] for name in versions}, versions)
        self.assertNotIn("unattended-upgrades", self.found["packages"])
        self.expect(self.found, "holds", ["libnvidia-compute-580", "nvidia-dkms-580-open"])
        self.expect(self.found, "dpkg_broken", ["linux-image-generic"])
        self.expect(self.found, "unattended_upgrades.enabled", True)

    def test_what_switches_unattended_upgrades_off(self):
        timer = self.tree.root + "/etc/systemd/system/apt-daily-upgrade.timer"
        os.symlink("/dev/null", timer)
        self.expect(self.tree.survey(), "unattended_upgrades.enabled", False)
        os.unlink(timer)
        for apt in (
            "",
            'APT::Periodic::Unattended-Upgrade "0";\n',
            'APT::Periodic::Enable "0";\nAPT::Periodic::Unattended-Upgrade "1";\n',
        ):
            self.tree.program("/usr/bin/apt-config", apt)
            self.expect(
                self.tree.survey(),
                "unattended_upgrades",
                {"installed": True, "enabled": False, "program": "unattended-upgrades"},
            )

    def test_an_interrupted_dpkg(self):
        self.tree.put(
            "/var/lib/dpkg/updates/0001",
            "Package: libnccl2\nStatus: install ok half-installed\nArchitecture: amd64\nVersion: 2.28\n\n",
        )
        found = self.tree.survey()
        self.expect(found, "dpkg_interrupted", True)
        self.expect(found, "dpkg_broken", ["libnccl2", "linux-image-generic"])
        self.assertEqual(found["packages"]["libnccl2"], "2.28")

    def test_the_toolkit_once(self):
        toolkit = {"prefix": "/usr/local/cuda-12.8", "version": "12.8.1", "installed_by": "package", "nvcc": True}
        self.expect(self.found, "toolkits", [toolkit])

    def test_who_uses_the_gpus(self):
        (process,) = self.found["gpu_processes"]
        self.assertEqual((process["pid"], process["name"]), (100, "python3"))
        self.assertTrue(process["user"])

    def test_the_rest(self):
        self.expect(self.found, "virtualization.dgx_os", "7.1.0")
        self.expect(self.found, "virtualization.kind", None)
        self.expect(self.found, "applied", {"run": "r1"})
        self.expect(self.found, "proxy.apt", {"Acquire::http::Proxy": "http://********@p.test:3128/"})

    def test_a_driver_that_was_upgraded_under_a_loaded_one(self):
        self.tree.module("/lib/modules/6.8.0-45-generic/updates/dkms/nvidia.ko.zst", "580.95.05", "NVIDIA")
        nvidia = self.tree.survey()["modules"]["nvidia"]
        self.assertEqual((nvidia["version"], nvidia["on_disk"]), ("580.65.06", "580.95.05"))
        self.assertEqual(
            (nvidia["flavour"], nvidia["by_kernel"]["6.8.0-45-generic"]["flavour"]), ("open", "proprietary")
        )

    def test_a_module_for_the_next_kernel_only(self):
        self.tree.kernel("6.8.0-60-generic")
        self.tree.module(
            "/lib/modules/6.8.0-60-generic/kernel/nvidia-580srv-open/nvidia.ko", "580.95.05", "Dual MIT/GPL"
        )
        os.unlink(self.tree.root + "/lib/modules/6.8.0-45-generic/updates/dkms/nvidia.ko.zst")
        nvidia = self.tree.survey()["modules"]["nvidia"]
        self.assertIsNone(nvidia["on_disk"])
        self.assertEqual(list(nvidia["by_kernel"]), ["6.8.0-60-generic"])

    def test_without_modinfo_the_disk_is_unknown_and_not_empty(self):
        os.unlink(self.tree.root + "/usr/sbin/modinfo")
        found = self.tree.survey()
        self.assertNotIn("on_disk", found["modules"]["nvidia"])
        self.assertNotIn("by_kernel", found["modules"]["nvidia"])
        self.assertIn("modinfo", found["untold"]["modules.nvidia.on_disk"])
        self.expect(found, "modules.nvidia.flavour", "open")


class BlackwellTest(SurveyCase):
    """B200: the switches are managed by a ConnectX-7 that only its vital product data tells from a network card."""

    def setUp(self):
        self.tree = Tree(self).debian().pci("0000:1b:00.0", "10de", "2901", "030200")
        self.tree.pci(
            "0000:0a:00.0", "15b3", "1021", "020700", "15b3:0010", vpd=b"\x82\x2f\x00NVIDIA\x90V0 MLX:SMDL=SW_MNG\x78"
        )
        self.tree.pci("0000:0b:00.0", "15b3", "1021", "020700", "15b3:0010", vpd=b"\x82\x2f\x00NVIDIA ConnectX-7\x78")
        self.tree.pci("0000:0b:00.1", "15b3", "101e", "020700", vpd=b"SW_MNG").link(
            "/sys/bus/pci/devices/0000:0b:00.1/physfn", "../0000:0b:00.0"
        )
        self.tree.pci("0000:0c:00.0", "15b3", "1021", "020000")

    def test_bridges(self):
        found = self.tree.survey()
        self.expect(found, "nvlink5_bridges", ["0000:0a:00.0"])
        self.assertEqual([d["address"] for d in found["pci"]], ["0000:0a:00.0", "0000:1b:00.0"])

    def test_product_data_that_cannot_be_read(self):
        class Refusing(type(self.tree.system)):
            def read(self, path, limit=-1):
                if path.endswith("0b:00.0/vpd"):
                    raise PermissionError(13, "Permission denied", path)
                return super().read(path, limit)

        self.tree.system.__class__ = Refusing
        found = self.tree.survey()
        self.expect(found, "nvlink5_bridges", ["0000:0a:00.0"])  # there is one: that is certain
        os.unlink(self.tree.root + "/sys/bus/pci/devices/0000:0a:00.0/vpd")
        found = self.tree.survey()
        self.assertNotIn("nvlink5_bridges", found)
        self.assertIn("0b:00.0/vpd: Permission denied", found["untold"]["nvlink5_bridges"])
        self.assertEqual(len(found["pci"]), 1)


class EnterpriseLinuxTest(SurveyCase):
    """EL 9 with rpm, BLS entries, a Python 3.6-like platform-python beside 3.9, and versionlock."""

    def setUp(self):
        release, newer = "5.14.0-427.el9.x86_64", "5.14.0-503.11.el9.x86_64"
        tree = Tree(self).put("/proc/sys/kernel/osrelease", release + "\n").kernel(release, headers=True).kernel(newer)
        tree.rpm(
            ("bash", 0, "5.1-1.el9", "Rocky"),
            ("nvidia-driver-cuda", 3, "580.65.06-1.el9", "NVIDIA Corporation"),
            ("kmod-nvidia-latest-dkms", 3, "580.65.06-1.el9", "NVIDIA Corporation"),
            ("dnf-automatic", 0, "4.14-1", "Rocky"),
        )
        tree.put("/etc/os-release", 'ID="rocky"\nVERSION_ID="9.5"\nID_LIKE="rhel centos fedora"\n')
        tree.put("/boot/grub2/grub.cfg", 'set default="${saved_entry}"\ninsmod blscfg\nblscfg\n')
        for name in (release, newer, "0-rescue-abc"):
            text = "title Rocky\nversion %s\nlinux /vmlinuz-%s\n" % (name, name)
            tree.put("/boot/loader/entries/abc-%s.conf" % name, text)
        tree.put("/etc/dnf/plugins/versionlock.list", "# Added\nnvidia-driver-cuda-3:580.65.06-1.el9.*\n")
        tree.link("/etc/systemd/system/timers.target.wants/dnf-automatic-install.timer", "/usr/lib/systemd/system/x")
        tree.program("/usr/bin/python3.9", "3.9.18\n").link("/usr/bin/python3", "python3.9")
        tree.program("/usr/libexec/platform-python", "3.6.8\n")
        tree.put(
            "/etc/yum.repos.d/x.repo",
            "[base]\nname=x\nbaseurl=http://m.test/$releasever/$basearch/os/\n\n[off]\nenabled=0\nbaseurl=http://no.test/\n"
            "[list]\nmirrorlist=https://m.test/list?repo=x-$releasever\n[odd]\nmetalink=https://m.test/$stream\n",
        )
        tree.put("/etc/dnf/dnf.conf", "[main]\nproxy=http://p.test:1\n")
        self.tree = tree
        self.found = tree.survey()

    def test_packages(self):
        versions = {"nvidia-driver-cuda": "3:580.65.06-1.el9", "kmod-nvidia-latest-dkms": "3:580.65.06-1.el9"}
        self.expect(self.found, "packages", versions)
        self.expect(self.found, "holds", ["nvidia-driver-cuda-3:580.65.06-1.el9.*"])
        expected = {"installed": True, "enabled": True, "program": "dnf-automatic"}
        self.expect(self.found, "unattended_upgrades", expected)
        self.assertNotIn("dpkg_broken", self.found)
        self.assertEqual(len([words for words in self.tree.system.ran if words[0].endswith("rpm")]), 1)

    def test_the_driver(self):
        driver = self.found["driver"]
        self.assertEqual(
            (driver["installed_by"], driver["version"], driver["flavour"]), ("package", "580.65.06", "proprietary")
        )
        self.assertEqual(driver["repository_origin"], "nvidia")

    def test_a_maker_that_nobody_knows(self):
        self.tree.rpm(("kmod-nvidia", 0, "1-1", "RPM Fusion"))
        found = self.tree.survey()
        self.assertNotIn("repository_origin", found["driver"])
        self.assertIn("RPM Fusion", found["untold"]["driver.repository_origin"])

    def test_kernels(self):
        self.expect(self.found, "kernel.next", "5.14.0-503.11.el9.x86_64")
        self.tree.put("/boot/grub2/grubenv", "# GRUB Environment Block\nsaved_entry=abc-5.14.0-427.el9.x86_64\n####")
        self.expect(self.tree.survey(), "kernel.next", "5.14.0-427.el9.x86_64")

    def test_pythons(self):
        paths = [("/usr/libexec/platform-python", "3.6.8"), ("/usr/bin/python3.9", "3.9.18")]
        self.expect(self.found, "pythons", [{"path": p, "version": v} for p, v in paths])

    def test_sources_and_proxy(self):
        urls = [(one["url"], one["error"]) for one in self.found["repositories"]]
        arch = os.uname().machine
        expected = [("http://m.test/9/%s/os/" % arch, None), ("https://m.test/list", None)]
        self.assertEqual(urls, [*expected, ("https://m.test/$stream", "dnf's variable $stream is not known")])
        self.expect(self.found, "proxy.dnf", {"proxy": "http://p.test:1"})

    def test_a_broken_rpm_leaves_its_keys_out(self):
        self.tree.program("/usr/bin/rpm", 1)
        found = self.tree.survey()
        for key in ("packages", "driver", "toolkits", "unattended_upgrades"):
            self.assertNotIn(key, found)
            self.assertIn("rpm", found["untold"][key])
        self.assertEqual(found["kernel"]["running"], "5.14.0-427.el9.x86_64")


if __name__ == "__main__":
    unittest.main()
