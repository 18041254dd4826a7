"""Fabric manager, ACS, environment variables, over folders that stand for hosts."""

from __future__ import annotations

import os
import struct
import unittest
from tempfile import TemporaryDirectory
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from gpuprov.proof.checks import around
from gpuprov.proof.parts import Context
from tests.support.readings import Host

BRIDGE = "0000:17:00.0"


def config(*capabilities: tuple[int, int], size: int = 4096) -> bytes:
    """Return a PCI configuration with extended capabilities: id and control register of each."""
    data = bytearray(size)
    for number, (capability, control) in enumerate(capabilities):
        offset = 0x100 + 0x40 * number
        following = 0 if number == len(capabilities) - 1 else offset + 0x40
        struct.pack_into("<IHH", data, offset, capability | 1 << 16 | following << 20, 0, control)
    return bytes(data)


class Case(unittest.TestCase):
    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.host = Host(folder.name)

    def run_part(self, name: str) -> dict:
        found: list = []
        report = type("Report", (), {"check": staticmethod(found.append), "stage": staticmethod(str)})
        part = next(part for part in around.PARTS if part.name == name)
        part.run(Context(root=str(self.host.root)), report)
        self.assertEqual([item["name"] for item in found], [name])
        return found[0]

    def verdict(self, name: str) -> str:
        return self.run_part(name)["verdict"]


class FabricManager(Case):
    def test_no_switch(self) -> None:
        self.host.pci("0000:1b:00.0")
        self.assertEqual(self.verdict("fabric.manager"), "skip")

    def test_a_switch(self) -> None:
        self.host.pci("0000:c1:00.0", kind="0x068000")
        self.host.write("proc/1/comm", "systemd\n")
        found = self.run_part("fabric.manager")
        self.assertEqual((found["verdict"], found["action"]), ("fail", "reset GPU"))
        self.host.write("proc/77/comm", "nv-fabricmanage\n")
        self.assertEqual(self.verdict("fabric.manager"), "pass")

    def test_another_makers_bridge_is_no_switch(self) -> None:
        self.host.pci("0000:c1:00.0", kind="0x068000", vendor="0x8086")
        self.assertEqual(self.verdict("fabric.manager"), "skip")


class Acs(Case):
    def gpus(self, control: bytes) -> None:
        for address in ("0000:1b:00.0", "0000:1c:00.0"):
            self.host.pci(address, above=BRIDGE)
        bridge = self.host.root / "sys/bus/pci/devices" / BRIDGE
        bridge.symlink_to(self.host.root / "sys/devices/pci0000:00" / BRIDGE)
        (bridge / "config").write_bytes(control)

    def test_off(self) -> None:
        self.gpus(config((0x0001, 0xFFFF), (0x000D, 0x00)))
        self.assertEqual(self.verdict("pcie.acs"), "pass")

    def test_a_bridge_without_it(self) -> None:
        self.gpus(config((0x0001, 0)))
        self.assertEqual(self.verdict("pcie.acs"), "pass")

    def test_on(self) -> None:
        self.gpus(config((0x0001, 0), (0x000D, 0x1D)))
        found = self.run_part("pcie.acs")
        self.assertEqual(found["verdict"], "warn")
        self.assertEqual(found["data"]["evidence"], [f"{BRIDGE}: request redirect, completion redirect"])

    def test_what_only_root_can_read_is_unknown(self) -> None:
        self.gpus(config(size=256)[:64])
        self.assertEqual(self.verdict("pcie.acs"), "unknown")

    def test_virtual_machines_and_single_gpus_are_skipped(self) -> None:
        self.assertEqual(self.verdict("pcie.acs"), "skip")
        self.gpus(config((0x000D, 0x1D)))
        self.host.write("proc/cpuinfo", "flags\t\t: fpu vme hypervisor\n")
        self.assertEqual(self.verdict("pcie.acs"), "skip")

    @given(st.binary(max_size=600))
    def test_no_configuration_is_too_odd(self, data: bytes) -> None:
        control = around.acs_control(data)
        self.assertTrue(control is None or 0 <= control <= 0xFFFF)

    def test_a_chain_that_bites_its_tail_ends(self) -> None:
        data = bytearray(4096)
        struct.pack_into("<I", data, 0x100, 0x0001 | 1 << 16 | 0x100 << 20)
        self.assertEqual(around.acs_control(bytes(data)), 0)


class Environment(Case):
    def test_clean(self) -> None:
        with mock.patch.dict(os.environ, clear=True):
            self.assertEqual(self.verdict("gpu.environment"), "pass")

    def test_each_variable(self) -> None:
        for name in around.HARMFUL:
            with mock.patch.dict(os.environ, {name: "1"}, clear=True):
                found = self.run_part("gpu.environment")
                self.assertEqual(found["verdict"], "warn")
                self.assertIn(name, found["reason"])

    def test_switched_off(self) -> None:
        with mock.patch.dict(os.environ, {"CUDA_LAUNCH_BLOCKING": "0"}, clear=True):
            self.assertEqual(self.verdict("gpu.environment"), "pass")

    def test_of_logins(self) -> None:
        self.host.write("etc/environment", 'PATH="/bin"\nexport CUDA_PROFILE="1"\n')
        with mock.patch.dict(os.environ, clear=True):
            found = self.run_part("gpu.environment")
        self.assertEqual(found["data"]["evidence"], ["CUDA_PROFILE=1 in /etc/environment"])


if __name__ == "__main__":
    unittest.main()
