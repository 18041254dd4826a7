"""P5: what the compiling process says is judged, it ends at its limit, and nobody's cache or variable matters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import pytest

from gpuprov.proof.training import compile_child, compiled, private
from tests.proof.test_training_gpt import ROOT, scenario
from tests.support.torch_env import torch_python

HEALTHY: dict[str, Any] = {
    "complete": True,
    "kind": "float32",
    "eager": {"output": [2e-7, "the logits"], "gradients": [6e-7, "head.weight"]},
    "compiled": {"output": [2e-7, "the logits"], "gradients": [5e-7, "head.weight"]},
    "spoiled": {"output": [0.25, "the logits"], "gradients": [0.25, "head.weight"]},
    "graphs": 1,
    "again": 0,
    "breaks": {},
    "kernels": 2,
    "compile_s": 20.0,
    "losses": [2.7, 2.0, 1.5, 1.5, 1.5, 1.5, 1.5],
    "eager_losses": [2.7, 2.0, 1.5, 1.5, 1.5, 1.5, 1.5],
    "truths": [1.2] * 7,
    "eager_s": [0.02, 0.02],
    "compiled_s": [0.01, 0.01],
    "speedups": [2.0, 2.0],
}


def end(late: bool = False, code: int = 0, **found: Any) -> private.End:
    return private.End(found, "compiling", code, late, "the last word")


def bad(**changed: Any) -> list[str]:
    checks = compiled.judged("compile", "cpu", end(**{**HEALTHY, **changed}))
    return [check["name"] for check in checks if check["verdict"] != "pass"]


class Judged(unittest.TestCase):
    def test_a_healthy_one_passes_and_its_speed_is_a_measurement_but_not_its_time(self) -> None:
        checks = {check["name"]: check for check in compiled.judged("compile", "cpu", end(**HEALTHY))}
        self.assertEqual({check["verdict"] for check in checks.values()}, {"pass"})
        self.assertEqual(checks["compile.speedup"]["data"]["kind"], "measurement")
        self.assertEqual(checks["compile.time"]["measured"], 20.0)
        self.assertNotIn("kind", checks["compile.time"]["data"])

    def test_what_was_not_compiled_or_not_as_a_whole_fails(self) -> None:
        for changed in ({"graphs": 0}, {"kernels": 0}, {"graphs": 2}, {"again": 1}, {"breaks": {"print": 1}}):
            self.assertEqual(bad(**changed), ["compile.graphs"])

    def test_wrong_numbers_fail(self) -> None:
        for what, error in (("output", 2e-5), ("gradients", 2e-5), ("gradients", float("nan"))):
            wrong = {**HEALTHY["compiled"], what: [error, "head.weight"]}
            self.assertEqual(bad(compiled=wrong), ["compile." + what])
        for value in (2.001, float("nan")):
            self.assertIn("compile.trace", bad(losses=[2.7, value, 1.5, 1.5, 1.5, 1.5, 1.5]))
        self.assertIn("compile.trace", bad(losses=HEALTHY["losses"][:-1]))

    def test_a_comparison_that_sees_nothing_makes_the_run_void(self) -> None:
        self.assertEqual(bad(spoiled=HEALTHY["compiled"]), ["compile.canary"])

    def test_half_precision_is_judged_by_what_the_eager_model_does(self) -> None:
        self.assertEqual(compiled.bound("bfloat16", 0.001), 2.0**-6)
        self.assertEqual(compiled.bound("bfloat16", 0.02), 0.04)
        self.assertEqual(compiled.bound("bfloat16", 0.5), 2.0**-4)

    def test_what_is_missing_is_never_a_pass_and_says_the_way_out(self) -> None:
        for missing in compiled.WAYS:
            for device, verdict in (("cpu", "skip"), ("cuda:0", "unknown")):
                (check,) = compiled.judged("compile", device, end(missing=missing, reason="there is none"))
                self.assertEqual(check["verdict"], "skip" if missing == "capability" else verdict)
                self.assertIn(compiled.WAYS[missing], check["reason"])

    def test_a_process_that_did_not_end_well_is_never_a_pass(self) -> None:
        for one, verdict in (
            (end(late=True, **HEALTHY), "fail"),
            (end(code=-9), "unknown"),
            (end(code=-11), "fail"),
            (end(code=1), "unknown"),
            (end(), "unknown"),
            (end(error="BackendCompilerFailed: ptxas"), "fail"),
            (end(error="CUDA out of memory", memory=True), "unknown"),
        ):
            (check,) = compiled.judged("compile", "cuda:0", one)
            self.assertEqual(check["verdict"], verdict, check)
        (check,) = compiled.judged("cpu.compile", "cpu", end(late=True))
        self.assertEqual(check["verdict"], "unknown", "a busy processor is no fault")


class Lacking(unittest.TestCase):
    def test_no_compiler_no_triton_no_headers(self) -> None:
        with mock.patch.dict(os.environ, {"PATH": "/nowhere", "CXX": "", "CC": ""}):
            self.assertEqual((compile_child.lacking("cpu") or [""])[0], "c++")
            with mock.patch("importlib.util.find_spec", return_value=None):
                self.assertEqual((compile_child.lacking("cuda:0") or [""])[0], "triton")
            with mock.patch("importlib.util.find_spec", return_value=1):
                self.assertEqual((compile_child.lacking("cuda:0") or [""])[0], "c")
        nowhere = {"include": "/nowhere"}
        with (
            mock.patch.dict(os.environ, {"CXX": sys.executable}),
            mock.patch("sysconfig.get_paths", return_value=nowhere),
        ):
            self.assertEqual((compile_child.lacking("cpu") or [""])[0], "headers")


class Private(unittest.TestCase):
    def test_variables_that_change_what_is_compiled_are_left_out(self) -> None:
        theirs = {"TORCH_COMPILE_DISABLE": "1", "TORCHINDUCTOR_CACHE_DIR": "/home/x", "TRITON_INTERPRET": "1"}
        with mock.patch.dict(os.environ, {**theirs, "TRITON_PTXAS_PATH": "/opt/ptxas", "CXX": "g++-12"}):
            found = private.environment("/scratch/a")
        self.assertNotIn("TORCH_COMPILE_DISABLE", found)
        self.assertNotIn("TRITON_INTERPRET", found)
        self.assertEqual((found["TRITON_PTXAS_PATH"], found["CXX"]), ("/opt/ptxas", "g++-12"))
        caches = [found[name] for name in (private.MARK, "TRITON_CACHE_DIR", "CUDA_CACHE_PATH", "TMPDIR")]
        self.assertEqual([one for one in caches if not one.startswith("/scratch/a")], [])

    def test_no_process_and_no_file_is_left_whether_it_hangs_or_ends(self) -> None:
        for hangs in (True, False):
            with self.subTest(hangs=hangs), tempfile.TemporaryDirectory() as scratch:
                stages: list[str] = []
                asked = {"hangs": hangs, "code": 3}
                with mock.patch.object(private, "_now", lambda said=stages: 1e9 if "hanging" in said else 0.0):
                    found = private.run("tests.proof.private_child", asked, scratch, 60.0, stages.append)
                self.assertEqual((found.late, stages), (hangs, ["starting workers", "hanging"][: 1 + hangs]))
                self.assertEqual(os.listdir(scratch), [])
                self.assertEqual(len(found.found["workers"]), 2)
                left = [pid for pid in (*found.found["workers"], found.found["pid"]) if alive(pid)]
                self.assertEqual(left, [])
                if not hangs:
                    self.assertEqual(found.how(), "ended with exit code 3 (starting workers): what went wrong")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Wrong(unittest.TestCase):
    found: ClassVar[dict[str, Any]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.found = scenario("compile_wrong")

    def test_a_backend_that_compiles_nothing_computes_right_and_is_found(self) -> None:
        self.assertEqual(self.found["eager"], ["cpu.compile.graphs"])

    def test_one_wrong_number_of_the_output_is_found(self) -> None:
        self.assertIn("cpu.compile.output", self.found["number"])

    def test_a_wrong_gradient_is_found(self) -> None:
        self.assertIn("cpu.compile.gradients", self.found["gradient"])
        self.assertNotIn("cpu.compile.output", self.found["gradient"])


class Real(unittest.TestCase):
    @pytest.mark.slow
    def test_a_poisoned_cache_and_a_switch_that_turns_compiling_off_do_not_matter(self) -> None:
        with tempfile.TemporaryDirectory() as theirs:
            Path(theirs, "poison.py").write_text("raise SystemExit('poisoned')")
            switches = {"TORCHINDUCTOR_CACHE_DIR": theirs, "TORCH_COMPILE_DISABLE": "1", "TMPDIR": theirs}
            argv = [torch_python(), "-m", "gpuprov.proof", "compile", "--json", "--device", "cpu"]
            env = dict(os.environ, **switches)
            done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900, check=False)
            self.assertEqual(os.listdir(theirs), ["poison.py"])
        messages = [json.loads(line) for line in done.stdout.splitlines()]
        checks = {one["name"]: one["verdict"] for one in messages if one["kind"] == "check"}
        self.assertEqual((done.returncode, set(checks.values())), (0, {"pass"}), done.stdout)
        self.assertIn("cpu.compile.graphs", checks)


if __name__ == "__main__":
    unittest.main()
