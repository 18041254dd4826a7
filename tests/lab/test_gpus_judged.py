"""Simulated hosts as the proof judges them: healthy ones of every model without a warning, every fault found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gpuprov.lab import gpu_models, nvml_double
from gpuprov.lab.gpu_faults import FAULTS, shown_with
from gpuprov.lab.gpu_shown import files_of
from gpuprov.proof.checks import alike, around, memory, modes, nvlink, pcie, presence, software, thermal, xid
from gpuprov.proof.parts import Context
from tests.support.simulated_reading import Simulated

if TYPE_CHECKING:
    from pathlib import Path

PARTS = [
    part
    for module in (presence, software, alike, memory, thermal, pcie, nvlink, modes, xid, around)
    for part in module.PARTS
]
SICK = 3
FAIL, WARN = "fail", "warn"
#: What has to be found, and nothing beside it. An uncorrectable error, say, is in NVML and in the log.
FOUND = {
    "gpu-lost": {"gpu.lost": (FAIL, "reboot"), "xid": (FAIL, "reboot")},
    "gpu-missing": {"nvml.count": (FAIL, "reboot")},
    "nvml-hang": {"gpu.hung": (FAIL, "reboot")},
    "nvml-start-hang": {"nvml.library": (FAIL, "reboot")},
    "driver-mismatch": {"nvml.library": (FAIL, "reboot"), "driver.versions": (FAIL, "reboot")},
    "driver-not-loaded": {"nvml.library": (FAIL, "reboot")},
    "ecc-uncorrected": {"ecc.uncorrected": (FAIL, "reset GPU"), "xid": (FAIL, "reset GPU")},
    "ecc-corrected-flood": {},  # a count says nothing; the judge compares it with the past
    "ecc-off": {"ecc.mode": (FAIL, "reset GPU"), "gpus.alike": (FAIL, "reboot")},
    "remap-pending": {"memory.remapped": (FAIL, "reset GPU")},
    "remap-failed": {"memory.remapped": (FAIL, "isolate"), "xid": (FAIL, "reset GPU")},
    "retired-pages": {"memory.retired": (FAIL, "isolate")},
    "pcie-width": {"pcie.width": (FAIL, "isolate")},
    "pcie-generation": {"pcie.generation": (FAIL, "isolate")},
    "pcie-replays": {"pcie.replays": (WARN, "monitor"), "pcie.aer": (WARN, "monitor")},
    "pcie-fatal": {"pcie.aer": (FAIL, "isolate")},
    "nvlink-down": {"nvlink.links": (FAIL, "reset GPU"), "xid": (FAIL, "reset GPU")},
    "nvlink-errors": {"nvlink.errors": (WARN, "monitor")},
    "fabric-stuck": {"nvlink.fabric": (FAIL, "monitor")},
    "fabric-manager-off": {"fabric.manager": (FAIL, "reset GPU")},
    "throttle-hw": {"gpu.throttle": (FAIL, "isolate")},
    "throttle-thermal": {"gpu.throttle": (FAIL, "isolate"), "gpu.temperature": (FAIL, "isolate")},
    "power-brake": {"gpu.throttle": (FAIL, "isolate")},
    "hot": {"gpu.temperature": (FAIL, "isolate")},
    "power-limit-low": {"gpu.power": (WARN, "none"), "gpus.alike": (WARN, "none")},
    "persistence-off": {"gpu.persistence": (WARN, "none")},
    "mig-on": {"gpu.mig": (WARN, "none")},
    "compute-mode": {"gpu.compute_mode": (FAIL, "none")},
    "vbios-differs": {"gpus.alike": (WARN, "none")},
    "inforom": {"gpu.inforom": (FAIL, "isolate")},
    "reset-required": {"gpu.recovery": (FAIL, "reset GPU"), "xid": (FAIL, "reset GPU")},
    "stray-process": {},  # a job's as well as nobody's: it is bad where an idle host is expected, see below
    "xid-13": {"xid": (WARN, "restart job")},
    "xid-31": {"xid": (WARN, "restart job")},
    "xid-48": {"xid": (FAIL, "reset GPU")},
    "xid-63": {},  # a row was replaced, as it should be
    "xid-79": {"xid": (FAIL, "reboot")},
    "xid-119": {"xid": (FAIL, "reset GPU")},
    "sxid": {"sxid": (FAIL, "reboot")},
}
OTHERS = {"retired-pages": "4xv100-sxm"}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    with Simulated(nvml_double.library(str(tmp_path_factory.mktemp("nvml"))), nvml_double.PROFILE_VARIABLE) as found:
        yield found


def host(root: Path, files: dict[str, str]) -> None:
    """Write what a host shows where the kernel of a real one does."""
    places = {"pci/": "sys/bus/pci/devices/", "driver/": "proc/driver/", "driver-version": "sys/module/nvidia/version"}
    places["kmsg"] = "etc/gpuprov-lab/kmsg"
    more = {"proc/uptime": "36000.00 1.0\n"}
    if files["fabric-manager"].strip():
        more["proc/77/comm"] = "nv-fabricmanage\n"
    for path, text in files.items():
        start = next((start for start in places if path.startswith(start)), None)
        if start is not None and not text.startswith("-> "):
            more[places[start] + path[len(start) :]] = text
    for path, text in more.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def look(simulated: Simulated, root: Path, healthy: dict, *kinds: str, **expect: object) -> list[dict]:
    """Return all checks of the host of a *healthy* reading with faults."""
    files = files_of(shown_with(healthy, [{"kind": kind, "gpu": SICK, "at_s": 4211.5} for kind in kinds]))
    host(root, files)
    reading = simulated.read(files["gpus"])
    context = Context(root=str(root), expect={"gpus": healthy["count"], **expect})
    found: list[dict] = []
    report = type("Report", (), {"check": staticmethod(found.append), "stage": staticmethod(str)})
    for part in PARTS:
        if part.where == "reading":
            found += part.run(context, reading)
        else:
            part.run(context, report)
    return found


def bad(found: list[dict], *verdicts: str) -> dict[str, tuple[str, str]]:
    return {item["name"]: (item["verdict"], item["action"]) for item in found if item["verdict"] in verdicts}


@pytest.mark.parametrize("name", sorted(gpu_models.models()))
def test_a_healthy_host_has_no_warning(simulated, tmp_path, name):
    count = len(gpu_models.models()[name]["addresses"])
    found = look(simulated, tmp_path, gpu_models.healthy(f"{count}x{name}", "gpu01"))
    assert bad(found, FAIL, WARN, "unknown") == {}
    assert len([item for item in found if item["verdict"] == "pass"]) >= 15


@pytest.mark.parametrize("kind", sorted(FAULTS))
def test_each_fault_is_found_and_nothing_else(simulated, tmp_path, kind):
    healthy = gpu_models.healthy(OTHERS.get(kind, "4xh100-sxm"), "gpu01")
    found = look(simulated, tmp_path, healthy, kind)
    assert bad(found, FAIL, WARN) == FOUND[kind]
    if "system" not in FAULTS[kind].nvml:
        assert bad(found, "unknown") == {}


def test_a_stray_process_is_found_where_the_host_is_to_be_idle(simulated, tmp_path):
    found = look(simulated, tmp_path, gpu_models.healthy("4xh100-sxm", "gpu01"), "stray-process", idle=True)
    assert bad(found, FAIL, WARN).keys() == {"gpu.processes"}
