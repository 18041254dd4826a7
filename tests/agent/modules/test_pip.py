"""The module pip, with the real uv and the real pip, on small real wheels."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import unittest

from gpuprov.agent.blobs import Blobs
from gpuprov.agent.modules import pip, pip_python, pip_tools
from gpuprov.agent.system import System
from tests.support import wheels
from tests.support.pip_case import TARGET, PipCase, tree
from tests.support.wheel_site import make_pythons


class FromTheController(PipCase):
    def task(self, *found, **more):
        names = [one["name"] + "==" + one["version"] for one in found]
        return self.args(name=names, source="controller", _wheels=list(found), _uv=self.uv(), **more)

    def test_makes_the_environment_then_finds_nothing_to_do(self):
        args = self.task(self.make("alpha", "1.0", "beta-b"), self.make("beta-b", "2.0+cpu"))
        hashes = [one["sha256"] for one in [*args["_wheels"], args["_uv"]]]
        self.assertEqual(pip.needs(args, System()), hashes)
        done = self.run_task(args)
        self.assertOutcome(done, "changed")
        self.assertEqual(done["result"]["packages"], {"alpha": "1.0", "beta-b": "2.0+cpu"})
        self.assertEqual((self.version_in_env("alpha"), self.version_in_env("beta_b")), ("1.0", "2.0+cpu"))
        self.assertIn(" + alpha==1.0", self.lines)
        before = tree(self.env)
        self.assertOutcome(self.run_task(args), "ok")
        self.assertEqual(tree(self.env), before)
        self.assertEqual(pip.needs(args, System()), [])

    def test_brings_only_what_differs(self):
        alpha = self.make("alpha", "1.0")
        self.run_task(self.task(alpha, self.make("beta", "1.0")))
        newer = self.make("beta", "1.1")
        args = self.task(alpha, newer)
        self.assertEqual(pip.needs(args, System()), [newer["sha256"], args["_uv"]["sha256"]])
        done = self.run_task(args, diff=True)
        self.assertOutcome(done, "changed")
        self.assertEqual(done["diff"][0]["before"], "alpha==1.0\nbeta==1.0\n")
        self.assertEqual(done["diff"][0]["after"], "beta==1.1\n")
        self.assertEqual(self.version_in_env("beta"), "1.1")

    def test_check_mode_touches_nothing(self):
        args = self.task(self.make("alpha", "1.0"))
        before = tree(self.folder)
        self.assertOutcome(self.run_task(args, check=True), "changed")
        self.assertEqual(tree(self.folder), before)

    def test_check_mode_asks_for_no_files_to_be_sent(self):
        args = self.task(self.make("alpha", "1.0"))
        blobs = Blobs(self.state, System())
        node = {"action": "pip", "args": args, "files": [one["sha256"] for one in [*args["_wheels"], args["_uv"]]]}
        plan = {"blobs": {"x": 1}, "plays": [{"nodes": [node], "handlers": []}]}
        self.assertEqual(blobs.missing(plan), node["files"])
        self.assertEqual(blobs.missing(dict(plan, check=True)), [])
        node["check_mode"] = False
        self.assertEqual(blobs.missing(dict(plan, check=True)), node["files"])

    def test_refuses_a_replaced_wheel(self):
        alpha = self.make("alpha", "1.0")
        args = self.task(alpha)
        wheels.make_wheel(self.wheels, "alpha", "1.0", files={"alpha.py": "evil = 1\n"})
        self.assertFault(self.run_task(args), "hash-mismatch")

    def test_refuses_a_replaced_uv(self):
        args = self.task(self.make("alpha", "1.0"))
        self.blobs[args["_uv"]["sha256"]] = self.blobs[args["_wheels"][0]["sha256"]]
        self.assertFault(self.run_task(args), "hash-mismatch")

    def test_says_what_space_is_missing_before_it_starts(self):
        args = self.task(dict(self.make("alpha", "1.0"), installed_bytes=10**15))
        done = self.run_task(args)
        self.assertFault(done, "disk-full")
        self.assertIn("1000000067 MB", done["msg"])

    def test_an_interrupted_installation_is_done_again(self):
        args = self.task(self.make("alpha", "1.0"))
        self.run_task(args)
        site = os.path.join(self.env, "lib", "python" + TARGET, "site-packages")
        os.unlink(os.path.join(site, "alpha-1.0.dist-info", "INSTALLER"))
        os.unlink(os.path.join(site, "alpha.py"))
        self.assertEqual(len(pip.needs(args, System())), 2)
        self.assertOutcome(self.run_task(args), "changed")
        self.assertEqual(self.version_in_env("alpha"), "1.0")

    def test_an_environment_whose_python_is_gone_is_mended(self):
        args = self.task(self.make("alpha", "1.0"))
        self.run_task(args)
        os.unlink(os.path.join(self.env, "bin", "python"))
        os.symlink("/nonexistent/python3", os.path.join(self.env, "bin", "python"))
        self.assertOutcome(self.run_task(args), "changed")
        self.assertEqual(self.version_in_env("alpha"), "1.0")

    def test_does_not_take_over_a_folder_with_other_things(self):
        os.mkdir(self.env)
        with open(os.path.join(self.env, "precious"), "w"):
            pass
        self.assertFault(self.run_task(self.task(self.make("alpha", "1.0"))), "not-a-virtualenv")
        self.assertEqual(os.listdir(self.env), ["precious"])

    def test_what_the_host_has_in_its_cache_is_not_sent(self):
        alpha = self.make("alpha", "1.0")
        args = self.task(alpha)
        folder = os.path.join(pip_tools.HOST_CACHE, alpha["sha256"])
        os.makedirs(folder)
        shutil.move(self.blobs.pop(alpha["sha256"]), folder)
        self.assertEqual(pip.needs(args, System()), [args["_uv"]["sha256"]])
        self.assertOutcome(self.run_task(args), "changed")
        self.assertEqual(self.version_in_env("alpha"), "1.0")

    def test_kept_wheels_are_never_needed_again_and_older_ones_go(self):
        first = self.task(self.make("alpha", "1.0"), keep_wheels=True)
        self.assertOutcome(self.run_task(first), "changed")
        shutil.rmtree(self.env)
        self.assertEqual(pip.needs(first, System()), [])
        self.blobs.clear()
        self.assertOutcome(self.run_task(first), "changed")
        second = self.task(self.make("alpha", "1.1"), keep_wheels=True)
        self.assertOutcome(self.run_task(second), "changed")
        hashes = {second["_wheels"][0]["sha256"], second["_uv"]["sha256"]}
        self.assertEqual(set(os.listdir(pip_tools.HOST_CACHE)), hashes)

    def test_another_python_makes_the_environment_anew(self):
        args = self.task(self.make("alpha", "1.0"))
        self.run_task(args)
        stale = os.path.join(self.env, "lib", "python3.7", "site-packages")
        os.makedirs(stale)
        settings = os.path.join(self.env, "pyvenv.cfg")
        with open(settings) as f:
            text = f.read()
        with open(settings, "w") as f:
            f.write(text.replace("version_info = " + TARGET, "version_info = 3.7"))
        self.assertEqual(len(pip.needs(args, System())), 2)
        self.assertOutcome(self.run_task(args), "changed")
        self.assertFalse(os.path.exists(os.path.dirname(stale)))
        other = self.args(name=["alpha==1.0"], source="controller", _wheels=args["_wheels"], managed_python="3.99")
        done = self.run_task(dict(other, _uv=self.uv()))
        self.assertEqual(done["outcome"], "failed", done)
        self.assertEqual(self.version_in_env("alpha"), "1.0", "the environment that works is lost")

    def test_what_a_task_or_a_shell_sets_does_not_leak_in(self):
        evil = os.path.join(self.folder, "evil")
        os.mkdir(evil)
        with open(os.path.join(evil, "sitecustomize.py"), "w") as f:
            f.write("raise SystemExit('it leaked')\n")
        env = {"PYTHONPATH": evil, "CONDA_PREFIX": evil, "PIP_TARGET": evil, "UV_TARGET": evil}
        os.environ["PYTHONPATH"] = evil
        self.addCleanup(os.environ.pop, "PYTHONPATH")
        done = self.run_task(self.task(self.make("alpha", "1.0")), env=env)
        self.assertOutcome(done, "changed")
        said = "\n".join(self.warnings)
        self.assertIn("not passed on to the installer: CONDA_PREFIX, PIP_TARGET, PYTHONPATH, UV_TARGET", said)
        self.assertRegex(said, "commands on this host are given [A-Z_, ]*PYTHONPATH")
        os.environ["PYTHONPATH"] = ""
        self.assertEqual(self.version_in_env("alpha"), "1.0")
        self.assertEqual(os.listdir(evil), ["sitecustomize.py"])

    def test_unresolved_wheels_are_an_error(self):
        done = self.run_task(self.args(name=["alpha"], source="controller"))
        self.assertFault(done, "wheels-missing")


class ManagedPythons(PipCase):
    """The real uv, and this machine's own Python in the layout of those that uv brings."""

    def setUp(self):
        super().setUp()
        self.mirror = os.path.join(self.folder, "mirror")
        self.version, self.listing = make_pythons(pathlib.Path(self.mirror))
        self.pythons = os.path.join(self.folder, "pythons")

    def task(self, **more):
        alpha = self.make("alpha", "1.0")
        given = {"managed_python": TARGET, "managed_python_folder": self.pythons}
        return self.args(name=["alpha"], source="controller", _wheels=[alpha], _uv=self.uv(), **given, **more)

    def base(self):
        argv = [os.path.join(self.env, "bin", "python"), "-B", "-c", "import sys, alpha; print(sys.base_prefix)"]
        done = subprocess.run(argv, capture_output=True, check=False)
        return os.path.realpath(done.stdout.decode().strip())

    def test_one_that_travelled(self):
        path = next(str(one) for one in pathlib.Path(self.mirror).rglob("*.tar.gz"))
        archive = wheels.described_file(path)
        archive.update(version=self.version, machine=os.uname().machine)
        self.blobs[archive["sha256"]] = path
        args = self.task(_python=archive)
        self.assertIn(archive["sha256"], pip.needs(args, System()))
        self.assertOutcome(self.run_task(args), "changed")
        self.assertTrue(self.base().startswith(os.path.realpath(self.pythons) + "/"), self.base())
        self.assertOutcome(self.run_task(args), "ok")
        self.assertEqual(pip.needs(args, System()), [])
        shutil.rmtree(self.env)
        self.assertNotIn(archive["sha256"], pip.needs(args, System()), "it is here already")

    def test_one_that_was_replaced_on_its_way(self):
        path = next(str(one) for one in pathlib.Path(self.mirror).rglob("*.tar.gz"))
        archive = dict(wheels.described_file(path), version=self.version, machine=os.uname().machine)
        with open(path, "ab") as f:
            f.write(b"evil")
        self.blobs[archive["sha256"]] = path
        self.assertFault(self.run_task(self.task(_python=archive)), "hash-mismatch")
        self.assertEqual(pip_python.managed(self.pythons, TARGET), "")

    def test_one_from_a_mirror(self):
        args = self.task(python_mirror="file://" + self.mirror, python_downloads=self.listing)
        self.assertOutcome(self.run_task(args), "changed")
        self.assertTrue(self.base().startswith(os.path.realpath(self.pythons) + "/"), self.base())


if __name__ == "__main__":
    unittest.main()
