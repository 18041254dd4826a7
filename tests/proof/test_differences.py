"""Counters before and after a load."""

from __future__ import annotations

import copy
import unittest

from hypothesis import given
from hypothesis import strategies as st

from gpuprov.proof.checks.differences import differences, grown
from tests.support.readings import geforce, gpu, reading

PCI = "0000:2b:00.0"


def event(code: int, count: int = 1, pci: str = PCI, kind: str = "xid", minute: int = 7) -> dict:
    text = f"NVRM: Xid (PCI:{pci}): {code}"
    return {"kind": kind, "pci": pci, "code": code, "minute": minute, "count": count, "line": text, "text": ""}


def host(**values: object) -> dict:
    """Return the reading of two GPUs; *values* are of gpu:1."""
    return reading(gpu(0), gpu(1, **values), xids=[])


def bad(before: dict, after: dict, seconds: float = 60.0, loaded: object = None) -> list[tuple]:
    found = [item for item in differences(before, after, seconds, loaded) if item["verdict"] not in ("pass", "skip")]
    return [(item["name"], item["verdict"], item["device"], item["action"]) for item in found]


class Grown(unittest.TestCase):
    def test_nothing(self) -> None:
        found = differences(host(), host(), 60.0)
        self.assertEqual({item["verdict"] for item in found}, {"pass"})
        self.assertEqual(len({item["name"] for item in found}), len(found))

    def test_what_was_there_before_is_not_blamed(self) -> None:
        old = {"ecc__volatile__uncorrected": 7, "remapped": [9, 9, 1, 0], "pcie__replays": 10**6}
        self.assertEqual(bad(host(**old), host(**old)), [])

    def test_each_counter(self) -> None:
        for values, expected in (
            ({"ecc__volatile__uncorrected": 1}, ("load.ecc.uncorrected", "fail", "gpu:1", "reset GPU")),
            ({"ecc__volatile__corrected": 500}, ("load.ecc.corrected", "warn", "gpu:1", "monitor")),
            ({"ecc__volatile__sram__uncorrected": 1}, ("load.ecc.sram", "fail", "gpu:1", "reset GPU")),
            ({"remapped": [0, 1, 0, 0]}, ("load.memory.remapped", "fail", "gpu:1", "reset GPU")),
            ({"remapped": [0, 0, 1, 0]}, ("load.memory.pending", "fail", "gpu:1", "reset GPU")),
            ({"pcie__replays": 40}, ("load.pcie.replays", "warn", "gpu:1", "monitor")),
            ({"violation__thermal": 3 * 10**9}, ("load.violation.thermal", "warn", "gpu:1", "monitor")),
            ({"violation__board_limit": 10**9}, ("load.violation.board_limit", "warn", "gpu:1", "monitor")),
        ):
            with self.subTest(values=values):
                self.assertEqual(bad(host(), host(**values)), [expected])

    def test_noise_and_the_power_cap_are_not_blamed(self) -> None:
        after = host(pcie__replays=20, violation__power=5 * 10**9, ecc__volatile__corrected=3, violation__thermal=100)
        self.assertEqual(bad(host(), after), [])
        found = next(item for item in differences(host(), after) if item["name"] == "load.violation.power")
        self.assertEqual(found["measured"]["gpu:1 power"], 5000)

    def test_it_says_that_it_was_our_own_load(self) -> None:
        found = differences(host(), host(ecc__volatile__uncorrected=2), 60.0)
        item = next(item for item in found if item["verdict"] == "fail")
        self.assertIn("gpu:1 had 2 uncorrected memory errors under our own load", item["reason"])
        self.assertEqual(item["data"]["evidence"], ["ecc.volatile.uncorrected: 0 before, 2 after"])
        self.assertTrue(item["data"]["own_load"])
        self.assertEqual(item["data"]["uuid"], "GPU-00000001")

    def test_links(self) -> None:
        for key, grew, expected in (
            ("errors.replay", 4, None),
            ("errors.replay", 5, "warn"),
            ("errors.recovery", 1, "warn"),
            ("errors.crc_flit", 7000, "warn"),
            ("errors.crc_flit", 5000, None),
        ):
            after = host()
            after["gpus"][1]["links"][4][key] = grew
            names = [("load.nvlink.errors", expected, "gpu:1", "monitor")] if expected else []
            self.assertEqual(bad(host(), after), names)
        after = host()
        after["gpus"][1]["links"][4]["state"] = 0
        self.assertEqual(bad(host(), after), [("load.nvlink.errors", "fail", "gpu:1", "reset GPU")])

    def test_a_gpu_that_went(self) -> None:
        after = host()
        after["gpus"][1]["values"] = {key: {"error": "GpuIsLost"} for key in after["gpus"][1]["values"]}
        self.assertEqual(bad(host(), after), [("load.gpu.lost", "fail", "gpu:1", "reboot")])
        self.assertEqual(bad(host(), reading(gpu(0), xids=[])), [("load.gpu.lost", "fail", "gpu:1", "reboot")])
        hung = host()
        hung["gpus"][1]["hung"] = "nvmlDeviceGetName"
        self.assertEqual(bad(host(), hung), [("load.gpu.lost", "fail", "gpu:1", "reboot")])

    def test_gpus_are_known_by_their_uuid(self) -> None:
        before, after = host(), host(ecc__volatile__uncorrected=1)
        after["gpus"].reverse()
        for index, one in enumerate(after["gpus"]):
            one["index"] = index
        self.assertEqual(bad(before, after), [("load.ecc.uncorrected", "fail", "gpu:0", "reset GPU")])

    def test_what_a_model_does_not_count_is_skipped(self) -> None:
        its = reading(geforce(0), xids=[])
        verdicts = {item["name"]: item["verdict"] for item in differences(its, copy.deepcopy(its))}
        self.assertEqual(verdicts["load.ecc.uncorrected"], "skip")
        self.assertEqual(verdicts["load.nvlink.errors"], "skip")
        self.assertEqual(verdicts["load.pcie.replays"], "pass")

    def test_what_could_not_be_read_is_unknown(self) -> None:
        found = bad(host(), host(pcie__replays={"error": "Unknown"}))
        self.assertEqual(found, [("load.pcie.replays", "unknown", "", "none")])

    @given(st.integers(0, 2**63), st.integers(0, 2**63))
    def test_no_growth_is_negative(self, before: int, after: int) -> None:
        self.assertGreaterEqual(grown(before, after) or 0, 0)
        self.assertIsNone(grown({"error": "Unknown"}, after))


class Xids(unittest.TestCase):
    def with_xids(self, before: list | None, after: list | None, loaded: object = None) -> list[tuple]:
        return bad(dict(host(), xids=before), dict(host(), xids=after), loaded=loaded)

    def test_old_ones_are_not_blamed(self) -> None:
        self.assertEqual(self.with_xids([event(79)], [event(79)]), [])

    def test_new_ones_are(self) -> None:
        self.assertEqual(self.with_xids([], [event(79)]), [("load.xid", "fail", PCI, "reboot")])
        self.assertEqual(self.with_xids([event(79)], [event(79, count=2)]), [("load.xid", "fail", PCI, "reboot")])

    def test_a_jobs_fault_is_the_gpus_when_the_job_is_ours(self) -> None:
        self.assertEqual(self.with_xids([], [event(31)]), [("load.xid", "fail", PCI, "isolate")])
        self.assertEqual(self.with_xids([], [event(31)], loaded=[PCI]), [("load.xid", "fail", PCI, "isolate")])

    def test_and_the_jobs_when_it_is_not(self) -> None:
        found = self.with_xids([], [event(31)], loaded=["0000:1b:00.0"])
        self.assertEqual(found, [("load.xid", "warn", PCI, "restart job")])

    def test_those_to_ignore(self) -> None:
        self.assertEqual(self.with_xids([], [event(63)]), [])

    def test_a_log_that_cannot_be_read(self) -> None:
        self.assertEqual(self.with_xids(None, []), [("load.xid", "unknown", "", "none")])


if __name__ == "__main__":
    unittest.main()
