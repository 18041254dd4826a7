"""The simulated libnvidia-ml.so.1: its C sources beside this file, compiled once and kept by their hash.

It answers what a profile says (`gpu_profile`), and exports `gpuprov_simulated_nvml`, which no driver's library has.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from gpuprov.errors import LabError

SOURCES = Path(__file__).with_name("nvml")
CACHE = "/var/cache/gpuprov"
NAME = "libnvidia-ml.so.1"
#: What points the library at another profile than /etc/gpuprov-lab/gpus.
PROFILE_VARIABLE = "GPUPROV_SIMULATED_GPUS"
_FLAGS = ("-shared", "-fPIC", "-O1", "-std=gnu11", "-Wall", "-fvisibility=hidden", "-pthread", f"-Wl,-soname,{NAME}")
_PATIENCE_S = 120.0


def library(cache: str = CACHE) -> str:
    """Return the path of the compiled library, compiling it when these sources never were. Raises LabError."""
    folder = os.path.join(cache, f"nvml-{_digest()}")
    path = os.path.join(folder, NAME)
    if os.path.exists(path):
        return path
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise LabError(
            "simulated GPUs need a C compiler, once, and this machine has none", hint="apt-get install gcc libc6-dev"
        )
    try:
        os.makedirs(folder, mode=0o755, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as building:
            made = os.path.join(building, NAME)
            _compile(compiler, made)
            os.chmod(made, 0o755)  # noqa: S103 - as every library
            os.rename(made, path)  # whoever builds at the same time builds the same
    except OSError as error:
        raise LabError(f"the simulated NVML cannot be kept in {cache}: {error}") from None
    return path


def _digest() -> str:
    """Return what names this library: its sources, how it is compiled, and for which machine."""
    digest = hashlib.sha256(repr((_FLAGS, platform.machine(), platform.libc_ver())).encode())
    for path in sorted(SOURCES.glob("*.[ch]")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _compile(compiler: str, path: str) -> None:
    argv = [compiler, *_FLAGS, *map(str, sorted(SOURCES.glob("*.c"))), "-o", path]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=_PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        raise LabError(f"{compiler} did not compile the simulated NVML in {_PATIENCE_S:g} s") from None
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error" in line), "it said nothing")
        raise LabError(f"{compiler} does not compile the simulated NVML: {said}", hint="apt-get install gcc libc6-dev")
