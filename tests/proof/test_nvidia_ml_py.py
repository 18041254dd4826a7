"""The real nvidia-ml-py has what is asked of it, and a library in C gets through it: no GPU, no driver."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory

from gpuprov.proof.nvml import calls
from tests.support.simulated_reading import Simulated, pynvml_folder

ROWS = (*calls.SYSTEM, *calls.GPU, *calls.LINK, *calls.PEER)
#: Answers of a library that has two GPUs and knows next to nothing of them; 3 is NotSupported, 14 a corrupted InfoROM.
_SOURCE = """
int gpuprov_simulated_nvml = 1;
int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **gpu) { *gpu = (void *)(index + 1L); return index ? 15 : 0; }
int nvmlDeviceGetName(void *gpu, char *name, unsigned room) { name[0] = (char)0xff; name[1] = 0; return 0; }
int nvmlDeviceGetTemperature(void *gpu, unsigned sensor, unsigned *value) { *value = 42; return 0; }
int nvmlDeviceGetGpuFabricInfo(void *gpu, unsigned *info) { info[6] = 3; return 0; }
int nvmlDeviceValidateInforom(void *gpu) { return 14; }
int nvmlDeviceGetTotalEnergyConsumption(void *gpu, unsigned long long *value) { *value = ~0ULL; return 0; }
"""
#: pynvml's names of functions that have others in the library, and those that stay unknown there on purpose.
_UNKNOWN = ("nvmlDeviceGetGspFirmwareVersion", "nvmlDeviceGetComputeRunningProcesses")


class NvidiaMlPy(unittest.TestCase):
    def test_it_has_every_function_and_constant(self) -> None:
        names = {row[2] for row in ROWS} | {arg for row in ROWS for arg in row[3] if isinstance(arg, str)}
        script = "import sys, pynvml; print([name for name in sys.argv[1:] if not hasattr(pynvml, name)])"
        argv = [sys.executable, "-c", script, *sorted(names)]
        environment = dict(os.environ, PYTHONPATH=pynvml_folder())
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout.strip(), "[]")

    def test_every_row_gets_through_it(self) -> None:
        defined = {line.split("(")[0].split()[-1] for line in _SOURCE.splitlines() if "(" in line}
        others = {row[2] for row in ROWS if row[1] != "value"} - defined - set(_UNKNOWN)
        source = _SOURCE + "".join(f"int {name}() {{ return 3; }}\n" for name in sorted(others))
        with TemporaryDirectory() as folder:
            library = Path(folder) / "libnvidia-ml.so.1"
            argv = [
                shutil.which("cc") or "gcc",
                "-w",
                "-fno-builtin",
                "-shared",
                "-fPIC",
                "-x",
                "c",
                "-",
                "-o",
                str(library),
            ]
            subprocess.run(argv, input=source, text=True, check=True)
            with Simulated(str(library), "UNUSED") as simulated:
                found = simulated.read("")
        self.assertIsNone(found["error"])
        self.assertEqual((found["count"], found["library"]["simulated"]), (2, True))
        self.assertEqual(found["library"]["path"], str(library))
        values = found["gpus"][0]["values"]
        self.assertEqual(set(values), {row[0] for row in calls.GPU})
        self.assertEqual((values["temperature"], values["fabric"]), (42, 3))
        self.assertEqual(values["name"], {"error": "NotText"})
        self.assertEqual(values["inforom"], {"error": "CorruptedInforom"})
        self.assertEqual(values["energy"], {"error": "NotAvailable"})
        self.assertEqual(values["gsp_firmware"], {"error": "FunctionNotFound"})
        self.assertEqual(values["processes.compute"], {"error": "FunctionNotFound"})
        self.assertEqual(values["remapped"], {"error": "NotSupported"})
        self.assertEqual(values["recovery_action"], {"error": "FunctionNotFound"})
        self.assertEqual(found["gpus"][1]["values"]["temperature"], {"error": "GpuIsLost"})


if __name__ == "__main__":
    unittest.main()
