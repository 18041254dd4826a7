"""What a GPU model can do at most, and below which part of that a measurement is bad."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from gpuprov.errors import Problem, SourceErrors
from gpuprov.load.marks import load_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "gpu_specs.yaml")
#: Metric -> (its fractions, where its peak is). bf16 and fp16 alone have fractions among the products.
_METRICS = {
    "gemm.bf16": ("gemm", "bf16"),
    "gemm.fp16": ("gemm", "fp16"),
    "hbm.copy": ("hbm", "mem_gb_s"),
    "h2d": ("pcie", "pcie_gb_s"),
    "d2h": ("pcie", "pcie_gb_s"),
    "p2p": ("nvlink", "nvlink_gb_s"),
    "allreduce": ("allreduce", "nvlink_gb_s"),
}
#: A floor outside of this part of the peak is a slip: one that is ten times too low passes everything.
LEAST = 0.3
MOST = {"allreduce": 1.2}  # reductions in the network exceed what a link carries


@dataclass(frozen=True, slots=True)
class Floor:
    """Below fail a measurement is bad, below warn it is doubtful; peak is the most that the model can do."""

    fail: float
    warn: float
    peak: float


@dataclass(frozen=True, slots=True)
class Specs:
    """All models. as_of is the date of the table."""

    models: Mapping[str, Mapping[str, Any]]
    as_of: str
    _found: dict[str, str] = field(default_factory=dict, compare=False)

    def model(self, name: str) -> str:
        """Return the key of the model that NVML calls *name*, "" for an unknown one: never another model's."""
        if name not in self._found:
            found = [key for key, row in self.models.items() if re.search(row["match"], name)]
            self._found[name] = found[0] if len(found) == 1 else ""
        return self._found[name]

    def floor(self, model: str, metric: str) -> tuple[Floor | None, str]:
        """Return the floor of *metric* on *model*, or None and why there is none."""
        if not model:
            return None, "the model is not in the table"
        if metric not in _METRICS:
            return None, "no floor is known for this measurement"
        fractions, where = _METRICS[metric]
        row = self.models[model]
        peak = row["tflops"].get(where) if where in ("bf16", "fp16") else row.get(where)
        if peak is None or fractions not in row["fractions"]:
            return None, f"no floor is known for {model}"
        fail, warn = row["fractions"][fractions]
        return Floor(fail * peak, warn * peak, peak), ""


@cache
def load(path: str = PATH) -> Specs:
    """Return the table. Raises SourceErrors with everything that is wrong with it."""
    problems: list[Problem] = []
    document = load_yaml(path, problems)
    if not problems:
        problems += [problem for name, row in document["gpus"].items() for problem in _wrong(str(name), row, path)]
    if problems:
        raise SourceErrors(problems)
    return Specs(document["gpus"], str(document["as_of"]))


def _wrong(name: str, row: Mapping[str, Any], path: str) -> list[Problem]:
    """Return what is wrong with one model's row. Pure."""
    found = []
    for key, (fail, warn) in row["fractions"].items():
        most = MOST.get(key, 1.0)
        if not LEAST <= fail <= warn <= most:
            text = f"{path}: {name}: the floor of {key} is {fail:g} (warn {warn:g}) of the peak"
            hint = f"a floor is a part of the peak between {LEAST:g} and {most:g}, and fail is below warn"
            found.append(Problem("floor-implausible", text, hint=hint))
    peaks = {**row["tflops"], **{key: row.get(key) for key in ("mem_gb_s", "pcie_gb_s", "nvlink_gb_s")}}
    for key, value in peaks.items():
        if value is not None and not (isinstance(value, int | float) and 0 < value < 1e6):
            hint = "a number above 0, or null where it is not known"
            found.append(Problem("peak-implausible", f"{path}: {name}: {key} is {value!r}", hint=hint))
    return found
