"""What was read of all GPUs in one run: once at the beginning, once after the load."""

from __future__ import annotations

import json

from gpuprov.proof.checks.each import gpus_of
from gpuprov.proof.checks.modes import use
from gpuprov.proof.nvml import reading as nvml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuprov.proof.check import Message

#: Of a reading's text in one message: lines stay under 4 KiB, also when every character is escaped.
PIECE_CHARS = 1800


class Readings:
    """Two readings of the host's GPUs."""

    def __init__(self) -> None:
        self._library: list[Message] = []
        self._values: list[Message] = []
        self._hung: dict[int, str] = {}
        self._before: Message = {}
        self._counters: Message = {}
        self._counters_before: Message = {}
        self.count = 0

    def take(self, message: Message) -> None:
        """Take a message of a process that reads. count is how many GPUs NVML has, 0 while it did not say."""
        if message["kind"] == "value":
            self._values.append(message)
            return
        if message["kind"] == "counters":
            self._counters = message
            return
        self._library.append(message)
        if message["key"] == "count" and isinstance(message["value"], int):
            self.count = message["value"]

    def hung(self, index: int, stage: str) -> None:
        """Note that the process of GPU *index* (-1: of the library) had to be killed, and in what it was."""
        self._hung[index] = stage

    def reading(self) -> Message:
        """Return what was read."""
        found = nvml.assemble([*self._library, *self._values], self._hung)
        return dict(found, xids=self._counters.get("xids"))

    def again(self) -> None:
        """Begin the second reading."""
        self._before = self.reading()
        self._counters_before = self._counters
        self._values, self._hung, self._counters = [], {}, {}

    def differences(self, seconds: float) -> list[Message]:
        """Return the checks of the counters that rose in these *seconds* of load."""
        from gpuprov.proof.checks import differences, host_counters

        found = differences.differences(self._before, self.reading(), seconds) if self.count else []
        if self._counters and self._counters_before:
            found += host_counters.differences(self._counters_before["host"], self._counters["host"])
        return found

    def use_of(self, uuid: str) -> tuple[str, str]:
        """Return who uses the GPU with this UUID, and why that cannot be told: both "" when nobody does.

        Where torch does not tell the UUID, every GPU of the host counts: if nobody uses any, nobody uses this one.
        """
        found = self.reading()
        if found["error"]:
            return "", f"NVML does not answer: {found['error'].get('text') or found['error']['error']}"
        gpus = gpus_of(found)
        its = [gpu for gpu in gpus if uuid and gpu.get("uuid") == uuid]
        if its or uuid.startswith("GPU-"):
            return use(its[0]) if its else ("", f"NVML has no GPU {uuid}")
        uses = [use(gpu) for gpu in gpus]
        if uses and uses == [("", "")] * len(uses):
            return "", ""
        return "", "torch does not tell which of NVML's GPUs it is, and not all of them are known to be free"

    def recorded(self) -> Iterator[Message]:
        """Return the messages that carry the reading, in pieces."""
        text = json.dumps(self.reading(), separators=(",", ":"))
        for start in range(0, len(text), PIECE_CHARS):
            yield {"kind": "reading", "text": text[start : start + PIECE_CHARS]}
