"""What ships to hosts is made once, however many sessions start at the same moment."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
import zlib
from typing import TYPE_CHECKING

from gpuprov import bundle

if TYPE_CHECKING:
    from pathlib import Path


def test_threads_that_ask_at_once_get_the_same() -> None:
    made: list[str] = []
    together = threading.Barrier(8)

    @bundle._once
    def slow(name: str) -> object:
        made.append(name)
        time.sleep(0.05)
        return object()

    found: list[object] = []

    def ask() -> None:
        together.wait()
        found.append(slow("agent"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["agent"]
    assert len(set(map(id, found))) == 1


def test_the_next_process_finds_it_in_the_cache(tmp_path: Path) -> None:
    code = (
        "from gpuprov import bundle; made = []; zipped = bundle._zip\n"
        "bundle._zip = lambda files: made.append(1) or zipped(files)\n"
        "print(bundle.layer('agent').sha256, bundle.byte_code().digest, len(made))"
    )
    said = []
    for _ in range(2):
        argv = [sys.executable, "-c", code]
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
        said.append(done.stdout.split())
    assert [one[2] for one in said] == ["1", "0"]
    assert said[0][:2] == said[1][:2]


def test_byte_code_as_it_travels_is_the_byte_code() -> None:
    unpacked = zlib.decompress(bundle.packed_byte_code())
    assert hashlib.blake2b(unpacked, digest_size=32).hexdigest() == bundle.byte_code().digest
