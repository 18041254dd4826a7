"""`gpuprov_packages` when things break half-way: a clear sentence, and a state that a second run repairs."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from gpuprov.agent.modules import package_record
from gpuprov.agent.modules.dpkg import Dpkg
from gpuprov.agent.system import System
from tests.support import nvidia_packages as nvidia
from tests.support.module_calls import isolated
from tests.support.packages_case import COMPUTE, FAMILY, NEW, OLD, PackagesCase, driver

#: What a driver without X consists of, with what its packages need.
PARTS = sorted([*COMPUTE, "libnvidia-common-580", "nvidia-kernel-common-580", "nvidia-kernel-source-580-open"])
PART = "libnvidia-compute-580"
#: Kills dpkg, apt-get and the runner of the task from within a package's script, once.
POWER_CUT = """#!/bin/sh
[ -e /run/lock/gpuprov-cut ] && exit 0
touch /run/lock/gpuprov-cut
dpkg=$PPID
apt=$(awk '/^PPid/ {print $2}' /proc/$dpkg/status)
runner=$(awk '/^PPid/ {print $2}' /proc/$apt/status)
kill -9 $runner $apt $dpkg
sleep 1
"""
#: Fails as a DKMS build without headers does, until they are there.
BUILD = "#!/bin/sh\n[ -e /var/tmp/gpuprov-headers ] && exit 0\necho 'Error! No headers' >&2\nexit 10\n"


class DamageTest(PackagesCase):
    def replace(self, name: str, version: str, **more: object) -> None:
        """Give a package of NVIDIA's repository other scripts or files."""
        needs = dict(nvidia.UBUNTU_SUFFIXED)[name.replace("580", "{b}")].replace("{b}", "580").split()
        full = version + "-1ubuntu1"
        self.nvidia.add(name, full, depends=", ".join("%s (= %s)" % (one[:-1], full) for one in needs), **more)
        self.publish()

    @isolated("/etc", "/var", "/usr")
    def test_a_build_that_fails_and_then_does_not(self) -> None:
        self.prepare()
        self.replace("nvidia-dkms-580-open", NEW, scripts={"postinst": BUILD})
        args = {"packages": driver(NEW), "family": FAMILY, "hold": True}
        said = self.fails("script-failed", "gpuprov_packages", args)
        self.assertIn("installing nvidia-dkms-580-open failed on the host", said)
        self.assertEqual(Dpkg(System()).broken(), ["nvidia-dkms-580-open"])
        said = self.fails("script-failed", "gpuprov_packages", args)
        System().replace("/var/tmp/gpuprov-headers", data=b"")
        done = self.call("gpuprov_packages", args)
        self.assertEqual(done["result"]["repaired"], ["nvidia-dkms-580-open is half-configured"], done)
        self.assertIn("repaired what an earlier run had left", done["result"]["warnings"][0])
        self.assertEqual(self.held(), PARTS)
        self.assertEqual(self.call("gpuprov_packages", args)["outcome"], "ok")

    @isolated("/etc", "/var", "/usr")
    def test_a_half_configured_package_of_somebody_else(self) -> None:
        self.prepare()
        self.archive.add("cluster-agent", "1.0", scripts={"postinst": BUILD})
        self.publish()
        subprocess.run(["apt-get", "install", "-qq", "cluster-agent"], stdout=-3, stderr=-3, check=False)
        args = {"packages": driver(NEW)}
        self.assertEqual(self.call("gpuprov_packages", args, check=True)["outcome"], "unknown")
        self.pending.clear()
        said = self.fails("dpkg-broken", "gpuprov_packages", args)
        self.assertIn("cluster-agent is half-configured since an earlier run, and dpkg --configure -a fails", said)
        self.assertEqual(self.version(PART), "")
        System().replace("/var/tmp/gpuprov-headers", data=b"")
        self.assertEqual(self.install(*driver(NEW))["result"]["repaired"], ["cluster-agent is half-configured"])

    @pytest.mark.slow
    @isolated("/etc", "/var", "/usr")
    def test_a_build_that_never_succeeds_gives_way_to_a_version_that_does(self) -> None:
        self.prepare()
        self.replace("nvidia-dkms-580-open", OLD, scripts={"postinst": BUILD})
        self.fails("script-failed", "gpuprov_packages", {"packages": driver(OLD)})
        self.install(*driver(NEW))
        self.replace("nvidia-dkms-580-open", OLD, scripts={"postinst": BUILD})
        self.fails("script-failed", "gpuprov_packages", {"packages": driver(OLD), "family": FAMILY})
        done = self.call("gpuprov_packages", {"absent": ["*nvidia*580*"], "purge": True})
        self.assertEqual((done["outcome"], Dpkg(System()).matching("*nvidia*")), ("changed", []), done)

    @isolated("/etc", "/var", "/usr", "/opt")
    def test_a_disk_that_gets_full(self) -> None:
        self.prepare()
        self.install(*driver(OLD), hold=True)
        os.makedirs("/opt/small")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", "/opt/small"], check=True)
        self.replace("nvidia-utils-580", NEW, files={"/opt/small/libcuda.so": os.urandom(3 << 20)})
        args = {"packages": driver(NEW), "family": FAMILY, "hold": True}
        done = self.call("gpuprov_packages", args)
        self.assertEqual(done["fault"]["code"], "disk-full", done)
        self.assertIn("the disk is full", done["msg"])
        self.assertRegex(done["fault"]["hint"], "then run again: . of . packages are done")
        self.assertEqual(self.held(), PARTS)
        subprocess.run(["mount", "-o", "remount,size=16m", "/opt/small"], check=True)
        self.install(*driver(NEW), hold=True)
        self.assertEqual({self.version(name) for name in COMPUTE}, {NEW + "-1ubuntu1"})

    @pytest.mark.slow
    @isolated("/etc", "/var", "/usr", "/opt")
    def test_a_disk_too_small_for_the_set(self) -> None:
        self.prepare()
        self.nvidia.add("cuda-toolkit-13-0", "13.0.2-1", size_kb=1 << 40)
        self.publish()
        said = self.refused("disk-full", {"packages": ["cuda-toolkit-13-0"]})
        self.assertIn("the set takes 1073741824 MB, and /usr has ", said)

    def cut(self, script: str) -> None:
        """Upgrade a held driver, with a power cut in a script of one package, in a process of its own."""
        self.prepare()
        self.install(*driver(OLD), hold=True)
        subprocess.run("rm -f /run/lock/gpuprov-cut", shell=True, check=True)
        self.addCleanup(subprocess.run, "rm -f /run/lock/gpuprov-cut", shell=True, check=True)
        self.replace(PART, NEW, scripts={script: POWER_CUT})
        pid = os.fork()
        if pid == 0:
            self.call("gpuprov_packages", {"packages": driver(NEW), "family": FAMILY})
            os._exit(0)
        self.assertEqual(os.WTERMSIG(os.waitpid(pid, 0)[1]), signal.SIGKILL)

    def repaired(self) -> None:
        """Run again: all packages and all holds are there."""
        left = package_record.interrupted(System())
        self.assertEqual((left.holds, left.before[PART]), (PARTS, OLD + "-1ubuntu1"))
        done = self.install(*driver(NEW))
        self.assertIn("an earlier change of packages was interrupted", str(done["result"]["warnings"]))
        self.assertEqual({self.version(name) for name in COMPUTE}, {NEW + "-1ubuntu1"})
        self.assertEqual(self.held(), PARTS)
        self.assertEqual(subprocess.run(["dpkg", "--audit"], stdout=subprocess.PIPE, check=True).stdout, b"")

    @isolated("/etc", "/var", "/usr", "/run/lock")
    def test_a_power_cut_while_unpacking(self) -> None:
        self.cut("preinst")
        self.repaired()

    @pytest.mark.slow
    @isolated("/etc", "/var", "/usr", "/run/lock")
    def test_a_power_cut_while_configuring(self) -> None:
        self.cut("postinst")
        self.repaired()

    @isolated("/etc", "/var", "/usr")
    def test_a_record_that_is_damaged(self) -> None:
        self.prepare()
        os.makedirs(os.path.dirname(package_record.PATH))
        System().replace(package_record.PATH, data=b"{half")
        said = self.fails("record-damaged", "gpuprov_packages", {"packages": driver(NEW)})
        self.assertIn("which packages were on hold before is not known", said)
