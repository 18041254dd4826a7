"""Runs inside the environment that has torch: every measurement on the CPU, healthy and spoiled on purpose.

    python -m tests.proof.bench_scenarios
    python -m tests.proof.bench_scenarios FIRST LAST    (seeds of healthy products alone)

Prints one JSON object. Started by test_bench.py.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
import torch.distributed as dist

from gpuprov.proof.bench import bus, collectives, cpu, gemm, hbm, launch, peers, sensors, soak, together
from gpuprov.proof.bench import device as on
from gpuprov.proof.bench import pairs as by_pairs
from gpuprov.proof.parts import Context
from tests.support.ranks import ranks

if TYPE_CHECKING:
    from collections.abc import Iterator

BUDGET_S = 0.01


class Kept:
    """A report that keeps checks."""

    def __init__(self) -> None:
        self.checks: list[dict[str, Any]] = []

    def stage(self, text: str) -> None:
        pass

    text = stage

    def check(self, found: dict[str, Any]) -> None:
        self.checks.append(found)


def parts(context: Context) -> list[dict[str, Any]]:
    """Run every part of a single device as the engine does, after a training has left its modes behind."""
    report = Kept()
    torch.set_deterministic_debug_mode("error")
    for module in (gemm, hbm, launch, bus):
        for part in module.PARTS:
            part.run(context, report)
    report.checks.append({"name": "mode", "verdict": torch.get_deterministic_debug_mode()})
    torch.set_deterministic_debug_mode("default")
    return report.checks


def tile(number: int, c: Any) -> None:
    """One tile of the result is 2 % too large, in every sample."""
    c[64:80, 64:80] *= 1.02


def bit(number: int, c: Any) -> None:
    """The lowest bit of one element flips in one sample."""
    if number == 2:
        c.view(torch.int16)[17, 91] ^= 1


def bit_64(number: int, c: Any) -> None:
    if number == 3:
        c.view(torch.int32)[1, 1] ^= 1


def not_a_number(number: int, c: Any) -> None:
    c[:8] = float("nan")


def one_more(number: int, c: Any) -> None:
    c[100:108, 100:108] += 1


def spoiled(context: Context) -> dict[str, Any]:
    def product(dtype: str, tamper: gemm.Tamper) -> dict[str, Any]:
        return gemm.measure(context, dtype, BUDGET_S, tamper)

    def flip(words: Any) -> None:
        words[123456] ^= 1 << 40

    def alias(chunks: list[Any]) -> None:
        chunks[3][5000:5100] = chunks[2][5000:5100]

    def stuck(chunks: list[Any]) -> None:
        chunks[1][77] |= 1 << 63

    def bus_copy(direction: str, tamper: Any = None) -> dict[str, Any]:
        return bus.transfer(context, direction, BUDGET_S, size=1 << 20, tamper=tamper)

    def near_end(words: Any) -> None:
        words[-1] = 0

    return {
        "tile": product("bf16", tile),
        "bit": product("bf16", bit),
        "nan": product("fp32", not_a_number),
        "int8": product("int8", one_more),
        "copy": hbm.copy(context, BUDGET_S, flip),
        "alias": hbm.memory(context, BUDGET_S, alias),
        "stuck": hbm.memory(context, BUDGET_S, stuck),
        "d2h": bus_copy("d2h", near_end),
        "h2d": bus_copy("h2d", near_end),
        "healthy h2d": bus_copy("h2d"),
        "healthy d2h": bus_copy("d2h"),
        "soak": soak.soak(context, 0.05, n=64, tamper=bit_64),
        "cpu.gemm": cpu.product(context, 128, BUDGET_S, lambda c: c[:64].mul_(1.001)),
        "cpu.copy": cpu.copy(context, 1 << 20, BUDGET_S, flip),
        "launch": launch.latency(context, lambda number: number.sub_(1)),
    }


def pairs(reaches: Any, tamper: Any = None) -> list[dict[str, Any]]:
    """Run what copies between GPUs between three CPUs."""
    report = Kept()
    context = Context(device="cpu", devices=["cpu"] * 3)
    peers.measure(context, report, reaches, 1 << 18, tamper)
    return report.checks


def healthy(context: Context) -> dict[str, Any]:
    def warm() -> dict[str, Any]:
        return {"temperature": 70, "power": 650000, "throttle": 0x4, "clock.sm": 1755}

    return {
        "soak": soak.soak(context, 0.05, warm, n=64),
        "cpu.gemm": cpu.product(context, 128, BUDGET_S),
        "cpu.copy": cpu.copy(context, 1 << 20, BUDGET_S),
    }


def blind(context: Context) -> dict[str, Any]:
    """Take the eyes out of the two comparisons: the canaries must notice."""
    found = {}
    with mock.patch.object(on, "checksum", return_value="0" * 32):
        found["checksum"] = gemm.measure(context, "bf16", BUDGET_S)
    nothing = hbm.Bad()
    with mock.patch.object(hbm, "compare", return_value=nothing):
        found["copy"] = hbm.copy(context, BUDGET_S)
        found["memory"] = hbm.memory(context, BUDGET_S)
        found["h2d"] = bus.transfer(context, "h2d", BUDGET_S, size=1 << 20)
        found["p2p"] = pairs(lambda device, other: True)[0]
    with mock.patch.object(gemm, "error_bound", return_value=(float("inf"), 0.0, 0.0)):
        found["bound"] = gemm.measure(context, "fp16", BUDGET_S)
    with mock.patch.object(gemm, "uses_tf32", return_value=True):
        found["tf32"] = gemm.measure(context, "fp32", BUDGET_S)
    with mock.patch.object(on, "free_bytes", return_value=1 << 20):
        found["full gemm"] = gemm.measure(context, "bf16", BUDGET_S)
        found["full soak"] = soak.soak(context, BUDGET_S)
        found["full copy"] = hbm.copy(context, BUDGET_S)
        found["full memory"] = hbm.memory(context, BUDGET_S)
    return found


def healthy_seeds(seeds: range) -> list[str]:
    """Return what is not a pass for small products of many seeds in each format."""
    found = []
    with mock.patch.object(gemm, "CPU_SIZE", 64):
        for seed in seeds:
            context = Context(device="cpu", seed=seed)
            for dtype in ("fp64", "fp32", "bf16", "fp16", "fp8", "int8"):
                item = gemm.measure(context, dtype, 0.0)
                if item["verdict"] != "pass":
                    found.append(f"{seed} {dtype}: {item['reason']}")
    return found


def known() -> dict[str, Any]:
    """Return numbers that are the same on every device, made in one piece and in many."""
    sums = {form: on.checksum(on.noise(40, 24, form, "cpu", 7, 1)) for form in on.DTYPES}
    with mock.patch.object(on, "MIB", 1):
        pieces = {form: on.checksum(on.noise(40, 24, form, "cpu", 7, 1)) for form in on.DTYPES}
    wide = on.noise(64, 64, "bf16", "cpu", 7, 1).double().abs()
    words = [hbm.expected(64, pattern, 1 << 33, 7, "cpu") for pattern in hbm.PATTERNS]
    toggled = {int(word) & hbm.M64 for word in hbm.expected(64, "walking ones", 0, 7, "cpu")}
    swapped = on.noise(40, 24, "bf16", "cpu", 7, 1)
    swapped[[3, 9]] = swapped[[9, 3]]
    return {
        "sums": sums,
        "same in pieces": sums == pieces,
        "range": [float(wide.min()), float(wide.max())],
        "addresses": [int(words[0][0]), int(words[1][0])],
        "walked": sorted(toggled) == [1 << n for n in range(64)],
        "inverted": all(bool((a == ~b).all()) for a, b in zip(words[::2], words[1::2], strict=True)),
        "rows swapped": on.checksum(swapped) != sums["bf16"],
    }


def alone() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        context = Context("weekly", device="cpu", devices=["cpu"], scratch=folder)
        again = [gemm.measure(context, dtype, BUDGET_S)["data"] for dtype in ("bf16", "int8")]
        return {
            "parts": parts(context),
            "bits again": {data["bits_of"]: data["bits"] for data in again},
            "simulated": simulated(context),
            "low": low(context),
            "spoiled": spoiled(context),
            "blind": blind(context),
            "more": healthy(context),
            "pairs": pairs(lambda device, other: True),
            "wrong pairs": pairs(lambda device, other: True, lambda words: words[9].zero_()),
            "no pairs": pairs(lambda device, other: False),
            "healthy": healthy_seeds(range(300, 312)),
            "known": known(),
        }


class Event:
    """What measurements use of torch.cuda.Event, by the clock."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, last: Event) -> float:
        return max(1e-6, last.at - self.at) * 1e3


class Properties:
    name, major, minor, multi_processor_count, uuid = "NVIDIA H200", 9, 0, 132, "5c3a6e"


def sensed(self: Any, keys: Any) -> dict[str, Any]:
    values = {"power": 512000, "temperature": 64, "clock.sm": 1755, "throttle": 4}
    link = {"pcie.generation": 5, "pcie.generation_max": 5, "pcie.width": 16, "pcie.width_max": 16}
    return {key: value for key, value in {**values, **link}.items() if key in keys}


@contextlib.contextmanager
def as_if_gpu() -> Iterator[None]:
    """Let the code for GPUs run on the CPU: what torch.cuda would answer is simulated, sizes are small."""

    def started(self: Any, uuid: str) -> None:
        self.reason = "" if uuid == "GPU-5c3a6e" else f"no GPU {uuid}"

    cuda = {
        "Event": Event,
        "device": lambda device: contextlib.nullcontext(),
        "set_device": lambda device: None,
        "synchronize": lambda device: None,
        "empty_cache": lambda: None,
        "mem_get_info": lambda device: ((2 << 30) + (8 << 20), 80 << 30),
        "get_device_properties": lambda device: Properties,
        "get_device_capability": lambda device: (9, 0),
    }
    small = [(gemm, "SIZE", 64), (hbm, "COPIED", 1 << 20), (hbm, "CHUNK", 1 << 20), (hbm, "SPARED", 2 << 30)]
    small += [(bus, "SIZE", 1 << 20), (collectives, "PROBE", 1 << 16), (collectives, "SWEEP", (1 << 14,))]
    small += [(collectives, "LARGEST", 1 << 20), (collectives, "SMALLEST", 1 << 16), (by_pairs, "SIZE", 1 << 16)]
    with contextlib.ExitStack() as stack:
        for name, double in cuda.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, double))
        for module, name, value in small:
            stack.enter_context(mock.patch.object(module, name, value))
        stack.enter_context(mock.patch.object(on, "on_gpu", return_value=True))
        stack.enter_context(mock.patch.object(on, "uses", return_value=BUDGET_S))
        stack.enter_context(mock.patch.object(on, "pinned", lambda size: torch.zeros(size // 8, dtype=torch.int64)))
        stack.enter_context(mock.patch.object(gemm, "uses_tf32", as_torch_was_told))
        stack.enter_context(mock.patch.object(sensors.Sensors, "__init__", started))
        stack.enter_context(mock.patch.object(sensors.Sensors, "read", sensed))
        yield


def as_torch_was_told(device: str) -> bool:
    return torch.get_float32_matmul_precision() == "high"


def low(context: Context) -> list[dict[str, Any]]:
    """The host has next to no memory left to pin."""
    report = Kept()
    with as_if_gpu(), mock.patch.object(bus, "available_bytes", return_value=1 << 20):
        bus.PARTS[0].run(context, report)
    with as_if_gpu(), mock.patch.object(on, "free_bytes", return_value=1 << 20):
        bus.PARTS[1].run(context, report)
    return report.checks


def simulated(context: Context) -> list[dict[str, Any]]:
    report = Kept()
    with as_if_gpu():
        for module in (gemm, hbm, launch, bus, soak):
            for part in module.PARTS:
                part.run(context, report)
    return report.checks


def simulated_group(context: Context) -> list[dict[str, Any]]:
    report = Kept()
    gloo = dist.init_process_group

    def joined(backend: str, device_id: Any, **words: Any) -> None:
        assert (backend, device_id) == ("nccl", torch.device("cpu"))
        gloo("gloo", **words)

    with as_if_gpu(), mock.patch.object(dist, "init_process_group", joined):
        for part in collectives.PARTS:
            part.run(context, report)
    return report.checks


def full(context: Context) -> Any:
    """One of two ranks has no memory left."""
    report = Kept()
    with mock.patch.object(on, "free_bytes", return_value=1 << 20 if context.rank else 1 << 40):
        for part in collectives.PARTS:
            part.run(context, report)
    return report.checks


def as_the_engine_does(context: Context) -> Any:
    report = Kept()
    for part in collectives.PARTS:
        part.run(context, report)
    assert not context.rank or not report.checks
    return report.checks


def faults_of_four(context: Context) -> Any:
    def at_rank_2(kind: str, received: Any) -> None:
        if context.rank == 2:
            received[1000] += 1.0

    def slow_rank(seconds: float) -> float:
        return 2.0 if context.rank == 1 else 1.0

    rounds = iter(range(99))

    def slow_link(seconds: float) -> float:
        return 2.0 if next(rounds) in (0, 2) and context.rank in (2, 3) else 1.0

    def only_once(seconds: float) -> float:
        return 2.0 if next(once) == 0 and context.rank in (2, 3) else 1.0

    once = iter(range(99))
    size = 1 << 16
    with together.joined(context):
        with mock.patch.object(together, "wrong", return_value=0):
            blind = collectives.measure(context, "alltoall", BUDGET_S)
        found = {kind: collectives.measure(context, kind, BUDGET_S, tamper=at_rank_2) for kind in collectives.KINDS}
        found["blind"] = blind
        found["slow rank"] = by_pairs.by_rounds(context, size, slow_rank)
        found["slow link"] = by_pairs.by_rounds(context, size, slow_link)
        found["slow once"] = by_pairs.by_rounds(context, size, only_once)
        found["all alike"] = by_pairs.by_rounds(context, size, lambda seconds: 1.0)
        found["blocks"] = by_pairs.by_blocks(context, size)
        slow = {(0, 1): 9.0, (2, 3): 4.0}
        found["slow block"] = by_pairs.judged_blocks("allreduce.blocks", [slow, {(0, 3): 4.0}])
    return found


def in_ranks() -> dict[str, Any]:
    work = {"two": (2, as_the_engine_does), "four": (4, faults_of_four), "full": (2, full)}
    work["simulated"] = (4, simulated_group)
    return {name: ranks(count, task) for name, (count, task) in work.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:]:
        print(json.dumps(healthy_seeds(range(*map(int, sys.argv[1:])))))
        sys.exit(0)
    # Ranks are forked first, while this process has done nothing yet that a fork does not carry over.
    print(json.dumps({"together": in_ranks(), "alone": alone()}))
