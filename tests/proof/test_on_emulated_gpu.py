"""Every part of the proof on EMULATED GPUs: what is written for CUDA alone runs, on two kinds of them.

Nothing here says anything about a GPU: numbers are the CPU's (tests/support/emulated_cuda.py has what is emulated).
"""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gpuprov.proof import registry
from gpuprov.proof.bench.gemm import DTYPES
from tests.support.torch_env import torch_python

ROOT = Path(__file__).parents[2]
HOPPER, VOLTA = "9.0", "7.0"
GROUP = tuple(part.name for part in registry.parts() if part.where == "group")
#: torch.compile has no backend for what only pretends to be a GPU.
DEVICE = tuple(part.name for part in registry.parts() if part.where == "device" and part.name != "compile")
#: What does something else where there is no bfloat16.
WITHOUT_HALF = (*(f"gemm.{one}" for one in DTYPES), "soak", "gpt", "gpt.deterministic", "finetune.full")


def scenario(*words: str) -> Any:
    argv = [torch_python(), "-B", "-W", "ignore", "-m", "tests.proof.emulated_scenarios", *words]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def bad(found: dict[str, Any]) -> dict[str, str]:
    """Return what is neither passed nor skipped; a soak may say that a busy CPU lost speed."""
    fine = {name: ("pass", "skip", "warn") if name == "soak" else ("pass", "skip") for name in found}
    return {name: check["reason"] for name, check in found.items() if check["verdict"] not in fine[name]}


@functools.cache
def checks(capability: str) -> dict[str, dict[str, Any]]:
    """Return part -> its checks; parts of groups first: ranks are forked before torch has threads."""
    return scenario(capability, *((*GROUP, *DEVICE) if capability == HOPPER else WITHOUT_HALF))


def of_gpu(capability: str) -> dict[str, Any]:
    return {name: check for part in checks(capability).values() for name, check in part.items()}


@pytest.mark.parametrize("part", [*GROUP, *DEVICE])
def test_a_healthy_gpu_passes(part: str) -> None:
    found = checks(HOPPER)[part]
    assert found
    assert not bad(found)
    skipped = {name for name, check in found.items() if check["verdict"] == "skip"}
    assert skipped <= {"p2p.links", "ladder", "pcie.under-load"}  # two GPUs are one pair, and there is no NVML


def test_what_is_measured_on_a_gpu_is_called_and_identified_as_one() -> None:
    found = of_gpu(HOPPER)
    assert not [name for name in found if name.startswith("cpu.")]
    own = [check for check in found.values() if check["device"] == "cuda:1" and check["data"].get("kind")]
    assert len(own) >= 15
    assert {check["data"].get("uuid") for check in own} == {"GPU-00000000-0000-0000-0000-000000000001"}


def test_bits_are_compared_among_gpus_of_one_model_and_number_format() -> None:
    bits = {name: check["data"]["bits_of"] for name, check in of_gpu(HOPPER).items() if "bits_of" in check["data"]}
    assert {"gemm.fp8", "soak", "gpt.deterministic", "finetune.lora.deterministic"} <= set(bits)
    assert all("EMULATED GPU, compute capability 9.0" in of for of in bits.values())
    assert "bfloat16" in bits["finetune.full.deterministic"]
    assert "float32" in of_gpu(VOLTA)["finetune.full.deterministic"]["data"]["bits_of"]


def test_a_gpu_without_bfloat16_trains_in_float32_and_skips_what_it_lacks() -> None:
    found = of_gpu(VOLTA)
    skipped = {name for name, check in found.items() if check["verdict"] == "skip"}
    assert skipped == {"gemm.tf32", "gemm.bf16", "gemm.fp8", "gemm.int8"}
    assert not bad(found)
    assert "float32" in found["gpt.attention"]["reason"]
    assert "bfloat16" in of_gpu(HOPPER)["gpt.attention"]["reason"]


def test_the_emulation_forgives_no_more_than_a_gpu() -> None:
    found = scenario("planted")
    assert "Expected all tensors to be on the same device" in found["gemm.fp32"]
    assert "record_stream: not a tensor of a CUDA device" in found["gpt"]
    assert "has no attribute 'synchronise'" in found["launch"]
    assert "invalid device ordinal" in found["d2h"]
