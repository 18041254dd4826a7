"""Formulae of the measurements, without torch."""

from __future__ import annotations

import json
import math
import random
import sys
import tempfile
import types
import unittest
from pathlib import Path
from unittest import mock

from gpuprov.proof.bench import bus, collectives, gemm, numbers, peers, sensors, soak
from gpuprov.proof.parts import TIERS, Context, Part


class Bounds(unittest.TestCase):
    def test_half_precision_is_bounded_by_what_is_written(self) -> None:
        for dtype, written in (("bf16", 2.0**-8), ("fp16", 2.0**-11)):
            by_root, by_size, _ = numbers.error_bound(dtype, 8192)
            self.assertEqual(by_size, written)
            self.assertAlmostEqual(by_root, 8192 * 8 * 2.0**-23)

    def test_integers_are_exact(self) -> None:
        self.assertEqual(numbers.error_bound("int8", 8192), (0.0, 0.0, 0.0))

    def test_every_bound_means_something(self) -> None:
        # An element is about one root in size: a bound of one root would let everything pass.
        for dtype in gemm.DTYPES:
            by_root, by_size, _ = numbers.error_bound(dtype, 8192)
            self.assertLess(by_root + by_size, 0.2, dtype)

    def test_no_partial_sum_of_random_signs_gets_as_far_as_the_bound_assumes(self) -> None:
        chance = random.Random(5)
        for _ in range(50):
            products = [chance.choice((-1, 1)) * 2.0 ** chance.randint(-28, 2) for _ in range(4096)]
            root, total, farthest = math.sqrt(sum(p * p for p in products)), 0.0, 0.0
            for product in products:
                total += product
                farthest = max(farthest, abs(total))
            self.assertLess(farthest, numbers.LAMBDA * root)


class TensorCores(unittest.TestCase):
    """Emulated: products and sum are cut off below the largest exponent of a group, and the sum is kept that way."""

    def test_units_that_cut_off_are_not_accused(self) -> None:
        chance = random.Random(1)
        # Mantissa, binades and lowest exponent of the data; how many products at a time; bits kept.
        for dtype, form, group, kept in (
            ("fp8", (3, 8, -6), 32, 13),
            ("bf16", (7, 16, -14), 16, 23),
            ("fp16", (10, 16, -14), 4, 23),
        ):
            by_root = numbers.error_bound(dtype, 8192)[0]
            for _ in range(5):
                products = [self.number(chance, *form) * self.number(chance, *form) for _ in range(8192)]
                root = math.sqrt(math.fsum(product * product for product in products))
                error = abs(self.summed(products, group, kept) - math.fsum(products))
                self.assertLess(error, 0.2 * by_root * root, dtype)

    def number(self, chance: random.Random, mantissa: int, binades: int, lowest: int) -> float:
        fraction = 1.0 + chance.randrange(1 << mantissa) / (1 << mantissa)
        return chance.choice((-1, 1)) * fraction * 2.0 ** (lowest + chance.randrange(binades))

    def summed(self, products: list, group: int, kept: int) -> float:
        total = 0.0
        for start in range(0, len(products), group):
            terms = [total, *products[start : start + group]]
            step = 2.0 ** (max(math.frexp(term)[1] for term in terms) - 1 - kept)
            total = sum(math.trunc(term / step) for term in terms) * step
        return total


class Bus(unittest.TestCase):
    def test_factors_of_nccl_tests(self) -> None:
        second_of_gib = {kind: numbers.bus_gb_s(kind, 8, 10**9, 1.0) for kind in collectives.KINDS}
        self.assertEqual(
            second_of_gib, {"allreduce": 1.75, "allgather": 0.875, "reducescatter": 0.875, "alltoall": 0.875}
        )

    def test_two_ranks_send_each_byte_once(self) -> None:
        self.assertEqual(numbers.bus_gb_s("allreduce", 2, 4 * 10**9, 2.0), 2.0)

    def test_the_size_of_a_collective_fits_memory_and_time_and_is_a_power_of_two(self) -> None:
        gib = 1 << 30
        self.assertEqual(collectives.fitting(70 * gib, 0.0003, 1.0), 4 * gib)
        self.assertEqual(collectives.fitting(3 * gib, 0.0003, 1.0), gib)
        self.assertEqual(collectives.fitting(70 * gib, 0.012, 1.0), gib // 2)  # PCIe: 64 MiB in 12 ms
        self.assertEqual(collectives.fitting(0, 9.0, 1.0), collectives.SMALLEST)


class Repeats(unittest.TestCase):
    def test_at_least_five_samples_whatever_the_budget(self) -> None:
        self.assertEqual(numbers.repeats(10.0, 1.0), (1, 5))

    def test_the_budget_is_used_and_not_exceeded(self) -> None:
        for call_s in (1e-6, 1e-4, 1.5e-3, 0.02, 0.1):
            calls, samples = numbers.repeats(call_s, 1.0)
            self.assertTrue(5 <= samples <= 32)
            self.assertLessEqual(calls * samples * call_s, 1.05)
            self.assertGreaterEqual(calls * samples * call_s, 0.5)

    def test_a_sample_is_not_shorter_than_a_clock_can_tell(self) -> None:
        calls, _ = numbers.repeats(1e-5, 1.0)
        self.assertGreaterEqual(calls * 1e-5, 0.02)


class Series(unittest.TestCase):
    def test_decline_from_the_first_to_the_last_third(self) -> None:
        self.assertAlmostEqual(numbers.thirds([10.0] * 10 + [9.5] * 10 + [9.0] * 10), 0.9)
        self.assertTrue(math.isnan(numbers.thirds([1.0, 1.0])))

    def test_a_dip_in_the_middle_shows_in_the_moving_average_alone(self) -> None:
        series = [10.0] * 20 + [5.0] * 5 + [10.0] * 20
        self.assertAlmostEqual(numbers.thirds(series), 1.0)
        self.assertLess(numbers.lowest_moving_average(series), 0.6)
        self.assertTrue(math.isnan(numbers.lowest_moving_average([1.0])))

    def test_ranges(self) -> None:
        self.assertEqual(numbers.ranges([1, 2, 3, 9, 11], gap=2), [(1, 3), (9, 11)])
        self.assertEqual(numbers.ranges([]), [])

    def test_cpu_lists_of_the_kernel(self) -> None:
        self.assertEqual(numbers.cpus("0-2,8,10-11\n"), {0, 1, 2, 8, 10, 11})
        self.assertEqual(numbers.cpus("\n"), set())


class Formats(unittest.TestCase):
    def test_what_a_gpu_lacks_is_named(self) -> None:
        self.assertEqual(gemm.lacks("fp8", (8, 0)), "fp8 needs compute capability 8.9, this GPU has 8.0")
        self.assertEqual(gemm.lacks("fp8", (8, 9)), "")
        self.assertEqual(gemm.lacks("bf16", (7, 5)), "bf16 needs compute capability 8.0, this GPU has 7.5")
        self.assertEqual([d for d in gemm.DTYPES if gemm.lacks(d, (9, 0))], [])
        self.assertEqual([d for d in gemm.DTYPES if gemm.lacks(d, None)], ["tf32"])

    def test_the_size_depends_on_the_model_alone(self) -> None:
        self.assertEqual(gemm.size("bf16", (9, 0)), 8192)
        self.assertEqual([gemm.size("fp64", c) for c in ((9, 0), (8, 9), (10, 3))], [8192, 2048, 2048])


class Links(unittest.TestCase):
    def test_pcie_under_load(self) -> None:
        full = {"generation": 5, "generation_max": 5, "width": 16, "width_max": 16}
        rest = dict(full, generation=1)
        good = bus.judged_link("pcie.under-load", "cuda:0", [rest, full, rest], {})
        self.assertEqual((good["verdict"], good["measured"]), ("pass", "generation 5 x16"))
        bad = bus.judged_link("pcie.under-load", "cuda:0", [dict(full, width=8)] * 3, {})
        self.assertEqual((bad["verdict"], bad["action"]), ("fail", "isolate"))
        self.assertIn("generation 5 x8 of generation 5 x16", bad["reason"])
        self.assertEqual(bus.judged_link("pcie.under-load", "cuda:0", [{}], {})["verdict"], "skip")

    def pairs(self, count: int, speed: float, **slow: float) -> dict:
        return {
            (a, b): slow.get(f"s{min(a, b)}{max(a, b)}", slow.get(f"d{a}", slow.get(f"d{b}", speed)))
            for a in range(count)
            for b in range(count)
            if a != b
        }

    def test_a_slow_link_and_a_slow_gpu_are_named(self) -> None:
        link = peers.links(self.pairs(8, 390.0, s25=200.0), 8)
        self.assertEqual((link["verdict"], link["action"]), ("warn", "monitor"))
        self.assertIn("the link between GPU 2 and GPU 5 (200 GB/s", link["reason"])
        one = peers.links(self.pairs(8, 390.0, d3=150.0), 8)
        self.assertIn("slow: GPU 3 with every other", one["reason"])
        self.assertEqual(peers.links(self.pairs(8, 390.0), 8)["verdict"], "pass")

    def test_other_wiring_is_no_fault(self) -> None:
        bridges = self.pairs(4, 90.0, s01=270.0, s23=270.0)
        self.assertEqual(peers.links(bridges, 4)["verdict"], "skip")
        self.assertEqual(peers.links(self.pairs(8, 25.0, s25=12.0), 8)["verdict"], "skip")
        self.assertEqual(peers.links(self.pairs(2, 390.0), 2)["verdict"], "skip")

    def test_a_gpu_that_reaches_no_other_is_no_pass(self) -> None:
        found = peers.judged("cuda:0", ["cuda:0", "cuda:1"], {}, [])
        self.assertEqual(found["verdict"], "skip")

    def test_bytes_that_change_between_gpus_are_a_fail(self) -> None:
        found = peers.judged("cuda:0", ["cuda:0", "cuda:1"], {1: [390.0] * 5}, ["to cuda:1: 3 words"])
        self.assertEqual((found["verdict"], found["action"], found["measured"]), ("fail", "isolate", 390.0))


class Near(unittest.TestCase):
    def test_memory_that_the_host_has_left(self) -> None:
        with tempfile.TemporaryDirectory() as root:
            self.assertEqual(bus.available_bytes(Context(root=root)), 0)  # not known is not enough
            Path(root, "proc").mkdir()
            Path(root, "proc/meminfo").write_text("MemTotal: 99 kB\nMemAvailable:    2048 kB\n")
            self.assertEqual(bus.available_bytes(Context(root=root)), 2 << 20)

    def test_the_gpus_own_cpus_by_what_driver_and_kernel_say(self) -> None:
        with tempfile.TemporaryDirectory() as root:
            gpus = Path(root, "proc/driver/nvidia/gpus")
            for address, uuid in (("0000:1b:00.0", "GPU-1"), ("0000:CA:00.0", "GPU-2")):
                (gpus / address).mkdir(parents=True)
                (gpus / address / "information").write_text(f"Model: \t H200\nGPU UUID: \t {uuid}\nBus Type: PCIe\n")
            device = Path(root, "sys/bus/pci/devices/0000:ca:00.0")
            device.mkdir(parents=True)
            (device / "local_cpulist").write_text("48-95,144-191\n")
            context = Context(root=root)
            self.assertEqual(bus.pci_address("GPU-1", context), "0000:1b:00.0")
            self.assertEqual(bus.local_cpus("GPU-2", context), {*range(48, 96), *range(144, 192)})
            self.assertEqual(bus.local_cpus("GPU-1", context), set())  # the kernel does not say
            self.assertEqual(bus.local_cpus("GPU-3", context), set())


class Soaked(unittest.TestCase):
    def judged(self, rates: list, readings: list, sums: list | None = None) -> dict:
        return soak.judged("soak", "cuda:0", rates, readings, sums or ["a"] * len(rates), {})

    def test_a_speed_that_holds(self) -> None:
        found = self.judged([600.0] * 30, [{"temperature": 70, "power": 690000, "throttle": 0x4}] * 30)
        self.assertEqual(found["verdict"], "pass")
        self.assertIn("same bits, up to 70 C", found["reason"])
        self.assertIn("no temperature was read", self.judged([600.0] * 30, [{}] * 30)["reason"])

    def test_a_decline_with_heat_names_the_heat(self) -> None:
        rates = [600.0 - 3.0 * i for i in range(30)]
        found = self.judged(rates, [{"temperature": 60 + i} for i in range(30)])
        self.assertEqual((found["verdict"], found["action"]), ("warn", "monitor"))
        self.assertIn("while it got 20 C warmer, up to 89 C", found["reason"])
        cool = self.judged(rates, [{"temperature": 60}] * 30)
        self.assertIn("from the first to the last third", cool["reason"])
        self.assertNotIn("warmer", cool["reason"])

    def test_one_sample_of_a_power_brake_is_enough(self) -> None:
        readings = [{"throttle": 0x4}] * 20 + [{"throttle": 0x84}] + [{"throttle": 0x4}] * 9
        found = self.judged([600.0] * 30, readings)
        self.assertEqual((found["verdict"], found["action"]), ("fail", "isolate"))
        self.assertIn("hardware power brake", found["reason"])
        self.assertEqual(self.judged([600.0] * 30, [{"throttle": 0x20}] * 30)["verdict"], "warn")

    def test_a_dip_in_the_middle(self) -> None:
        found = self.judged([600.0] * 12 + [450.0] * 6 + [600.0] * 12, [{}] * 30)
        self.assertIn("speed dipped to 79 %", found["reason"])

    def test_other_bits_are_worse_than_heat(self) -> None:
        found = self.judged([600.0] * 30, [{"throttle": 0x40}] * 30, ["a"] * 29 + ["b"])
        self.assertIn("other bits 1 of 30 times", found["reason"])

    def test_the_curve_of_an_hour_fits_a_line(self) -> None:
        readings = [{"temperature": 71, "power": 693211, "throttle": 0x4}] * 120
        self.assertLess(len(json.dumps(self.judged([612.345678] * 120, readings))), 4000)

    def test_the_format_that_draws_most(self) -> None:
        self.assertEqual([soak.usual(c) for c in ((9, 0), (7, 5), (6, 1), None)], ["bf16", "fp16", "fp32", "fp32"])


class NVMLError(Exception):
    pass


class Nvml(types.ModuleType):
    """What Sensors uses of pynvml: a simulated GPU that has no power reading."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_SM = 1

    def nvmlInit(self) -> None:  # noqa: N802 - pynvml's names
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid != "GPU-1":
            raise NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:  # noqa: N802
        return 66

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        raise NVMLError("Not Supported")

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        return 1755


class Read(unittest.TestCase):
    def test_what_nvml_has_is_read_and_the_rest_is_absent(self) -> None:
        with mock.patch.dict(sys.modules, pynvml=Nvml("pynvml")):
            values = sensors.Sensors("GPU-1").read(sensors.LOAD)
            self.assertEqual(values, {"temperature": 66, "clock.sm": 1755})
            other = sensors.Sensors("GPU-2")
        self.assertIn("NVML does not answer for GPU-2", other.reason)
        self.assertEqual(other.read(sensors.LOAD), {})

    def test_without_nvidia_ml_py(self) -> None:
        with mock.patch.dict(sys.modules, pynvml=None):
            self.assertIn("nvidia-ml-py is not installed", sensors.Sensors("GPU-1").reason)

    def test_means_beside_the_samples(self) -> None:
        readings = [{"power": 600000, "clock.sm": 1700}, {"power": 700000}]
        self.assertEqual(gemm.load_means(readings), {"power_w": 650.0, "mhz": 1700.0})


class Parts(unittest.TestCase):
    def test_every_module_has_parts_that_say_what_they_load(self) -> None:
        from gpuprov.proof.bench import hbm, launch

        found: list[Part] = [p for m in (gemm, hbm, launch, bus, soak, peers, collectives) for p in m.PARTS]
        self.assertEqual(len({part.name for part in found}), len(found))
        for part in found:
            self.assertIn(part.where, ("device", "group"))
            self.assertIn(part.tier, TIERS)
            self.assertTrue(part.loads and part.reads, part.name)


if __name__ == "__main__":
    unittest.main()
