"""Ranks of a proof as processes of this machine, for scenarios that run where torch is."""

from __future__ import annotations

import json
import os
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuprov.proof.parts import Context

if TYPE_CHECKING:
    from collections.abc import Callable


def ranks(count: int, work: Callable[[Context], Any], tier: str = "weekly") -> Any:
    """Fork *count* ranks that join and do *work*; return what rank 0 found, as JSON has it."""
    with tempfile.TemporaryDirectory() as folder:
        children = []
        for rank in range(count):
            pid = os.fork()
            if not pid:
                _be_rank(rank, count, folder, work, tier)
            children.append(pid)
        codes = [os.waitpid(pid, 0)[1] for pid in children]
        assert codes == [0] * count, codes
        return json.loads(Path(folder, "found").read_text())


def _be_rank(rank: int, count: int, folder: str, work: Callable[[Context], Any], tier: str) -> None:
    code = 1
    try:
        devices = [f"cpu:{i}" for i in range(count)]
        meeting = f"file://{folder}/meeting"
        found = work(Context(tier, device="cpu", devices=devices, rank=rank, world=count, rendezvous=meeting))
        if not rank:
            Path(folder, "found").write_text(json.dumps(found))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
