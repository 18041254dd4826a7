"""Which Python's pip fetches wheels for a kind of host, and in which environment it runs."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from typing import Any

from gpuprov.agent import requirement
from gpuprov.errors import RefusedError

_ASK = (
    "import json, os, platform, sys, pip; print(json.dumps([pip.__version__, '%d.%d' % sys.version_info[:2],"
    " platform.machine(), platform.libc_ver()[1]]))"
)
#: The first pip whose --dry-run reads metadata without fetching the wheels, which for CUDA weigh gigabytes.
_OLDEST_PIP = (25, 3)
#: The oldest glibc that today's wheels are built for; assumed of hosts that do not say.
USUAL_GLIBC = "2.28"
#: Settings of a person's shell that would change what pip installs, or where; its indexes and proxies stay.
_LEAKS = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "CONDA_PREFIX")
_LEAKS_OF_PIP = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_NO_DEPS", "PIP_PYTHON", "PIP_REQUIREMENT")


@dataclass(frozen=True, slots=True)
class Target:
    """What wheels have to fit: python "3.11", machine "x86_64", glibc "2.36" ("" when not known)."""

    python: str
    machine: str
    glibc: str = ""

    def __str__(self) -> str:
        return f"Python {self.python} on {self.machine}"


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python of this machine and its pip."""

    path: str
    pip: tuple[int, ...]
    python: str
    machine: str
    glibc: str

    def fits(self, target: Target) -> bool:
        """Say whether what it installs for itself also runs on *target*."""
        same = (self.python, self.machine) == (target.python, target.machine)
        return same and (not target.glibc or requirement.version_key(self.glibc or "0") <= _glibc(target))


def _glibc(target: Target) -> tuple[Any, ...]:
    return requirement.version_key(target.glibc or USUAL_GLIBC)


def ignored() -> list[str]:
    """Return the settings of this process's environment that pip_environment leaves out."""
    return [name for name in (*_LEAKS, *_LEAKS_OF_PIP) if os.environ.get(name)]


def pip_environment() -> dict[str, str]:
    """Return this process's environment without what would change pip's results behind its back."""
    env = {name: value for name, value in os.environ.items() if name not in (*_LEAKS, *_LEAKS_OF_PIP)}
    return {**env, "PIP_REQUIRE_VIRTUALENV": "0", "PYTHONWARNINGS": "ignore", "PYTHONNOUSERSITE": "1"}


def choose(target: Target) -> Interpreter:
    """Return the interpreter whose pip to use: the target's own Python if there is one, else any."""
    usable: list[Interpreter] = []
    for name in dict.fromkeys((sys.executable, f"python{target.python}", "/usr/bin/python3", "python3")):
        one = _ask(name)
        if one is None or one.pip < _OLDEST_PIP:
            continue
        if one.fits(target):
            return one
        usable.append(one)
    if not usable:
        raise RefusedError(
            "there is no pip 25.3 or newer on this machine to fetch wheels with",
            hint=f"{sys.executable} -m pip install --upgrade pip",
            code="no-pip",
        )
    return usable[0]


def _ask(python: str) -> Interpreter | None:
    import subprocess

    try:
        done = subprocess.run(
            [python, "-c", _ASK], capture_output=True, text=True, timeout=60, check=False, env=pip_environment()
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    pip, version, machine, glibc = json.loads(done.stdout)
    numbers = tuple(int(part) for part in re.findall(r"\d+", pip)[:2])
    return Interpreter(python, numbers, version, machine, glibc)
