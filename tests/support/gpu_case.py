"""A host whose GPUs the checks look at, from readings."""

from __future__ import annotations

import unittest
from tempfile import TemporaryDirectory

from gpuprov.proof.checks import (
    alike,
    memory,
    modes,
    nvlink,
    pcie,
    presence,
    software,
    thermal,
)
from gpuprov.proof.parts import Context
from tests.support.readings import Host, gpu, reading

MODULES = (presence, software, alike, memory, thermal, pcie, nvlink, modes)
PARTS = [part for module in MODULES for part in module.PARTS]
ACTIONS = ("none", "monitor", "restart job", "reset GPU", "reboot", "isolate")


class Case(unittest.TestCase):
    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.host = Host(folder.name)

    def checks(self, its: dict, **expect: object) -> list[dict]:
        context = Context(root=str(self.host.root), expect=expect)
        return [item for part in PARTS for item in part.run(context, its)]

    def bad(self, its: dict, **expect: object) -> list[tuple]:
        """Return name, verdict, device and action of each check that is not fine."""
        found = [item for item in self.checks(its, **expect) if item["verdict"] not in ("pass", "skip")]
        return [(item["name"], item["verdict"], item["device"], item["action"]) for item in found]

    def sick(self, *its: dict, **expect: object) -> list[tuple]:
        """Return the bad checks of eight GPUs of which these are the last."""
        whole = [gpu(index) for index in range(8 - len(its))] + list(its)
        self.host.healthy()
        return self.bad(reading(*whole), **expect)
