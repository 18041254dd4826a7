"""`gpuprov_repository` with the real dnf and rpm, over http: keys pinned by fingerprint, signed packages and index."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.support import web
from tests.support.module_calls import ModuleCase, isolated
from tests.support.rpm_repository import RpmRepository, bare_host
from tests.support.signing_key import SigningKey

REPO = "/etc/yum.repos.d/cuda-rhel9.repo"


class DnfSourceTest(ModuleCase):
    key: SigningKey
    other: SigningKey

    @classmethod
    def setUpClass(cls) -> None:
        cls.key, cls.other = SigningKey(), SigningKey("rotated <nobody@example.org>")
        cls.addClassCleanup(cls.key.close)
        cls.addClassCleanup(cls.other.close)

    def prepare(self) -> None:
        bare_host()
        self.repo = RpmRepository(self.path("x86_64"))
        self.repo.add("nvidia-driver-cuda", "3:580.178.04-1.el9")
        self.publish(self.key)
        self.url = "http://127.0.0.1:%d/x86_64/" % web.serve(self.folder)
        self.args = {
            "name": "cuda-rhel9",
            "url": self.url,
            "key_url": self.url + "D42D0685.pub",
            "fingerprints": [self.key.fingerprint],
            "use": "dnf",
        }

    def publish(self, key: SigningKey) -> None:
        self.repo.publish()
        folder = self.path("x86_64", "noarch")
        key.sign_rpms(*(os.path.join(folder, name) for name in sorted(os.listdir(folder))))
        self.repo.publish()
        key.sign_apart(self.path("x86_64", "repodata/repomd.xml"))
        self.write("x86_64/D42D0685.pub", key.armoured())

    def keys_of_rpm(self) -> list[str]:
        done = subprocess.run(["rpm", "-q", "--qf", "%{VERSION} ", "gpg-pubkey"], stdout=subprocess.PIPE, check=False)
        return done.stdout.decode().split() if done.returncode == 0 else []

    @isolated("/etc", "/var", "/usr", os.path.expanduser("~"))
    def test_there_and_gone(self) -> None:
        self.prepare()
        self.assertEqual(self.call("gpuprov_repository", self.args, check=True)["outcome"], "changed")
        self.assertFalse(os.path.exists(REPO))
        self.pending.clear()
        done = self.call("gpuprov_repository", self.args)
        self.assertEqual((done["outcome"], done["result"]["fingerprints"]), ("changed", [self.key.fingerprint]), done)
        self.assertEqual(self.keys_of_rpm(), [self.key.fingerprint[-8:].lower()])
        self.assertEqual(self.call("gpuprov_repository", self.args)["outcome"], "ok")
        wanted = {"packages": ["nvidia-driver-cuda=580.178.04-*"], "use": "dnf"}
        self.assertEqual(self.call("gpuprov_packages", wanted)["outcome"], "changed")  # its signature was checked
        gone = {"name": "cuda-rhel9", "state": "absent", "use": "dnf"}
        self.assertEqual(self.call("gpuprov_repository", gone)["outcome"], "changed")
        self.assertEqual((os.path.exists(REPO), self.keys_of_rpm()), (False, []))

    @isolated("/etc", "/var", "/usr", os.path.expanduser("~"))
    def test_a_rotated_key(self) -> None:
        self.prepare()
        self.publish(self.other)
        new, old = self.other.fingerprint, self.key.fingerprint
        said = self.fails("key-other", "gpuprov_repository", self.args)
        self.assertIn("D42D0685.pub has the key %s, pinned is %s: nothing was changed" % (new, old), said)
        travels = dict(self.args, key_url=None, key=self.key.armoured().decode(), repo_gpgcheck=True)
        said = self.fails("key-other", "gpuprov_repository", travels)
        self.assertIn("is not signed by the pinned key %s: nothing was changed" % old, said)
        self.assertEqual((os.path.exists(REPO), self.keys_of_rpm()), (False, []))

    @pytest.mark.slow
    @isolated("/etc", "/var", "/usr", os.path.expanduser("~"))
    def test_packages_of_another_key_are_not_installed(self) -> None:
        self.prepare()
        self.assertEqual(self.call("gpuprov_repository", self.args)["outcome"], "changed")
        self.publish(self.other)
        said = self.fails("not-signed", "gpuprov_packages", {"packages": ["nvidia-driver-cuda"], "use": "dnf"})
        self.assertIn("not signed by a known key", said)

    @pytest.mark.slow
    @isolated("/etc", "/var", "/usr", os.path.expanduser("~"))
    def test_excludes_and_leftovers(self) -> None:
        self.prepare()
        with open("/etc/yum.repos.d/cuda-old.repo", "w") as f:
            f.write("[cuda]\nname=cuda\nbaseurl=%s\ngpgcheck=0\n" % self.url)
        pins = [{"packages": ["nvidia-driver*"], "priority": -1}]
        done = self.call("gpuprov_repository", dict(self.args, pin=pins))
        self.assertEqual(done["result"]["removed_sources"], ["/etc/yum.repos.d/cuda-old.repo"], done)
        self.fails("package-unknown", "gpuprov_packages", {"packages": ["nvidia-driver-cuda"], "use": "dnf"})
        self.assertIn("is not understood", self.call("gpuprov_repository", dict(self.args, pin=["x"]))["msg"])
