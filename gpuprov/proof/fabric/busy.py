"""Whether jobs use this host's GPUs: then they are not loaded unless asked. To be called in a process of its own."""

from __future__ import annotations

from gpuprov.proof.checks.each import Gpu
from gpuprov.proof.checks.modes import use
from gpuprov.proof.nvml import reading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.check import Message


def users() -> str:
    """Return who uses GPUs of this host, "" for nobody. What NVML does not tell is told, too: it may be a job."""
    messages: list[Message] = []
    reading.read_library(messages.append)
    found = reading.assemble(messages)
    for index in range(found["count"] or 0):
        reading.read_gpu(index, messages.append)
    return words(reading.assemble(messages))


def words(found: Message) -> str:
    """Return in words who uses the GPUs of a Reading, "" for nobody. Pure."""
    if found["error"]:
        return f"NVML cannot say whether jobs use the GPUs ({found['error'].get('text') or found['error']['error']})"
    used = []
    for gpu in map(Gpu, found["gpus"]):
        user, untold = use(gpu)
        if user or untold:
            used.append(f"{gpu.device} by {user}" if user else f"{gpu.device} perhaps: {untold}")
    return f"in use: {'; '.join(used[:4])}" if used else ""
