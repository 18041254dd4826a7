"""Measurements on the CPU with torch: healthy ones pass, and whatever is spoiled on purpose is found."""

from __future__ import annotations

import functools
import json
import subprocess
import unittest
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.support.torch_env import torch_python

ROOT = Path(__file__).parents[2]


@functools.cache
def scenarios(*words: str) -> Any:
    argv = [torch_python(), "-W", "ignore:Failed to initialize NumPy", "-m", "tests.proof.bench_scenarios", *words]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "FutureWarning" not in done.stderr, done.stderr
    return json.loads(done.stdout)


class Alone(unittest.TestCase):
    found: ClassVar[dict[str, Any]]
    parts: ClassVar[dict[str, Any]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.found = scenarios()["alone"]
        cls.parts = {check["name"]: check for check in cls.found["parts"]}

    def spoiled(self, name: str) -> dict[str, Any]:
        found = self.found["spoiled"][name]
        self.assertEqual(found["verdict"], "fail", found)
        self.assertEqual(found["action"], "none")  # no GPU is blamed for what a CPU did
        return found

    def test_nothing_that_a_cpu_did_is_called_as_a_gpus(self) -> None:
        mode = self.parts.pop("mode", {"verdict": 2})
        self.assertEqual([name for name in self.parts if not name.startswith("cpu.")], [])
        self.assertEqual(mode["verdict"], 2)  # what a training had set is set again

    def test_each_part_passes_or_says_why_it_was_skipped(self) -> None:
        skipped = {name: c["reason"] for name, c in self.parts.items() if c["verdict"] == "skip"}
        self.assertEqual(sorted(skipped), ["cpu.d2h", "cpu.gemm.tf32", "cpu.h2d", "cpu.pcie.under-load"])
        rest = {name: c["verdict"] for name, c in self.parts.items() if name not in (*skipped, "mode")}
        self.assertEqual(set(rest.values()), {"pass"}, rest)
        self.assertEqual(len(rest), 9)

    def test_a_measurement_has_samples_and_fits_a_line(self) -> None:
        for name, check in self.parts.items():
            self.assertLess(len(json.dumps(check)), 4000, name)
            if check.get("measured") and name != "cpu.hbm.patterns":
                self.assertEqual(check["data"]["kind"], "measurement")
                self.assertGreaterEqual(len(check["data"]["samples"]), 5)
                self.assertGreater(check["measured"], 0.0)

    def test_the_same_work_gives_the_same_bits_again(self) -> None:
        first = {c["data"]["bits_of"]: c["data"]["bits"] for c in self.parts.values() if "bits" in c.get("data", {})}
        self.assertEqual(len(first), 6)
        for work, bits in self.found["bits again"].items():
            self.assertEqual(first[work], bits)

    def test_no_healthy_seed_is_accused(self) -> None:
        self.assertEqual(self.found["healthy"], [])

    def test_a_wrong_tile_and_a_wrong_number_are_found(self) -> None:
        self.assertIn("where float64 has", self.spoiled("tile")["reason"])
        self.assertIn(" is nan where float64 has", self.spoiled("nan")["reason"])
        self.assertIn("of a int8 product", self.spoiled("int8")["reason"])

    def test_one_bit_that_flips_once_is_found(self) -> None:
        found = self.spoiled("bit")
        self.assertIn("silent data corruption", found["reason"])
        self.assertIn("1 of 5 times, first in sample 3", found["reason"])
        self.assertEqual(len(found["data"]["evidence"]), 2)

    def test_memory_names_the_range_and_the_bits(self) -> None:
        self.assertIn("bits 0x10000000000", self.spoiled("copy")["reason"])
        alias = self.spoiled("alias")
        self.assertIn("pattern address, 3 MiB into it: 100 words of 8 bytes", alias["reason"])
        self.assertIn("wrote 0x0000000000061388, read 0x0000000000041388", alias["data"]["evidence"][-1])
        self.assertEqual(self.spoiled("stuck")["measured"], 1)

    def test_the_way_on_which_bytes_change_is_named(self) -> None:
        self.assertIn("on the way from the GPU to pinned host memory", self.spoiled("d2h")["reason"])
        self.assertIn("on the way from pinned host memory to the GPU", self.spoiled("h2d")["reason"])
        for way in ("healthy h2d", "healthy d2h"):
            self.assertEqual(self.found["spoiled"][way]["verdict"], "pass")

    def test_a_kernel_that_did_not_run_is_found(self) -> None:
        self.assertIn("16000 kernels were started, and 15999 left their mark", self.spoiled("launch")["reason"])

    def test_a_soak_and_the_hosts_own_cpus(self) -> None:
        more = self.found["more"]
        self.assertEqual([(c["name"], c["verdict"]) for c in more.values() if c["verdict"] == "fail"], [])
        self.assertEqual([c["name"] for c in more.values()], ["cpu.soak", "cpu.gemm", "cpu.copy"])
        self.assertEqual(set(more["soak"]["data"]["temperature_c"]), {70.0})
        self.assertLess(len(json.dumps(more["soak"])), 4000)
        self.assertIn("other bits 1 of", self.spoiled("soak")["reason"])
        for name in ("cpu.gemm", "cpu.copy"):  # the host is to blame, whatever its GPUs are
            found = self.found["spoiled"][name]
            self.assertEqual((found["verdict"], found["action"]), ("fail", "isolate"))

    def test_comparisons_that_see_nothing_make_the_run_void(self) -> None:
        for eye in ("checksum", "bound", "copy", "memory", "h2d"):
            found = self.found["blind"][eye]
            self.assertEqual(found["verdict"], "fail", eye)
            self.assertTrue(found["reason"].startswith("canary: "), found["reason"])

        self.assertIn("canary: ", self.found["blind"]["p2p"]["reason"])

    def test_pairs(self) -> None:
        *each, links = self.found["pairs"]
        self.assertEqual([(c["name"], c["verdict"]) for c in each], [("p2p", "pass")] * 3)
        self.assertEqual((links["name"], links["verdict"]), ("p2p.links", "skip"))
        wrong = self.found["wrong pairs"][0]
        self.assertEqual((wrong["verdict"], wrong["action"]), ("fail", "isolate"))
        self.assertIn("1 words of 8 bytes (0x48-0x4f)", wrong["reason"])
        self.assertEqual({c["verdict"] for c in self.found["no pairs"]}, {"skip"})

    def test_the_code_for_gpus_runs_with_what_torch_would_answer_simulated(self) -> None:
        found = {check["name"]: check for check in self.found["simulated"]}
        self.assertEqual([c["name"] for c in found.values() if c["name"].startswith("cpu.")], [])
        self.assertEqual({n: c["verdict"] for n, c in found.items() if c["verdict"] != "pass" and n != "soak"}, {})
        self.assertEqual(len(found), 14)
        for name, check in found.items():
            self.assertEqual(check["data"]["uuid"], "GPU-5c3a6e", name)
        bf16 = found["gemm.bf16"]["data"]
        self.assertIn("NVIDIA H200, compute capability 9.0, 132 SMs, torch 2", bf16["bits_of"])
        self.assertEqual((bf16["power_w"], bf16["temperature_c"], bf16["mhz"]), (512.0, 64.0, 1755.0))
        self.assertEqual(found["pcie.under-load"]["measured"], "generation 5 x16")
        self.assertEqual(found["hbm.patterns"]["data"]["tested_bytes"], 8 << 20)
        self.assertEqual(found["soak"]["data"]["power_w"][0], 512.0)
        self.assertEqual(len(found["soak"]["data"]["bits"]), 32)

    def test_tf32_does_not_pose_as_float32(self) -> None:
        found = self.found["blind"]["tf32"]
        self.assertEqual((found["verdict"], found["measured"]), ("skip", None))

    def test_memory_that_others_hold_is_unknown(self) -> None:
        for name in ("full gemm", "full soak", "full copy", "full memory"):
            self.assertEqual(self.found["blind"][name]["verdict"], "unknown")
        self.assertEqual(
            [(c["name"], c["verdict"]) for c in self.found["low"]], [("h2d", "unknown"), ("d2h", "unknown")]
        )

    def test_data_are_the_same_on_every_device(self) -> None:
        known = self.found["known"]
        self.assertEqual(known["sums"]["bf16"], "fff7e42aed2dfd3ffff0b254d5e70b5d")
        self.assertEqual(known["sums"]["fp64"], "7db76bb087ca82919643191e77d37d7d")
        self.assertEqual(len(set(known["sums"].values())), 7)
        self.assertTrue(known["same in pieces"])
        self.assertTrue(known["rows swapped"])

    def test_patterns_reach_every_bit_and_its_inverse(self) -> None:
        known = self.found["known"]
        self.assertTrue(known["walked"] and known["inverted"])
        self.assertEqual(known["addresses"], [1 << 33, ~(1 << 33)])

    def test_numbers_spread_over_sixteen_binades(self) -> None:
        least, most = self.found["known"]["range"]
        self.assertTrue(2.0**-14 <= least < 2.0**-13 and 2.0 <= most < 4.0)


class Together(unittest.TestCase):
    found: ClassVar[dict[str, Any]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.found = scenarios()["together"]

    def test_two_ranks_pass_and_one_of_them_speaks(self) -> None:
        verdicts = {check["name"]: check["verdict"] for check in self.found["two"]}
        kinds = ("cpu.allreduce", "cpu.allgather", "cpu.reducescatter", "cpu.alltoall")
        self.assertEqual(verdicts, {**dict.fromkeys(kinds, "pass"), "cpu.ladder": "skip"})

    def test_one_wrong_element_on_one_rank_is_found_in_every_collective(self) -> None:
        for kind in ("allreduce", "allgather", "reducescatter", "alltoall"):
            check = self.found["four"][kind]
            self.assertEqual(check["verdict"], "fail")
            self.assertIn("1 elements, on cpu:2", check["reason"])

    def test_a_comparison_that_sees_nothing_makes_the_run_void(self) -> None:
        blind = self.found["four"]["blind"]
        self.assertEqual(blind["verdict"], "fail")
        self.assertTrue(blind["reason"].startswith("canary: "))

    def test_the_code_for_gpus_runs_in_four_ranks(self) -> None:
        found = {check["name"]: check for check in self.found["simulated"]}
        self.assertEqual(
            list(found), ["allreduce", "allgather", "reducescatter", "alltoall", "ladder", "allreduce.blocks"]
        )
        self.assertEqual({found[kind]["verdict"] for kind in list(found)[:4]}, {"pass"})
        self.assertEqual(list(found["allreduce"]["data"]["smaller"]), ["16384"])
        self.assertTrue(1 << 16 <= found["alltoall"]["data"]["size_bytes"] <= 1 << 20)

    def test_no_rank_begins_when_one_has_no_memory(self) -> None:
        self.assertEqual({c["verdict"] for c in self.found["full"]}, {"unknown"})
        self.assertEqual(len(self.found["full"]), 5)

    def test_a_slow_rank_and_a_slow_link_are_named(self) -> None:
        self.assertIn("slow: rank 1 with every other", self.found["four"]["slow rank"]["reason"])
        self.assertIn("slow: the link between rank 2 and rank 3", self.found["four"]["slow link"]["reason"])
        self.assertEqual(self.found["four"]["slow link"]["verdict"], "warn")

    def test_a_pair_that_was_slow_once_is_not_accused(self) -> None:
        for name in ("slow once", "all alike"):
            self.assertEqual(self.found["four"][name]["verdict"], "pass", name)

    def test_blocks_of_two_and_four(self) -> None:
        self.assertEqual(sorted(self.found["four"]["blocks"]["data"]["blocks"]), ["0-1", "0-3", "2-3"])
        slow = self.found["four"]["slow block"]
        self.assertEqual(slow["verdict"], "warn")
        self.assertIn("within the devices 2-3 (4 GB/s)", slow["reason"])


class Seeds(unittest.TestCase):
    @pytest.mark.slow
    def test_no_healthy_product_of_a_thousand_seeds_is_accused(self) -> None:
        self.assertEqual(scenarios("1000", "2000"), [])


if __name__ == "__main__":
    unittest.main()
