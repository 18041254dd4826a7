"""Checks of GPUs that are gone, loaded or odd."""

from __future__ import annotations

import copy
import json
import unittest

from hypothesis import given
from hypothesis import strategies as st

from gpuprov.proof.checks import (
    pcie,
    thermal,
)
from gpuprov.proof.nvml import calls
from gpuprov.proof.parts import Context
from tests.support.gpu_case import ACTIONS, PARTS, Case
from tests.support.readings import gpu, reading


class Gone(Case):
    def test_a_lost_gpu_is_told_once(self) -> None:
        its = gpu(7)
        its["values"] = {key: {"error": "GpuIsLost"} for key in its["values"]}
        self.assertEqual(self.sick(its), [("gpu.lost", "fail", "gpu:7", "reboot")])
        item = next(i for i in self.checks(reading(gpu(0), its)) if i["name"] == "gpu.temperature")
        self.assertIn("1 of 2 GPUs", item["reason"])
        self.assertIn("gpu:7 is not judged: NVML says GpuIsLost", item["reason"])

    def test_a_gpu_that_needs_a_reset(self) -> None:
        found = self.sick(gpu(7, temperature={"error": "ResetRequired"}))
        self.assertEqual(found, [("gpu.lost", "fail", "gpu:7", "reset GPU")])

    def test_a_gpu_that_answers_everything_with_one_error(self) -> None:
        its = gpu(7)
        its["values"] = {key: {"error": "Unknown"} for key in its["values"]}
        self.assertEqual(self.sick(its), [("gpu.lost", "fail", "gpu:7", "reboot")])

    def test_what_keeps_nvml_from_one_gpu(self) -> None:
        for error, verdict, action in (
            ("NoPermission", "unknown", "none"),
            ("InsufficientPower", "fail", "isolate"),
            ("IrqIssue", "fail", "reboot"),
            ("GpuIsLost", "fail", "reboot"),
        ):
            self.setUp()
            its = gpu(7)
            its["values"] = {key: {"error": error} for key in its["values"]}
            self.assertEqual(self.sick(its), [("gpu.lost", verdict, "gpu:7", action)])

    def test_a_container_that_was_given_fewer(self) -> None:
        self.host.healthy(8)
        for name in ("nvidia0", "nvidia3", "nvidiactl", "nvidia-uvm"):
            self.host.write(f"dev/{name}", "")
        self.assertEqual(self.bad(reading(gpu(0), gpu(3))), [("nvml.count", "warn", "", "none")])

    def test_a_hung_gpu(self) -> None:
        its = dict(gpu(7), hung="nvmlDeviceGetTemperature")
        self.assertEqual(self.sick(its), [("gpu.hung", "fail", "gpu:7", "reboot")])
        item = next(i for i in self.checks(reading(gpu(0), its)) if i["name"] == "gpu.hung" and i["device"])
        self.assertIn("nvmlDeviceGetTemperature never returned", item["reason"])

    def test_a_gpu_whose_process_died(self) -> None:
        its = dict(gpu(7), values={})
        self.assertEqual(self.sick(its), [("gpu.lost", "unknown", "gpu:7", "none")])

    def test_all_gone(self) -> None:
        its = reading(*[dict(gpu(i), hung="nvmlInit_v2") for i in range(2)])
        self.host.healthy(2)
        found = self.checks(its)
        self.assertEqual({item["verdict"] for item in found if item["name"].startswith("ecc.")}, {"unknown"})

    def test_fewer_than_expected(self) -> None:
        self.host.healthy(8)
        its = reading(*[gpu(i) for i in range(7)])
        self.assertEqual(self.bad(its, gpus=8), [("nvml.count", "fail", "", "reboot")])
        self.assertEqual(self.bad(its), [("nvml.count", "fail", "", "reboot")])
        self.assertIn("without 0000:8b:00.0", next(i["reason"] for i in self.checks(its) if i["name"] == "nvml.count"))

    def test_fewer_on_the_bus_too(self) -> None:
        self.host.healthy(7)
        its = reading(*[gpu(i) for i in range(7)])
        self.assertEqual(self.bad(its, gpus=8), [("nvml.count", "fail", "", "isolate")])

    def test_the_library(self) -> None:
        self.host.healthy()
        for error, verdict, action in (
            ("LibRmVersionMismatch", "fail", "reboot"),
            ("LibraryNotFound", "fail", "none"),
            ("PynvmlMissing", "unknown", "none"),
            ("Hung", "fail", "reboot"),
            ("Unknown", "fail", "reboot"),
        ):
            its = reading(error={"error": error, "text": "why"}, count=None, gpus=[])
            self.assertIn(("nvml.library", verdict, "", action), self.bad(its))

    def test_a_mismatch_of_versions(self) -> None:
        self.host.healthy()
        self.host.write("sys/module/nvidia/version", "570.1.2\n")
        self.assertEqual(self.bad(reading()), [("driver.versions", "fail", "", "reboot")])
        its = reading(error={"error": "LibRmVersionMismatch", "text": "why"}, count=None, gpus=[])
        item = next(item for item in self.checks(its) if item["name"] == "driver.versions")
        self.assertEqual((item["verdict"], item["measured"]), ("fail", "570.1.2"))

    def test_versions_that_nvml_does_not_give(self) -> None:
        self.host.healthy()
        its = reading()
        its["library"]["nvml"] = {"error": "Unknown"}
        self.assertEqual(self.bad(its), [("driver.versions", "unknown", "", "none")])
        its["library"]["driver"] = {"error": "Unknown"}
        found = self.bad(its, versions={"driver": "580"})
        self.assertEqual([item[:2] for item in found], [("driver.versions", "unknown"), ("driver.expected", "unknown")])

    def test_another_driver_than_resolved(self) -> None:
        self.host.healthy()
        found = self.bad(reading(), versions={"driver": "590.44.01-1ubuntu1"})
        self.assertEqual(found, [("driver.expected", "fail", "", "reboot")])
        for wanted in ("580.95.05", "580", "580.95.05-0ubuntu1", "3:580.95.05-1.el9"):
            self.assertEqual(self.bad(reading(), versions={"driver": wanted}), [])


class UnderLoad(Case):
    def test_a_link_that_rests_is_judged_under_load(self) -> None:
        self.host.healthy()
        rests = [gpu(i, pcie__generation=1, pstate=8) for i in range(8)]
        self.assertEqual(self.bad(reading(*rests)), [])
        context = Context(root=str(self.host.root))
        rests[0]["values"]["pcie.generation"] = 5
        found = [i for i in pcie.under_load(context, reading(*rests)) if i["verdict"] == "fail"]
        self.assertEqual({i["name"] for i in found}, {"pcie.generation"})
        self.assertEqual([i["device"] for i in found], [f"gpu:{n}" for n in range(1, 8)])

    def test_replays_by_lane_and_generation(self) -> None:
        self.assertEqual(pcie.allowed(5, 16), 31)
        self.assertEqual(pcie.allowed(3, 8, 10), 39)
        self.assertEqual(pcie.allowed(1, 1), 1)
        self.assertIsNone(pcie.allowed(9, 16))


class Odd(Case):
    KEYS = st.sampled_from([row[0] for row in calls.GPU])
    ERRORS = st.sampled_from(["NotSupported", "Unknown", "NotAvailable", "GpuIsLost", "NoPermission", "Code77"])

    @given(st.dictionaries(KEYS, ERRORS, max_size=30), st.sets(KEYS, max_size=5))
    def test_no_answer_stops_the_checks_or_makes_them_green(self, errors: dict, absent: set) -> None:
        its = gpu(0)
        its["values"].update({key: {"error": name} for key, name in errors.items()})
        for key in absent:
            its["values"].pop(key, None)
        context = Context(root="/nonexistent", expect={"gpus": 1})
        for part in PARTS:
            found = part.run(context, reading(copy.deepcopy(its)))
            self.assertTrue(found, part.name)
            for item in found:
                self.assertEqual(item["name"], part.name)
                self.assertTrue(item["reason"])
                self.assertIn(item["action"], ACTIONS)
                self.assertLess(len(json.dumps(item)), 4000)

    @given(st.integers(0, 2**64 - 1))
    def test_every_bit_of_the_throttle_reasons_is_told(self, mask: int) -> None:
        self.assertEqual(len(thermal.reasons(mask)), bin(mask).count("1"))

    @given(ERRORS)
    def test_what_was_not_measured_is_not_passed(self, name: str) -> None:
        for part in PARTS:
            its = [gpu(i) for i in range(2)]
            for one in its:
                one["values"] = {key: {"error": name} for key in one["values"]} | {"name": "x"}
                one["links"] = []
                one["peers"] = {"1": {"p2p.read": {"error": name}}}
            for item in part.run(Context(root="/nonexistent"), reading(*its)):
                if part.name not in (
                    "nvml.library",
                    "nvml.count",
                    "driver.versions",
                    "gpu.hung",
                    "gpu.lost",
                    "gpus.alike",
                ):
                    self.assertNotEqual(item["verdict"], "pass", part.name)


if __name__ == "__main__":
    unittest.main()
