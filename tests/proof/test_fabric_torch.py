"""Runs fabric_scenarios.py where torch is: wrong numbers, other data, spiked gradients, flipped bits are all caught."""

from __future__ import annotations

import os
import subprocess

from tests.support.torch_env import torch_python

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def test_what_is_wrong_is_caught_and_what_is_healthy_is_not() -> None:
    argv = [torch_python(), "-B", "-W", "ignore", "-m", "unittest", "-v", "tests.proof.fabric_scenarios"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    assert "test_healthy (tests.proof.fabric_scenarios.Training" in done.stderr
