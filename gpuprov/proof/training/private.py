"""Runs work in a process of its own, with a private cache for compilers, of which nothing stays. Without torch.

Compilers start processes of their own, some in groups or sessions of their own. All of them have the name of the
private folder in their environment: by that they are found and killed, whoever their parent is now.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gpuprov.proof.check import Message

#: Variables that would make torch.compile do nothing, or something else than it does for everybody.
NOT_OURS = (
    "TORCHINDUCTOR_",
    "TORCHDYNAMO_",
    "TORCH_COMPILE",
    "TORCH_LOGS",
    "TORCH_TRACE",
    "TORCHAO_",
    "AOT_",
    "TRITON_",
)
#: But where Triton finds its tools is the host's business: TRITON_PTXAS_PATH, TRITON_LIBCUDA_PATH.
THE_HOSTS = "_PATH"
#: Has the private folder, in the environment of every process that works in it.
MARK = "TORCHINDUCTOR_CACHE_DIR"
_PR_SET_PDEATHSIG = 1
#: How long what was killed gets to be gone.
GONE_S = 5.0
_now = time.monotonic


class End:
    """How a process ended, and what it had found: late when it was killed at its limit."""

    __slots__ = ("code", "found", "last_error", "late", "stage")

    def __init__(self, found: Message, stage: str, code: int, late: bool, last_error: str) -> None:
        self.found, self.stage, self.code, self.late, self.last_error = found, stage, code, late, last_error

    @property
    def signal(self) -> str:
        """What signal ended it, "" when none did."""
        return signal.Signals(-self.code).name if self.code < 0 else ""

    def how(self) -> str:
        """Say how it ended, for a person."""
        by = f"was killed by {self.signal}" if self.signal else f"ended with exit code {self.code}"
        return f"{by} ({self.stage}): {self.last_error[:300] or 'it said nothing'}"


def environment(folder: str) -> dict[str, str]:
    """Return this process's environment without what changes torch.compile, with caches in *folder*."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(NOT_OURS) or k.endswith(THE_HOSTS)}
    return dict(
        kept,
        **{MARK: os.path.join(folder, "inductor")},
        TRITON_CACHE_DIR=os.path.join(folder, "triton"),
        TRITON_HOME=folder,
        CUDA_CACHE_PATH=os.path.join(folder, "cuda"),
        TMPDIR=folder,
        # In one process: nothing outlives it, and of eight GPUs each takes one core.
        TORCHINDUCTOR_COMPILE_THREADS="1",
        # Caches elsewhere (Redis, a remote one) are nobody's here.
        TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE="0",
        TORCHINDUCTOR_AUTOTUNE_REMOTE_CACHE="0",
        PYTHONPATH=package,
    )


def run(module: str, asked: Message, scratch: str, limit_s: float, on_stage: Callable[[str], Any]) -> End:
    """Run *module* with *asked* (as JSON) as its argument for at most *limit_s*. Blocks; leaves nothing.

    It prints JSON lines: {"stage": TEXT} says what comes now, all others are added up to what it found.
    """
    folder = tempfile.mkdtemp(prefix="private-", dir=scratch or None)
    try:
        return _run(
            [sys.executable, "-m", module, json.dumps(dict(asked, parent=os.getpid()))], folder, limit_s, on_stage
        )
    finally:
        sweep(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _run(argv: list[str], folder: str, limit_s: float, on_stage: Callable[[str], Any]) -> End:
    said, errors = os.path.join(folder, "said"), os.path.join(folder, "errors")
    found: Message = {}
    stage, at, until, late = "starting", 0, _now() + limit_s, False
    with open(said, "wb") as out, open(errors, "wb") as err:
        child = subprocess.Popen(
            argv, env=environment(folder), stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=folder
        )
    while True:
        ended = child.poll() is not None
        with open(said, "rb") as f:
            f.seek(at)
            whole = f.read().rpartition(b"\n")[0]
        for line in whole.splitlines():
            message = _message(line)
            if "stage" in message:
                stage = message["stage"]
                on_stage(stage)
            else:
                found.update(message)
        at += len(whole) + bool(whole)
        if ended:
            break
        if _now() >= until:
            late = True
            child.kill()
            child.wait()
            break
        time.sleep(0.05)
    with open(errors, encoding="utf-8", errors="backslashreplace") as f:
        lines = [line.strip() for line in f.read()[-4000:].splitlines() if line.strip()]
    return End(found, stage, child.returncode, late, lines[-1] if lines else "")


def _message(line: bytes) -> Message:
    """Return what a line says; what a library prints is no message."""
    with contextlib.suppress(ValueError):
        value = json.loads(line.decode("utf-8", "replace"))
        if isinstance(value, dict):
            return value
    return {}


def die_with(parent: int) -> None:
    """Let this process be killed when *parent*, which started it, is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def sweep(folder: str) -> int:
    """Kill whatever still works in *folder*; return how many processes that were."""
    killed = set()
    until = time.monotonic() + GONE_S
    while time.monotonic() < until:
        there = workers(folder)
        if not there:
            break
        for pid in there:
            killed.add(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return len(killed)


def workers(folder: str) -> list[int]:
    """Return the processes, zombies aside, that have *folder* as the place of their cache in their environment."""
    mark, found = f"{MARK}={folder}/".encode(), []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as f:
                if mark in f.read():
                    found.append(int(name))
    return found
