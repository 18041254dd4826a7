#!/usr/bin/env python3
"""Measure how long the resolver takes for a fleet: from facts to stacks or refusals, on one core.

    resolver.py [--hosts 10000]

Two fleets: one with 1,000 kinds of hosts, as fleets are (hosts that are alike are resolved once), and one in which
no two hosts are alike. Their facts and wishes are drawn, with a fixed seed, from GPUs, systems, drivers and wishes that
fit or do not fit.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from typing import Any

from gpuprov.cli.stacks import Chooser
from gpuprov.stack import Refusal

DEVICES = ("2330", "20b2", "1eb8", "1db4", "26b9", "27b8", "2901", "2b85", "2bb5", "2684", "3182", "ffff")
SYSTEMS = (
    ("Ubuntu", "22.04", "2.35", "12.3.0", "3.10.12"),
    ("Ubuntu", "24.04", "2.39", "13.3.0", "3.12.3"),
    ("Ubuntu", "26.04", "2.43", "15.2.0", "3.14.0"),
    ("Debian", "12", "2.36", "12.2.0", "3.11.2"),
    ("Debian", "13", "2.41", "14.2.0", "3.13.5"),
    ("Rocky", "8.10", "2.28", "8.5.0", "3.6.8"),
    ("RedHat", "9.6", "2.34", "11.5.0", "3.9.21"),
    ("SLES", "15.7", "2.38", "7.5.0", "3.11.9"),
)
DRIVERS = (None, None, "535.183.01", "570.211.01", "580.95.05", "580.178.04", "595.91.07")
WANTS: tuple[dict[str, str], ...] = (
    {},
    {"driver": "auto"},
    {"torch": "latest"},
    {"torch": "2.9", "cuda": "12.8", "cudnn": "auto", "nccl": "auto"},
    {"driver": "580", "cuda": "auto", "dcgm": "auto", "container_toolkit": "auto"},
    {"torch_variant": "cu126", "python": "3.12"},
    {"driver": "none", "torch": "none"},
    {"driver": "615", "flavour": "proprietary"},
)


def facts(draw: random.Random, kernel: str) -> dict[str, Any]:
    """Return the facts of a host, drawn."""
    name, version, glibc, gcc, python = draw.choice(SYSTEMS)
    device, count = draw.choice(DEVICES), draw.choice((1, 2, 4, 8))
    gpus = [{"address": f"0000:{n:02x}:00.0", "device": device, "class": "0302"} for n in range(count)]
    driver = draw.choice(DRIVERS)
    survey: dict[str, Any] = {
        "arch": "x86_64",
        "kernel": {"running": kernel, "next": kernel},
        "gcc": {"version": gcc},
        "glibc": glibc,
        "secure_boot": draw.random() < 0.1,
        "mok_enrolled": draw.random() < 0.5,
        "nvswitches": ["0000:86:00.0"] * 4 if device in ("2330", "20b2") and count == 8 else [],
        "nvlink5_bridges": ["0000:05:00.0"] if device in ("2901", "3182") and count == 8 else [],
        "pythons": [{"path": f"/usr/bin/python{python.rpartition('.')[0]}", "version": python}],
        "driver": {"installed_by": "package", "version": driver, "repository_origin": "nvidia"} if driver else {},
        "virtualization": {"kind": None, "container": None, "wsl": False},
    }
    return {"distribution": name, "distribution_version": version, "gpuprov": {"gpus": gpus, "survey": survey}}


def fleet(count: int, kinds: int) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """Return *count* hosts of *kinds* kinds: facts and wish."""
    draw = random.Random(20261123)
    known = [(facts(draw, f"6.8.0-{n}-generic"), draw.choice(WANTS)) for n in range(kinds)]
    return [known[n % kinds] for n in range(count)]


def measure(title: str, hosts: list[tuple[dict[str, Any], dict[str, str]]]) -> None:
    """Resolve and say how it went."""
    chooser = Chooser()
    began = time.perf_counter()
    answers = [chooser.answer(f"host{n}", want, found) for n, (found, want) in enumerate(hosts)]
    took = time.perf_counter() - began
    refused = Counter(answer.rule for answer in answers if isinstance(answer, Refusal))
    without = sum(isinstance(answer, Refusal) and not answer.alternatives for answer in answers)
    print(f"{title}: {took:.2f} s, {len(hosts) / took:,.0f} hosts/s")
    print(f"  {sum(refused.values())} refused by {len(refused)} rules, {without} of them without an alternative")


def main() -> None:
    """Read the tables, then resolve both fleets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=10_000, metavar="N")
    options = parser.parse_args()
    began = time.perf_counter()
    Chooser().tables("")
    print(f"tables read: {time.perf_counter() - began:.2f} s")
    measure(f"{options.hosts} hosts of 1,000 kinds", fleet(options.hosts, 1_000))
    measure(f"{options.hosts} hosts, no two alike", fleet(options.hosts, options.hosts))


if __name__ == "__main__":
    main()
