"""A virtual environment with a CPU build of torch, made once per machine and shared by all tests.

    from tests.support.torch_env import torch_python

    python = torch_python()         # path of its interpreter

It lives in $XDG_CACHE_HOME/gpuprov-test/torch-venv (about 1 GB). pip installs it with its own
configuration, else from the index of CPU builds that the role torch knows. Where neither has one
for this Python, tests that need it are skipped. GPUPROV_TEST_TORCH_PYTHON names an interpreter that
has torch already; GPUPROV_TEST_TORCH gives other words for `pip install` (an index, another version).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUIREMENTS = ("torch==2.13.0", "nvidia-ml-py")
_ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 1500


def torch_python() -> str:
    """Return the interpreter of the environment, making it when it is missing. Blocks on a file lock."""
    chosen = os.environ.get("GPUPROV_TEST_TORCH_PYTHON")
    if chosen:
        return chosen
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpuprov-test"
    cache.mkdir(parents=True, exist_ok=True)
    words = shlex.split(os.environ.get("GPUPROV_TEST_TORCH", "")) or list(REQUIREMENTS)
    with (cache / "torch-venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _made(cache / "torch-venv", words)


@contextmanager
def torch_on_hosts() -> Iterator[str]:
    """Yield an interpreter with torch on a path that lab hosts see: they see neither home folders nor /tmp.

    Its packages are hard links to those of the environment, its Python is the machine's. For as long as the block.
    """
    python = Path(torch_python())
    minor = _run([str(python), "-c", "import sys; print('python%d.%d' % sys.version_info[:2])"]).strip()
    own = shutil.which(minor, path="/usr/bin:/usr/local/bin")
    if own is None:
        raise unittest.SkipTest(f"torch was installed for {minor}, and lab hosts see no such program")
    packages = f"lib/{minor}/site-packages"
    with tempfile.TemporaryDirectory(prefix="gpuprov-test-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        _run([own, "-m", "venv", "--without-pip", folder])
        shutil.copytree(python.parents[1] / packages, Path(folder, packages), copy_function=_linked, dirs_exist_ok=True)
        yield f"{folder}/bin/python"


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _made(venv: Path, words: list[str]) -> str:
    python = venv / "bin" / "python"
    complete = venv / "complete.json"
    if complete.exists() and python.exists() and json.loads(complete.read_text()) == words:
        return str(python)
    if venv.exists():
        shutil.rmtree(venv)
    _run([_interpreter(), "-m", "venv", "--without-pip", str(venv)])
    _run([*_pip(python), "install", "--quiet", *words, *_source(python, words)])
    complete.write_text(json.dumps(words))
    return str(python)


def _interpreter() -> str:
    return shutil.which("python3.11") or sys.executable


def _pip(python: Path) -> list[str]:
    # the locked one: new enough to read metadata without downloading what it belongs to
    locked = _ROOT / ".venv/bin/python"
    return [str(locked) if locked.exists() else sys.executable, "-m", "pip", "--python", str(python)]


def _source(python: Path, words: list[str]) -> list[str]:
    """Return what makes pip find a CPU build, before it fetches gigabytes of CUDA libraries for nothing."""
    if not _cuda(python, words):
        return []
    defaults = (_ROOT / "playbooks/roles/torch/defaults/main.yaml").read_text()
    index = re.search(r"^gpuprov_torch_cpu_index: (\S+)$", defaults, re.MULTILINE).group(1)
    ask = [*_pip(python), "install", "--quiet", "--dry-run", "--no-deps", "--retries", "1", "--index-url", index]
    if subprocess.run([*ask, words[0]], capture_output=True, timeout=_TIMEOUT_S, check=False).returncode == 0:
        return ["--extra-index-url", index]
    raise unittest.SkipTest(
        "pip finds no CPU build of torch for this Python: GPUPROV_TEST_TORCH='torch==2.13.0 --index-url URL' "
        "names a place that has one, GPUPROV_TEST_TORCH_PYTHON an interpreter with torch"
    )


def _cuda(python: Path, words: list[str]) -> list[str]:
    out = _run([*_pip(python), "install", "--quiet", "--dry-run", "--report", "-", *words])
    names = [item["metadata"]["name"] for item in json.loads(out)["install"]]
    return [name for name in names if name.startswith(("nvidia-c", "nvidia-nccl", "cuda-"))]


def _run(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise RuntimeError(f"{shlex.join(argv)} ended with {done.returncode}: {' '.join(last)}")
    return done.stdout


if __name__ == "__main__":
    print(torch_python())
