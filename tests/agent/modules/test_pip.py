"""The module pip, with the real uv and the real pip, on small real wheels."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

from gpuprov.agent.blobs import Blobs
from gpuprov.agent.modules import arguments, base, pip, pip_python, pip_tools
from gpuprov.agent.perform import failed, perform
from gpuprov.agent.system import System
from tests.support import wheels
from tests.support.wheel_site import make_pythons

TARGET = "{}.{}".format(*sys.version_info[:2])


def tree(folder):
    """Return every path under *folder* with its size and time of change."""
    found = {}
    for above, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = os.path.join(above, name)
            found[path] = (os.lstat(path).st_size, os.lstat(path).st_mtime_ns)
    return found


class PipCase(unittest.TestCase):
    """A place for an environment, a folder of wheels, and one task at a time."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="gpuprov-pip-test-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.wheels = os.path.join(self.folder, "wheels")
        self.state = os.path.join(self.folder, "state")
        self.env = os.path.join(self.folder, "opt", "env")
        for name in (self.wheels, self.state, os.path.dirname(self.env)):
            os.mkdir(name)
        self.blobs = {}
        self.lines = []
        self.addCleanup(setattr, pip_tools, "HOST_CACHE", pip_tools.HOST_CACHE)
        pip_tools.HOST_CACHE = os.path.join(self.folder, "cache")

    def make(self, name, version, *requires, **more):
        """Put a wheel into the folder of wheels and describe it as the controller would."""
        path = wheels.make_wheel(self.wheels, name, version, requires, **more)
        one = wheels.described(path, name, version)
        self.blobs[one["sha256"]] = path
        return one

    def uv(self):
        path = wheels.uv_wheel()
        one = wheels.described(path, "uv", "0")
        self.blobs[one["sha256"]] = path
        return one

    def args(self, **given):
        given.setdefault("virtualenv", self.env)
        checked, wrong = arguments.check(pip.SPEC, given)
        self.assertEqual([w.message for w in wrong], [])
        return checked

    def local(self, **given):
        """Arguments for the folder of wheels as the only source."""
        if given.get("state") != "absent":
            given.setdefault("extra_args", "--no-index")
            given.setdefault("find_links", self.wheels)
        return self.args(_uv=self.uv(), **given)

    def run_task(self, args, **more):
        call = base.Call(
            dict(args),
            System(),
            blob=self.blobs.__getitem__,
            state_dir=self.state,
            output=lambda stream, line: self.lines.append(line),
            **more,
        )
        self.warnings = call.warnings
        try:
            done = perform(pip.MODULE(call), lambda: None)
        except base.ModuleError as error:
            done = failed(error)
        self.assertEqual(os.listdir(self.state), [], "something was left in the agent's folder")
        left = [name for name in os.listdir(os.path.dirname(self.env)) if name.startswith(".")]
        self.assertEqual(left, [], "something was left beside the environment")
        return done

    def version_in_env(self, module):
        # -B: byte code is told from its source by second and size, and two versions can agree in both
        argv = [os.path.join(self.env, "bin", "python"), "-B", "-c", f"import {module}; print({module}.version)"]
        done = subprocess.run(argv, capture_output=True, check=False)
        return done.stdout.decode().strip()

    def assertOutcome(self, done, outcome):  # noqa: N802
        self.assertEqual(done["outcome"], outcome, done)

    def assertFault(self, done, code):  # noqa: N802
        self.assertEqual(done.get("fault", {}).get("code"), code, done)
        self.assertFalse(os.path.exists(os.path.join(self.env, "lib", "python" + TARGET, "site-packages", "alpha.py")))


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
