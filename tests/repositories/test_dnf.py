"""`gpuprov_packages` with the real dnf and rpm: NVIDIA's names for RHEL, module streams, versionlock, damage."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from gpuprov.agent.modules import dnf_query, package_record
from gpuprov.agent.system import System
from tests.support import nvidia_packages as nvidia
from tests.support.module_calls import LOG, ModuleCase, isolated
from tests.support.rpm_repository import RpmRepository, bare_host

OLD, NEW, NEXT = "580.95.05", "580.178.04", "595.58.03"
COMPUTE = ("nvidia-driver-cuda", "kmod-nvidia-open-dkms")
FAMILY = ["*nvidia*", "cuda-drivers"]
PARTS = ["kmod-nvidia-open-dkms", "nvidia-driver-cuda", "nvidia-driver-cuda-libs", "nvidia-kmod-common"]
PARTS = sorted([*PARTS, "nvidia-persistenced"])
#: Kills dnf and the runner of the task from within a package's script, once.
POWER_CUT = """[ -e /var/tmp/gpuprov-cut ] && exit 0
touch /var/tmp/gpuprov-cut
runner=$(awk '/^PPid/ {print $2}' /proc/$PPID/status)
kill -9 $runner $PPID
sleep 1
"""


def driver(version: str, *names: str) -> list[dict[str, str]]:
    return [{"name": name, "version": version + "-*"} for name in names or COMPUTE]


class DnfCase(ModuleCase):
    def prepare(self) -> None:
        bare_host()
        self.repo = RpmRepository(self.path("cuda-rhel9"))
        streams = {"580-open": [*nvidia.add_el(self.repo, OLD), *nvidia.add_el(self.repo, NEW)]}
        streams["595-open"] = nvidia.add_el(self.repo, NEXT)
        for stream, nevras in streams.items():
            self.repo.stream("nvidia-driver", stream, nevras)
        self.repo.publish()
        with open("/etc/yum.repos.d/cuda-rhel9.repo", "w") as f:
            f.write("[cuda-rhel9]\nname=cuda-rhel9\nbaseurl=file://%s\ngpgcheck=0\n" % self.repo.folder)

    def args(self, *packages: object, **more: object) -> dict:
        return dict({"packages": list(packages), "family": FAMILY, "use": "dnf"}, **more)

    def install(self, *packages: object, **more: object) -> dict:
        args = self.args(*packages, **more)
        done = self.call("gpuprov_packages", args)
        self.assertEqual(done["outcome"], "changed", done)
        again = self.call("gpuprov_packages", args)
        self.assertEqual(again["outcome"], "ok", again)
        self.assertIsNone(package_record.interrupted(System()))
        return done

    def refused(self, code: str, args: dict) -> str:
        before = self.state()
        message = self.fails(code, "gpuprov_packages", args)
        self.assertEqual(self.state(), before, "a refusal changed something")
        return message

    def state(self) -> tuple[list[str], str, str]:
        rpms = subprocess.run(["rpm", "-qa"], stdout=subprocess.PIPE, check=True).stdout.decode().split()
        text = System().read_text
        return sorted(rpms), text("/etc/dnf/plugins/versionlock.list"), text("/etc/dnf/modules.d/nvidia-driver.module")

    def version(self, name: str) -> str:
        done = subprocess.run(["rpm", "-q", "--qf", "%{VERSION} ", name], stdout=subprocess.PIPE, check=False)
        return done.stdout.decode().strip() if done.returncode == 0 else ""

    def locks(self) -> list[str]:
        return sorted(System().read_text("/etc/dnf/plugins/versionlock.list").split())


class DnfTest(DnfCase):
    @pytest.mark.slow
    @isolated("/etc", "/var", "/usr", os.path.expanduser("~"))
    def test_a_whole_driver_there_and_back(self) -> None:
        self.prepare()
        stream = {"module_stream": "nvidia-driver:580-open"}
        foreseen = self.call("gpuprov_packages", self.args(*driver(OLD), **stream), check=True)
        self.assertEqual(foreseen["outcome"], "unknown", foreseen)  # only with the stream is it known
        self.pending.clear()
        done = self.install(*driver(OLD), hold=True, **stream)
        row = {"name": "nvidia-driver-cuda-libs", "before": "", "after": "3:580.95.05-1.el9"}
        self.assertIn(row, done["result"]["packages"])
        self.assertEqual(self.locks(), ["%s-3:580.95.05-1.el9.*" % name for name in PARTS])
        foreseen = self.call("gpuprov_packages", self.args(*driver(NEW)), check=True)
        step = "upgrade nvidia-persistenced 3:580.95.05-1.el9 to 3:580.178.04-1.el9"
        self.assertIn(step, foreseen["result"]["would_change"], foreseen)
        self.pending.clear()
        for version in (NEW, OLD):
            self.install(*driver(version))
            self.assertEqual({self.version(name) for name in PARTS}, {version})
            self.assertEqual(self.locks(), ["%s-3:%s-1.el9.*" % (name, version) for name in PARTS])
        subprocess.run(["dnf", "-q", "-y", "upgrade"], stdout=-3, stderr=-3, check=False)
        self.assertEqual(self.version("nvidia-driver-cuda"), OLD)  # the locks hold
        said = self.refused("downgrade", self.downgrade_refused())
        self.assertIn("kmod-nvidia-open-dkms would be downgraded", said)
        done = self.call("gpuprov_packages", self.args(absent=PARTS))
        self.assertEqual((done["outcome"], self.state()[0]), ("changed", []), done)
        self.assertEqual(self.call("gpuprov_packages", self.args(absent=PARTS))["outcome"], "ok")

    def downgrade_refused(self) -> dict:
        self.install(*driver(NEW))
        return self.args(*driver(OLD), allow_downgrade=False)

    @pytest.mark.slow
    @isolated("/etc", "/var", "/usr", os.path.expanduser("~"))
    def test_switching_flavour_and_stream(self) -> None:
        self.prepare()
        self.install(*driver(NEW), module_stream="nvidia-driver:580-open")
        flavour = self.args(*driver(NEW, "kmod-nvidia-latest-dkms"), family=[])
        said = self.refused("would-remove", flavour)
        self.assertIn("kmod-nvidia-open-dkms 3:580.178.04-1.el9 would be removed, too", said)
        self.install(*driver(NEW, "kmod-nvidia-latest-dkms"), absent=["kmod-nvidia-open-dkms"], family=[])
        self.install(*driver(NEW), absent=["kmod-nvidia-latest-dkms"], family=[])
        self.install(*driver(NEXT), module_stream="nvidia-driver:595-open")
        self.assertEqual({self.version(name) for name in PARTS}, {NEXT})
        self.install(*driver(OLD), module_stream="nvidia-driver:580-open")
        self.assertEqual({self.version(name) for name in PARTS}, {OLD})


class TrapTest(DnfCase):
    @isolated("/etc", "/var", "/usr", os.path.expanduser("~"))
    def test_versions_and_streams_that_are_not_there(self) -> None:
        self.prepare()
        stream = "nvidia-driver:580-open"
        said = self.refused("version-vanished", self.args(*driver("580.1.1"), module_stream=stream))
        self.assertIn(
            "nvidia-driver-cuda 580.1.1-* is not in the host's package sources, which offer 3:580.178.04", said
        )
        said = self.refused("module-stream-unknown", self.args(*driver(NEW), module_stream="nvidia-driver:999-open"))
        self.assertIn("no module stream nvidia-driver:999-open; streams: 580-open, 595-open", said)
        self.refused("package-unknown", self.args("nvidia-open-999", module_stream=stream))
        self.assertIn("example", self.call("gpuprov_packages", self.args(module_stream="580-open"))["fault"]["hint"])

    @pytest.mark.slow
    @isolated("/etc", "/var", "/usr", os.path.expanduser("~"))
    def test_empty_stub_and_mixed(self) -> None:
        self.prepare()
        other = RpmRepository(self.path("rpmfusion"))
        other.add("xorg-x11-drv-nvidia-cuda", "3:580.178.04-1.fc9")
        other.publish()
        self.repo.add("cuda-drivers", "3:615.71.09-1.el9", size_kb=0)
        self.repo.publish()
        with open("/etc/yum.repos.d/rpmfusion.repo", "w") as f:
            f.write("[rpmfusion-nonfree]\nname=x\nbaseurl=file://%s\ngpgcheck=0\n" % other.folder)
        with open("/etc/dnf/modules.d/nvidia-driver.module", "w") as f:
            f.write("[nvidia-driver]\nname=nvidia-driver\nstream=580-open\nprofiles=\nstate=enabled\n")
        said = self.refused("origins-mixed", self.args(*driver(NEW), "xorg-x11-drv-nvidia-cuda=580.178.04-*"))
        self.assertIn("xorg-x11-drv-nvidia-cuda from rpmfusion", said)
        os.unlink("/etc/dnf/modules.d/nvidia-driver.module")  # a package of a stream hides all others of its name
        plain = RpmRepository(self.path("plain"))
        plain.add("cuda-drivers", "3:615.71.09-1.el10", size_kb=0)
        plain.publish()
        with open("/etc/yum.repos.d/cuda-rhel9.repo", "w") as f:
            f.write("[cuda-rhel10]\nname=x\nbaseurl=file://%s\ngpgcheck=0\n" % plain.folder)
        said = self.refused("package-empty", self.args(*driver("615.71.09", "cuda-drivers")))
        self.assertIn("cuda-drivers 3:615.71.09-1.el10 is empty: it installs and brings nothing", said)

    @pytest.mark.slow
    @isolated("/etc", "/var", "/usr", os.path.expanduser("~"))
    def test_a_locked_sub_package_and_a_lock_that_somebody_holds(self) -> None:
        self.prepare()
        self.install(*driver(OLD), module_stream="nvidia-driver:580-open")
        words = ["dnf", "-q", "versionlock", "add", "nvidia-persistenced"]
        subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
        said = self.refused("packages-held", self.args(*driver(NEW), family=[]))
        self.assertIn("nvidia-persistenced is on hold at 3:580.95.05-1.el9, and the change would upgrade it", said)
        with subprocess.Popen(["sleep", "60"]) as holder:
            os.makedirs("/var/lib/dnf", exist_ok=True)
            System().replace("/var/lib/dnf/rpmdb_lock.pid", data=b"%d" % holder.pid)
            said = self.fails("package-lock", "gpuprov_packages", self.args(*driver(NEW), lock_timeout=1))
            self.assertIn("the package lock is held by process %d (sleep)" % holder.pid, said)
            self.assertIn("waiting for the package lock", str(LOG))
            holder.kill()
        self.install(*driver(NEW))
        self.assertIn("nvidia-persistenced-3:580.178.04-1.el9.*", self.locks())
        self.install(*driver(NEW), hold=False)
        self.assertEqual([line for line in self.locks() if "nvidia" in line], [])

    @isolated("/etc", "/var", "/usr", os.path.expanduser("~"))
    def test_a_power_cut(self) -> None:
        """dnf and the runner are killed in a script: new versions are there, old ones not yet gone."""
        self.prepare()
        self.install(*driver(OLD), hold=True, module_stream="nvidia-driver:580-open")
        self.repo.add("bash", "5.1-1", more="Provides: /bin/sh\n")
        self.repo.remove("nvidia-driver-cuda-libs", "3:%s-1.el9" % NEW)
        self.repo.add("nvidia-driver-cuda-libs", "3:%s-1.el9" % NEW, post=POWER_CUT)
        self.repo.publish()
        pid = os.fork()
        if pid == 0:
            # dnf believes its copy of the index for a second, and this version was in it before, with another script
            self.fail("no power cut: %s" % self.call("gpuprov_packages", self.args(*driver(NEW), update_cache=True)))
        self.assertEqual(os.WTERMSIG(os.waitpid(pid, 0)[1]), signal.SIGKILL)
        self.assertEqual(self.version("nvidia-driver-cuda-libs").split(), [OLD, NEW])
        done = self.install(*driver(NEW))
        self.assertIn("nvidia-driver-cuda-libs was installed twice", done["result"]["repaired"])
        self.assertIn("an earlier change of packages was interrupted", str(done["result"]["warnings"]))
        self.assertEqual({self.version(name) for name in PARTS}, {NEW})
        self.assertEqual(self.locks(), ["%s-3:%s-1.el9.*" % (name, NEW) for name in PARTS])

    @pytest.mark.slow
    @isolated("/etc", "/var", "/usr", os.path.expanduser("~"))
    def test_a_disk_that_gets_full(self) -> None:
        self.prepare()
        self.install(*driver(OLD), hold=True, module_stream="nvidia-driver:580-open")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "small", "/usr/share/gpuprov-test"], check=True)
        done = self.call("gpuprov_packages", self.args(*driver(NEW)))
        self.assertEqual(done["fault"]["code"], "disk-full", done)
        self.assertRegex(done["fault"]["hint"], "then run again: . of 5 packages are done")
        self.assertEqual(len(self.locks()), len(PARTS))
        subprocess.run(["umount", "/usr/share/gpuprov-test"], check=True)
        self.install(*driver(NEW))
        self.assertEqual({self.version(name) for name in PARTS}, {NEW})


class VersionTest(ModuleCase):
    def test_order_as_rpm_has_it(self) -> None:
        words = [("1.0", "1.0"), ("1.10", "1.9"), ("1.0~rc1", "1.0"), ("1.0^git1", "1.0"), ("1.0a", "1.0"), ("a", "1")]
        words += [("1:1.0", "2.0"), ("580.95.05-1.el9", "580.178.04-1.el9"), ("1.0-2", "1.0-10"), ("1.01", "1.1")]
        for one, other in words:
            said = subprocess.run(
                ["rpm", "--eval", "%%{lua: print(rpm.vercmp('%s', '%s'))}" % (one, other)],
                stdout=subprocess.PIPE,
                check=True,
            )
            self.assertEqual(dnf_query.compare(one, other), int(said.stdout), (one, other))
            self.assertEqual(dnf_query.compare(other, one), -int(said.stdout), (other, one))
