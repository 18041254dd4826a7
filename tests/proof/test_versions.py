from __future__ import annotations

import os
import tempfile
import unittest

from gpuprov.proof.checks import versions
from tests.support.readings import Host


def found(**changes: object) -> dict:
    """What `collect` finds on a healthy host with two GPUs, but for *changes*."""
    device = {"name": "NVIDIA H200", "capability": "9.0", "memory_bytes": 150 << 30}
    healthy = {
        "torch": "2.13.0+cu130",
        "cuda": "13.0",
        "pci_gpus": ["0000:18:00.0", "0000:2a:00.0"],
        "device_nodes": 2,
        "cuda_visible_devices": None,
        "available": True,
        "available_reason": "",
        "devices": [dict(device, index=0), dict(device, index=1)],
        "cudnn": "9.10.2",
        "cudnn_reason": "",
        "nccl": "2.27.3",
        "driver": "580.65.06",
        "driver_reason": "",
    }
    return dict(healthy, **changes)


CPU_BUILD = {
    "torch": "2.13.0+cpu",
    "cuda": None,
    "available": False,
    "available_reason": "torch is the CPU build",
    "devices": [],
    "cudnn": None,
    "nccl": None,
    "driver": None,
}
OLD_DRIVER = {
    "available": False,
    "available_reason": "The NVIDIA driver on your system is too old (found version 11040)",
    "devices": [],
}


def judged(expected: object = None, **changes: object) -> dict:
    return {item["name"]: item for item in versions.judge(found(**changes), expected)}


def verdicts(checks: dict) -> list:
    return [item["verdict"] for item in checks.values()]


class Verdicts(unittest.TestCase):
    def test_healthy(self) -> None:
        checks = judged(2)
        self.assertEqual(verdicts(checks), ["pass"] * 5)
        self.assertEqual((checks["gpu.count"]["measured"], checks["gpu.count"]["expected"]), (2, 2))
        self.assertIn("NVIDIA H200", checks["gpu.count"]["reason"])

    def test_cpu_host_skips_with_the_reason(self) -> None:
        checks = judged(None, **dict(CPU_BUILD, pci_gpus=[], device_nodes=0))
        self.assertEqual(verdicts(checks), ["skip"] * 5)
        self.assertEqual(checks["cuda.available"]["reason"], "no CUDA device: torch is the CPU build")
        self.assertIn("no NVIDIA GPU", checks["nccl"]["reason"])

    def test_cpu_build_on_a_host_with_gpus_fails_unless_none_are_wanted(self) -> None:
        self.assertEqual(judged(None, **CPU_BUILD)["cuda.available"]["verdict"], "fail")
        self.assertEqual(judged(None, **CPU_BUILD)["gpu.count"]["verdict"], "fail")
        self.assertEqual(verdicts(judged(0, **CPU_BUILD))[:2], ["skip", "skip"])

    def test_cuda_build_that_cannot_reach_its_gpus_fails_with_torchs_own_reason(self) -> None:
        check = judged(None, **OLD_DRIVER)["cuda.available"]
        self.assertEqual((check["verdict"], check["action"]), ("fail", "reboot"))
        self.assertIn("is_available() is False: The NVIDIA driver on your system is too old", check["reason"])

    def test_cuda_build_without_a_gpu_on_the_bus_skips(self) -> None:
        check = judged(None, **dict(OLD_DRIVER, pci_gpus=[]))["cuda.available"]
        self.assertEqual(check["verdict"], "skip")
        self.assertIn("no NVIDIA GPU on the PCI bus", check["reason"])

    def test_expected_gpus_that_are_missing_fail(self) -> None:
        check = judged(8)["gpu.count"]
        self.assertEqual((check["verdict"], check["measured"], check["expected"]), ("fail", 2, 8))
        self.assertEqual(check["reason"], "8 GPUs expected, torch can use 2 (2 on the PCI bus)")
        cpu = judged(1, **dict(CPU_BUILD, pci_gpus=[]))["gpu.count"]
        self.assertEqual((cpu["verdict"], cpu["reason"][:14]), ("fail", "1 GPU expected"))

    def test_a_gpu_on_the_bus_that_torch_cannot_use_fails(self) -> None:
        check = judged(None, devices=found()["devices"][:1])["gpu.count"]
        self.assertEqual((check["verdict"], check["measured"], check["expected"]), ("fail", 1, 2))

    def test_fewer_by_intention_is_a_warning_that_says_why(self) -> None:
        one = found()["devices"][:1]
        hidden = judged(None, devices=one, cuda_visible_devices="1")["gpu.count"]
        self.assertEqual(hidden["verdict"], "warn")
        self.assertIn("CUDA_VISIBLE_DEVICES is '1'", hidden["reason"])
        container = judged(None, devices=one, device_nodes=1)["gpu.count"]
        self.assertEqual(container["verdict"], "warn")
        self.assertIn("container", container["reason"])
        self.assertEqual(judged(1, devices=one)["gpu.count"]["verdict"], "warn")

    def test_libraries_without_a_version(self) -> None:
        reason = "cuDNN version incompatibility: compiled against 9.10, found 9.1"
        self.assertEqual(judged(cudnn=None, cudnn_reason=reason)["cudnn"]["verdict"], "fail")
        self.assertIn(reason, judged(cudnn=None, cudnn_reason=reason)["cudnn"]["reason"])
        self.assertEqual(judged(nccl=None)["nccl"]["verdict"], "unknown")
        self.assertEqual(judged(driver=None, driver_reason="pynvml is not installed")["driver"]["verdict"], "unknown")


class Sliced(unittest.TestCase):
    def test_a_process_sees_one_slice_at_most(self) -> None:
        one = [found()["devices"][0]]
        for sliced, expected in ((1, "skip"), (2, "skip"), (0, "fail")):
            self.assertEqual(judged(2, devices=one, sliced=sliced)["gpu.count"]["verdict"], expected)

    def test_no_slice_is_made(self) -> None:
        none = {"available": False, "devices": [], "sliced": 2}
        checks = judged(2, available_reason="No CUDA GPUs are available", **none)
        self.assertEqual([checks[name]["verdict"] for name in ("cuda.available", "gpu.count")], ["skip", "skip"])
        checks = judged(2, available_reason="CUDA driver initialization failed", **none)
        self.assertEqual(checks["cuda.available"]["verdict"], "fail")


class PciBus(unittest.TestCase):
    def test_only_nvidia_display_and_3d_controllers_count(self) -> None:
        with tempfile.TemporaryDirectory() as root:
            for address, vendor, kind in (
                ("0000:01:00.0", "0x10de", "0x030000"),
                ("0000:01:00.1", "0x10de", "0x040300"),  # its audio function
                ("0000:02:00.0", "0x10de", "0x030200"),
                ("0000:03:00.0", "0x10de", "0x068000"),  # NVSwitch
                ("0000:04:00.0", "0x1002", "0x030000"),
            ):
                folder = os.path.join(root, "bus/pci/devices", address)
                os.makedirs(folder)
                for name, text in (("vendor", vendor), ("class", kind)):
                    with open(os.path.join(folder, name), "w") as f:
                        f.write(text + "\n")
            self.assertEqual(versions.pci_gpus(root), ["0000:01:00.0", "0000:02:00.0"])

    def test_what_others_have_by_choice_does_not_count(self) -> None:
        with tempfile.TemporaryDirectory() as root:
            host = Host(root)
            for number in range(1, 6):
                host.pci(f"0000:0{number}:00.0")
            for number, driver in ((1, "nvidia"), (2, "vfio-pci"), (3, "nvidia")):
                os.symlink(f"../drivers/{driver}", f"{root}/sys/bus/pci/devices/0000:0{number}:00.0/driver")
            os.symlink("../0000:01:00.0", f"{root}/sys/bus/pci/devices/0000:04:00.0/physfn")
            for number, word in ((1, "No"), (3, "Yes")):
                text = f"Model: \t NVIDIA L40S\nGPU Excluded:\t {word}\n"
                host.write(f"proc/driver/nvidia/gpus/0000:0{number}:00.0/information", text)
            self.assertEqual(versions.pci_gpus(f"{root}/sys"), ["0000:01:00.0", "0000:05:00.0"])

    def test_no_pci_bus_at_all(self) -> None:
        self.assertEqual(versions.pci_gpus("/nowhere"), [])


if __name__ == "__main__":
    unittest.main()
