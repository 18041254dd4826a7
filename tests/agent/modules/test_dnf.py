"""The module `dnf`, with real dnf and rpm on a private copy of this machine; installs both when they are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import unittest

from gpuprov.agent.modules.dnf_command import failure
from gpuprov.agent.process import Finished
from tests.support.module_calls import ModuleCase, isolated

try:
    import pytest

    slow = pytest.mark.slow
except ImportError:  # plain unittest runs everything

    def slow(test):
        return test


#: On Debian, rpm keeps its database here.
HOME = os.path.expanduser("~")
SPEC_FILE = """Name: {name}
Version: {version}
Release: 1
Summary: test
License: none
BuildArch: noarch
{more}
%description
test
%files
"""


@slow
class DnfTest(ModuleCase):
    @classmethod
    def setUpClass(cls) -> None:
        missing = [
            package
            for package, program in (("dnf", "dnf"), ("rpm", "rpmbuild"), ("createrepo-c", "createrepo_c"))
            if shutil.which(program) is None
        ]
        if missing:
            subprocess.run(["apt-get", "install", "-y", "-q", *missing], stdout=subprocess.DEVNULL, check=True)

    def prepare(self) -> None:
        os.makedirs("/etc/yum.repos.d", exist_ok=True)
        subprocess.run("rm -f /etc/yum.repos.d/*; rm -rf /var/cache/dnf; rpm --initdb", shell=True, check=True)
        if os.path.isdir("/etc/dnf/plugins"):  # Debian's default is a local repository that is not there
            with open("/etc/dnf/plugins/local.conf", "w") as f:
                f.write("[main]\nenabled=0\n")
        self.repo = self.path("repo")
        os.mkdir(self.repo)
        self.package("gpua", "1.0")
        self.package("gpub", "1.0", "Requires: gpua\nProvides: gpuvirtual")
        self.package("gpuunmet", "1.0", "Requires: gpunowhere")
        self.publish()
        with open("/etc/yum.repos.d/test.repo", "w") as f:
            f.write("[test]\nname=test\nbaseurl=file://%s\ngpgcheck=0\nmetadata_expire=1\n" % self.repo)

    def package(self, name: str, version: str, more: str = "") -> None:
        spec = self.write("%s.spec" % name, SPEC_FILE.format(name=name, version=version, more=more))
        words = [
            "rpmbuild",
            "-bb",
            "--define",
            "_topdir " + self.path("build"),
            "--define",
            "_rpmdir " + self.repo,
            spec,
        ]
        subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)

    def publish(self) -> None:
        subprocess.run(["createrepo_c", "-q", self.repo], check=True)

    def version(self, name: str) -> str:
        words = ["rpm", "-q", "--qf", "%{VERSION}", name]
        done = subprocess.run(words, stdout=subprocess.PIPE, check=False)
        return done.stdout.decode() if done.returncode == 0 else ""

    def once(self, args: dict) -> dict:
        self.pending.clear()
        done = self.call("dnf", args, check=True)
        self.assertEqual(done["outcome"], "changed", done)
        self.pending.clear()
        done = self.call("dnf", args)
        self.assertEqual(done["outcome"], "changed", done)
        again = self.call("dnf", args)
        self.assertEqual(again["outcome"], "ok", again)
        return done

    @isolated("/etc", "/var", HOME)
    def test_install_upgrade_remove(self) -> None:
        self.prepare()
        self.once({"name": ["gpub"]})
        self.assertEqual((self.version("gpua"), self.version("gpub")), ("1.0", "1.0"))
        for name in ("gpuvirtual", "gpua-1.0", "gpua-1.0-1.noarch", "gpua >= 1.0"):
            done = self.call("dnf", {"name": name})
            self.assertEqual(done["outcome"], "ok", (name, done))
        self.assertEqual(self.call("dnf", {"name": "gpua", "state": "latest"})["outcome"], "ok")
        self.package("gpua", "2.0")
        self.publish()
        self.once({"name": "gpua", "state": "latest", "update_cache": True})
        self.assertEqual(self.version("gpua"), "2.0")
        self.once({"name": "gpua-1.0", "allow_downgrade": True})
        self.assertEqual(self.version("gpua"), "1.0")
        self.once({"name": "gpub", "state": "absent"})
        self.assertEqual((self.version("gpua"), self.version("gpub")), ("1.0", ""))
        self.once({"name": "gpua", "state": "absent"})

    @isolated("/etc", "/var", HOME)
    def test_a_package_file(self) -> None:
        self.prepare()
        self.once({"name": os.path.join(self.repo, "noarch/gpua-1.0-1.noarch.rpm")})
        self.assertEqual(self.version("gpua"), "1.0")

    @isolated("/etc", "/var", HOME)
    def test_reasons(self) -> None:
        self.prepare()
        self.assertIn("gpunone", self.fails("package-unknown", "dnf", {"name": "gpunone"}))
        self.fails("package-unknown", "dnf", {"name": "gpunone"}, check=True)
        self.assertIn("gpunowhere", self.fails("dependencies", "dnf", {"name": "gpuunmet"}))
        with open("/etc/yum.repos.d/test.repo", "w") as f:
            f.write("[test]\nname=test\nbaseurl=http://127.0.0.1:9/\ngpgcheck=0\n")
        self.fails("network", "dnf", {"name": "gpua"})


class ReasonTest(unittest.TestCase):
    def test_reasons_by_their_texts(self) -> None:
        """Situations that cannot be made here; texts of dnf 4 and 5."""
        for code, text in (
            ("package-unknown", "Error: Unable to find a match: foo"),
            ("package-unknown", "Failed to resolve the transaction:\nNo match for argument: foo"),
            ("root-needed", "Error: This command has to be run with superuser privileges (under the root user)"),
            ("not-signed", "Error: GPG check FAILED"),
            ("network", "Errors during downloading metadata for repository 'x':\n  - Curl error (6): Couldn't resolve"),
            ("disk-full", "At least 90MB more space needed on the / filesystem.\nNo space left on device"),
            ("dnf-failed", "Error: something new"),
        ):
            error = failure(Finished(1, "", text, 1.0, False, 0))
            self.assertEqual(error.code, code, text)
            self.assertNotIn("{", error.message)


if __name__ == "__main__":
    unittest.main()
