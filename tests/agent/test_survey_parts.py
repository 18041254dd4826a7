"""The survey's trickier parts: GRUB, locks, programs that misbehave, package sources and whether they answer."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from gpuprov.agent import (
    survey_grub,
    survey_locks,
    survey_modules,
    survey_tools,
    survey_use,
)
from gpuprov.agent.survey import survey
from gpuprov.agent.survey_host import Host, Untold
from gpuprov.agent.system import System
from tests.support.survey_tree import Tree

MENU = """
set default="%s"
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set boot_once=true
else
   set default="%s"
fi
function load_video {
  insmod all_video
}
menuentry 'Debian' --class debian $menuentry_id_option 'simple' {
	linux	/boot/vmlinuz-3 root=/dev/sda1
}
submenu 'Advanced options' $menuentry_id_option 'advanced' {
	menuentry 'Debian, with Linux 3' $menuentry_id_option 'a3' {
		linux	/boot/vmlinuz-3 root=/dev/sda1
	}
	menuentry "Debian, with Linux 2" $menuentry_id_option 'a2' {
		echo 'Loading {'
		linux	(hd0,gpt2)/vmlinuz-2 root=/dev/sda1
	}
}
menuentry 'Windows' {
	chainloader /EFI/Microsoft/Boot/bootmgfw.efi
}
"""


class GrubTest(unittest.TestCase):
    def tree(self, default, env=""):
        tree = Tree(self).put("/boot/grub/grub.cfg", MENU % ("0", default))
        for release in ("2", "3"):
            tree.put("/boot/vmlinuz-" + release)
        return tree.put("/boot/grub/grubenv", "# GRUB Environment Block\n%s\n####" % env) if env else tree

    def image(self, *words):
        return survey_grub.default_image(self.tree(*words).host())

    def test_every_way_to_name_an_entry(self):
        for default, image in (
            ("0", "/boot/vmlinuz-3"),
            ("1>1", "/vmlinuz-2"),
            ("Advanced options>Debian, with Linux 2", "/vmlinuz-2"),
            ("advanced>a2", "/vmlinuz-2"),
            ("advanced>0", "/boot/vmlinuz-3"),
            ("no such entry", "/boot/vmlinuz-3"),
            ("7", "/boot/vmlinuz-3"),
            ("", "/boot/vmlinuz-3"),
        ):
            self.assertEqual(self.image(default), image, default)

    def test_the_environment_block(self):
        self.assertEqual(self.image("${saved_entry}", "saved_entry=advanced>a2"), "/vmlinuz-2")
        self.assertEqual(self.image("${saved_entry}"), "/boot/vmlinuz-3")
        self.assertEqual(self.image("0", "next_entry=1>1"), "/vmlinuz-2")  # grub-reboot

    def test_what_cannot_be_told(self):
        for default, why in (("1", "submenu"), ("Windows", "no Linux"), ("${odd}", "known only when it boots")):
            with self.assertRaisesRegex(Untold, why):
                self.image(default)

    def test_own_settings_of_the_site(self):
        tree = self.tree("0").put("/boot/grub/custom.cfg", "set default='advanced>a2'\n")
        with self.assertRaisesRegex(Untold, r"custom\.cfg"):
            survey_grub.default_image(tree.host())

    def test_a_stub_on_the_efi_partition_is_passed_over(self):
        tree = Tree(self).put("/boot/efi/EFI/debian/grub.cfg", "configfile $prefix/grub.cfg\n")
        self.assertIsNone(survey_grub.default_image(tree.host()))
        tree.put("/boot/efi/EFI/redhat/grub.cfg", "menuentry 'x' {\n linuxefi /vmlinuz-9\n}\n")
        self.assertEqual(survey_grub.default_image(tree.host()), "/vmlinuz-9")

    def test_versions_sort_as_rpm_sorts_them(self):
        names = ["m-0-rescue", "m-5.14.0-70", "m-5.14.0-362.8.1", "m-5.14.0-427~rc1", "m-5.14.0-427"]
        reversed_names = names[::-1]
        self.assertEqual(sorted(reversed_names, key=survey_grub.version_key), names)


class NextKernelTest(unittest.TestCase):
    def coming(self, tree):
        found = tree.debian().survey()
        return found["kernel"]["next"], found["untold"].get("kernel.next", "")

    def test_links_where_there_is_no_grub(self):
        tree = Tree(self).kernel("6.1.0-18-amd64").kernel("6.1.0-21-amd64")
        self.assertIn("6.1.0-18-amd64, 6.1.0-21-amd64", self.coming(tree)[1])
        tree.link("/vmlinuz", "boot/vmlinuz-6.1.0-21-amd64")
        self.assertEqual(self.coming(tree), ("6.1.0-21-amd64", ""))

    def test_the_only_kernel_is_the_next_one_when_it_runs(self):
        tree = Tree(self).kernel("6.1.0-18-amd64")
        self.assertEqual(self.coming(tree)[0], "6.1.0-18-amd64")
        tree.put("/proc/sys/kernel/osrelease", "6.1.0-17-amd64\n")
        self.assertIsNone(self.coming(tree)[0])

    def test_a_kernel_that_is_not_there(self):
        tree = Tree(self).kernel("6.1.0-18-amd64").put("/boot/grub/grub.cfg", "menuentry 'x' {\n linux /vmlinuz-7\n}\n")
        found = self.coming(tree)
        self.assertIsNone(found[0])
        self.assertIn("/vmlinuz-7, which is not in /boot", found[1])

    def test_kexec(self):
        tree = Tree(self).kernel("6.1.0-18-amd64").put("/sys/kernel/kexec_loaded", "1\n")
        self.assertIn("kexec", self.coming(tree)[1])

    def test_rescue_images_are_no_kernels(self):
        tree = (
            Tree(self)
            .kernel("6.1.0-18-amd64")
            .put("/boot/vmlinuz-0-rescue-abc")
            .put("/boot/vmlinuz-6.1.0-18-amd64.old")
        )
        self.assertEqual(self.coming(tree)[0], "6.1.0-18-amd64")
        self.assertEqual(list(tree.survey()["kernel"]["headers"]), ["6.1.0-18-amd64"])


LOCKER = """
import fcntl, sys, time
f = open(sys.argv[1], "r+")
fcntl.lockf(f, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


class LockTest(unittest.TestCase):
    """A real lock, held by a real process."""

    def held(self, tree, path):
        tree.put(path).put("/tmp/unattended-upgrade", LOCKER).link("/proc/%d" % os.getpid(), "/nowhere")
        words = [sys.executable, "-S", tree.root + "/tmp/unattended-upgrade", tree.root + path]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.assertEqual(process.stdout.readline(), b"locked\n")

        def end():
            process.communicate()

        self.addCleanup(end)
        with open("/proc/%d/cmdline" % process.pid, "rb") as f:
            tree.put("/proc/%d/cmdline" % process.pid, f.read())
        return process

    def lock(self, tree):
        return survey_locks.package_lock(tree.host(), {})["package_lock"]

    def test_each_of_apts(self):
        for path in (
            "/var/lib/dpkg/lock-frontend",
            "/var/lib/dpkg/lock",
            "/var/lib/apt/lists/lock",
            "/var/cache/apt/archives/lock",
        ):
            tree = Tree(self).debian().put(path)
            self.assertIsNone(self.lock(tree))
            process = self.held(tree, path)
            expected = {"path": path, "pid": process.pid, "program": "unattended-upgrade"}
            self.assertEqual(self.lock(tree), expected)
            process.communicate()
            self.assertIsNone(self.lock(tree))

    def test_looking_takes_no_lock(self):
        tree = Tree(self).debian().put("/var/lib/dpkg/lock")
        self.assertIsNone(self.lock(tree))
        self.held(tree, "/var/lib/dpkg/lock")  # fails when the lock is ours

    def test_rpms_lock_and_dnfs_files(self):
        tree = Tree(self).rpm()
        self.assertIsNone(self.lock(tree))
        tree.put("/var/lib/dnf/rpmdb_lock.pid", "4711")
        self.assertIsNone(self.lock(tree))  # left behind by a process that has ended
        tree.process(4711, "dnf", cmdline=("/usr/libexec/platform-python", "/usr/bin/dnf", "update"))
        expected = {"path": "/var/lib/dnf/rpmdb_lock.pid", "pid": 4711, "program": "dnf"}
        self.assertEqual(self.lock(tree), expected)
        process = self.held(tree, "/var/lib/rpm/.rpm.lock")
        self.assertEqual(self.lock(tree)["pid"], process.pid)

    def test_programs_by_their_script(self):
        tree = Tree(self).debian()
        for words, name in (
            (("/usr/bin/python3", "/usr/bin/unattended-upgrade"), "unattended-upgrade"),
            (("/usr/bin/python3.11", "-I", "/usr/bin/dnf"), "dnf"),
            (("/usr/libexec/platform-python", "/usr/bin/dnf", "update"), "dnf"),
            (("apt-get", "install", "x"), "apt-get"),
            ((), "kworker"),
        ):
            tree.process(5, "kworker", cmdline=words)
            self.assertEqual(survey_locks._program(tree.host(), 5), name)


class ProgramsTest(unittest.TestCase):
    def test_programs_that_misbehave_are_named(self):
        for said, why in (
            (-9, "did not end within"),
            (3, "exit code 3"),
            (PermissionError(13, "Permission denied"), "Permission denied"),
        ):
            found = Tree(self).debian().program("/usr/bin/gcc", said).survey()
            self.assertNotIn("gcc", found)
            self.assertIn(why, found["untold"]["gcc"])
            self.assertIn("glibc", found)

    def test_a_python_that_does_not_run(self):
        tree = (
            Tree(self).debian().program("/usr/bin/python3.9", 127).program("/opt/python3.12/bin/python3.12", "3.12.4\n")
        )
        found = tree.survey()
        self.assertEqual(found["pythons"], [{"path": "/opt/python3.12/bin/python3.12", "version": "3.12.4"}])
        self.assertIn("does not run", found["untold"]["pythons:/usr/bin/python3.9"])

    def test_versions_sort_as_numbers(self):
        tree = Tree(self).debian()
        for minor in (9, 10, 8):
            tree.program("/usr/bin/python3.%d" % minor, "3.%d.1\n" % minor)
        self.assertEqual([p["version"] for p in tree.survey()["pythons"]], ["3.8.1", "3.9.1", "3.10.1"])

    def test_descriptors_of_others(self):
        class Denying(Host):
            def names(self, folder):
                if folder == "/proc/7/fd":
                    raise Untold("denied")
                return super().names(folder)

        tree = Tree(self).process(7, "python").process(8, "python", ["/dev/nvidiactl"]).put("/dev/nvidia0")
        host = Denying(tree.system, tree.root)
        with self.assertRaisesRegex(Untold, "only root"):
            survey_use.gpu_processes(host, {})
        self.assertEqual(survey_use.gpu_processes(tree.host(), {})["gpu_processes"][0]["pid"], 8)

    def test_a_disk_that_might_hang_is_not_asked(self):
        tree = Tree(self).folder("/opt").folder("/usr")
        tree.put("/proc/self/mounts", "/dev/a / ext4 rw 0 0\nsrv:/x /opt nfs4 rw 0 0\n/dev/b /usr xfs rw 0 0\n")
        found = tree.debian().survey()
        self.assertNotIn("/opt", found["disk_free"])
        self.assertIn("nfs4", found["untold"]["disk_free:/opt"])
        space = os.statvfs(tree.root)
        self.assertEqual(found["disk_free"]["/usr"] // 2**30, space.f_bavail * space.f_frsize // 2**30)

    def test_links_of_a_tree_stay_inside(self):
        tree = Tree(self).put("/a/b/file", "x").link("/c", "/a").link("/a/d", "../a/b").link("/loop", "/loop")
        host = tree.host()
        self.assertEqual(host.text("/c/d/file"), "x")
        self.assertEqual(host.real("/c/d/../d/file"), "/a/b/file")
        self.assertEqual(host.at("/../../x"), tree.root + "/x")
        self.assertEqual(host.link("/c"), "/a")
        with self.assertRaisesRegex(Untold, "cannot follow /loop"):
            host.text("/loop")
        self.assertIsNone(host.read("/none"))


MODULE = """
#define INFO(name, text) static const char name[] __attribute__((section(".modinfo"), used)) = text;
INFO(a, "version=580.65.06")
INFO(b, "license=Dual MIT/GPL")
INFO(c, "alias=char-major-195-*")
"""


class HereTest(unittest.TestCase):
    """This machine, against its own programs."""

    @classmethod
    def setUpClass(cls):
        cls.found = survey(System())

    def said(self, *words):
        return subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout.decode()

    def test_tools(self):
        self.assertEqual(self.found["kernel"]["running"], self.said("uname", "-r").strip())
        self.assertEqual(self.found["arch"], self.said("uname", "-m").strip())
        if os.path.exists("/usr/bin/gcc"):
            self.assertEqual(self.found["gcc"]["version"], self.said("/usr/bin/gcc", "-dumpfullversion").strip())
        for python in self.found["pythons"]:
            self.assertIn(python["version"], self.said(python["path"], "-V"))

    @unittest.skipUnless(os.path.exists("/var/lib/dpkg/status"), "no dpkg here")
    def test_packages(self):
        held = self.said("dpkg-query", "-W", "-f", "${db:Status-Want} ${Package}\n").splitlines()
        self.assertEqual(self.found["holds"], sorted({line.split()[1] for line in held if line.startswith("hold ")}))
        lines = self.said("dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version}\n").splitlines()
        versions = dict(line.split()[1:] for line in lines if line.startswith("installed "))
        from gpuprov.agent.survey_packages import every

        mine = {p.name: p.version for p in every(Host(System())) if p.works}
        self.assertEqual(mine, versions)

    @unittest.skipUnless(Host(System()).which("modinfo"), "no modinfo here: tools/setup.sh test installs it")
    def test_a_module_by_the_real_modinfo(self):
        tree = Tree(self).kernel("6.1.0-18-amd64").put("/m.c", MODULE)
        path = "/lib/modules/6.1.0-18-amd64/updates/dkms/nvidia.ko"
        os.makedirs(os.path.dirname(tree.root + path))
        subprocess.run(["gcc", "-c", tree.root + "/m.c", "-o", tree.root + path], check=True)
        tree.put("/usr/sbin/modinfo", "", 0o755)
        system = System()
        system.run = lambda argv, **more: System.run(system, ["modinfo", *argv[1:]], **more)
        found = survey_modules.modules(
            Host(system, tree.root), {"kernel": {"running": "x", "headers": {"6.1.0-18-amd64": True}}}
        )
        expected = {"path": path, "version": "580.65.06", "license": "Dual MIT/GPL", "flavour": "open", "signer": None}
        self.assertEqual(found["modules"]["nvidia"]["by_kernel"], {"6.1.0-18-amd64": expected})
        self.assertIsNone(found["modules"]["nvidia"]["on_disk"])

    def test_a_conda_environment(self):
        old = os.environ.get("CONDA_PREFIX")
        os.environ["CONDA_PREFIX"] = "/opt/conda/envs/x"
        try:
            self.assertEqual(survey(System())["conda"], "/opt/conda/envs/x")
        finally:
            os.environ.pop("CONDA_PREFIX")
            if old is not None:
                os.environ["CONDA_PREFIX"] = old

    def test_a_python_of_condas(self):
        with tempfile.TemporaryDirectory() as folder:
            os.mkdir(os.path.join(folder, "conda-meta"))
            old, sys.prefix = sys.prefix, folder
            try:
                self.assertEqual(survey_tools.conda(Host(System()), {})["conda"], folder)
            finally:
                sys.prefix = old

    @unittest.skipUnless(os.geteuid() == 0, "the files that others have open are seen by root only")
    def test_a_process_with_a_device_file(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "nvidia0")
            open(path, "w").close()
            with open(path) as f:
                self.assertTrue(f)
                host = Host(System())
                self.assertEqual(host.link("/proc/%d/fd/%d" % (os.getpid(), f.fileno())), path)


class EnvironmentTest(unittest.TestCase):
    def environments(self, record=None):
        tree = Tree(self)
        for path, torch in (("/opt/gpuprov/torch", "2.13.0+cpu"), ("/srv/mine", "2.9.1")):
            tree.put(path + "/pyvenv.cfg", "home = /usr/bin\nversion_info = 3.11.2\n")
            for name in ("torch-%s.dist-info" % torch, "torchvision-0.28.0.dist-info", "torchmetrics-1.0.dist-info"):
                tree.put("%s/lib/python3.11/site-packages/%s/METADATA" % (path, name), "x")
        tree.put("/opt/gpuprov/wheels/x.whl", "no environment")
        if record is not None:
            tree.put("/var/lib/gpuprov/applied.json", record)
        return survey(System(), tree.root)

    def test_what_is_in_them_is_told_by_names_of_files(self):
        found = self.environments()["environments"]
        self.assertEqual(
            found,
            {
                "/opt/gpuprov/torch": {
                    "python": "3.11.2",
                    "torch": "2.13.0+cpu",
                    "torchvision": "0.28.0",
                    "torchaudio": None,
                }
            },
        )

    def test_a_recorded_one_is_looked_at_wherever_it_is(self):
        record = (
            '{"schema": 1, "begun": {"packages": {"a": "1"}, "run": "r"}, "applied": [{"environments": ["/srv/mine"]}]}'
        )
        found = self.environments(record)
        self.assertEqual(found["environments"]["/srv/mine"]["torch"], "2.9.1")
        self.assertEqual(found["applied"]["begun"], {"run": "r"})


if __name__ == "__main__":
    unittest.main()
