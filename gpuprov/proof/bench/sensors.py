"""Power, temperature, clock and PCIe link of one GPU while it is loaded, from NVML by the table of nvml/calls.py."""

from __future__ import annotations

import importlib

from gpuprov.proof.nvml.calls import GPU
from gpuprov.proof.nvml.reading import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from gpuprov.proof.check import Message

#: What is read beside each sample of a long measurement: cheap calls.
LOAD = ("power", "temperature", "clock.sm", "throttle")
PCIE = ("pcie.generation", "pcie.generation_max", "pcie.width", "pcie.width_max")


class Sensors:
    """Reads values of one GPU. reason says why that is not possible, "" when it is."""

    def __init__(self, uuid: str) -> None:
        self.reason = ""
        self._nvml: Any = None
        try:
            self._nvml = importlib.import_module("pynvml")
        except ImportError:
            self.reason = "nvidia-ml-py is not installed in this environment"
            return
        try:
            self._nvml.nvmlInit()
            self._handle = self._nvml.nvmlDeviceGetHandleByUUID(uuid)
        except self._nvml.NVMLError as error:
            self.reason = f"NVML does not answer for {uuid or 'a GPU without UUID'}: {error}"

    def read(self, keys: Sequence[str]) -> Message:
        """Return the values of *keys* that NVML has for this GPU; one that it does not have is absent."""
        found: Message = {}
        if self.reason:
            return found
        for key, _, function, args, _ in (row for row in GPU if row[0] in keys):
            try:
                given = [getattr(self._nvml, arg) if isinstance(arg, str) else arg for arg in args]
                value = plain(getattr(self._nvml, function)(self._handle, *given))
            except (AttributeError, self._nvml.NVMLError):
                continue
            if not isinstance(value, dict):
                found[key] = value
        return found
