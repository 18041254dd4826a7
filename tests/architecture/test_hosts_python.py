"""What runs on hosts runs on the oldest and the newest Python there: its own tests, without anything installed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.interpreters import interpreters

ROOT = Path(__file__).resolve().parents[2]
TESTS = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "tests/agent").rglob("test_*.py"))
#: Minutes of package managers and services at work, whatever Python asks them: for `make test-all`.
LONG = ("test_accounts.py", "test_apt.py", "test_dnf.py", "test_pip.py", "test_pip_index.py", "test_service.py")
FOUND = interpreters()
OLDEST, NEWEST = min(FOUND, default=None), max(FOUND, default=None)


def own_tests_pass(version, tests):
    command = [FOUND[version], "-B", "-s", "-m", "unittest", "-q", *tests]
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    assert "Ran 0 tests" not in done.stderr


@pytest.mark.skipif(not FOUND, reason="no other Python on this machine")
def test_the_agents_own_tests_pass_on_the_oldest():
    own_tests_pass(OLDEST, [test for test in TESTS if os.path.basename(test) not in LONG])


@pytest.mark.slow
@pytest.mark.parametrize("version", sorted({OLDEST, NEWEST}) if FOUND else [])
def test_all_of_the_agents_own_tests_pass(version):
    own_tests_pass(version, TESTS)


def test_the_floor_is_tested():
    """Python 3.8 is promised; where it is missing, say so instead of testing something else."""
    if (3, 8) not in FOUND:
        pytest.skip("no Python 3.8 on this machine: the agent's floor was not tested here")
    assert OLDEST == (3, 8)
