"""The command line with torch: what it prints, what it leaves, how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import time
import unittest
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gpuprov.results import Check
from tests.support.torch_env import torch_python

ROOT = Path(__file__).parents[2]
EPOCH = re.compile(r"Epoch ([1-9]\d*)/(\d+), Loss: \d+\.\d{4}")
GPU_ONLY = ("cuda.available", "gpu.count", "cudnn", "nccl", "driver")


def argv(*words: str) -> list[str]:
    return [torch_python(), "-m", "gpuprov.proof", *words]


def proof(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **env}
    return subprocess.run(argv(*words), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def messages(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def checks(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {m["name"]: m for m in messages(done) if m["kind"] == "check"}


class Json(unittest.TestCase):
    """One whole run on a host without a GPU."""

    done: ClassVar[subprocess.CompletedProcess[str]]
    messages: ClassVar[list[dict[str, Any]]]

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.out = Path(folder.name) / "kept" / "here"
        cls.done = proof("--json", "--out", str(cls.out))
        cls.messages = messages(cls.done)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [m for m in self.messages if m["kind"] == kind]

    def test_a_healthy_cpu_host_ends_with_0_and_says_what_was_skipped(self) -> None:
        self.assertEqual((self.done.returncode, self.done.stderr), (0, ""))
        done = self.messages[-1]
        self.assertEqual((done["kind"], done["verdict"], done["checks"]), ("done", "skip", len(self.of("check"))))
        self.assertEqual(done["counts"], {"pass": done["checks"] - len(GPU_ONLY), "skip": len(GPU_ONLY)})

    def test_every_epoch_is_there_as_data_and_as_the_line(self) -> None:
        for name, count in (("linear", 100), ("mlp", 10)):
            epochs = [m for m in self.of("epoch") if m["proof"] == name]
            self.assertEqual([m["epoch"] for m in epochs], list(range(1, count + 1)))
            self.assertEqual({(m["epochs"], m["device"]) for m in epochs}, {(count, "cpu")})
            for message in epochs:
                line = self.messages[self.messages.index(message) + 1]
                text = f"Epoch {message['epoch']}/{count}, Loss: {message['loss']:.4f}"
                self.assertEqual((line["kind"], line["text"]), ("text", text))

    def test_the_loss_ends_at_the_noise_and_never_at_the_tutorials_0_005(self) -> None:
        last = [m["loss"] for m in self.of("epoch") if m["proof"] == "linear"][-1]
        self.assertAlmostEqual(last, 1 / 12, delta=0.012)

    def test_checks_have_the_fields_of_the_report_and_a_sentence(self) -> None:
        wanted = {field.name for field in fields(Check)} | {"kind"}
        for found in self.of("check"):
            self.assertEqual(set(found), wanted)
            self.assertTrue(found["reason"])
            self.assertIs(found["simulated"], False)

    def test_what_needs_a_gpu_is_skipped_with_the_reason(self) -> None:
        skipped = {m["name"]: m["reason"] for m in self.of("check") if m["verdict"] == "skip"}
        self.assertEqual(tuple(skipped), GPU_ONLY)
        self.assertEqual(skipped["cuda.available"], "no CUDA device: torch is the CPU build")

    def test_it_says_what_it_proves(self) -> None:
        sentence = "On the CPU: this proves Python + torch + autograd; no GPU was measured."
        self.assertIn(sentence, [m["text"] for m in self.of("text")])
        for name in ("linear.replay", "mlp.replay-1"):
            (found,) = [m for m in self.of("check") if m["name"] == name]
            self.assertEqual(found["data"]["proves"], sentence)

    def test_versions(self) -> None:
        (found,) = self.of("versions")
        self.assertEqual((found["executable"], found["cuda"], found["devices"]), (torch_python(), None, []))
        self.assertEqual(found["proving"], ["cpu"])
        self.assertTrue(found["torch"].startswith("2."))

    def test_loss_curves_come_with_the_checks(self) -> None:
        for name, count in (("linear.replay", 100), ("mlp.replay-1", 10)):
            (found,) = [m for m in self.of("check") if m["name"] == name]
            self.assertEqual(len(found["data"]["losses"]), count)
            self.assertGreater(found["data"]["losses"][0], found["data"]["losses"][-1])

    def test_no_line_is_longer_than_the_agent_keeps(self) -> None:
        self.assertLess(max(map(len, self.done.stdout.splitlines())), 4096)

    def test_weights_are_kept_and_load_back(self) -> None:
        self.assertEqual(sorted(os.listdir(self.out)), ["linear_model.pth", "mlp_model.pth"])
        code = (
            "import json, sys, torch\n"
            "load = lambda name: torch.load(sys.argv[1] + name, weights_only=True)\n"
            "line, mlp = load('/linear_model.pth'), load('/mlp_model.pth')\n"
            "print(json.dumps([line['weight'].item(), line['bias'].item(), sum(p.numel() for p in mlp.values())]))\n"
        )
        command = [torch_python(), "-W", "ignore", "-c", code, str(self.out)]
        slope, intercept, count = json.loads(subprocess.check_output(command, text=True))
        (found,) = [m for m in self.of("check") if m["name"] == "linear.replay"]
        self.assertEqual((slope, intercept), (found["data"]["slope"], found["data"]["intercept"]))
        self.assertEqual(count, 171)

    def test_the_same_bits_in_another_process(self) -> None:
        again = checks(proof("mlp", "--json"))["mlp.deterministic"]
        (first,) = [m for m in self.of("check") if m["name"] == "mlp.deterministic"]
        self.assertEqual(again["data"], first["data"])
        self.assertRegex(first["data"]["steps_sha256"], "^[0-9a-f]{64}$")


class Text(unittest.TestCase):
    def test_lines_come_live_and_exactly_so(self) -> None:
        words = argv("linear", "--epochs", "300")
        with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            head = [running.stdout.readline().rstrip("\n") for _ in range(3)]
            self.assertIsNone(running.poll())
            rest = running.stdout.read().splitlines()
        self.assertEqual(running.returncode, 0)
        self.assertRegex(head[0], r"^Python 3\.\d+\.\d+, torch 2\..*, no CUDA$")
        self.assertIn("y = 0.03x + 0.3 + U(-0.5, 0.5), 1000 points, batch 16, SGD 0.01, 300 epochs", head[1])
        epochs = [line for line in [head[2], *rest] if line.startswith("Epoch")]
        self.assertEqual([EPOCH.fullmatch(line)[1] for line in epochs], [str(n) for n in range(1, 301)])  # type: ignore[index]
        self.assertRegex(rest[-1], r"^verdict: pass \(11 pass\) after \d+\.\d s$")


class Unhealthy(unittest.TestCase):
    def test_expected_gpus_that_are_not_there_end_with_3(self) -> None:
        done = proof("versions", "--json", "--expect-gpus", "8")
        found = checks(done)["gpu.count"]
        self.assertEqual(done.returncode, 3)
        self.assertEqual((found["verdict"], found["measured"], found["expected"]), ("fail", 0, 8))
        self.assertEqual(messages(done)[-1]["verdict"], "fail")

    def test_a_device_that_is_not_there_is_an_error_with_the_reason(self) -> None:
        done = proof("linear", "--device", "cuda:0")
        self.assertEqual(done.returncode, 1)
        self.assertIn("error[no-device]: no device cuda:0 here: torch is the CPU build", done.stdout)

    def test_a_random_seed_is_judged_against_the_truth_too(self) -> None:
        done = proof("linear", "--json", "--seed", "random", "--epochs", "30")
        found = checks(done)
        self.assertEqual(done.returncode, 0, done.stdout)
        truth = [found[name] for name in ("linear.truth-slope", "linear.truth-intercept", "linear.truth-loss")]
        self.assertEqual([c["verdict"] for c in truth], ["pass"] * 3)
        self.assertEqual(truth[0]["data"]["seed"], found["linear.replay"]["data"]["seed"])


class Stopped(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.tmp = folder.name

    def started(self) -> subprocess.Popen[str]:
        words = argv("linear", "--epochs", "5000")
        env = {**os.environ, "TMPDIR": self.tmp}
        running = subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert running.stdout is not None
        while not running.stdout.readline().startswith("Epoch 1/5000"):
            self.assertIsNone(running.poll())
        return running

    @pytest.mark.slow
    def test_what_takes_too_long_is_killed_and_what_was_found_is_kept(self) -> None:
        started = time.monotonic()
        proof("versions")
        deadline_s = 4 * (time.monotonic() - started)  # time to come to the training, unless the machine gets busier
        for _ in range(4):
            words = ("--epochs", "50000", "--deadline", f"{deadline_s:.1f}")
            done = proof("linear", "versions", "--json", *words, TMPDIR=self.tmp)
            if sum(m["kind"] == "epoch" for m in messages(done)) > 5:
                break
            deadline_s *= 2
        found = checks(done)
        self.assertEqual(done.returncode, 3)
        self.assertEqual(found["process"]["verdict"], "fail")
        self.assertIn("s (linear on cpu: training); its process group was killed", found["process"]["reason"])
        self.assertTrue(set(GPU_ONLY) <= set(found))
        self.assertGreater(sum(m["kind"] == "epoch" for m in messages(done)), 5)
        self.assertEqual(os.listdir(self.tmp), [])

    def test_terminated_from_outside(self) -> None:
        with self.started() as running:
            running.send_signal(signal.SIGTERM)
            _, err = running.communicate(timeout=20)
        self.assertEqual((running.returncode, err), (99, "interrupted\n"))
        self.assertEqual(os.listdir(self.tmp), [])

    def test_a_reader_that_goes_away(self) -> None:
        with self.started() as running:
            assert running.stdout is not None
            assert running.stderr is not None
            running.stdout.close()
            self.assertEqual(running.wait(timeout=20), 1)
            self.assertEqual(running.stderr.read(), "")
        self.assertEqual(os.listdir(self.tmp), [])


if __name__ == "__main__":
    unittest.main()
