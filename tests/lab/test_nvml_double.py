"""The simulated NVML through the real nvidia-ml-py: every model, every row that the proof asks for, hangs, changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpuprov.errors import LabError
from gpuprov.lab import gpu_models, gpu_profile, nvml_double
from gpuprov.proof.nvml import calls
from tests.support.simulated_reading import ROOT, Simulated, pynvml_folder

MODELS = sorted(gpu_models.models())
#: What each family does not have; everything else is answered.
_NO_ECC = {row[0] for row in calls.GPU if row[0].startswith(("ecc", "remapped", "retired"))}
_RETIRE = {row[0] for row in calls.GPU if row[0].startswith("retired")}
_SRAM = {row[0] for row in calls.GPU if ".sram" in row[0]} | {"remapped"}
_MARGIN = {"temperature.margin", "temperature.slowdown_tlimit"}
_HBM = {"temperature.memory", "temperature.memory_max"}
_PCIE = {row[0] for row in calls.GPU if row[0].startswith("pcie.")}
_FABRIC = {"fabric", "fabric.status"}
_GEFORCE = {row[0] for row in calls.GPU if row[0].startswith("violation.")} | {
    *("serial", "board_part", "inforom", "recovery_action", "clock.sm_application", "clock.sm_application_default")
}
LACKING = {
    "a100-sxm": _RETIRE | _FABRIC | _MARGIN,
    "h100-sxm": _RETIRE,
    "h200-sxm": _RETIRE,
    "b200": _RETIRE,
    "gb200": _RETIRE | _PCIE,
    "l40s": _RETIRE | _FABRIC | _HBM | {"mig"},
    "t4": _SRAM | _FABRIC | _HBM | _MARGIN | {"mig"},
    "v100-sxm": _SRAM | _FABRIC | _MARGIN | {"mig", "gsp_firmware"},
    "rtx-4090": _NO_ECC | _FABRIC | _HBM | _GEFORCE | {"mig"},
}


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> str:
    return nvml_double.library(str(tmp_path_factory.mktemp("nvml")))


@pytest.fixture(scope="session")
def simulated(library):
    with Simulated(library, nvml_double.PROFILE_VARIABLE) as found:
        yield found


def all_of(name: str) -> str:
    return f"{min(4, len(gpu_models.models()[name]['addresses']))}x{name}"


@pytest.mark.parametrize("name", MODELS)
def test_every_row_is_answered_as_the_profile_says(simulated, name):
    wanted = gpu_models.healthy(all_of(name), "gpu01")
    found = simulated.read(gpu_profile.profile(wanted))
    assert found["error"] is None
    assert found["count"] == wanted["count"]
    assert found["library"] == {**wanted["library"], "path": found["library"]["path"]}
    for its, read in zip(wanted["gpus"], found["gpus"], strict=True):
        assert read["address"] == its["address"]
        lacking = {key for key, value in read["values"].items() if value == {"error": "NotSupported"}}
        assert lacking == LACKING[name]
        assert {key: value for key, value in read["values"].items() if key not in lacking} == its["values"]
        assert read["peers"] == its["peers"]
        asked = {row[0] for row in calls.LINK}
        links = [{key: value for key, value in link.items() if key in asked} for link in its["links"]]
        assert read["links"][: len(links)] == links
        assert all(link == {"state": {"error": "NotSupported"}} for link in read["links"][len(links) :])


def test_what_it_answered_makes_the_same_profile_again(simulated):
    first = simulated.read(gpu_profile.profile(gpu_models.healthy("8xh100-sxm", "gpu01")))
    assert simulated.read(gpu_profile.profile(json.loads(gpu_profile.dumped(first)))) == first


def test_a_recorded_reading_with_errors_and_a_hang_comes_back(simulated):
    reading = gpu_models.healthy("4xt4", "gpu01")
    reading["gpus"][1]["hung"] = "nvmlDeviceGetTemperature"
    reading["gpus"][2]["values"]["power"] = {"error": "Unknown"}
    reading["gpus"][3]["values"]["processes.compute"] = [{"pid": 77, "memory": 5}, {"pid": 78, "memory": None}]
    reading["gpus"][3]["values"]["retired.double_bit"] = [0x1000, 0x2000]
    found = simulated.read(gpu_profile.profile(reading))
    assert found["gpus"][1]["hung"] == "nvmlDeviceGetTemperature"
    assert "temperature" not in found["gpus"][1]["values"]
    assert found["gpus"][2]["values"]["power"] == {"error": "Unknown"}
    processes = found["gpus"][3]["values"]["processes.compute"]
    assert [process["pid"] for process in processes] == [77, 78]
    assert processes[0]["memory"] == 5
    assert not isinstance(processes[1]["memory"], int)
    assert found["gpus"][3]["values"]["retired.double_bit"] == [0x1000, 0x2000]


@pytest.mark.parametrize(
    ("line", "error"), [("system !LibRmVersionMismatch", "LibRmVersionMismatch"), ("system !HANG", "Hung")]
)
def test_a_library_that_does_not_start(simulated, line, error):
    found = simulated.read(gpu_profile.profile(gpu_models.healthy("2xt4", "gpu01")) + line + "\n")
    assert found["error"]["error"] == error
    assert found["gpus"] == []


def test_a_lost_gpu_is_counted_and_a_missing_one_is_not(simulated):
    text = gpu_profile.profile(gpu_models.healthy("8xh100-sxm", "gpu01"))
    found = simulated.read(text + "gpu.1 !GpuIsLost\n")
    assert found["count"] == 8
    assert set(map(str, found["gpus"][1]["values"].values())) == {"{'error': 'GpuIsLost'}"}
    found = simulated.read(text + "gpu.1 !Missing\n")
    assert found["count"] == 7
    assert [gpu["values"]["minor"] for gpu in found["gpus"]] == [0, 2, 3, 4, 5, 6, 7]


_SCRIPT = """
import os, pynvml
from gpuprov.lab import gpu_models
def said(function, *args):
    try:
        return function(*args)
    except pynvml.NVMLError as error:
        return type(error).__name__
print(said(pynvml.nvmlInit))                      # no profile yet
open(os.environ["GPUPROV_SIMULATED_GPUS"], "w").write(PROFILE)
pynvml.nvmlInit()
serial, uuid = gpu_models.identity("gpu01", 3)
by = [pynvml.nvmlDeviceGetHandleByUUID(uuid), pynvml.nvmlDeviceGetHandleBySerial(serial),
      pynvml.nvmlDeviceGetHandleByPciBusId("0000:61:00.0"), pynvml.nvmlDeviceGetHandleByPciBusId("00000000:61:00.0")]
print([pynvml.nvmlDeviceGetIndex(handle) for handle in by])
print(said(pynvml.nvmlDeviceGetHandleByUUID, "GPU-0"), said(pynvml.nvmlDeviceGetHandleByIndex, 8))
print([pynvml.nvmlDeviceGetNvLinkRemotePciInfo(by[0], link).busId for link in (0, 1)])
print(pynvml.nvmlDeviceGetMemoryInfo(by[0], pynvml.nvmlMemory_v2).total >> 20)
print(pynvml.nvmlDeviceGetNvLinkRemoteDeviceType(by[0], 0), said(pynvml.nvmlDeviceGetFanSpeed, by[0]))
print(pynvml.nvmlErrorString(15), hasattr(pynvml.nvmlLib, "gpuprov_simulated_nvml"))
open(os.environ["GPUPROV_SIMULATED_GPUS"], "a").write("gpu.3.temperature 88\\n")   # seen at once
print(pynvml.nvmlDeviceGetTemperature(by[0], 0))
pynvml.nvmlShutdown()
print(said(pynvml.nvmlDeviceGetCount))
"""


def test_handles_remote_ends_and_a_profile_that_changes(library, tmp_path):
    profile = gpu_profile.profile(gpu_models.healthy("8xh100-sxm", "gpu01"))
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{pynvml_folder()}",
        "LD_LIBRARY_PATH": os.path.dirname(library),
        nvml_double.PROFILE_VARIABLE: str(tmp_path / "gpus"),
    }
    argv = [sys.executable, "-c", f"PROFILE = {profile!r}\n{_SCRIPT}"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "NVMLError_DriverNotLoaded",
        "[3, 3, 3, 3]",
        "NVMLError_NotFound NVMLError_InvalidArgument",
        "['00000000:05:00.0', '00000000:06:00.0']",
        "81559",
        "2 NVMLError_NotSupported",
        "GPU is lost True",
        "88",
        "NVMLError_Uninitialized",
    ]


def test_it_is_compiled_once_and_anew_for_other_sources(library, monkeypatch, tmp_path):
    cache = os.path.dirname(os.path.dirname(library))
    before = os.stat(library).st_mtime_ns
    monkeypatch.setenv("PATH", "/nowhere")
    assert nvml_double.library(cache) == library
    assert os.stat(library).st_mtime_ns == before
    with pytest.raises(LabError, match="need a C compiler") as caught:
        nvml_double.library(str(tmp_path))
    assert "gcc" in caught.value.hint
    monkeypatch.undo()
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "broken.c").write_text("this is no C\n")
    monkeypatch.setattr(nvml_double, "SOURCES", sources)
    with pytest.raises(LabError, match=r"does not compile the simulated NVML: .*broken\.c"):
        nvml_double.library(str(tmp_path))


def test_serials_and_uuids_are_nobodys_twice():
    seen = [gpu_models.identity(host, index) for host in ("gpu01", "gpu02", "gpu03") for index in range(8)]
    assert len({serial for serial, _ in seen}) == len({uuid for _, uuid in seen}) == 24
    assert seen[0] == gpu_models.identity("gpu01", 0)


def test_a_recording_is_anonymised_and_says_what_is_wrong_with_it(tmp_path):
    reading = gpu_models.healthy("4xrtx-4090", "their-host")
    other = gpu_profile.anonymous(reading)
    assert {gpu["values"]["uuid"] for gpu in reading["gpus"]}.isdisjoint(gpu["values"]["uuid"] for gpu in other["gpus"])
    assert "serial" not in other["gpus"][0]["values"]  # a GeForce has none to hide
    path = Path(tmp_path, "box.json")
    path.write_text(gpu_profile.dumped(reading))
    assert gpu_profile.load(str(path)) == reading
    for text, message in (
        ('{"gpus": [}', r"box.json:1:11: no recorded reading"),
        ("[]", 'it has no list "gpus"'),
        ('{"gpus": [{}], "library": {}}', 'GPU 0 has no "index"'),
    ):
        path.write_text(text)
        with pytest.raises(LabError, match=message):
            gpu_profile.load(str(path))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("h100", "is no number and model"),
        ("8xh900", "no simulated GPU is called h900"),
        ("9xt4", "1 to 8 GPUs"),
        ("0xt4", "1 to 8"),
    ],
)
def test_what_cannot_be_simulated_is_said(wanted, message):
    with pytest.raises(LabError, match=message):
        gpu_models.parse(wanted)
    assert gpu_models.parse("8xH100-SXM5-80GB") == (8, "h100-sxm")
