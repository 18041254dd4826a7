"""A real agent over pipes, without a controller: for tests that also run where only Python is."""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import lru_cache

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, REPO)

from gpuprov.wire.frames import Decoder, encode  # noqa: E402

_MAIN = "import sys; sys.path.insert(0, %r); from gpuprov.agent.main import main; import json; main(json.loads(%r))"


@lru_cache(maxsize=None)  # noqa: UP033 - Python 3.8
def _compiled() -> str:
    """Return a folder with the agent's byte code for this interpreter: without it every start compiles everything."""
    folder = tempfile.mkdtemp(prefix="gpuprov-pycache-")
    atexit.register(shutil.rmtree, folder)
    option = "pycache_prefix=" + folder
    rooms = [os.path.join(REPO, "gpuprov", room) for room in ("wire", "agent")]
    subprocess.run([sys.executable, "-X", option, "-m", "compileall", "-q", *rooms], check=True)
    return option


class Agent:
    """One front of an agent whose state is in folder *home*. Frames in, frames out."""

    def __init__(self, home: str) -> None:
        boot = {"home": home, "source": "", "in_use": "none"}
        words = [sys.executable, "-X", _compiled(), "-I", "-S", "-B", "-c", _MAIN % (REPO, json.dumps(boot))]
        self.home = home
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, cwd="/"
        )
        self._decoder = Decoder()
        self._ready: list = []
        self.hello = self.next()

    def send(self, header: dict, body: bytes = b"") -> None:
        view = memoryview(encode(header, body))
        while view:
            view = view[os.write(self.process.stdin.fileno(), view) :]

    def next(self, timeout_s: float = 60.0) -> dict:
        """Return the next frame that is no beat; {} at the end of the stream."""
        deadline = time.monotonic() + timeout_s
        while True:
            while self._ready:
                header = self._ready.pop(0)
                if header["t"] != "beat":
                    return header
            assert select.select([self.process.stdout], [], [], deadline - time.monotonic())[0], "the agent is silent"
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                return {}
            self._ready.extend(header for header, _ in self._decoder.feed(data))

    def rest(self) -> list:
        """Return all frames to the end of the stream."""
        found = []
        while True:
            header = self.next()
            if not header:
                return found
            found.append(header)

    def until(self, kind: str) -> list:
        """Return frames up to the first event of this kind."""
        found = []
        while not found or found[-1].get("kind") != kind:
            header = self.next()
            assert header, "the stream ended before %s: %s; %s" % (kind, found, self.process.stderr.read())
            found.append(header)
        return found

    def close(self) -> None:
        """Hang up, as a controller that goes away, and reap the front."""
        for pipe in (self.process.stdin, self.process.stdout):
            pipe.close()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stderr.close()

    def kill(self) -> None:
        """End the front as a power cut of its process would."""
        self.process.kill()
        self.close()


def plan(run: str, nodes: list, handlers: tuple = (), **more: object) -> dict:
    play = {"id": "p1", "name": "play", "nodes": nodes, "handlers": list(handlers)}
    return dict({"protocol": 1, "run": run, "host": "h", "plays": [play], "blobs": {}}, **more)


def shell(number: int, text: str, **more: object) -> dict:
    return task(number, "shell", {"_raw_params": text}, **more)


def task(number: int, action: str, args: dict, **more: object) -> dict:
    node = {"kind": "task", "id": "p1.t%d" % number, "name": "task %d" % number, "action": action, "args": args}
    return dict(node, **more)


def wait_gone(pid: int, timeout_s: float = 60.0) -> bool:
    """Wait until a process that is not our child has ended."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            with open("/proc/%d/stat" % pid) as f:
                if f.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    assert wait_gone(pid)
