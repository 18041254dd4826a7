"""Every check of GPUs over readings: healthy, sick, without an answer, and of models that have less."""

from __future__ import annotations

import unittest
from pathlib import Path

from gpuprov.proof.checks import (
    around,
    differences,
    xid,
)
from tests.support.gpu_case import MODULES, PARTS, Case
from tests.support.readings import NOT_SUPPORTED, geforce, gpu, reading


class Healthy(Case):
    def test_a_healthy_host_has_no_warning(self) -> None:
        self.host.healthy()
        self.assertEqual(self.bad(reading(), gpus=8, versions={"driver": "580.95.05"}), [])

    def test_a_report_is_readable(self) -> None:
        self.host.healthy()
        found = self.checks(reading(), gpus=8)
        self.assertEqual(sorted({item["name"] for item in found}), sorted(part.name for part in PARTS))
        self.assertEqual(len(found), len(PARTS))
        self.assertTrue(all(item["reason"] for item in found))
        self.assertIn("8 of 8 GPUs: ECC is as wanted", [item["reason"] for item in found])

    def test_only_what_cannot_be_is_skipped(self) -> None:
        self.host.healthy()
        skipped = [item["name"] for item in self.checks(reading(), gpus=8) if item["verdict"] == "skip"]
        self.assertEqual(skipped, ["driver.expected", "memory.retired", "pcie.aer"])

    def test_one_gpu(self) -> None:
        self.host.healthy(1)
        its = gpu(0)
        its["links"] = [dict(link, state=0) for link in its["links"]]
        self.assertEqual(self.bad(reading(its)), [])

    def test_geforce_says_not_supported_everywhere(self) -> None:
        self.host.healthy(2)
        found = self.checks(reading(geforce(0), geforce(1)))
        self.assertEqual([item for item in found if item["verdict"] not in ("pass", "skip")], [])
        skipped = {item["name"] for item in found if item["verdict"] == "skip"}
        self.assertLessEqual({"ecc.mode", "memory.remapped", "gpu.mig", "nvlink.links", "gpu.clocks"}, skipped)
        self.assertIn("this model does not have it", next(i["reason"] for i in found if i["name"] == "ecc.mode"))

    def test_no_gpu_at_all_is_a_skip(self) -> None:
        for error in ("LibraryNotFound", "DriverNotLoaded", "PynvmlMissing"):
            its = reading(error={"error": error, "text": "no"}, count=None, gpus=[])
            verdicts = {item["verdict"] for item in self.checks(its)}
            self.assertEqual(verdicts, {"skip"})
            self.assertEqual(len(self.checks(its)), len(PARTS))

    def test_a_gpu_on_the_bus_without_a_driver_is_unknown_everywhere_and_a_fail_once(self) -> None:
        self.host.healthy(1)
        its = reading(error={"error": "DriverNotLoaded", "text": "no"}, count=None, gpus=[])
        found = self.checks(its)
        self.assertEqual(len(found), len(PARTS))
        verdicts = [item["verdict"] for item in found if item["name"] != "driver.expected"]
        self.assertEqual((verdicts[0], set(verdicts[1:])), ("fail", {"unknown"}))
        self.assertEqual(self.bad(its)[0], ("nvml.library", "fail", "", "reboot"))


#: What one GPU of eight says, and the one check that must find it.
SICK = [
    ({"temperature": 85}, ("gpu.temperature", "fail", "gpu:7", "isolate")),
    ({"temperature": 80}, ("gpu.temperature", "warn", "gpu:7", "monitor")),
    ({"temperature": 84}, ("gpu.temperature", "warn", "gpu:7", "monitor")),
    ({"temperature": 79}, ("gpu.temperature", "warn", "gpu:7", "monitor")),
    ({"temperature": 78}, None),
    ({"remapped": [0, 512, 0, 0]}, None),
    ({"remapped": [600, 0, 0, 0]}, None),
    ({"ecc__aggregate__sram__uncorrected": 4}, ("ecc.sram", "warn", "gpu:7", "monitor")),
    ({"ecc__aggregate__uncorrected": 9, "ecc__volatile__corrected": 10**9}, None),
    ({"temperature__memory": 95}, ("gpu.memory_temperature", "fail", "gpu:7", "isolate")),
    ({"temperature__memory": 94}, ("gpu.memory_temperature", "warn", "gpu:7", "monitor")),
    ({"temperature__memory": 89}, None),
    ({"throttle": 0x8 | 0x40}, ("gpu.throttle", "fail", "gpu:7", "isolate")),
    ({"throttle": 0x80 | 0x1}, ("gpu.throttle", "fail", "gpu:7", "isolate")),
    ({"throttle": 0x1 | 0x2 | 0x4 | 0x10 | 0x100 | 0x400}, None),
    ({"throttle": 0x8}, ("gpu.throttle", "fail", "gpu:7", "isolate")),
    ({"throttle": 0x40}, ("gpu.throttle", "fail", "gpu:7", "isolate")),
    ({"throttle": 0x80}, ("gpu.throttle", "fail", "gpu:7", "isolate")),
    ({"throttle": 0x200}, ("gpu.throttle", "warn", "gpu:7", "monitor")),
    ({"pcie__replays": 5}, None),
    ({"vbios": {"error": "Unknown"}}, ("gpus.alike", "unknown", "", "none")),
    ({"throttle": 0x20}, ("gpu.throttle", "warn", "gpu:7", "monitor")),
    ({"throttle": 0x8000}, ("gpu.throttle", "warn", "gpu:7", "monitor")),
    ({"ecc__volatile__uncorrected": 1}, ("ecc.uncorrected", "fail", "gpu:7", "reset GPU")),
    ({"ecc__aggregate__sram__uncorrected": 5}, ("ecc.sram", "fail", "gpu:7", "isolate")),
    ({"ecc__aggregate__sram__uncorrected": 1}, ("ecc.sram", "warn", "gpu:7", "monitor")),
    ({"ecc__volatile__sram__uncorrected": 1}, ("ecc.sram", "fail", "gpu:7", "reset GPU")),
    ({"ecc__sram__threshold_exceeded": 1}, ("ecc.sram", "fail", "gpu:7", "isolate")),
    ({"remapped": [0, 1, 1, 0]}, ("memory.remapped", "fail", "gpu:7", "reset GPU")),
    ({"remapped": [0, 1, 0, 1]}, ("memory.remapped", "fail", "gpu:7", "isolate")),
    ({"remapped": [0, 513, 0, 0]}, ("memory.remapped", "fail", "gpu:7", "isolate")),
    ({"recovery_action": 1}, ("gpu.recovery", "fail", "gpu:7", "reset GPU")),
    ({"recovery_action": 2}, ("gpu.recovery", "fail", "gpu:7", "reboot")),
    ({"recovery_action": 99}, ("gpu.recovery", "fail", "gpu:7", "isolate")),
    ({"inforom": {"error": "CorruptedInforom"}}, ("gpu.inforom", "fail", "gpu:7", "isolate")),
    ({"pcie__width": 8}, ("pcie.width", "fail", "gpu:7", "isolate")),
    ({"pcie__generation": 3, "utilization__gpu": 99}, ("pcie.generation", "fail", "gpu:7", "isolate")),
    ({"pcie__replays": 10**6}, ("pcie.replays", "warn", "gpu:7", "monitor")),
    ({"fabric": 1}, ("nvlink.fabric", "fail", "gpu:7", "reset GPU")),
    ({"fabric": 2}, ("nvlink.fabric", "fail", "gpu:7", "monitor")),
    ({"fabric__status": 999}, ("nvlink.fabric", "fail", "gpu:7", "reset GPU")),
    ({"fabric": 9}, ("nvlink.fabric", "unknown", "gpu:7", "none")),
    ({"persistence": 0}, ("gpu.persistence", "warn", "gpu:7", "none")),
    ({"mig": [1, 1]}, ("gpu.mig", "warn", "gpu:7", "none")),
    ({"mig": [0, 1]}, ("gpu.mig", "warn", "gpu:7", "reset GPU")),
    ({"compute_mode": 2}, ("gpu.compute_mode", "fail", "gpu:7", "none")),
    ({"compute_mode": 3}, ("gpu.compute_mode", "warn", "gpu:7", "none")),
    ({"clock__sm_application": 1200}, ("gpu.clocks", "warn", "gpu:7", "none")),
    ({"power__enforced": 300_000}, ("gpu.power", "warn", "gpu:7", "monitor")),
    ({"vbios": "96.00.00.00.01"}, ("gpus.alike", "warn", "gpu:7", "none")),
    ({"memory__total": 64 << 30}, ("gpus.alike", "fail", "gpu:7", "isolate")),
    ({"pci__subsystem": 0x123410DE}, ("gpus.alike", "warn", "gpu:7", "none")),
    ({"temperature": {"error": "Unknown"}}, ("gpu.temperature", "unknown", "gpu:7", "none")),
    ({"temperature": {"error": "Timeout"}}, ("gpu.temperature", "unknown", "gpu:7", "none")),
    ({"temperature": NOT_SUPPORTED}, ("gpu.temperature", "unknown", "gpu:7", "none")),
    ({"ecc__volatile__uncorrected": NOT_SUPPORTED}, ("ecc.uncorrected", "unknown", "gpu:7", "none")),
    ({"memory__used": 30 << 30}, None),
]


class Sick(Case):
    def test_each_sickness_is_found_by_its_check_and_by_no_other(self) -> None:
        for values, expected in SICK:
            with self.subTest(values=values):
                self.setUp()
                self.assertEqual(self.sick(gpu(7, **values)), [expected] if expected else [])

    def test_ecc_off_is_a_fail_and_a_difference(self) -> None:
        found = self.sick(gpu(7, ecc_mode=[0, 0]))
        self.assertEqual(found, [("gpus.alike", "fail", "gpu:7", "reboot"), ("ecc.mode", "fail", "gpu:7", "reset GPU")])

    def test_a_lowered_power_limit(self) -> None:
        found = self.sick(gpu(7, power__limit=500_000, power__enforced=500_000))
        self.assertEqual(
            [item[:3] for item in found], [("gpus.alike", "warn", "gpu:7"), ("gpu.power", "warn", "gpu:7")]
        )
        self.setUp()
        lowered = [gpu(i, power__limit=500_000, power__enforced=500_000) for i in range(8)]
        self.assertEqual(self.sick(*lowered, power_limit_w=500), [])

    def test_a_gpu_that_tells_only_how_many_degrees_are_left(self) -> None:
        for left, expected in ((40, None), (6, "warn"), (0, "fail"), (-1, "fail")):
            self.setUp()
            told = {"temperature__slowdown": NOT_SUPPORTED, "temperature__slowdown_tlimit": -2}
            sick = [gpu(i, temperature__margin=left if i == 7 else 50, **told) for i in range(8)]
            found = [item[:3] for item in self.sick(*sick)]
            self.assertEqual(found, [("gpu.temperature", expected, "gpu:7")] if expected else [], left)

    def test_links_down(self) -> None:
        its = gpu(7)
        its["links"][4]["state"] = 0
        its["links"][17]["state"] = 0
        self.assertEqual(self.sick(its), [("nvlink.links", "fail", "gpu:7", "reset GPU")])
        item = next(i for i in self.checks(reading(*[gpu(i) for i in range(7)], its)) if i["device"] == "gpu:7")
        self.assertIn("16 of 18 NVLinks up, links 4, 17 down", item["reason"])

    def test_links_that_vanished(self) -> None:
        self.assertEqual(self.sick(gpu(7, links=9)), [("nvlink.links", "fail", "gpu:7", "reset GPU")])

    def test_all_links_down_on_a_model_that_needs_them(self) -> None:
        sick = [gpu(i) for i in range(8)]
        for its in sick:
            its["links"] = [dict(link, state=0) for link in its["links"]]
        self.assertEqual({item[0] for item in self.sick(*sick)}, {"nvlink.links"})

    def test_no_bridge_between_cards(self) -> None:
        cards = [gpu(i, name="NVIDIA H100 PCIe") for i in range(8)]
        for its in cards:
            its["links"] = [dict(link, state=0) for link in its["links"]]
        self.assertEqual(self.sick(*cards), [])

    def test_link_errors(self) -> None:
        its = gpu(7)
        its["links"][3]["errors.replay"] = 6
        self.assertEqual(self.sick(its), [("nvlink.errors", "warn", "gpu:7", "monitor")])
        its["links"][3]["errors.replay"] = {"error": "Unknown"}
        self.setUp()
        self.assertEqual(self.sick(its), [("nvlink.errors", "unknown", "gpu:7", "none")])

    def test_a_pair_that_does_not_reach_each_other(self) -> None:
        self.host.healthy()
        its = reading()
        its["gpus"][2]["peers"]["5"]["p2p.read"] = 4
        self.assertEqual(self.bad(its), [("gpu.peers", "warn", "", "reboot")])
        item = next(item for item in self.checks(its) if item["name"] == "gpu.peers")
        self.assertEqual((item["measured"], item["expected"]), (27, 28))
        self.assertIn("gpu:2 and gpu:5: it is switched off", item["data"]["evidence"][0])

    def test_pairs_that_do_not_reach_each_other_by_design(self) -> None:
        self.host.healthy()
        its = reading()
        its["gpus"][2]["peers"]["5"]["p2p.read"] = 3
        self.assertEqual(self.bad(its), [])
        item = next(item for item in self.checks(its) if item["name"] == "gpu.peers")
        self.assertIn("27 of 28 pairs", item["reason"])
        its["gpus"][2]["peers"]["5"]["p2p.read"] = {"error": "Unknown"}
        self.assertEqual(self.bad(its), [("gpu.peers", "unknown", "", "none")])

    def test_retired_pages_of_an_old_model(self) -> None:
        for single, pending, expected in ((3, 0, None), (20, 0, "warn"), (63, 0, "fail"), (3, 1, "fail")):
            self.setUp()
            old = [gpu(i, retired__single_bit=[], retired__double_bit=[], retired__pending=0) for i in range(8)]
            old[7]["values"].update({"retired.single_bit": list(range(single)), "retired.pending": pending})
            found = self.sick(*old)
            self.assertEqual([item[:3] for item in found], [("memory.retired", expected, "gpu:7")] if expected else [])

    def test_the_uuid_is_in_what_is_bad(self) -> None:
        self.host.healthy()
        its = reading(*[gpu(i) for i in range(7)], gpu(7, temperature=86))
        item = next(item for item in self.checks(its) if item["verdict"] == "fail")
        self.assertEqual((item["data"]["uuid"], item["data"]["address"]), ("GPU-00000007", "0000:8b:00.0"))
        self.assertIn("gpu:7 (0000:8b:00.0) is at 86 C and slows itself down at 87 C", item["reason"])
        good = [item for item in self.checks(its) if item["name"] == "gpu.temperature" and item["verdict"] == "pass"]
        self.assertIn("7 of 8 GPUs", good[0]["reason"])

    def test_aer(self) -> None:
        for name, verdict in (("aer_dev_fatal", "fail"), ("aer_dev_nonfatal", "warn"), ("aer_dev_correctable", "warn")):
            self.setUp()
            self.host.healthy()
            folder = f"sys/bus/pci/devices/{gpu(7)['address']}"
            for file in ("aer_dev_fatal", "aer_dev_nonfatal", "aer_dev_correctable"):
                count = 10**6 if file == name else 0
                self.host.write(f"{folder}/{file}", f"Undefined 0\nDLP 0\nBadTLP {count}\nTOTAL_ERR {count}\n")
            found = [item for item in self.bad(reading()) if item[0] == "pcie.aer"]
            self.assertEqual([item[1:3] for item in found], [(verdict, "gpu:7")])

    def test_aer_that_noise_explains(self) -> None:
        self.host.healthy()
        folder = f"sys/bus/pci/devices/{gpu(7)['address']}"
        self.host.write(f"{folder}/aer_dev_correctable", "RxErr 2\nTOTAL_ERR_COR 2\n")
        found = [item for item in self.checks(reading()) if item["name"] == "pcie.aer"]
        self.assertEqual([(item["verdict"], item["measured"]) for item in found], [("skip", None), ("pass", 2)])

    def test_what_the_inventory_wants(self) -> None:
        self.host.healthy()
        self.assertEqual(self.bad(reading(*[gpu(i, mig=[1, 1]) for i in range(8)]), mig=True), [])
        found = self.bad(reading(), mig=True)
        self.assertEqual({item[:2] for item in found}, {("gpu.mig", "fail")})
        off = reading(*[gpu(i, ecc_mode=[0, 0]) for i in range(8)])
        self.assertEqual(self.bad(off, ecc=False), [])
        used = [gpu(i, processes__compute=[{"pid": 1, "memory": 5 << 30}]) for i in range(8)]
        self.assertEqual(self.bad(reading(*used)), [])
        self.assertEqual({item[:2] for item in self.bad(reading(*used), idle=True)}, {("gpu.processes", "warn")})

    def test_processes_that_are_gone(self) -> None:
        self.host.healthy()
        folder = self.host.root / "proc/self/ns"
        folder.mkdir(parents=True)
        (folder / "pid").symlink_to("pid:[4026531836]")
        self.host.write("proc/4242/comm", "python\n")
        its = reading(gpu(0, processes__compute=[{"pid": p, "memory": 5 << 30} for p in (4242, 77)]), gpu(1))
        item = next(item for item in self.checks(its) if item["name"] == "gpu.processes" and item["device"] == "gpu:0")
        self.assertIn("held by processes that are gone: 77", item["reason"])
        orphan = reading(gpu(0, memory__used=30 << 30), gpu(1))
        item = next(item for item in self.checks(orphan) if item["name"] == "gpu.processes" and item["device"])
        self.assertIn("30.0 GiB in use although no process uses it", item["reason"])


class Table(unittest.TestCase):
    def test_names_are_unique(self) -> None:
        self.assertEqual(len({part.name for part in PARTS}), len(PARTS))

    def test_docs_have_each_check(self) -> None:
        text = (Path(__file__).resolve().parents[2] / "docs/checks.md").read_text()
        rows = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")}
        hosts = {part.name for part in (*around.PARTS, *xid.PARTS)}
        self.assertEqual(rows, {part.name for part in PARTS} | hosts | {"sxid"})
        its = reading(gpu(0), xids=[])
        found = {item["name"] for item in differences.differences(its, its)} | {"load.gpu.lost"}
        self.assertEqual({name for name in found if f"`{name}`" not in text}, set())

    def test_files_are_small(self) -> None:
        for module in MODULES:
            self.assertLess(len(Path(module.__file__).read_text().splitlines()), 300)


if __name__ == "__main__":
    unittest.main()
