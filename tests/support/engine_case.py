"""An engine over real files and processes, and what it left in its journal."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from gpuprov.agent.engine import Engine
from gpuprov.agent.journal import Journal
from gpuprov.agent.system import System


def task(number: int, action: str, args: dict, **more: object) -> dict:
    node = {"kind": "task", "id": "p1.t%d" % number, "name": "task %d" % number, "action": action, "args": args}
    node.update(more)
    return node


class EngineCase(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.run_folder = os.path.join(self.folder, "runs", "r1")
        os.makedirs(self.run_folder)

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def engine(self, nodes: list, handlers: tuple = (), events: tuple = (), **plan: object) -> Engine:
        full = {"run": "r1", "plays": [{"id": "p1", "name": "play", "nodes": nodes, "handlers": list(handlers)}]}
        full.update(plan)
        journal = Journal(os.path.join(self.run_folder, "journal"))
        context = {"home": self.folder, "run": self.run_folder, "facts": {}, "layers": {}, "source": "", "in_use": ""}
        engine = Engine(full, journal, System(), context)
        engine.restore(list(events))
        self.addCleanup(os.close, journal._fd)
        self.addCleanup(os.close, engine._current)
        return engine

    def events(self) -> list:
        with open(os.path.join(self.run_folder, "journal")) as f:
            return [json.loads(line) for line in f]

    def outcomes(self) -> dict:
        return {e["id"]: e["outcome"] for e in self.events() if e["kind"] == "TaskFinished" and "item" not in e}

    def text(self, name: str) -> str:
        try:
            with open(self.path(name)) as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def append(self, number: int, word: str, **more: object) -> dict:
        return task(number, "shell", {"_raw_params": "echo %s >> %s" % (word, self.path("log"))}, **more)
