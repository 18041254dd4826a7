"""`gpuprov_packages` with the real apt and dpkg: NVIDIA's names, versions and traps, on a host with nothing else."""

from __future__ import annotations

import fcntl
import subprocess
import sys

import pytest

from gpuprov.agent.modules.dpkg import Dpkg
from gpuprov.agent.system import System
from tests.support import nvidia_packages as nvidia
from tests.support.module_calls import LOG, isolated
from tests.support.packages_case import COMPUTE, FAMILY, NEW, OLD, PackagesCase, driver


class SetTest(PackagesCase):
    @isolated("/etc", "/var", "/usr")
    def test_a_whole_driver_there_and_back(self) -> None:
        """Install, upgrade, downgrade, remove: one transaction each, holds kept, nothing twice."""
        self.prepare()
        open_580 = {"packages": driver(OLD, "nvidia-open-580"), "family": FAMILY, "hold": True}
        foreseen = self.call("gpuprov_packages", open_580, check=True, diff=True)
        self.assertIn("install nvidia-dkms-580-open 580.95.05-1ubuntu1", foreseen["result"]["would_change"])
        self.assertIn("nvidia-open-580 is not installed", foreseen["diff"][0]["after"])
        self.pending.clear()
        done = self.install(*driver(OLD, "nvidia-open-580"), hold=True)
        row = {"name": "libnvidia-compute-580", "before": "", "after": OLD + "-1ubuntu1"}
        self.assertIn(row, done["result"]["packages"])
        parts = sorted(row["name"] for row in done["result"]["packages"])
        self.assertEqual((self.held(), done["result"]["held"]), (parts, parts))
        for version in (NEW, OLD):
            self.install(*driver(version, "nvidia-open-580"))
            self.assertEqual({self.version(name) for name in parts}, {version + "-1ubuntu1"})
            self.assertEqual(self.held(), parts)
        said = self.refused("downgrade", self.downgrade_refused(parts))
        self.assertIn("would be downgraded from", said)
        done = self.call("gpuprov_packages", {"absent": parts, "purge": True})
        self.assertEqual(done["outcome"], "changed", done)
        self.assertEqual({self.version(name) for name in parts}, {""})
        self.assertEqual(self.call("gpuprov_packages", {"absent": parts, "purge": True})["outcome"], "ok")

    def downgrade_refused(self, parts: list[str]) -> dict:
        self.install(*driver(NEW, "nvidia-open-580"))
        return {"packages": driver(OLD, *parts), "allow_downgrade": False}

    @pytest.mark.slow
    @isolated("/etc", "/var", "/usr")
    def test_switching_flavour_and_branch(self) -> None:
        self.prepare()
        nvidia.add_driver(self.nvidia, "595.58.03")
        self.publish()
        self.install(*driver(NEW, "nvidia-driver-pinning-580", *COMPUTE))
        said = self.refused("would-remove", {"packages": driver(NEW, "nvidia-dkms-580")})
        self.assertIn("nvidia-dkms-580-open 580.178.04-1ubuntu1 would be removed, too", said)
        self.install(*driver(NEW, "nvidia-dkms-580"), absent=["nvidia-*-580-open"], family=[])
        self.assertEqual((self.version("nvidia-dkms-580-open"), self.version("nvidia-dkms-580")[:10]), ("", NEW))
        plain = driver(
            "595.58.03", "nvidia-driver-pinning-595", "libnvidia-compute", "nvidia-utils", "nvidia-dkms-open"
        )
        self.install(*plain, absent=["*-580", "*-580-open"])
        self.assertEqual(Dpkg(System()).matching("*nvidia*580*"), [])
        self.install(*driver(NEW, "nvidia-driver-pinning-580", *COMPUTE), absent=[one["name"] for one in plain])

    @pytest.mark.slow
    @isolated("/etc", "/var", "/usr")
    def test_toolkit_and_libraries_by_exact_versions(self) -> None:
        self.prepare()
        nvidia.add_cuda(self.nvidia)
        self.publish()
        wanted = [
            "cuda-toolkit-13-0=13.0.*",
            "cudnn9-cuda-13=9.19.0.56-1",
            "libnccl2=2.32.3-1+cuda12.9",
            "libnccl-dev=2.32.3-1+cuda12.9",
            "datacenter-gpu-manager-4-cuda13=4.5.2-*",
            "nvidia-container-toolkit=1.20.0-1",
        ]
        self.install(*wanted, family=[])
        self.assertEqual(self.version("libnccl2"), "2.32.3-1+cuda12.9")  # not the newest CUDA's
        self.assertEqual(self.version("datacenter-gpu-manager-4-core"), "1:4.5.2-1")

    @isolated("/etc", "/var", "/usr")
    def test_only_asking(self) -> None:
        self.prepare()
        args = {"packages": driver(NEW), "simulate_only": True}
        done = self.call("gpuprov_packages", args)
        self.assertEqual((done["outcome"], self.version("nvidia-utils-580")), ("ok", ""), done)
        self.assertIn("install nvidia-utils-580 580.178.04-1ubuntu1", done["result"]["would_change"])
        self.fails("version-vanished", "gpuprov_packages", dict(args, packages=driver("580.1.1")))

    @pytest.mark.slow
    @isolated("/etc", "/var", "/usr")
    def test_what_was_asked_for_is_not_removed_with_others(self) -> None:
        self.prepare()
        subprocess.run(["apt-get", "install", "-qq", "nvidia-open-580"], stdout=subprocess.DEVNULL, check=True)
        done = self.install(*driver(NEW, "nvidia-dkms-580-open"))
        self.assertEqual(done["result"]["packages"], [])
        said = subprocess.run(["apt-mark", "showmanual"], stdout=subprocess.PIPE, check=True).stdout.decode()
        self.assertIn("nvidia-dkms-580-open\n", said)


class TrapTest(PackagesCase):
    """Each trap of NVIDIA's and the distributions' repositories: refused with a sentence, nothing changed."""

    @isolated("/etc", "/var", "/usr")
    def test_stubs_of_an_ended_branch(self) -> None:
        self.prepare()
        stub = {"packages": [{"name": "nvidia-headless-no-dkms-570-server-open", "version": "570.*"}]}
        said = self.refused("package-stub", stub)
        self.assertIn("nvidia-headless-no-dkms-570-server-open is a stub that brings 580: wanted 570.*", said)
        self.archive.add(
            "nvidia-utils-570-server", "570.211.01-0ubuntu1", size_kb=20, depends="nvidia-utils-580-server"
        )
        self.publish()  # a stub that keeps its own version tells only by what it brings
        said = self.refused("package-stub", {"packages": driver("570.211.01", "nvidia-utils-570-server")})
        self.assertIn("is a stub that brings nvidia-utils-580-server 580.95.05-0ubuntu0.24.04.2", said)

    @isolated("/etc", "/var", "/usr")
    def test_an_empty_metapackage(self) -> None:
        self.prepare()
        nvidia.add_driver(self.nvidia, "615.71.09")
        self.publish()
        said = self.refused("package-empty", {"packages": driver("615.71.09", "cuda-drivers")})
        self.assertEqual(
            said,
            "refused, nothing was changed: cuda-drivers 615.71.09-1ubuntu1 is empty: it installs and brings nothing",
        )
        self.nvidia.add("cuda-drivers", "620.1-1", depends="nvidia-persistenced")
        self.publish()
        args = {"packages": ["cuda-drivers=620.*"], "brings": ["libnvidia-compute*=620.*"]}
        said = self.refused("brings-nothing", args)
        self.assertIn("the set brings no such package, not libnvidia-compute* 620.*", said)

    @isolated("/etc", "/var", "/usr")
    def test_a_vanished_version(self) -> None:
        self.prepare()
        for name in COMPUTE:
            self.nvidia.remove(name, NEW + "-1ubuntu1")
        self.publish()
        done = self.call("gpuprov_packages", {"packages": driver(NEW)})
        self.assertEqual(done["fault"]["code"], "version-vanished", done)
        self.assertIn("libnvidia-compute-580 580.178.04-* is not in the host's package sources", done["msg"])
        self.assertIn("which offer 580.95.05-1ubuntu1", done["msg"])
        self.assertIn("mirror that keeps the one wanted", done["fault"]["hint"])
        self.assertEqual([one["package"] for one in done["result"]["refusals"]], list(COMPUTE))
        self.assertIn("is in none of the host's", self.refused("package-unknown", {"packages": ["nvidia-open-999"]}))

    @isolated("/etc", "/var", "/usr")
    def test_versions_in_the_archive_that_disagree(self) -> None:
        """As Debian 12 has it in November 2026: the open kernel module is older than everything else."""
        self.prepare()
        self.archive.add("nvidia-kernel-support", "535.309.01-1")
        self.archive.add("nvidia-open-kernel-dkms", "535.261.03-1", depends="nvidia-kernel-support (= 535.261.03-1)")
        self.publish()
        said = self.refused("dependencies", {"packages": ["nvidia-open-kernel-dkms=535.*"]})
        self.assertIn("the set cannot be installed, nothing was changed: nvidia-open-kernel-dkms depends", said)

    @pytest.mark.slow
    @isolated("/etc", "/var", "/usr")
    def test_parts_from_different_repositories(self) -> None:
        self.prepare()
        server = driver("580.95.05", "nvidia-utils-580-server")
        said = self.refused("origins-mixed", {"packages": [*server, *driver(OLD, "nvidia-fabricmanager")]})
        self.assertIn("nvidia-fabricmanager from NVIDIA; libnvidia-compute-580-server", said)
        self.install(*server)
        said = self.refused("origins-mixed", {"packages": driver(OLD, "nvidia-fabricmanager")})
        self.assertIn("nvidia-utils-580-server from Ubuntu", said)

    @isolated("/etc", "/var", "/usr")
    def test_a_negative_pin(self) -> None:
        self.prepare()
        with open("/etc/apt/preferences.d/no-nvidia", "w") as f:
            f.write("Package: nvidia-* libnvidia-*\nPin: release o=NVIDIA\nPin-Priority: -1\n")
        self.assertIn("excluded by a pin", self.refused("pinned-away", {"packages": driver(NEW)}))

    @isolated("/etc", "/var", "/usr")
    def test_a_held_sub_package(self) -> None:
        self.prepare()
        self.install(*driver(OLD, "nvidia-open-580"))
        subprocess.run(["apt-mark", "hold", "libnvidia-compute-580"], stdout=subprocess.DEVNULL, check=True)
        said = self.refused("packages-held", {"packages": driver(NEW, "nvidia-open-580")})
        self.assertIn("libnvidia-compute-580 is on hold at 580.95.05-1ubuntu1, and the change would upgrade it", said)
        self.install(*driver(NEW, "nvidia-open-580"))
        self.assertEqual(self.version("libnvidia-compute-580"), NEW + "-1ubuntu1")
        self.assertEqual(self.held(), ["libnvidia-compute-580"])
        self.install(*driver(NEW, "nvidia-open-580"), hold=False)
        self.assertEqual(self.held(), [])

    @isolated("/etc", "/var", "/usr")
    def test_a_lock_that_somebody_holds(self) -> None:
        self.prepare()
        script = "import fcntl, sys, time\nf = open('/var/lib/dpkg/lock-frontend', 'w')\n"
        script = self.write(
            "unattended-upgrade", script + "fcntl.lockf(f, fcntl.LOCK_EX)\nprint(1, flush=True)\ntime.sleep(60)\n"
        )
        with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE) as holder:
            self.assertEqual(holder.stdout.readline(), b"1\n")
            args = {"packages": driver(NEW), "lock_timeout": 1}
            said = self.fails("package-lock", "gpuprov_packages", args)
            self.assertIn("the package lock is held by process %d (unattended-upgrade)" % holder.pid, said)
            self.assertIn("waiting for the package lock", str(LOG))
            holder.kill()
        self.install(*driver(NEW))
        self.assertTrue(hasattr(fcntl, "F_GETLK"))

    def test_words_that_are_no_packages(self) -> None:
        for entry in ("foo bar", {"name": "foo", "versoin": "1"}, "foo=1=2", {"version": "1"}):
            done = self.call("gpuprov_packages", {"packages": [entry]})
            self.assertIn("is no package with a version", done["msg"])
        done = self.call("gpuprov_packages", {"packages": ["foo=1", "foo=2"]})
        self.assertIn("foo is wanted as 1 and as 2", done["msg"])
