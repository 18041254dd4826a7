"""Rates of detection and of false alarms on made-up fleets: a small part of benchmarks/judge.py, with bounds."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "judge.py"


@pytest.fixture(scope="module")
def bench() -> Any:
    spec = importlib.util.spec_from_file_location("bench_judge", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("fault", "least"),
    [
        ("none", 0.0),
        ("one GPU 10 % slow", 1.0),
        ("one GPU 10 % slow, new", 0.8),
        ("one host 10 % slow, new", 0.7),
        ("one host 20 % slow, new", 1.0),
        ("all at half the peak", 0.95),
        ("a GPU loses 0.25% a night", 0.8),
        ("other bits", 1.0),
    ],
)
def test_what_is_bad_is_found_and_what_is_well_is_not_blamed(bench: Any, fault: str, least: float) -> None:
    (one,) = (one for one in bench.FAULTS if one.name == fault)
    rates = bench.rates(4, one, range(1 if one.drift else 3))
    assert rates.found["fails"] >= least * rates.bad
    assert rates.accused["fails"] == 0
    assert rates.accused["first strike"] == 0
    assert rates.accused["warns"] <= 0.02 * rates.good


def test_a_slow_drift_is_no_surprise_to_the_newest_values_but_to_the_first(bench: Any) -> None:
    newest = [720.0 * (1 - 0.0025 * night) for night in range(30, 20, -1)]
    one = bench.compare.Measured("h", "cuda:0", "u", "gemm.bf16", "", ("m",), 663.0, 660.0, (663.0,))
    assert bench.compare.by_past(one, newest).verdict == "pass"
    assert bench.compare.by_past(one, newest, [720.0] * 10).verdict == "fail"
