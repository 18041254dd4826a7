"""NVML asked through a module that answers as pynvml does: every odd answer, without a library.

The real pynvml with the library of rehearsal hosts is in test_fault_matrix.py.
"""

from __future__ import annotations

import ctypes
import json
import sys
import types
import unittest
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from gpuprov.proof.nvml import calls, reading


class _Fabric(ctypes.Structure):
    _fields_ = (("status", ctypes.c_uint), ("state", ctypes.c_uint))


# What pynvml answers with has attributes by NVML's names.
_FIELD = types.SimpleNamespace(nvmlReturn=0, valueType=3, value=types.SimpleNamespace(ullVal=2))
_PROCESS = types.SimpleNamespace(pid=4242, usedGpuMemory=None)
_PCI = types.SimpleNamespace(busId=b"00000000:1B:00.0", pciDeviceId=0x233010DE, pciSubSystemId=0xFFFFFFFF)


class FakeNvml(types.ModuleType):
    """Functions that are not set answer 7; those named in *failing* raise the error of that name."""

    def __init__(self, failing: dict | None = None, count: int = 2, links: int = 4) -> None:
        super().__init__("pynvml")
        self.failing, self.count, self.links = failing or {}, count, links
        self.NVMLError = type("NVMLError", (Exception,), {"value": 31})
        self.NVML_NVLINK_MAX_LINKS = 18
        self.c_nvmlGpuFabricInfo_t = _Fabric
        self.NVML_P2P_CAPS_INDEX_READ = (0,)  # as in nvidia-ml-py: a stray comma

    def __getattr__(self, name: str) -> object:
        if name in ("nvmlLib", "NVMLLibraryMismatchError") or name.startswith("c_"):
            raise AttributeError(name)
        if name.startswith(("NVML_", "__")):
            return 0
        return lambda *args: self.call(name, *args)

    def error(self, name: str) -> Exception:
        return type(f"NVMLError_{name}", (self.NVMLError,), {})() if name else self.NVMLError()

    def call(self, name: str, *args: object) -> object:
        if name in self.failing:
            raise self.error(self.failing[name])
        if "NvLink" in name and args[1] >= self.links:
            raise self.error("NotSupported")
        return _ANSWERS.get(name, lambda nvml, *args: 7)(self, *args)


def _fabric(nvml: FakeNvml, handle: object, by_reference: object) -> int:
    by_reference._obj.state = 3
    return 0


_ANSWERS = {
    "nvmlDeviceGetCount": lambda nvml: nvml.count,
    "nvmlDeviceGetName": lambda nvml, handle: b"NVIDIA H100 80GB HBM3",
    "nvmlDeviceGetSerial": lambda nvml, handle: "[N/A]",
    "nvmlDeviceGetTotalEnergyConsumption": lambda nvml, handle: 2**64 - 1,
    "nvmlDeviceGetPciInfo_v3": lambda nvml, handle: _PCI,
    "nvmlDeviceGetCudaComputeCapability": lambda nvml, handle: (9, 0),
    "nvmlDeviceGetEccMode": lambda nvml, handle: [1, 1],
    "nvmlDeviceGetMigMode": lambda nvml, handle: [0, 0],
    "nvmlDeviceGetRemappedRows": lambda nvml, handle: (0, 0, 0, 0),
    "nvmlDeviceGetRetiredPages": lambda nvml, handle, cause: [],
    "nvmlDeviceGetComputeRunningProcesses": lambda nvml, handle: [_PROCESS] * 200,
    "nvmlDeviceGetGraphicsRunningProcesses": lambda nvml, handle: [],
    "nvmlDeviceGetGpuFabricInfo": _fabric,
    "nvmlDeviceGetFieldValues": lambda nvml, handle, fields: [_FIELD],
    "nvmlDeviceGetP2PStatus": lambda nvml, one, other, index: index + 0,
    "nvmlDeviceValidateInforom": lambda nvml, handle: None,
}


def ask(nvml: object, gpus: int = 1) -> tuple[dict, list]:
    """Return the Reading, and all messages, of a library that is *nvml*."""
    messages: list = []
    with mock.patch.dict(sys.modules, {"pynvml": nvml}):
        reading.read_library(messages.append)
        for index in range(gpus):
            reading.read_gpu(index, messages.append)
    values = [m for m in messages if m["kind"] != "stage"]
    return reading.assemble(values), messages


class Asking(unittest.TestCase):
    def test_every_row_has_a_value(self) -> None:
        found, messages = ask(FakeNvml())
        gpu = found["gpus"][0]
        self.assertEqual(set(gpu["values"]), {row[0] for row in calls.GPU})
        self.assertEqual([set(link) for link in gpu["links"][:4]], [{row[0] for row in calls.LINK}] * 4)
        self.assertEqual(set(gpu["peers"]["1"]), {row[0] for row in calls.PEER})
        self.assertEqual(found["count"], 2)
        self.assertIsNone(found["error"])
        self.assertLess(max(len(json.dumps(m)) for m in messages), 4096)

    def test_a_stage_before_each_call_names_it(self) -> None:
        messages = ask(FakeNvml())[1]
        stages = [m["text"] for m in messages if m["kind"] == "stage"]
        self.assertIn("nvmlDeviceGetTemperature of GPU 0", stages)
        self.assertIn("nvmlDeviceGetNvLinkState of GPU 0, link 3", stages)
        named = {text.partition(" of ")[0] for text in stages}
        asked = {row[2] for row in (*calls.SYSTEM, *calls.GPU, *calls.LINK, *calls.PEER) if row[1] != "value"}
        self.assertLessEqual(asked, named)

    def test_a_function_is_called_once_for_all_its_fields(self) -> None:
        messages = ask(FakeNvml())[1]
        stages = [m["text"] for m in messages if m["kind"] == "stage"]
        self.assertEqual(stages.count("nvmlDeviceGetPciInfo_v3 of GPU 0"), 1)

    def test_shapes(self) -> None:
        values = ask(FakeNvml())[0]["gpus"][0]["values"]
        self.assertEqual(values["name"], "NVIDIA H100 80GB HBM3")
        self.assertEqual(values["compute_capability"], [9, 0])
        self.assertEqual(values["serial"], {"error": "NotAvailable"})
        self.assertEqual(values["energy"], {"error": "NotAvailable"})
        self.assertEqual(values["pci.subsystem"], {"error": "NotAvailable"})
        self.assertEqual(values["processes.compute"][0], {"pid": 4242, "memory": {"error": "NotAvailable"}})
        self.assertEqual(values["fabric"], 3)
        self.assertEqual(values["recovery_action"], 2)
        self.assertIs(values["inforom"], True)

    def test_links_that_the_gpu_does_not_have(self) -> None:
        links = ask(FakeNvml(links=2))[0]["gpus"][0]["links"]
        self.assertEqual(links[2], {"state": {"error": "NotSupported"}})

    def test_errors_by_name(self) -> None:
        failing = {"nvmlDeviceGetTemperature": "NotSupported", "nvmlDeviceGetUUID": "", "nvmlDeviceGetName": "Unknown"}
        values = ask(FakeNvml(failing))[0]["gpus"][0]["values"]
        self.assertEqual(values["temperature"], {"error": "NotSupported"})
        self.assertEqual(values["uuid"], {"error": "Code31"})
        self.assertEqual(values["name"], {"error": "Unknown"})

    def test_calls_that_this_pynvml_does_not_know(self) -> None:
        values = ask(FakeNvml())[0]["gpus"][0]["values"]
        self.assertEqual(values["ecc.sram.threshold_exceeded"], {"error": "FunctionNotFound"})

    def test_a_lost_gpu(self) -> None:
        found, _ = ask(FakeNvml({"nvmlDeviceGetHandleByIndex": "GpuIsLost"}))
        self.assertEqual(set(map(str, found["gpus"][0]["values"].values())), {"{'error': 'GpuIsLost'}"})
        self.assertEqual(found["gpus"][0]["address"], "")
        self.assertIsNone(found["error"])


class Library(unittest.TestCase):
    def test_it_cannot_be_initialised(self) -> None:
        for name in ("DriverNotLoaded", "LibRmVersionMismatch", "LibraryNotFound", "Unknown"):
            found, _ = ask(FakeNvml({"nvmlInit": name}), gpus=0)
            self.assertEqual(found["error"]["error"], name)
            self.assertIn("nvmlInit_v2", found["error"]["text"])
            self.assertIsNone(found["count"])
            self.assertIs(found["library"]["simulated"], False)

    def test_no_pynvml(self) -> None:
        found, _ = ask(None, gpus=0)
        self.assertEqual(found["error"]["error"], "PynvmlMissing")

    def test_another_module_of_that_name(self) -> None:
        found, _ = ask(types.ModuleType("pynvml"), gpus=0)
        self.assertIn("not nvidia-ml-py's", found["error"]["text"])

    def test_the_library_that_is_loaded_is_named_and_known_for_what_it_is(self) -> None:
        nvml = FakeNvml()
        nvml.nvmlLib = ctypes.CDLL(None)
        self.assertIs(ask(nvml)[0]["library"]["simulated"], False)
        with mock.patch.object(reading, "SIMULATED", "malloc"):
            self.assertIs(ask(nvml)[0]["library"]["simulated"], True)


class Assembling(unittest.TestCase):
    def test_a_gpu_that_hangs_keeps_what_it_said(self) -> None:
        messages = [{"kind": "library", "key": "count", "value": 2}]
        messages += [{"kind": "value", "gpu": 1, "key": "name", "value": "H100"}]
        found = reading.assemble(messages, {1: "nvmlDeviceGetTemperature of GPU 1"})
        self.assertEqual(found["gpus"][1]["hung"], "nvmlDeviceGetTemperature")
        self.assertEqual(found["gpus"][1]["values"], {"name": "H100"})
        self.assertEqual(found["gpus"][0]["values"], {})
        self.assertNotIn("hung", found["gpus"][0])

    def test_a_library_that_hangs(self) -> None:
        found = reading.assemble([], {-1: "nvmlInit_v2 of the library"})
        self.assertEqual(found["error"], {"error": "Hung", "text": "nvmlInit_v2 never returned"})
        self.assertEqual(found["gpus"], [])

    def test_addresses_as_sysfs_has_them(self) -> None:
        for text in ("00000000:1B:00.0", "0000:1b:00", "0000:1b:00.0", "1b:00.0"):
            self.assertEqual(reading.address(text), "0000:1b:00.0")
        self.assertEqual(reading.address("00010000:01:00.0"), "10000:01:00.0")
        self.assertEqual(reading.address("no address"), "no address")


class Plain(unittest.TestCase):
    @given(st.one_of(st.none(), st.integers(), st.text(), st.binary(), st.booleans(), st.floats(allow_nan=False)))
    def test_all_is_json(self, value: object) -> None:
        json.dumps(reading.plain(value))

    @given(st.sampled_from([2**32 - 1, 2**64 - 1, "", "N/A", "[N/A]", " n/a ", b"N/A", None]))
    def test_sentinels_are_no_values(self, value: object) -> None:
        self.assertEqual(reading.plain(value), {"error": "NotAvailable"})


if __name__ == "__main__":
    unittest.main()
