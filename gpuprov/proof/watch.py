"""What `gpuprov top` runs on a host: a JSON line about its GPUs every few seconds, until nobody listens.

This file travels as it is and is executed by any Python from 3.8 on, so it needs nothing but the standard library
and the driver's libnvidia-ml.so.1, and imports nothing of gpuprov. NVML is asked in a thread: when a call never
returns, the main thread goes on and says which one it was.

A value that NVML does not tell is null, never 0.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIBRARY = "libnvidia-ml.so.1"
#: What the library of rehearsal hosts exports, and no driver's does.
SIMULATED = "gpuprov_simulated_nvml"
#: NVML's return codes: not supported is no news, a lost GPU and a driver that is not there are.
LOST = {15: "GpuIsLost", 6: "GpuNotFound", 20: "ResetRequired"}
UNINITIALISED = {
    9: "the driver is not loaded",
    12: "the driver's library is damaged",
    18: "driver and library differ in version: reboot, or install the driver again",
}
#: A call that takes longer than this counts as hung. Samples of eight GPUs take a tenth of a second.
HUNG_S = 10.0
MOST_PROCESSES = 16


class _Process(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("memory", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class Watch:
    """Asks NVML, and remembers which call it is in."""

    def __init__(self) -> None:
        self.call = ""
        self.since = 0.0
        self.sample: dict[str, Any] = {}
        self._nvml: Any = None

    def take(self) -> dict[str, Any]:
        """Return a sample; its "error" says why there is none."""
        if self._nvml is None:
            try:
                self._nvml = ctypes.CDLL(LIBRARY)
            except OSError:
                return {"error": "no NVIDIA driver: there is no " + LIBRARY, "gpus": []}
        code = self._ask("nvmlInit_v2")
        if code:
            return {"error": UNINITIALISED.get(code, f"NVML does not start: error {code}"), "gpus": []}
        count = ctypes.c_uint()
        code = self._ask("nvmlDeviceGetCount_v2", ctypes.byref(count))
        if code:
            return {"error": f"NVML does not say how many GPUs there are: error {code}", "gpus": []}
        simulated = hasattr(self._nvml, SIMULATED)
        return {"error": "", "simulated": simulated, "gpus": [self._gpu(index) for index in range(count.value)]}

    def _ask(self, function: str, *args: Any) -> int:
        """Call *function*; return NVML's code (13, function not found, where the library is older than that)."""
        self.call, self.since = function, time.monotonic()
        try:
            return int(getattr(self._nvml, function)(*args))
        except AttributeError:
            return 13
        finally:
            self.call = ""

    def _gpu(self, index: int) -> dict[str, Any]:
        handle = ctypes.c_void_p()
        code = self._ask("nvmlDeviceGetHandleByIndex_v2", index, ctypes.byref(handle))
        found: dict[str, Any] = {"index": index, "lost": LOST.get(code, f"error {code}") if code else ""}
        if code:
            return found
        name = ctypes.create_string_buffer(96)
        code = self._ask("nvmlDeviceGetName", handle, name, 96)
        found["lost"] = LOST.get(code, "")
        rates, memory = (ctypes.c_uint * 2)(), (ctypes.c_ulonglong * 3)()
        rated = not self._ask("nvmlDeviceGetUtilizationRates", handle, rates)
        told = not self._ask("nvmlDeviceGetMemoryInfo", handle, memory)
        found.update(
            name=name.value.decode("utf-8", "replace") if not code else None,
            utilization=rates[0] if rated else None,
            memory_total=memory[0] if told else None,
            memory_used=memory[2] if told else None,
            temperature=self._number("nvmlDeviceGetTemperature", handle, 0),
            power_mw=self._number("nvmlDeviceGetPowerUsage", handle),
            limit_mw=self._number("nvmlDeviceGetEnforcedPowerLimit", handle),
            throttle=self._number("nvmlDeviceGetCurrentClocksThrottleReasons", handle, kind=ctypes.c_ulonglong),
            uncorrected=self._number("nvmlDeviceGetTotalEccErrors", handle, 1, 0, kind=ctypes.c_ulonglong),
            processes=self._processes(handle),
        )
        return found

    def _number(self, function: str, handle: Any, *args: int, kind: Any = ctypes.c_uint) -> int | None:
        value = kind()
        return None if self._ask(function, handle, *args, ctypes.byref(value)) else int(value.value)

    def _processes(self, handle: Any) -> list[dict[str, Any]] | None:
        count, found = ctypes.c_uint(MOST_PROCESSES), (_Process * MOST_PROCESSES)()
        code = self._ask("nvmlDeviceGetComputeRunningProcesses_v3", handle, ctypes.byref(count), found)
        if code == 13:
            code = self._ask("nvmlDeviceGetComputeRunningProcesses_v2", handle, ctypes.byref(count), found)
        if code == 7:  # more than fit: those that came are told
            count.value = MOST_PROCESSES
        elif code:
            return None
        return [_process(found[at]) for at in range(min(count.value, MOST_PROCESSES))]


def _process(one: Any) -> dict[str, Any]:
    """Return pid, memory (None where NVML does not know), the program's name and its user's number."""
    told: dict[str, Any] = {"pid": one.pid, "memory": one.memory if one.memory != 2**64 - 1 else None}
    try:
        with open(f"/proc/{one.pid}/comm", encoding="utf-8", errors="replace") as f:
            told.update(name=f.read().strip(), uid=os.stat(f"/proc/{one.pid}").st_uid)
    except OSError:  # of another container, or just ended
        told.update(name=None, uid=None)
    return told


def main(interval_s: float) -> None:
    """Write a sample every *interval_s* until stdin ends, or stdout is closed."""
    watch = Watch()
    wanted, taken = threading.Event(), threading.Event()

    def ask() -> None:
        while True:
            wanted.wait()
            wanted.clear()
            watch.sample = watch.take()
            taken.set()

    def leave() -> None:
        sys.stdin.buffer.read()  # the rest of it: nothing, until whoever watches goes away
        os._exit(0)  # the other thread may hang in the driver, and nothing ends it

    threading.Thread(target=ask, daemon=True).start()
    threading.Thread(target=leave, daemon=True).start()
    try:
        wanted.set()
        while True:
            done = taken.wait(HUNG_S)
            if done:
                taken.clear()
                line = dict(watch.sample, hung="")
            else:
                line = {"error": "", "gpus": [], "hung": watch.call or "?"}
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
            if done:
                time.sleep(interval_s)
                wanted.set()
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)


if __name__ == "__main__":
    main(float(sys.argv[1]))
