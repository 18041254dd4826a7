"""Tests of `gpuprov_packages` on apt: a bare host, NVIDIA's repository and the distribution's."""

from __future__ import annotations

import os
import subprocess

from gpuprov.agent.modules import package_record
from gpuprov.agent.modules.dpkg import Dpkg
from gpuprov.agent.system import System
from tests.support import nvidia_packages as nvidia
from tests.support.deb_repository import DebRepository, bare_host
from tests.support.module_calls import ModuleCase
from tests.support.signing_key import SigningKey

OLD, NEW = "580.95.05", "580.178.04"
#: A driver without X, as the resolver names it.
COMPUTE = ("libnvidia-compute-580", "nvidia-utils-580", "nvidia-dkms-580-open")
FAMILY = ["nvidia-*", "libnvidia-*", "cuda-drivers*"]


def driver(version: str, *names: str) -> list[dict[str, str]]:
    return [{"name": name, "version": version + "-*"} for name in names or COMPUTE]


class PackagesCase(ModuleCase):
    """A repository of NVIDIA's, and one of the distribution's; each test has its own."""

    key: SigningKey

    @classmethod
    def setUpClass(cls) -> None:
        cls.key = SigningKey()
        cls.addClassCleanup(cls.key.close)

    def prepare(self) -> None:
        os.chmod(self.folder, 0o755)  # apt reads sources as a user of its own
        bare_host()
        self.nvidia = DebRepository(self.path("nvidia"), self.key)
        self.archive = DebRepository(self.path("archive"), self.key, label="Ubuntu", origin="Ubuntu")
        for version in (OLD, NEW):
            nvidia.add_driver(self.nvidia, version)
        nvidia.add_archive(self.archive)
        self.publish()

    def publish(self) -> None:
        for repo, name in ((self.nvidia, "cuda"), (self.archive, "archive")):
            repo.publish()
            repo.write_source("/etc/apt/sources.list.d/%s.list" % name, keyring="/etc/apt/keyrings/test.asc")
        os.makedirs("/etc/apt/keyrings", exist_ok=True)
        with open("/etc/apt/keyrings/test.asc", "wb") as f:
            f.write(self.key.armoured())
        subprocess.run(["apt-get", "-qq", "update"], check=True)

    def version(self, name: str) -> str:
        found = Dpkg(System()).find(name)
        return found.version if found is not None and found.works else ""

    def held(self) -> list[str]:
        said = subprocess.run(["apt-mark", "showhold"], stdout=subprocess.PIPE, check=True).stdout
        return said.decode().split()

    def install(self, *packages: dict[str, str], **more: object) -> dict:
        """Install what must succeed; and a second run must find nothing to do."""
        args = dict({"packages": list(packages), "family": FAMILY}, **more)
        done = self.call("gpuprov_packages", args)
        self.assertEqual(done["outcome"], "changed", done)
        again = self.call("gpuprov_packages", args)
        self.assertEqual(again["outcome"], "ok", again)
        self.assertIsNone(package_record.interrupted(System()))
        return done

    def refused(self, code: str, args: dict) -> str:
        """Ask for what must be refused, in check mode and for real; nothing may have changed."""
        before = System().read("/var/lib/dpkg/status")
        foreseen = self.call("gpuprov_packages", args, check=True)
        self.assertEqual((foreseen["outcome"], foreseen["fault"]["code"]), ("failed", code), foreseen)
        message = self.fails(code, "gpuprov_packages", args)
        self.assertEqual(System().read("/var/lib/dpkg/status"), before)
        self.assertIsNone(package_record.interrupted(System()))
        return message
