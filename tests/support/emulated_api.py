"""What torch.cuda has for EMULATED GPUs (emulated_cuda.py): properties, memory as told, streams that do nothing."""

from __future__ import annotations

import contextlib
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.emulated_cuda import EmulatedCuda

NAME = "EMULATED GPU"
#: What only has to be there.
SILENT = ("empty_cache", "reset_peak_memory_stats", "_lazy_init", "ipc_collect")


class Stream:
    """A stream that is done with everything as soon as it is told."""

    def __init__(self, device: Any = None, **_: Any) -> None:
        self.device = device

    def wait_stream(self, other: Any) -> None:
        assert isinstance(other, Stream)

    wait_event = wait_stream

    def synchronize(self) -> None:
        pass


class Event:
    def __init__(self, enable_timing: bool = False) -> None:
        self._timing, self._at = enable_timing, 0.0

    def record(self, stream: Any = None) -> None:
        assert stream is None or isinstance(stream, Stream)
        self._at = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, later: Event) -> float:
        """Return milliseconds, as CUDA's events do."""
        if not (self._timing and later._timing):
            raise ValueError("both events need enable_timing")
        return (later._at - self._at) * 1e3


@contextlib.contextmanager
def in_stream(stream: Any) -> Iterator[None]:
    """Be torch.cuda.stream."""
    assert isinstance(stream, Stream)
    yield


def doubles(cuda: EmulatedCuda) -> dict[str, Any]:
    """Return what torch.cuda has instead, by name."""
    properties = SimpleNamespace(
        name=NAME,
        major=cuda.capability[0],
        minor=cuda.capability[1],
        multi_processor_count=2,
        total_memory=cuda.free_bytes,
    )

    def identified(device: Any = None) -> Any:
        number = cuda.device(device if device is not None else "cuda").index
        return SimpleNamespace(**vars(properties), uuid=f"00000000-0000-0000-0000-{number:012d}")

    def told(value: Any) -> Any:
        return lambda device=None: cuda.device(device if device is not None else "cuda") and value()

    class on:  # noqa: N801 - torch's name
        """torch.cuda.device, a context manager."""

        def __init__(self, device: Any) -> None:
            self._index = cuda.device(device).index

        def __enter__(self) -> None:
            self._index, cuda.current = cuda.current, self._index

        def __exit__(self, *error: Any) -> None:
            cuda.current = self._index

    def set_device(device: Any) -> None:
        cuda.current = cuda.device(device).index

    return {
        **{name: lambda *_: None for name in SILENT},
        "is_available": lambda: cuda.count > 0,
        "device_count": lambda: cuda.count,
        "current_device": lambda: cuda.current,
        "set_device": set_device,
        "device": on,
        "get_device_name": told(lambda: NAME),
        "get_device_capability": told(lambda: cuda.capability),
        "get_device_properties": identified,
        "can_device_access_peer": lambda one, other: cuda.device(one) != cuda.device(other),
        "synchronize": told(lambda: None),
        "mem_get_info": told(lambda: (cuda.free_bytes, cuda.free_bytes)),
        "memory_reserved": told(lambda: 0),
        "memory_allocated": told(lambda: 0),
        "max_memory_allocated": told(lambda: cuda.peak_bytes),
        "memory_stats": told(lambda: {"segment.all.allocated": 1}),
        "get_rng_state": told(lambda: torch.zeros(16, dtype=torch.uint8)),
        "set_rng_state": lambda state, device=None: None,
        "is_current_stream_capturing": lambda: False,
        "Stream": Stream,
        "Event": Event,
        "current_stream": told(Stream),
        "stream": in_stream,
    }
