"""Network namespaces with a link of its own between every two of them, so that one link can be slow or dead.

    with mesh(4) as net:            # root; ip and tc of iproute2
        net.slow(0, 1, "100mbit")   # by the kernel's token bucket, on a real interface
        subprocess.Popen([*net.inside(0), "program"])

Host *i* has the address 10.99.0.(i+1), on its loopback interface, and a route per neighbour.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_READY = os.geteuid() == 0 and all(map(shutil.which, ("ip", "tc", "nsenter", "unshare")))
NEEDS_NAMESPACES = pytest.mark.skipif(not _READY, reason="network namespaces need root, ip and tc (iproute2)")


class Mesh:
    """The namespaces; each lives as long as its sleeping process."""

    def __init__(self, count: int) -> None:
        self._holders = [
            subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"], stdout=subprocess.PIPE)
            for _ in range(count)
        ]
        for holder in self._holders:
            assert holder.stdout is not None
            holder.stdout.readline()  # it is in its namespace
        for at in range(count):
            self._run(at, "ip", "link", "set", "lo", "up")
            self._run(at, "ip", "address", "add", f"{self.address(at)}/32", "dev", "lo")
        for one, other in itertools.combinations(range(count), 2):
            self._join(one, other)

    @staticmethod
    def address(at: int) -> str:
        return f"10.99.0.{at + 1}"

    def inside(self, at: int) -> list[str]:
        """Return the words before a command that runs it on host *at*."""
        return ["nsenter", "--net", f"--target={self._holders[at].pid}", "--"]

    def slow(self, one: int, other: int, rate: str) -> None:
        """Let both directions of a link carry no more than *rate* ("100mbit")."""
        for here, there in ((one, other), (other, one)):
            words = ["tc", "qdisc", "add", "dev", f"to{there}", "root", "tbf", "rate", rate]
            self._run(here, *words, "burst", "64kb", "latency", "100ms")

    def cut(self, one: int, other: int) -> None:
        """Pull the cable: packets vanish, nothing is closed."""
        for here, there in ((one, other), (other, one)):
            self._run(here, "ip", "route", "replace", "blackhole", f"{self.address(there)}/32")

    def close(self) -> None:
        for holder in self._holders:
            holder.kill()
            holder.communicate()

    def _join(self, one: int, other: int) -> None:
        pid = str(self._holders[other].pid)
        self._run(one, "ip", "link", "add", f"to{other}", "type", "veth", "peer", "name", f"to{one}", "netns", pid)
        for here, there in ((one, other), (other, one)):
            self._run(here, "ip", "link", "set", f"to{there}", "up")
        for here, there in ((one, other), (other, one)):
            words = ["ip", "route", "add", f"{self.address(there)}/32", "dev", f"to{there}"]
            self._run(here, *words, "src", self.address(here))

    def _run(self, at: int, *words: str) -> None:
        done = subprocess.run([*self.inside(at), *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


@contextmanager
def mesh(count: int) -> Iterator[Mesh]:
    """Run a mesh for the length of a with block."""
    net = Mesh(count)
    try:
        yield net
    finally:
        net.close()
