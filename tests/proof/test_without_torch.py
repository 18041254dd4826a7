"""The command line under an interpreter that has no torch: what can be said is said, and clearly."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

from gpuprov.proof import __main__ as command

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def proof(*words: str) -> subprocess.CompletedProcess:
    argv = [sys.executable, "-m", "gpuprov.proof", *words]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)


class NoTorch(unittest.TestCase):
    def setUp(self) -> None:
        found = subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, cwd=ROOT, timeout=60)
        if found.returncode == 0:
            self.skipTest("this interpreter has torch")

    def test_exit_1_with_a_sentence_and_a_remedy(self) -> None:
        done = proof("linear")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(
            done.stdout.splitlines()[0], f"error[torch-missing]: torch is not installed for {sys.executable}"
        )
        self.assertTrue(done.stdout.splitlines()[1].startswith("hint: "))

    def test_json(self) -> None:
        done = proof("--json")
        (message,) = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual((done.returncode, message["kind"], message["code"]), (1, "error", "torch-missing"))

    def test_a_torch_that_cannot_be_imported_is_another_error(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            os.mkdir(os.path.join(folder, "torch"))
            with open(os.path.join(folder, "torch", "__init__.py"), "w") as f:
                f.write("raise ImportError('libcudart.so.13: cannot open shared object file')\n")
            argv = [sys.executable, "-m", "gpuprov.proof", "--json"]
            env = dict(os.environ, PYTHONPATH=folder)
            done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
        message = json.loads(done.stdout)
        self.assertEqual((done.returncode, message["code"]), (1, "torch-broken"))
        self.assertIn("libcudart.so.13: cannot open shared object file", message["message"])

    def test_no_folder_is_left_behind(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            argv = [sys.executable, "-m", "gpuprov.proof"]
            subprocess.run(argv, cwd=ROOT, env=dict(os.environ, TMPDIR=folder), capture_output=True, timeout=60)
            self.assertEqual(os.listdir(folder), [])


class WrongWords(unittest.TestCase):
    def test_each_is_refused_with_exit_5(self) -> None:
        for words, said in (
            (["cubic"], "unknown test cubic; allowed: nvml.library, "),
            (["--epochs", "0"], "0 is not a whole number from 1 on"),
            (["--expect-gpus", "-1"], "expect-gpus"),
            (["--seed", "dice"], "dice is not a whole number"),
            (["--deadline", "nan"], "nan is not a number of seconds above 0"),
            (["--deadline", "soon"], "soon is not a number of seconds above 0"),
        ):
            done = proof(*words)
            self.assertEqual((done.returncode, done.stdout), (5, ""), words)
            self.assertIn(said, done.stderr)

    def test_a_folder_that_cannot_be_made(self) -> None:
        done = proof("--out", "/proc/nowhere")
        self.assertEqual(done.returncode, 1)
        self.assertIn("error[out-unwritable]: ", done.stdout)

    def test_what_the_docs_say_to_type_is_allowed(self) -> None:
        typed = []
        for name in ("README.md", "docs/proof.md"):
            with open(os.path.join(ROOT, name), encoding="utf-8") as f:
                typed += re.findall(r"python -m gpuprov\.proof((?: [a-z0-9-]+)*)(?= *[`#\n])", f.read())
        self.assertGreater(len(typed), 4)
        for words in typed:
            command._parser().parse_args(words.split())  # ends the process when it is not

    def test_help_names_the_exit_codes(self) -> None:
        done = proof("--help")
        self.assertEqual(done.returncode, 0)
        self.assertIn("3 not healthy", done.stdout)


if __name__ == "__main__":
    unittest.main()
