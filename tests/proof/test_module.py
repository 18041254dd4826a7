"""The agent's module runs the real proof from a folder that has only the proof's sources."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import unittest

from gpuprov.agent.modules import MODULES, arguments, gpuprov_proof
from gpuprov.agent.modules.base import Call, ModuleError
from gpuprov.agent.perform import perform
from gpuprov.agent.system import System
from gpuprov.proof import __main__ as command
from gpuprov.proof.parts import TIER_BUDGET_S
from tests.support.torch_env import torch_python

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(gpuprov_proof.__file__ or ""))) + "/.."


class Deadlines(unittest.TestCase):
    def test_the_module_waits_as_long_as_the_proof_itself_does(self) -> None:
        its = {"": command.DEADLINE_S, **{tier: s * command.PATIENCE[tier] for tier, s in TIER_BUDGET_S.items()}}
        self.assertEqual(gpuprov_proof.DEADLINE_S, its)


class Module(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.virtualenv = os.path.dirname(os.path.dirname(torch_python()))
        cls.folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        os.mkdir(cls.folder + "/gpuprov")
        shutil.copy(PACKAGE + "/__init__.py", cls.folder + "/gpuprov")
        shutil.copytree(PACKAGE + "/proof", cls.folder + "/gpuprov/proof", ignore=shutil.ignore_patterns("__pycache__"))

    def setUp(self) -> None:
        self.lines: list = []

    def call(self, given: dict, **rest: object) -> Call:
        args, wrong = arguments.check(gpuprov_proof.SPEC, given)
        self.assertEqual([w.message for w in wrong], [])
        rest.setdefault("proof_dir", self.folder)
        return Call(args, System(), output=lambda stream, text: self.lines.append((stream, text)), **rest)

    def run_module(self, **given: object) -> dict:
        given.setdefault("virtualenv", self.virtualenv)
        return gpuprov_proof.MODULE(self.call(given)).run()

    def refused(self, call: Call) -> ModuleError:
        with self.assertRaises(ModuleError) as caught:
            gpuprov_proof.MODULE(call).run()
        self.assertEqual(caught.exception.code, "proof-could-not-run")
        return caught.exception

    def test_a_healthy_host(self) -> None:
        result = self.run_module(tests=["linear", "versions"], epochs=30)
        self.assertEqual((result["changed"], result["rc"], result["verdict"]), (False, 0, "skip"))
        self.assertEqual(result["versions"]["executable"], torch_python())
        names = [found["name"] for found in result["checks"]]
        self.assertIn("linear.replay", names)
        self.assertIn("gpu.count", names)
        self.assertEqual(sum(result["counts"].values()), len(names))
        self.assertEqual(result["msg"], "11 pass, 5 skip")
        epochs = [text for stream, text in self.lines if stream == "stdout" and text.startswith("Epoch ")]
        self.assertEqual(len(epochs), 30)
        self.assertEqual(epochs[0], "Epoch 1/30, Loss: 0.3243")

    def test_an_unhealthy_host_is_a_finding_and_no_failure(self) -> None:
        result = self.run_module(tests="versions", expect_gpus="4")
        self.assertEqual((result["rc"], result["verdict"], result["changed"]), (3, "fail", False))
        self.assertNotIn("failed", result)
        self.assertIn(("stdout", "fail gpu.count: 4 GPUs expected, torch can use 0 (0 on the PCI bus)"), self.lines)

    def test_no_environment(self) -> None:
        error = self.refused(self.call({"virtualenv": "/nowhere/venv"}))
        self.assertEqual(error.message, "/nowhere/venv/bin/python: No such file or directory")
        self.assertIn("torch role", error.hint)

    def test_an_environment_without_torch(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            bare = os.path.join(folder, "python")
            with open(bare, "w") as f:  # this interpreter, whatever it has installed
                f.write(f'#!/bin/sh\nexec "{sys.executable}" -S -E "$@"\n')
            os.chmod(bare, 0o755)
            error = self.refused(self.call({"python": bare}))
        self.assertIn("torch is not installed for", error.message)
        self.assertIn("provisioned environment", error.hint)

    def test_words_that_the_proof_does_not_know(self) -> None:
        error = self.refused(self.call({"virtualenv": self.virtualenv, "tests": ["cubic"]}))
        self.assertIn("exit code 5", error.message)
        self.assertIn("unknown test cubic", error.message + str(self.lines))

    def test_the_tasks_own_timeout(self) -> None:
        error = self.refused(self.call({"virtualenv": self.virtualenv}, timeout_s=0.3))
        self.assertIn("timed out", error.message)

    def test_sources_that_cannot_be_read(self) -> None:
        error = self.refused(self.call({"virtualenv": self.virtualenv}, proof_dir=""))
        self.assertIn("cannot read the proof's sources", error.message)

    def test_check_mode_runs_nothing(self) -> None:
        started: list = []
        call = self.call({"virtualenv": "/nowhere"}, check=True)
        done = perform(gpuprov_proof.MODULE(call), lambda: started.append(1))
        self.assertEqual((done["outcome"], started, self.lines), ("skipped", [], []))

    def test_arguments(self) -> None:
        self.assertEqual(MODULES["gpuprov_proof"], "gpuprov_proof")
        for given, code in (
            ({}, "argument-missing"),
            ({"virtualenv": "/a", "python": "/b"}, "arguments-exclude"),
            ({"virtualenv": "/a", "expect_gpus": "many"}, "argument-type"),
        ):
            _, wrong = arguments.check(gpuprov_proof.SPEC, given)
            self.assertEqual([w.code for w in wrong], [code])


if __name__ == "__main__":
    unittest.main()
