"""Lab hosts with simulated GPUs, over ssh: what NVML, the bus, the driver and the log show, and faults at once."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

import pytest

from gpuprov.cli.main import main
from gpuprov.errors import LabError
from gpuprov.lab import Lab, gpu_models, gpu_profile
from tests.support.lab import NEEDS_LAB, run_on
from tests.support.simulated_reading import pynvml_folder

pytestmark = NEEDS_LAB
_ASK = """
import pynvml
pynvml.nvmlInit()
for index in range(pynvml.nvmlDeviceGetCount()):
    try:
        gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
        name, uuid = pynvml.nvmlDeviceGetName(gpu), pynvml.nvmlDeviceGetUUID(gpu)
        print(index, name, uuid, pynvml.nvmlDeviceGetTemperature(gpu, 0))
    except pynvml.NVMLError as error:
        print(index, type(error).__name__)
"""
AT = gpu_models.models()["h100-sxm"]["addresses"]


@pytest.fixture(scope="module")
def lab():
    with tempfile.TemporaryDirectory(prefix="gpuprov-lab-") as folder:
        lab = Lab(f"{folder}/state")
        lab.up(3, gpus="gpu01=8xh100-sxm,gpu02=4xt4")
        yield lab
        lab.down()


def ask(lab: Lab, name: str) -> list[list[str]]:
    """Return what the real nvidia-ml-py says on a host: the words of a line for each GPU."""
    source = Path(pynvml_folder(), "pynvml.py").read_text()
    done = run_on(lab, name, "mkdir -p /tmp/nvml && cat >/tmp/nvml/pynvml.py", stdin=source)
    done = run_on(lab, name, "PYTHONPATH=/tmp/nvml python3 -", stdin=_ASK)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def test_nvml_is_found_without_being_told_and_each_host_has_its_own_gpus(lab):
    first, second = ask(lab, "gpu01"), ask(lab, "gpu02")
    assert [" ".join(words[1:5]) for words in first] == ["NVIDIA H100 80GB HBM3"] * 8
    assert [" ".join(words[1:3]) for words in second] == ["Tesla T4"] * 4
    assert [words[-2] for words in first] == [gpu_models.identity("gpu01", index)[1] for index in range(8)]
    missing = run_on(
        lab, "gpu03", "ls /etc/gpuprov-lab/gpus; python3 -c 'import ctypes; ctypes.CDLL(\"libnvidia-ml.so.1\")'"
    )
    assert missing.returncode != 0


def test_the_kernel_shows_functions_driver_and_log(lab):
    folder = f"/sys/bus/pci/devices/{AT[0]}"
    shown = run_on(lab, "gpu01", f"cat {folder}/vendor {folder}/device {folder}/class {folder}/current_link_speed")
    assert shown.stdout.splitlines() == ["0x10de", "0x2330", "0x030200", "32.0 GT/s PCIe"]
    assert run_on(lab, "gpu01", f"basename $(readlink {folder}/driver)").stdout == "nvidia\n"
    assert run_on(lab, "gpu01", "cat /sys/bus/pci/devices/*/class").stdout.count("0x068000") == 4
    assert run_on(lab, "gpu01", "cat /sys/module/nvidia/version").stdout == f"{gpu_models.DRIVER}\n"
    assert f" {gpu_models.DRIVER} " in run_on(lab, "gpu01", "cat /proc/driver/nvidia/version").stdout
    assert "simulated" in run_on(lab, "gpu01", "cat /etc/gpuprov-lab/kmsg").stdout
    machines = [name for name in os.listdir("/sys/module") if name != "nvidia"]
    assert set(machines) <= set(run_on(lab, "gpu01", "ls /sys/module").stdout.split())
    assert run_on(lab, "gpu03", "ls /sys/module/nvidia /proc/driver/nvidia").returncode != 0


def test_a_host_cannot_change_its_gpus(lab):
    for command in (
        f"echo x >/sys/bus/pci/devices/{AT[0]}/vendor",
        "umount /sys/module",
        "rm /etc/gpuprov-lab/simulated/gpus",
    ):
        assert run_on(lab, "gpu01", command).returncode != 0
    assert len(ask(lab, "gpu01")) == 8


def fabric_manager_runs(lab: Lab) -> bool:
    return run_on(lab, "gpu01", "cat /proc/[0-9]*/comm | grep nv-fabricmanage").returncode == 0


def wait_for(condition) -> None:
    ends_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends_at, "waited in vain"
        time.sleep(0.1)


def test_faults_show_at_once_and_go(lab, capsys):
    state = ["--state", lab.layout.state]
    ask(lab, "gpu01")
    assert main(["lab", "fault", "gpu01", "gpu-lost", "--gpu", "2", *state]) == 0
    assert main(["lab", "fault", "gpu01", "pcie-width", "--gpu", "1", *state]) == 0
    assert main(["lab", "fault", "gpu01", "fabric-manager-off", *state]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "gpu01: gpu-lost (GPU 2), pcie-width (GPU 1), fabric-manager-off (GPU 0) (simulated)"
    )
    assert ask(lab, "gpu01")[2] == ["2", "NVMLError_GpuIsLost"]
    assert run_on(lab, "gpu01", f"cat /sys/bus/pci/devices/{AT[1]}/current_link_width").stdout == "8\n"
    assert f"Xid (PCI:{AT[2][:-2]}): 79" in run_on(lab, "gpu01", "cat /etc/gpuprov-lab/kmsg").stdout
    wait_for(lambda: not fabric_manager_runs(lab))
    assert main(["lab", "fault", "gpu01", "clear", *state]) == 0
    assert capsys.readouterr().out == "gpu01: no fault (simulated)\n"
    assert [len(words) for words in ask(lab, "gpu01")] == [7] * 8
    assert "Xid" not in run_on(lab, "gpu01", "cat /etc/gpuprov-lab/kmsg").stdout
    wait_for(lambda: fabric_manager_runs(lab))


def test_a_call_that_hangs_ends_only_when_it_is_killed(lab):
    state = ["--state", lab.layout.state]
    ask(lab, "gpu02")
    assert main(["lab", "fault", "gpu02", "nvml-hang", *state]) == 0
    call = "pynvml.nvmlDeviceGetTemperature(pynvml.nvmlDeviceGetHandleByIndex(0), 0)"
    python = f"python3 -c 'import pynvml; pynvml.nvmlInit(); print(1, flush=True); {call}; print(2)'"
    done = run_on(lab, "gpu02", f"PYTHONPATH=/tmp/nvml timeout --foreground -s KILL 1 {python}; echo ended with $?")
    assert done.stdout == "1\nended with 137\n"
    assert main(["lab", "fault", "gpu02", "clear", *state]) == 0


def test_what_is_wrong_with_a_fault_is_one_sentence(lab, capsys):
    state = ["--state", lab.layout.state]
    for words, code, said in (
        (["gpu02", "remap-pending"], 1, "Tesla T4 cannot have remap-pending"),
        (["gpu02", "hot", "--gpu", "4"], 1, "there is no GPU 4: the host has 4"),
        (["gpu02", "on-fire"], 1, "there is no fault on-fire"),
        (["gpu03", "hot"], 1, "lab host gpu03 has no simulated GPUs"),
        (["gpu02"], 5, "needs a host and a kind of fault"),
    ):
        assert main(["lab", "fault", *words, *state]) == code
        assert said in capsys.readouterr().err
    assert main(["lab", "fault", "--list"]) == 0
    assert "pcie-width           8 PCIe lanes of 16\n" in capsys.readouterr().out
    assert main(["lab", "fault", "gpu02", "--list", *state]) == 0
    assert capsys.readouterr().out == "gpu02: no fault (simulated)\n"


def test_status_says_simulated_and_other_gpus_are_refused(lab, capsys):
    assert main(["lab", "status", "--state", lab.layout.state]) == 0
    assert "simulated 8xh100-sxm" in capsys.readouterr().out
    assert main(["lab", "status", "--json", "--state", lab.layout.state]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [host["gpus"] for host in report["hosts"]] == ["8xh100-sxm", "4xt4", ""]
    assert lab.ensure(2, gpus={"gpu01": "8xh100-sxm"}) is False
    for wanted, said in (
        ("8xh200-sxm", "gpu01 runs with 8xh100-sxm, not 8xh200-sxm"),
        ({"gpu03": "8xt4"}, "gpu03 runs with no simulated GPUs, not 8xt4"),
        ("gpu04=8xt4", "GPUs for gpu04, which is not one of the hosts gpu01 to gpu03"),
        ("gpu01=", "'gpu01=' names no host and its GPUs"),
    ):
        with pytest.raises(LabError, match=said):
            lab.ensure(3, gpus=wanted)
    assert len(ask(lab, "gpu01")) == 8


def test_a_reboot_keeps_gpus_and_faults_and_a_recorded_box_comes_back(tmp_path):
    box = tmp_path / "box.json"
    reading = gpu_models.healthy("2xl40s", "their-host")
    del reading["switches"]  # as a recording has it
    box.write_text(gpu_profile.dumped(reading))
    with tempfile.TemporaryDirectory(prefix="gpuprov-lab-") as folder:
        lab = Lab(f"{folder}/state")
        try:
            lab.up(1, gpus=str(box))
            assert [words[-2] for words in ask(lab, "gpu01")] == [gpu["values"]["uuid"] for gpu in reading["gpus"]]
            assert main(["lab", "fault", "gpu01", "hot", "--gpu", "1", "--state", lab.layout.state]) == 0
            before = lab.status()[0].pid
            run_on(lab, "gpu01", "reboot")
            wait_for(lambda: lab.status()[0].up and lab.status()[0].pid != before)
            assert [words[-1] for words in ask(lab, "gpu01")] == ["30", "95"]
            lab.down()
            lab.up(1)
            assert run_on(lab, "gpu01", "ls /etc/gpuprov-lab/gpus").returncode != 0
        finally:
            lab.down()
