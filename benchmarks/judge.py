"""How often the judge finds a bad GPU in made-up fleets, and how often it blames a good one; beside it, three peers.

    python benchmarks/judge.py                       # the table of docs/judge.md; some minutes
    python benchmarks/judge.py --hosts 4,32 --markdown FILE

GPUs part by 1.2 % (standard deviation), samples of one GPU by 0.4 %, nights by 0.2 %: what healthy fleets show. Each
fleet has 8 GPUs a host, 20 samples of three measurements; a fault slows gemm.bf16. The peers see the second night.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpuprov.judge import compare
from gpuprov.judge import run as judge
from gpuprov.judge.specs import load
from gpuprov.report.proof import host_verdict
from gpuprov.results import Check, HostReport, TaskResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BETWEEN_GPUS, NIGHTLY, NOISE = 0.012, 0.002, 0.004
GPUS, SAMPLES = 8, 20
#: What a healthy H100 does; the floor of gemm.bf16 is 544.
METRICS = {"gemm.bf16": 720.0, "hbm.copy": 3000.0, "d2h": 55.0}
BAD = "gemm.bf16"
SEEDS = {4: 10, 32: 2, 256: 1, 1000: 1}
#: How many nights a slow drift goes on, and how much of its speed the GPU loses in each.
DRIFT_NIGHTS, DRIFT = 40, 0.0025
#: Centroids are sought among so many GPUs: the criterion compares all pairs.
CENTROIDS = 24
Gpu = tuple[str, int]


@dataclass(frozen=True)
class Fault:
    """part: what a bad GPU still does; whole: "gpu", "host" or "fleet" is bad; past: nights before were healthy."""

    name: str
    part: float = 1.0
    whole: str = "gpu"
    past: bool = True
    bits: bool = False
    drift: bool = False


FAULTS = (
    Fault("none"),
    *(Fault(f"one GPU {100 - part:.0f} % slow", part / 100) for part in (95, 90, 80, 70)),
    *(Fault(f"one GPU {100 - part:.0f} % slow, new", part / 100, past=False) for part in (95, 90, 80, 70)),
    *(Fault(f"one host {100 - part:.0f} % slow, new", part / 100, "host", past=False) for part in (90, 80)),
    Fault("one host 10 % slow", 0.9, "host"),
    Fault("all at half the peak", 0.68, "fleet", past=False),
    Fault(f"a GPU loses {DRIFT:.2%} a night", drift=True),
    Fault("other bits", bits=True),
)


@dataclass
class Fleet:
    """Made-up hosts, some of which are bad: one in 32, one at least."""

    hosts: int
    fault: Fault
    seed: int
    bad: set[Gpu] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.draw = random.Random(f"{self.seed} {self.hosts} {self.fault.name}")
        gpus = [(f"gpu{host:04}", device) for host in range(self.hosts) for device in range(GPUS)]
        self.own = {(gpu, metric): self.draw.gauss(1, BETWEEN_GPUS) for gpu in gpus for metric in METRICS}
        where = set(self.draw.sample(range(self.hosts), max(1, self.hosts // 32)))
        at_fault = self.fault.part < 1 or self.fault.bits or self.fault.drift
        for host, device in gpus if at_fault else ():
            hit = int(host[3:]) in where and (self.fault.whole == "host" or device == int(host[3:]) % GPUS)
            if hit or self.fault.whole == "fleet":
                self.bad.add((host, device))

    def night(self, part: float) -> list[HostReport]:
        """Return what a run over the fleet measures, with the bad GPUs at *part* of their speed."""
        return [self._host(f"gpu{number:04}", part) for number in range(self.hosts)]

    def _host(self, host: str, part: float) -> HostReport:
        devices = [{"index": d, "name": "NVIDIA H100 80GB HBM3", "uuid": f"GPU-{host}-{d}"} for d in range(GPUS)]
        versions = {"torch": "2.13.0", "cuda": "13.0", "driver": "580", "cudnn": "9", "devices": devices}
        checks = [self._check((host, d), metric, part) for d in range(GPUS) for metric in METRICS]
        if self.fault.bits:
            digests = {d: "other" if (host, d) in self.bad else "same" for d in range(GPUS)}
            checks += [
                Check("bits", "pass", device=f"cuda:{d}", data={"bits": digests[d], "bits_of": "x"}) for d in digests
            ]
        task = TaskResult("t1", "Proof", "gpuprov_proof", "ok", result={"versions": versions})
        return HostReport(host, "ok", checks=tuple(checks), verdict="pass", tasks=(task,))

    def _check(self, gpu: Gpu, metric: str, part: float) -> Check:
        level = METRICS[metric] * self.own[gpu, metric] * self.draw.gauss(1, NIGHTLY)
        level *= part if gpu in self.bad and metric == BAD else 1.0
        samples = sorted(level * self.draw.gauss(1, NOISE) for _ in range(SAMPLES))
        data = {"kind": "measurement", "better": "higher", "p10": samples[(SAMPLES - 1) // 10], "samples": samples}
        return Check(metric, "pass", measured=statistics.median(samples), device=f"cuda:{gpu[1]}", data=data)


class Memory:
    """What the history gives: the newest and the oldest good values, and the strikes of the night before."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.strikes: frozenset[judge.Key] = frozenset()

    def judged(self, reports: Sequence[HostReport]) -> judge.Judged:
        """Judge a night, and remember it."""
        found = judge.judge(reports, load(), judge.Known(self._past, self._first, self.strikes), host_verdict)
        self.strikes = found.bad
        for one in found.good:
            self._values[one.uuid, one.metric].append(one.median)
        return found

    def healthy(self, fleet: Fleet, nights: int) -> None:
        """Remember nights in which nothing was bad, without judging them."""
        for (host, device), metric in fleet.own:
            middle = METRICS[metric] * fleet.own[(host, device), metric]
            values = [middle * fleet.draw.gauss(1, NIGHTLY) for _ in range(nights)]
            self._values[f"GPU-{host}-{device}", metric] = values

    def _past(self, uuid: str, metric: str, _: str) -> Sequence[float]:
        return self._values[uuid, metric][-10:]

    def _first(self, uuid: str, metric: str, _: str) -> Sequence[float]:
        return self._values[uuid, metric][:10]


@dataclass
class Rates:
    """Of each detector: bad GPUs found, and good ones accused."""

    found: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    accused: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    bad: int = 0
    good: int = 0
    seconds: float = 0.0

    def count(self, detector: str, who: set[Gpu], fleet: Fleet) -> None:
        """Add what *detector* said of *fleet*."""
        self.found[detector] += len(who & fleet.bad)
        self.accused[detector] += len(who - fleet.bad)

    def detected(self, detector: str) -> str:
        """Return the bad GPUs that were found, in percent."""
        return f"{100 * self.found[detector] / self.bad:.0f}" if self.bad else "-"

    def false_alarms(self, detector: str) -> float:
        """Return good GPUs accused, per 1,000 GPUs and night."""
        return 1000 * self.accused[detector] / self.good if self.good else 0.0


DETECTORS = ("warns", "first strike", "fails", "SuperBench", "3 sigma", "5 % below")


def rates(hosts: int, fault: Fault, seeds: Iterable[int]) -> Rates:
    """Return what all detectors say of fleets of *hosts* with *fault*."""
    result = Rates()
    for seed in seeds:
        fleet, memory = Fleet(hosts, fault, seed), Memory()
        if fault.past:
            memory.healthy(fleet, 10)
        parts = [1 - DRIFT * night for night in range(DRIFT_NIGHTS)] if fault.drift else [fault.part] * 2
        nights = [fleet.night(part) for part in parts]
        built = time.process_time()
        judged = [memory.judged(reports) for reports in nights]
        result.seconds += (time.process_time() - built) / len(judged)
        result.bad += len(fleet.bad)
        result.good += hosts * GPUS - len(fleet.bad)
        checks = [(r.host, c) for r in judged[-1].reports for c in r.checks]
        result.count("warns", {(h, int(c.device[5:])) for h, c in checks if c.verdict in ("warn", "fail")}, fleet)
        result.count("first strike", {(h, int(d[5:])) for h, _, d in judged[0].bad}, fleet)
        result.count("fails", {(h, int(c.device[5:])) for h, c in checks if c.verdict == "fail"}, fleet)
        for name, who in peers(nights[-1]).items():
            result.count(name, who, fleet)
    return result


def peers(reports: Sequence[HostReport]) -> dict[str, set[Gpu]]:
    """Return whom other methods accuse after one night."""
    found: dict[str, set[Gpu]] = {name: set() for name in DETECTORS[3:]}
    for metric in METRICS:
        checks = {(r.host, int(c.device[5:])): c for r in reports for c in r.checks if c.name == metric}
        values = {gpu: float(check.measured) for gpu, check in checks.items()}
        mean, sigma = statistics.fmean(values.values()), statistics.pstdev(values.values())
        middle = statistics.median(values.values())
        found["3 sigma"] |= {gpu for gpu, value in values.items() if value < mean - 3 * sigma}
        found["5 % below"] |= {gpu for gpu, value in values.items() if value < 0.95 * middle}
        found["SuperBench"] |= superbench({gpu: check.data["samples"] for gpu, check in checks.items()})
    return found


def superbench(samples: dict[Gpu, Sequence[float]], alpha: float = 0.95) -> set[Gpu]:
    """Drop whoever is less than *alpha* like the centroid of those that are left, until nobody is."""
    left = dict(samples)
    while True:
        some = random.Random(1).sample(sorted(left), min(CENTROIDS, len(left)))
        alike = compare.similarity
        centroid = max(some, key=lambda a: sum(min(alike(left[a], left[b]), alike(left[b], left[a])) for b in some))
        out = {gpu for gpu, own in left.items() if alike(own, left[centroid]) < alpha}
        if not out:
            return samples.keys() - left.keys()
        left = {gpu: own for gpu, own in left.items() if gpu not in out}


def table(sizes: Iterable[int]) -> str:
    """Return the table as markdown, a block of lines for each size."""
    heads = [f"{name}: found %" for name in DETECTORS] + ["false alarms: fails", *DETECTORS[3:], "s a night"]
    lines = [f"| hosts | fault | {' | '.join(heads)} |", "|---" * (len(heads) + 2) + "|"]
    for hosts in sizes:
        for fault in FAULTS:
            if fault.drift and hosts > 32:
                continue
            one = rates(hosts, fault, range(SEEDS.get(hosts, 2)))
            cells = [one.detected(name) for name in DETECTORS]
            cells += [f"{one.false_alarms(name):.2g}" for name in DETECTORS[2:]]
            lines.append(f"| {hosts} | {fault.name} | {' | '.join(cells)} | {one.seconds / SEEDS.get(hosts, 2):.2g} |")
            print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table, or write it to a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hosts", default="4,32,256,1000", help="sizes of fleets (default: %(default)s)")
    parser.add_argument("--markdown", metavar="FILE", help="write the table there")
    options = parser.parse_args()
    text = table(int(size) for size in options.hosts.split(","))
    if options.markdown:
        Path(options.markdown).write_text(text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
