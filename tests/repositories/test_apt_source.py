"""`gpuprov_repository` with the real apt, over http: keys pinned by fingerprint, and an index that was really read."""

from __future__ import annotations

import os
import subprocess

import pytest

from gpuprov.agent.modules import openpgp
from gpuprov.agent.modules.apt_source import LISTS
from tests.support import web
from tests.support.deb_repository import DebRepository, bare_host
from tests.support.module_calls import ModuleCase, isolated
from tests.support.signing_key import SigningKey

SOURCE, KEYRING = "/etc/apt/sources.list.d/cuda.sources", "/etc/apt/keyrings/gpuprov-cuda.gpg"


class SourceTest(ModuleCase):
    key: SigningKey
    other: SigningKey

    @classmethod
    def setUpClass(cls) -> None:
        cls.key, cls.other = SigningKey(), SigningKey("rotated <nobody@example.org>")
        cls.addClassCleanup(cls.key.close)
        cls.addClassCleanup(cls.other.close)

    def prepare(self) -> None:
        os.chmod(self.folder, 0o755)
        bare_host()
        self.repo = DebRepository(self.path("x86_64"), self.key)
        self.repo.add("nvidia-open-580", "580.178.04-1ubuntu1")
        self.repo.publish()
        self.url = "http://127.0.0.1:%d/x86_64/" % web.serve(self.folder)
        with open("/etc/apt/apt.conf.d/99test", "w") as f:
            f.write('Acquire::Retries "0";\n')
        self.args = {
            "name": "cuda",
            "url": self.url,
            "key_url": self.url + "key.asc",
            "fingerprints": [self.key.fingerprint],
        }

    def offered(self, name: str) -> str:
        return subprocess.run(["apt-cache", "policy", name], stdout=subprocess.PIPE, check=True).stdout.decode()

    def settings(self) -> dict[str, bytes]:
        found = {}
        for top in ("/etc/apt", LISTS):
            for folder, _, files in os.walk(top):
                for name in files:
                    if not name.endswith("lock"):
                        with open(os.path.join(folder, name), "rb") as f:
                            found[os.path.join(folder, name)] = f.read()
        return found

    def refused(self, code: str, args: dict) -> str:
        before = self.settings()
        message = self.fails(code, "gpuprov_repository", args)
        self.assertEqual(self.settings(), before, "a refusal changed something")
        self.assertEqual([name for name in os.listdir("/var/lib/gpuprov") if name.startswith("try-")], [])
        return message

    @isolated("/etc", "/var")
    def test_there_and_gone(self) -> None:
        self.prepare()
        self.assertEqual(self.call("gpuprov_repository", self.args, check=True)["outcome"], "changed")
        self.assertFalse(os.path.exists(SOURCE))
        self.pending.clear()
        done = self.call("gpuprov_repository", self.args)
        self.assertEqual((done["outcome"], done["result"]["fingerprints"]), ("changed", [self.key.fingerprint]), done)
        self.assertIn("580.178.04-1ubuntu1", self.offered("nvidia-open-580"))
        with open(SOURCE) as f:
            self.assertIn("URIs: %s\nSuites: /\nSigned-By: %s\n" % (self.url, KEYRING), f.read())
        self.assertEqual(self.call("gpuprov_repository", self.args)["outcome"], "ok")
        subprocess.run("rm -f %s/127*" % LISTS, shell=True, check=True)
        self.assertEqual(self.call("gpuprov_repository", self.args)["outcome"], "changed")  # its index was lost
        gone = {"name": "cuda", "state": "absent"}
        self.assertEqual(self.call("gpuprov_repository", gone)["outcome"], "changed")
        self.assertEqual((os.path.exists(SOURCE), os.path.exists(KEYRING)), (False, False))
        self.assertEqual(self.call("gpuprov_repository", gone)["outcome"], "ok")

    @isolated("/etc", "/var")
    def test_a_rotated_key(self) -> None:
        """Found where the key is fetched, where only the index has the new one, and on a host set up before."""
        self.prepare()
        os.makedirs("/var/lib/gpuprov")
        travels = dict(self.args, key_url=None, key=self.key.armoured().decode())
        self.repo.publish(self.other)
        said = self.refused("key-other", self.args)
        new, old = self.other.fingerprint, self.key.fingerprint
        self.assertIn("%skey.asc has the key %s, pinned is %s: nothing was changed" % (self.url, new, old), said)
        said = self.refused("key-other", travels)
        self.assertIn("is signed by the key %s, pinned is %s" % (new[-16:], old), said)
        self.repo.publish(self.key)
        self.assertEqual(self.call("gpuprov_repository", travels)["outcome"], "changed")
        self.repo.publish(self.other)
        said = self.fails("not-signed", "gpuprov_packages", {"packages": ["nvidia-open-999"], "update_cache": True})
        self.assertIn(new[-16:], said)
        done = self.call("gpuprov_repository", dict(self.args, fingerprints=[new]))
        self.assertEqual((done["outcome"], done["result"]["fingerprints"]), ("changed", [new]), done)

    @isolated("/etc", "/var")
    def test_an_index_that_somebody_changed(self) -> None:
        self.prepare()
        os.makedirs("/var/lib/gpuprov")
        with open(self.path("x86_64/InRelease")) as f:
            text = f.read()
        with open(self.path("x86_64/InRelease"), "w") as f:
            f.write(text.replace("Label: NVIDIA CUDA", "Label: NVIDIA CUDB"))
        self.assertIn("its signature is wrong", self.refused("not-signed", self.args))
        with open(self.path("x86_64/key.asc"), "w") as f:
            f.write("<html>please log in</html>")
        self.assertIn("is no OpenPGP key", self.refused("not-a-key", self.args))
        self.assertIn("404", self.refused("http-404", dict(self.args, key_url=self.url + "none.asc")))

    @isolated("/etc", "/var")
    def test_leftovers_with_another_key(self) -> None:
        """As cuda-keyring and old instructions leave them: apt would refuse the second Signed-By."""
        self.prepare()
        self.repo.write_source(
            "/etc/apt/sources.list.d/cuda-ubuntu2404-x86_64.list", keyring="/usr/share/keyrings/x.gpg"
        )
        with open("/etc/apt/sources.list.d/cuda-ubuntu2404-x86_64.list", "w") as f:
            f.write("deb [signed-by=/usr/share/keyrings/cuda-archive-keyring.gpg] %s /\n" % self.url)
        done = self.call("gpuprov_repository", self.args)
        rival = "/etc/apt/sources.list.d/cuda-ubuntu2404-x86_64.list"
        self.assertEqual(done["result"].get("removed_sources"), [rival], done)
        self.assertIn("set aside, they name the same repository: " + rival, done["result"]["warnings"])
        self.assertEqual(self.call("gpuprov_repository", self.args)["outcome"], "ok")
        with open(rival, "w") as f:
            f.write("deb %s /\ndeb http://127.0.0.1:1/debian stable main\n" % self.url)
        self.assertIn("names this repository and others", self.fails("source-shared", "gpuprov_repository", self.args))

    @pytest.mark.slow
    @isolated("/etc", "/var")
    def test_pins_and_proxy(self) -> None:
        self.prepare()
        pins = [{"packages": ["nvidia-*", "libnvidia-*"], "priority": -1}]
        self.call("gpuprov_repository", dict(self.args, pin=pins))
        self.assertIn("Candidate: (none)", self.offered("nvidia-open-580"))
        with open("/etc/apt/preferences.d/gpuprov-cuda.pref") as f:
            self.assertIn('Package: nvidia-* libnvidia-*\nPin: origin "127.0.0.1"\nPin-Priority: -1', f.read())
        self.call("gpuprov_repository", self.args)
        self.assertNotIn("Candidate: (none)", self.offered("nvidia-open-580"))
        said = self.call("gpuprov_repository", dict(self.args, proxy="http://127.0.0.1:9"))["msg"]
        self.assertIn("127.0.0.1", said)  # nobody listens there
        self.assertFalse(os.path.exists("/etc/apt/apt.conf.d/90gpuprov-cuda"))
        self.assertIn("is not understood", self.call("gpuprov_repository", dict(self.args, pin=["nvidia-*"]))["msg"])

    def test_fingerprints_must_be_whole(self) -> None:
        args = {"name": "cuda", "url": "http://127.0.0.1:9/", "key": "x"}
        for given, said in ((["3bf863cc"], "no full fingerprint: it has 8 digits"), ([], "fingerprints is missing")):
            self.assertIn(said, self.call("gpuprov_repository", dict(args, fingerprints=given))["msg"])


class KeyTest(ModuleCase):
    def test_the_same_as_gpg(self) -> None:
        for kind in ("rsa2048", "ed25519"):
            with SigningKey(kind=kind) as key, SigningKey("second <s@example.org>") as second:
                self.assertEqual(openpgp.fingerprints(key.armoured()), [key.fingerprint])
                self.assertEqual(openpgp.fingerprints(key.binary()), [key.fingerprint])
                self.assertEqual(openpgp.binary(openpgp.text(key.binary())), key.binary())
                both = openpgp.fingerprints(key.binary() + second.binary())
                self.assertEqual(both, [key.fingerprint, second.fingerprint])
                self.assertEqual(openpgp.fingerprints(key.armoured() + second.armoured()), both)
                with self.assertRaises(openpgp.NotAKey):
                    openpgp.fingerprints(key.binary()[:-1])
                words = ["gpg", "--homedir", key.home, "--batch", "--quiet", "--show-keys", "--with-colons"]
                said = subprocess.run(
                    words, input=openpgp.text(key.binary()), stdout=subprocess.PIPE, check=True
                ).stdout
                self.assertIn(key.fingerprint, said.decode())

    def test_what_is_no_key(self) -> None:
        for data in (b"", b"hello", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA", b"\xc6\xff\x00", b"\x99\x00"):
            with self.subTest(data=data), self.assertRaises(openpgp.NotAKey):
                openpgp.fingerprints(data)
