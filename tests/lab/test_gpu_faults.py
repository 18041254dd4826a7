"""Every fault of the table, put in: NVML says it through the real nvidia-ml-py, the kernel's files and log show it."""

from __future__ import annotations

import pytest

from gpuprov.errors import LabError
from gpuprov.lab import gpu_models, nvml_double
from gpuprov.lab.gpu_faults import FAULTS, OLD_DRIVER, shown_with
from gpuprov.lab.gpu_shown import files_of
from gpuprov.proof import kernel_log
from gpuprov.proof.checks import xid
from tests.support.simulated_reading import Simulated

HEALTHY = gpu_models.healthy("4xh100-sxm", "gpu01")
SICK = 3
AT = HEALTHY["gpus"][SICK]["address"]
LOGS = {"gpu-lost": 79, "ecc-uncorrected": 48, "remap-pending": 63, "remap-failed": 64, "nvlink-down": 74}
LOGS |= {"reset-required": 154, **{kind: int(kind[4:]) for kind in FAULTS if kind.startswith("xid-")}}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    with Simulated(nvml_double.library(str(tmp_path_factory.mktemp("nvml"))), nvml_double.PROFILE_VARIABLE) as found:
        yield found


def files_with(*kinds: str, reading: dict = HEALTHY) -> dict[str, str]:
    faults = [{"kind": kind, "gpu": SICK, "at_s": 4211.5} for kind in kinds]
    return files_of(shown_with(reading, faults))


def test_a_fault_is_one_gpus_own(simulated):
    well = simulated.read(files_with()["gpus"])
    for kinds in (("gpu-lost",), ("ecc-uncorrected", "nvlink-down", "hot", "mig-on", "vbios-differs")):
        both = zip(simulated.read(files_with(*kinds)["gpus"])["gpus"], well["gpus"], strict=True)
        assert [one["index"] for one, other in both if {**one, "peers": {}} != {**other, "peers": {}}] == [SICK]


def test_a_call_that_hangs_is_named(simulated):
    sick = simulated.read(files_with("nvml-hang")["gpus"])
    assert [gpu.get("hung") for gpu in sick["gpus"]] == [None] * 3 + ["nvmlDeviceGetTemperature"]


def test_values_that_depend_on_the_model(simulated):
    sick = simulated.read(files_with("hot", "power-limit-low", "nvlink-down", "stray-process")["gpus"])["gpus"][SICK]
    assert (sick["values"]["temperature"], sick["values"]["power.enforced"]) == (88, 350_000)
    assert [link["state"] for link in sick["links"][:18]] == [0, 1] * 9
    assert sick["values"]["processes.compute"] == [{"pid": 4_194_000, "memory": 32 << 30}]


def test_the_kernel_shows_it_too():
    files = files_with(
        "pcie-width", "pcie-generation", "pcie-replays", "pcie-fatal", "driver-mismatch", "fabric-manager-off"
    )
    assert files[f"pci/{AT}/current_link_width"] == "8\n"
    assert files[f"pci/{AT}/current_link_speed"] == "8.0 GT/s PCIe\n"
    assert files[f"pci/{AT}/max_link_speed"] == "32.0 GT/s PCIe\n"
    assert "TOTAL_ERR_COR 1000000\n" in files[f"pci/{AT}/aer_dev_correctable"]
    assert "TOTAL_ERR_FATAL 1\n" in files[f"pci/{AT}/aer_dev_fatal"]
    assert files["driver-version"] == f"{OLD_DRIVER}\n"
    assert f"  {OLD_DRIVER}  " in files["driver/nvidia/version"]
    assert "API mismatch" in files["kmsg"]
    assert "run" not in files["fabric-manager"]
    well = files_with()
    assert [name for name in well if well[name] != files[name]] == [
        *("gpus", "kmsg", "driver-version", "driver/nvidia/version", "fabric-manager"),
        *(f"pci/{AT}/{name}" for name in ("current_link_speed", "current_link_width")),
        *(f"pci/{AT}/{name}" for name in ("aer_dev_correctable", "aer_dev_fatal")),
    ]


@pytest.mark.parametrize("kind", sorted(LOGS))
def test_the_log_has_the_xid_of_this_gpu(tmp_path, kind):
    assert events_of(tmp_path, kind) == [("xid", AT, LOGS[kind], 70)]


def test_the_log_has_an_sxid_of_a_switch(tmp_path):
    assert events_of(tmp_path, "sxid") == [("sxid", HEALTHY["switches"][0]["address"], 20034, 70)]


def events_of(root, kind: str) -> list[tuple]:
    path = root / kernel_log.LAB
    path.parent.mkdir(parents=True)
    path.write_text(files_with(kind)["kmsg"])
    log = kernel_log.read(str(root))
    assert (log["error"], log["truncated"]) == (None, False)
    return [(event["kind"], event["pci"], event["code"], event["minute"]) for event in xid.events(log)]


def test_what_this_gpu_cannot_have_is_refused():
    t4 = gpu_models.healthy("4xt4", "gpu01")
    for kind, missing in (
        ("remap-pending", "remapped"),
        ("nvlink-down", "link"),
        ("mig-on", "mig"),
        ("sxid", "NVSwitch"),
    ):
        with pytest.raises(LabError, match=missing):
            files_with(kind, reading=t4)
    with pytest.raises(LabError, match="H100 80GB HBM3 cannot have retired-pages"):
        files_with("retired-pages")
    with pytest.raises(LabError, match="no GPU 3: the host has 2"):
        files_with("hot", reading=gpu_models.healthy("2xt4", "gpu01"))


def test_every_kind_says_what_it_is():
    assert all(len(fault.says) > 8 for fault in FAULTS.values())
    changes = [fault.nvml or fault.aer or fault.log or not fault.fabric_manager for fault in FAULTS.values()]
    assert all(changes)
