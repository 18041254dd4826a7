"""Which parts there are, in the order in which they run and are reported."""

from __future__ import annotations

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.parts import Part

#: Each has PARTS. None of them imports torch or pynvml before a part runs.
MODULES: tuple[str, ...] = (
    "gpuprov.proof.checks.presence",
    "gpuprov.proof.checks.software",
    "gpuprov.proof.checks.versions",
    "gpuprov.proof.checks.alike",
    "gpuprov.proof.checks.memory",
    "gpuprov.proof.checks.thermal",
    "gpuprov.proof.checks.pcie",
    "gpuprov.proof.checks.nvlink",
    "gpuprov.proof.checks.modes",
    "gpuprov.proof.checks.xid",
    "gpuprov.proof.checks.around",
    "gpuprov.proof.checks.host_clock",
    "gpuprov.proof.checks.host_kernel",
    "gpuprov.proof.checks.host_kernel_log",
    "gpuprov.proof.checks.host_processes",
    "gpuprov.proof.checks.host_cpu",
    "gpuprov.proof.checks.host_memory",
    "gpuprov.proof.checks.host_numa",
    "gpuprov.proof.checks.host_disk",
    "gpuprov.proof.checks.host_network",
    "gpuprov.proof.checks.host_network_counters",
    "gpuprov.proof.checks.host_rdma",
    "gpuprov.proof.checks.host_container",
    "gpuprov.proof.checks.host_limits",
    "gpuprov.proof.checks.host_services",
    "gpuprov.proof.checks.host_disk_speed",
    "gpuprov.proof.training.basic",
    "gpuprov.proof.training.batchnorm",
    "gpuprov.proof.training.gpt",
    "gpuprov.proof.training.finetune",
    "gpuprov.proof.training.compiled",
    "gpuprov.proof.training.ddp",
    "gpuprov.proof.bench.gemm",
    "gpuprov.proof.bench.hbm",
    "gpuprov.proof.bench.bus",
    "gpuprov.proof.bench.launch",
    "gpuprov.proof.bench.soak",
    "gpuprov.proof.bench.cpu",
    "gpuprov.proof.bench.peers",
    "gpuprov.proof.bench.collectives",
)


def parts() -> list[Part]:
    """Return all parts. Raises AssertionError when two have one name."""
    found = [part for name in MODULES for part in importlib.import_module(name).PARTS]
    names = [part.name for part in found]
    assert len(names) == len(set(names)), "two parts have one name"
    return found
