"""What is installed and what it can see: torch, CUDA, cuDNN, NCCL, driver, GPUs on the PCI bus.

`collect` asks, `judge` decides (pure). That torch.cuda.is_available() says True means little, no
kernel has run yet; that it says False on a host with a GPU is the commonest fault of all.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import sys
import warnings

from gpuprov.proof.check import check
from gpuprov.proof.checks import resolved
from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

NVIDIA = "0x10de"
#: PCI classes of VGA and of 3D controllers; the same vendor's audio, USB and NVSwitch functions have others.
DISPLAY_CLASSES = ("0x0300", "0x0302")


#: What torch says where CUDA works and shows it nothing.
_NO_SLICE = re.compile(r"(?i)no cuda gpus are available|no cuda-capable device")
#: Kernel drivers that hold a device for a virtual machine.
_FOR_GUESTS = ("vfio-pci", "vfio_pci", "nvgrace-gpu-vfio-pci", "pci-stub", "pciback", "xen-pciback")


def pci_gpus(sysfs: str = "/sys") -> list[str]:
    """Return the PCI addresses of NVIDIA display and 3D controllers that are for this host to use."""
    folders = sorted(glob.glob(os.path.join(sysfs, "bus/pci/devices/*")))
    return [os.path.basename(folder) for folder in folders if _is_gpu(folder) and not withheld(folder)]


def withheld(folder: str) -> str:
    """Return why the GPU with this folder in sysfs is not for the host's driver, by somebody's choice; "" if it is."""
    if os.path.exists(os.path.join(folder, "physfn")):
        return "it is a virtual function, a part of another"
    with contextlib.suppress(OSError):
        driver = os.path.basename(os.readlink(os.path.join(folder, "driver")))
        if driver in _FOR_GUESTS:
            return f"{driver} holds it for a virtual machine"
    root = folder.rpartition("/sys/")[0] or "/"
    told = os.path.join(root, "proc/driver/nvidia/gpus", os.path.basename(folder), "information")
    if re.search(r"GPU Excluded:\s*Yes", _text(told)):
        return "the driver was told to leave it alone (NVreg_ExcludedGpus)"
    return ""


def _is_gpu(folder: str) -> bool:
    kind = _text(os.path.join(folder, "class"))[:6]
    return _text(os.path.join(folder, "vendor")) == NVIDIA and kind in DISPLAY_CLASSES


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as f:
            return f.read().strip()
    except OSError:
        return ""


def collect() -> Message:
    """Ask torch, NVML and sysfs; needs torch. What is not there is None or "" with a reason beside it."""
    import torch

    nodes = [name for name in os.listdir("/dev") if name.startswith("nvidia") and name[6:].isdigit()]
    found: Message = {
        "python": sys.version.split()[0],
        "executable": sys.executable,
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "rocm": torch.version.hip,
        "pci_gpus": pci_gpus(),
        "device_nodes": len(nodes),
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "prefix": sys.prefix,
    }
    found["available"], found["available_reason"] = _available(torch)
    found["devices"] = _devices(torch) if found["available"] else []
    found["cudnn"], found["cudnn_reason"] = _cudnn(torch)
    found["nccl"] = _nccl(torch)
    found["driver"], found["driver_reason"] = _driver()
    found["sliced"] = _sliced()
    found["libraries"] = _libraries()
    return found


def _sliced() -> int:
    """Return on how many GPUs MIG is on: of their slices CUDA shows a process one at most."""
    try:
        import pynvml
    except ImportError:
        return 0
    sliced = 0
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        for index in range(pynvml.nvmlDeviceGetCount()):
            with contextlib.suppress(pynvml.NVMLError):
                sliced += bool(pynvml.nvmlDeviceGetMigMode(pynvml.nvmlDeviceGetHandleByIndex(index))[0])
        pynvml.nvmlShutdown()
    return sliced


def _libraries() -> dict[str, list[str]]:
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as f:
        return resolved.loaded(f)


def _available(torch: Any) -> tuple[bool, str]:
    """Ask is_available(), and when it says no, torch for its reason."""
    if torch.version.cuda is None:
        return False, f"torch is the {'ROCm' if torch.version.hip else 'CPU'} build"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return True, ""
    for warning in said:
        if "CUDA" in str(warning.message):
            return False, _one_line(warning.message)
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return False, _one_line(error)
    return False, "torch gives no reason"


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:300]


def _devices(torch: Any) -> list[Message]:
    devices = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices.append(
            {
                "index": index,
                "name": properties.name,
                "uuid": _uuid(properties),
                "capability": f"{properties.major}.{properties.minor}",
                "memory_bytes": properties.total_memory,
            }
        )
    return devices


def _uuid(properties: Any) -> str:
    """Return the GPU's UUID as NVML spells it, "" where this torch does not tell."""
    uuid = str(getattr(properties, "uuid", ""))
    return uuid if not uuid or uuid.startswith("GPU-") else "GPU-" + uuid


def _cudnn(torch: Any) -> tuple[str | None, str]:
    """Return cuDNN's version as text; torch raises when the library found at run time does not fit."""
    try:
        number = torch.backends.cudnn.version()
    except RuntimeError as error:
        return None, _one_line(error)
    if number is None:
        return None, "this torch was built without cuDNN"
    # 8907 is 8.9.7; from 9.0 on there is one digit more: 91002 is 9.10.2.
    base = 10000 if number >= 90000 else 1000
    return f"{number // base}.{number % base // 100}.{number % 100}", ""


def _nccl(torch: Any) -> str | None:
    if torch.version.cuda is None or not (torch.distributed.is_available() and torch.distributed.is_nccl_available()):
        return None
    return ".".join(str(part) for part in torch.cuda.nccl.version())


def _driver() -> tuple[str | None, str]:
    """Return the loaded driver's version from NVML, else from the kernel module."""
    try:
        import pynvml
    except ImportError:
        reason = "pynvml is not installed"
    else:
        try:
            pynvml.nvmlInit()
            version = pynvml.nvmlSystemGetDriverVersion()
            pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            reason = _one_line(error)
        else:
            return version.decode() if isinstance(version, bytes) else str(version), ""
    return _text("/sys/module/nvidia/version") or None, reason


def judge(found: Message, expected: int | None) -> list[Message]:
    """Return the checks on what `collect` found; *expected* GPUs, None when nobody said. Pure."""
    return [
        judge_available(found, expected),
        judge_count(found, expected),
        _judge_version(found, "cudnn", "cuDNN", found["cudnn_reason"], "fail"),
        _judge_version(found, "nccl", "NCCL", "this torch was built without NCCL", "unknown"),
        _judge_version(found, "driver", "NVIDIA driver", found["driver_reason"], "unknown"),
    ]


def judge_available(found: Message, expected: int | None) -> Message:
    """Judge torch.cuda.is_available() by what is on the PCI bus. Pure."""
    name, count = "cuda.available", len(found["pci_gpus"])
    if found["available"]:
        reason = f"torch finds CUDA {found['cuda']}; that alone says little, no kernel has run yet"
        return check(name, "pass", reason, measured=True, expected=True)
    why = found["available_reason"]
    if found["cuda"] is None:
        if count and expected != 0:
            reason = f"{why} ({found['torch']}), but the PCI bus has {_gpus(count)}"
            return check(name, "fail", reason, measured=False, expected=True)
        return check(name, "skip", f"no CUDA device: {why}", measured=False)
    if found.get("sliced", 0) >= max(count, 1) and _NO_SLICE.search(why):
        reason = f"MIG is on, on all {_gpus(count)}, and torch finds no slice: none is made, or none is given to it"
        return check(name, "skip", reason, measured=False)
    reason = f"CUDA build of torch but is_available() is False: {why}"
    if count and expected != 0:
        return check(name, "fail", reason, measured=False, expected=True, action="reboot")
    return check(name, "skip", reason + " (no NVIDIA GPU on the PCI bus)" * (not count), measured=False)


def judge_count(found: Message, expected: int | None) -> Message:
    """Judge how many GPUs torch can use, by what was expected and by the PCI bus. Pure."""
    name, usable, count = "gpu.count", len(found["devices"]), len(found["pci_gpus"])
    if found.get("sliced") and usable < max(count, expected or 0):
        reason = (
            f"MIG is on, on {_gpus(found['sliced'])}, and CUDA shows a process one slice at most: torch has {usable}"
        )
        return check(name, "skip", reason, measured=usable, expected=expected, unit="GPUs")
    if expected is not None and usable < expected:
        reason = f"{_gpus(expected)} expected, torch can use {usable} ({count} on the PCI bus)"
        action = "reboot" if count >= expected else "isolate"
        return check(name, "fail", reason, measured=usable, expected=expected, unit="GPUs", action=action)
    if usable < count and expected != 0:
        verdict, why = _why_fewer(found, usable, count, expected)
        reason = f"torch can use {usable} of {_gpus(count)} on the PCI bus{why}"
        action = "reboot" if verdict == "fail" else "none"
        return check(name, verdict, reason, measured=usable, expected=count, unit="GPUs", action=action)
    if not usable and not expected:
        return check(name, "skip", "no NVIDIA GPU that torch can use", measured=0, expected=expected, unit="GPUs")
    wanted = count if expected is None else expected
    names = ", ".join(sorted({device["name"] for device in found["devices"]}))
    reason = f"torch can use {_gpus(usable)}: {names}"
    return check(name, "pass", reason, measured=usable, expected=wanted, unit="GPUs")


def _why_fewer(found: Message, usable: int, count: int, expected: int | None) -> tuple[str, str]:
    if found["cuda_visible_devices"] is not None:
        return "warn", f": CUDA_VISIBLE_DEVICES is {found['cuda_visible_devices']!r}"
    if usable and found["device_nodes"] < count:
        return "warn", f"; device nodes here: {found['device_nodes']}, as in a container that was given fewer"
    if expected is not None:
        return "warn", ", as many as expected"
    return "fail", ""


def _gpus(count: int) -> str:
    return f"{count} GPU{'' if count == 1 else 's'}"


def _judge_version(found: Message, key: str, title: str, missing: str, otherwise: str) -> Message:
    """Judge the version of a library that only means something with a GPU. Pure."""
    if not found["devices"] and not found["pci_gpus"]:
        return check(key, "skip", f"{title} was not measured: no NVIDIA GPU", measured=found[key])
    if found["cuda"] is None and key != "driver":
        return check(key, "skip", f"{title} was not measured: {found['available_reason']}")
    if found[key] is None:
        return check(key, otherwise, f"{title} has no version: {missing}")
    return check(key, "pass", f"{title} {found[key]}", measured=found[key])


def run(context: Context, found: Message) -> list[Message]:
    """Return the checks on what `collect` found."""
    return judge(found, context.expect.get("gpus"))


_MAPS = "/proc/self/maps of the process that runs torch"
PARTS = (
    Part("versions", "quick", "torch", run, "torch, NVML, the PCI bus"),
    Part("resolved", "quick", "torch", resolved.resolved, "torch and NVML, as they run"),
    Part("libraries", "quick", "torch", resolved.libraries, _MAPS),
)
