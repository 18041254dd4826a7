"""Readings of the simulated NVML through the real nvidia-ml-py, each GPU in a process of its own.

    with Simulated() as simulated:
        reading = simulated.read(profile_text)

The processes are those of one helper that has the library in its environment; what hangs there is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
#: When a call counts as one that never returns.
PATIENCE_S = 1.5


def pynvml_folder() -> str:
    """Return a folder that has nvidia-ml-py (50 kB), fetched once per machine by pip. Blocks on a file lock."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpuprov-test"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / "nvidia-ml-py"
    with (cache / "nvidia-ml-py.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "pynvml.py").exists():
            argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
            subprocess.run([*argv, "nvidia-ml-py"], check=True, timeout=120)
    return str(folder)


class Simulated:
    """A helper process that reads what a profile says, again and again."""

    def __init__(self, library: str, variable: str) -> None:
        self._folder = TemporaryDirectory()
        self._profile = Path(self._folder.name) / "gpus"
        environment = dict(os.environ, PYTHONPATH=f"{ROOT}:{pynvml_folder()}", LD_LIBRARY_PATH=os.path.dirname(library))
        environment[variable] = str(self._profile)
        argv = [sys.executable, "-m", "tests.support.simulated_reading"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=ROOT)

    def __enter__(self) -> Simulated:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.stdin.close()
        self._folder.cleanup()

    def read(self, profile: str) -> dict:
        """Return the Reading of hosts whose profile is this text."""
        self._profile.write_text(profile)
        self._process.stdin.write("read\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def _children(tasks: dict) -> tuple[list, dict]:
    """Run each task in a process of its own; return their messages, and the last stage of those that hang."""
    from gpuprov.proof.nvml import reading

    messages, running, hung, stages = [], {}, {}, {}
    for index in tasks:
        out, into = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(out)
            with os.fdopen(into, "w", buffering=1) as f:
                send = lambda message: f.write(json.dumps(message) + "\n")  # noqa: E731
                reading.read_library(send) if index < 0 else reading.read_gpu(index, send)
            os._exit(0)
        os.close(into)
        running[out] = (index, pid)
    ends_at = time.monotonic() + PATIENCE_S
    texts = dict.fromkeys(running, b"")
    while running:
        ready = select.select(list(running), [], [], max(0.0, ends_at - time.monotonic()))[0]
        for fd in ready or list(running):
            index, pid = running[fd]
            data = os.read(fd, 1 << 20) if ready else b""
            texts[fd] += data
            if not data:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                os.close(fd)
                del running[fd]
                found = [json.loads(line) for line in texts[fd].splitlines()]
                messages += [message for message in found if message["kind"] != "stage"]
                stages[index] = [message["text"] for message in found if message["kind"] == "stage"][-1]
                if not ready:
                    hung[index] = stages[index]
    return messages, hung


def _serve() -> None:
    from gpuprov.proof.nvml import reading

    for _ in sys.stdin:
        messages, hung = _children({-1: None})
        count = next((m["value"] for m in messages if m.get("key") == "count" and m["kind"] == "library"), 0)
        more, stuck = _children(dict.fromkeys(range(count)))
        print(json.dumps(reading.assemble(messages + more, {**hung, **stuck})), flush=True)


if __name__ == "__main__":
    _serve()
