"""The module pip from a package index, and without uv."""

from __future__ import annotations

import os
import unittest

from gpuprov.agent.system import System
from tests.support import wheels
from tests.support.pip_case import PipCase


class FromAnIndex(PipCase):
    def test_present_latest_forced_absent(self):
        self.make("alpha", "1.0")
        self.assertOutcome(self.run_task(self.local(name=["alpha"])), "changed")
        self.assertEqual(self.version_in_env("alpha"), "1.0")
        self.make("alpha", "1.5")
        self.assertOutcome(self.run_task(self.local(name=["alpha"])), "ok")
        self.assertOutcome(self.run_task(self.local(name=["alpha"], state="latest"), check=True), "changed")
        self.assertEqual(self.version_in_env("alpha"), "1.0")
        self.assertOutcome(self.run_task(self.local(name=["alpha"], state="latest")), "changed")
        self.assertEqual(self.version_in_env("alpha"), "1.5")
        self.assertOutcome(self.run_task(self.local(name=["alpha"], state="latest")), "ok")
        self.assertOutcome(self.run_task(self.local(name=["alpha<1.2", "alpha"])), "changed")
        self.assertEqual(self.version_in_env("alpha"), "1.0")
        self.assertOutcome(self.run_task(self.local(name=["alpha"], version="1.5")), "changed")
        self.assertOutcome(self.run_task(self.local(name=["alpha"], state="forcereinstall")), "changed")
        self.assertOutcome(self.run_task(self.local(name=["alpha"], state="absent")), "changed")
        self.assertEqual(self.version_in_env("alpha"), "")
        self.assertOutcome(self.run_task(self.local(name=["alpha"], state="absent")), "ok")

    def test_extras_bring_what_they_need(self):
        self.make("alpha", "1.0", "beta>=2; extra == 'more'", extras=["more"])
        self.make("beta", "2.1")
        self.assertOutcome(self.run_task(self.local(name=["alpha"])), "changed")
        self.assertEqual(self.version_in_env("beta"), "")
        self.assertOutcome(self.run_task(self.local(name=["alpha[more]"])), "changed")
        self.assertEqual(self.version_in_env("beta"), "2.1")
        self.assertOutcome(self.run_task(self.local(name=["alpha[more]"])), "ok")

    def test_a_requirements_file_with_nested_ones(self):
        self.make("alpha", "1.0")
        self.make("beta", "2.0")
        with open(os.path.join(self.folder, "inner.txt"), "w") as f:
            f.write("beta>=1,<3  # why\nnever==9; python_version < '3'\n")
        path = os.path.join(self.folder, "requirements.txt")
        with open(path, "w") as f:
            f.write("# comment\n-r inner.txt\n--prefer-binary\nalpha\n")
        self.assertOutcome(self.run_task(self.local(requirements=path)), "changed")
        self.assertEqual((self.version_in_env("alpha"), self.version_in_env("beta")), ("1.0", "2.0"))
        self.assertOutcome(self.run_task(self.local(requirements=path)), "ok")

    def test_files_are_known_by_their_names(self):
        path = self.blobs[self.make("alpha", "1.0")["sha256"]]
        self.assertOutcome(self.run_task(self.local(name=[path])), "changed")
        self.assertOutcome(self.run_task(self.local(name=[path])), "ok")

    def test_mistakes_are_sentences(self):
        done = self.run_task(self.local(name=["alpha==7"]))
        self.assertFault(done, "no-matching-package")
        self.assertIn("alpha", done["msg"])
        self.assertFault(self.run_task(self.local(name=["alpha=7"])), "bad-requirement")
        self.assertFault(self.run_task(self.local(name=["a", "b"], version="1")), "pip-version")
        self.assertFault(self.run_task(self.local(requirements="/nonexistent.txt")), "file-missing")
        self.assertFault(self.run_task(self.local(name=["alpha"], umask="9")), "argument-type")

    def test_cuda_packages_are_refused_on_a_host_without_gpu(self):
        self.make("torch", "1.0", "nvidia-cublas-cu12")
        self.make("nvidia-cublas-cu12", "12.0")
        without = {"gpuprov": {"gpus": []}}
        done = self.run_task(self.local(name=["torch"]), facts=without)
        self.assertFault(done, "cuda-without-gpu")
        self.assertIn("nvidia-cublas-cu12==12.0", done["msg"])
        self.assertEqual(self.version_in_env("torch"), "")
        some = {"gpuprov": {"gpus": [{"address": "0000:01:00.0"}]}}
        self.assertOutcome(self.run_task(self.local(name=["torch"]), facts=some), "changed")

    def test_a_cpu_index_is_asked_when_there_is_no_gpu(self):
        cuda = self.blobs[self.make("torch", "1.0", "nvidia-cublas-cu12")["sha256"]]
        cublas = self.blobs[self.make("nvidia-cublas-cu12", "12.0")["sha256"]]
        cpu = wheels.make_wheel(self.folder, "torch", "1.0+cpu")
        given = {
            "name": ["torch"],
            "index_url": wheels.make_index(os.path.join(self.folder, "index"), [cuda, cublas]),
            "cpu_index_url": wheels.make_index(os.path.join(self.folder, "cpu"), [cpu]),
        }
        done = self.run_task(self.args(_uv=self.uv(), **given), facts={"gpuprov": {"gpus": []}})
        self.assertOutcome(done, "changed")
        self.assertEqual(self.version_in_env("torch"), "1.0+cpu")

    def test_torch_comes_from_its_own_index_alone(self):
        self.make("alpha", "1.0", "torch")
        newer = self.blobs[self.make("torch", "9.9")["sha256"]]
        others = wheels.make_index(os.path.join(self.folder, "index"), [*self.blobs.values(), newer])
        os.mkdir(os.path.join(self.folder, "own"))
        own = wheels.make_wheel(os.path.join(self.folder, "own"), "torch", "1.0+cu130")
        given = {"index_url": others, "torch_index_url": wheels.make_index(os.path.join(self.folder, "cu130"), [own])}
        args = self.args(_uv=self.uv(), name=["alpha", "torch"], **given)
        self.assertOutcome(self.run_task(args), "changed")
        self.assertEqual((self.version_in_env("torch"), self.version_in_env("alpha")), ("1.0+cu130", "1.0"))
        self.assertOutcome(self.run_task(args), "ok")


class WithoutUv(PipCase):
    def test_the_interpreters_own_venv_and_pip(self):
        self.make("alpha", "1.0")
        path = "/usr/bin:/bin"
        given = {"name": ["alpha"], "find_links": self.wheels, "extra_args": "--no-index"}
        before, os.environ["PATH"] = os.environ["PATH"], path
        self.addCleanup(os.environ.__setitem__, "PATH", before)
        if System().which("uv"):
            self.skipTest("this machine has uv in " + path)
        self.assertOutcome(self.run_task(self.args(**given)), "changed")
        self.assertEqual(self.version_in_env("alpha"), "1.0")
        self.assertOutcome(self.run_task(self.args(**given)), "ok")
        executable = os.path.join(self.env, "bin", "pip")
        gone = self.args(name=["alpha"], state="absent", virtualenv=None, executable=executable)
        self.assertOutcome(self.run_task(gone), "changed")
        self.assertEqual(self.version_in_env("alpha"), "")
        self.assertFault(self.run_task(self.args(**dict(given, name=["beta"]))), "no-matching-package")


if __name__ == "__main__":
    unittest.main()
