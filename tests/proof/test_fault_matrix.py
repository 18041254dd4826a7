"""Every fault of tests/support/gpu_faults.py is found by its check, with its verdict and action, and by no other.

python -m tests.proof.test_fault_matrix     # writes docs/faults.md, which is tested to be just that
"""

from __future__ import annotations

import os
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from gpuprov.proof.checks import alike, around, memory, modes, nvlink, pcie, presence, software, thermal, xid
from gpuprov.proof.checks.differences import differences
from gpuprov.proof.parts import Context
from tests.support.gpu_faults import BRIDGE, FAULTS, KMSG, SWITCH, Fault
from tests.support.readings import Host, gpu, reading

PARTS = [
    part
    for module in (presence, software, alike, memory, thermal, pcie, nvlink, modes, xid, around)
    for part in module.PARTS
]
DOCS = Path(__file__).resolve().parents[2] / "docs/faults.md"


def healthy_host(root: str) -> Host:
    """Return a host with eight GPUs and NVSwitches that nothing is wrong with."""
    host = Host(root)
    for index in range(8):
        host.pci(gpu(index)["address"], above=BRIDGE)
    host.pci(SWITCH, kind="0x068000")
    bridge = host.root / "sys/bus/pci/devices" / BRIDGE
    bridge.symlink_to(host.root / "sys/devices/pci0000:00" / BRIDGE)
    for path, text in (
        ("proc/uptime", "36000.00 1.0\n"),
        ("proc/77/comm", "nv-fabricmanage\n"),
        ("sys/module/nvidia/version", "580.95.05\n"),
        (KMSG, "[    0.000000] Linux version 6.8.0\n"),
    ):
        host.write(path, text)
    host.write(f"sys/bus/pci/devices/{BRIDGE}/config", bytes(4096))
    return host


def changed(its: dict, changes: dict) -> dict:
    """Return the reading with what NVML says changed: "gpu.3.link.4.state": 0, or "!GpuIsLost" for an error."""
    for key, value in changes.items():
        error = {"error": value[1:]} if isinstance(value, str) and value.startswith("!") else None
        if key == "system":
            name = "Hung" if value == "!HANG" else value[1:]
            return dict(its, error={"error": name, "text": f"nvmlInit_v2: {name}"}, count=None, gpus=[])
        number, _, rest = key.partition(".")[2].partition(".")
        one = its["gpus"][int(number)]
        if value == "!Missing":
            its["gpus"].remove(one)
            its["count"] -= 1
        elif value == "!HANG":
            one["hung"] = "nvmlDeviceGetTemperature"
            one["values"].pop(rest)
        elif not rest:
            one["values"] = dict.fromkeys(one["values"], error)
        elif rest.startswith(("link.", "peer.")):
            kind, which, name = rest.split(".", 2)
            of = one["links"][int(which)] if kind == "link" else one["peers"][which]
            of[name] = error or value
        else:
            one["values"][rest] = error or value
    return its


class Case(unittest.TestCase):
    def setUp(self) -> None:
        self.start()
        environment = mock.patch.dict(os.environ, clear=True)
        environment.start()
        self.addCleanup(environment.stop)

    def start(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.host = healthy_host(folder.name)

    def write(self, fault: Fault) -> None:
        for path, text in fault.files.items():
            if text is None:
                (self.host.root / path).unlink()
            else:
                self.host.write(path, text)

    def look(self, its: dict, expect: dict) -> list[dict]:
        """Return the checks of all parts, those of the host among them."""
        context = Context(root=str(self.host.root), expect=dict({"gpus": 8}, **expect))
        found: list[dict] = []
        report = type("Report", (), {"check": staticmethod(found.append), "stage": staticmethod(str)})
        for part in PARTS:
            if part.where == "reading":
                found += part.run(context, its)
            else:
                part.run(context, report)
        return found

    def load(self, fault: Fault) -> list[dict]:
        """Return the checks of a load, in the middle of which the fault came."""
        root = str(self.host.root)
        before = dict(reading(), xids=xid.seen(root))
        self.write(fault)
        after = dict(changed(reading(), fault.nvml), xids=xid.seen(root))
        found = differences(before, after, 60.0)
        return found + [item for item in pcie.under_load(Context(root=root), after) if item["name"] == fault.check]

    def bad(self, found: list[dict]) -> dict[str, tuple]:
        its = [item for item in found if item["verdict"] not in ("pass", "skip")]
        return {item["name"]: (item["verdict"], item["device"], item["action"]) for item in its}


class Matrix(Case):
    def test_a_healthy_host_has_no_warning(self) -> None:
        found = self.look(reading(), {"versions": {"driver": "580.95.05"}})
        self.assertEqual(self.bad(found), {})
        self.assertEqual(self.bad(self.load(Fault("nothing", "", "", ""))), {})

    def test_each_fault_is_found_by_its_check_and_no_other(self) -> None:
        for fault in FAULTS:
            with self.subTest(fault=fault.says):
                self.start()
                if fault.under_load:
                    found = self.load(fault)
                else:
                    self.write(fault)
                    found = self.look(changed(reading(), fault.nvml), fault.expect)
                bad = self.bad(found)
                self.assertEqual(bad.get(fault.check), (fault.verdict, fault.device, fault.action))
                silent = {name for name, what in bad.items() if what[0] == "unknown" and "system" in fault.nvml}
                self.assertEqual(set(bad) - silent, {fault.check, *fault.also})

    def test_what_is_found_says_why_and_shows_it(self) -> None:
        for fault in FAULTS:
            if fault.under_load or fault.verdict == "unknown":
                continue
            with self.subTest(fault=fault.says):
                self.start()
                self.write(fault)
                found = self.look(changed(reading(), fault.nvml), fault.expect)
                item = next(item for item in found if item["name"] == fault.check and item["verdict"] == fault.verdict)
                self.assertGreater(len(item["reason"]), 20)
                if (
                    item["device"].startswith("gpu:")
                    and fault.nvml
                    and not any(v == "!GpuIsLost" for v in fault.nvml.values())
                ):
                    self.assertIn(item["device"], item["reason"])

    def test_every_check_that_can_be_bad_has_a_fault(self) -> None:
        never = {"ecc.lifetime", "ecc.corrected"}  # counted, not judged
        elsewhere = {"memory.retired", "gpu.processes"}  # of older models, of real processes: test_gpu_checks.py
        named = {fault.check for fault in FAULTS}
        self.assertEqual({part.name for part in PARTS} - named, never | elsewhere)


class Docs(unittest.TestCase):
    def test_they_are_the_table(self) -> None:
        self.assertEqual(DOCS.read_text(), page(), "python -m tests.proof.test_fault_matrix writes it")


def page() -> str:
    """Return docs/faults.md."""
    rows = [f"| {fault.says} | `{fault.check}` | {fault.verdict} | {fault.action} |" for fault in FAULTS]
    return _HEAD.format(count=len(FAULTS)) + "\n".join(rows) + "\n"


_HEAD = """\
# Faults, and the checks that catch them

Each of these {count} faults is put into a healthy host with eight GPUs, and has to be found by the check named beside
it, with this verdict and this action, and by no other check; a healthy host has no warning. The table is written from
the test that does it (`tests/proof/test_fault_matrix.py`). What NVML says is changed in readings of a host that is made
up for the test: no fault was made in a real GPU. docs/checks.md has the limits.

| fault | found by | verdict | action |
|---|---|---|---|
"""


if __name__ == "__main__":
    DOCS.write_text(page())
