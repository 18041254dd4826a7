"""CUDA devices that are not there: torch's Python sees "cuda:N", and the CPU computes. Imports torch.

    with EmulatedCuda(count=2, capability=(9, 0)):
        torch.ones(3, device="cuda:1").is_cuda

Every tensor is one of the CPU's with the device that it pretends to be on as a label. Each call of torch from Python
is looked at: factories and `.to` put labels on, results have their arguments', and tensors of two devices in one call
are refused as CUDA refuses them. So code that forgets to move a tensor, asks the wrong device, or names what
torch.cuda does not have, breaks here as it would there.

Emulated: devices and their properties, streams and events (which do nothing: there is no asynchrony), pinned memory,
counters of memory (as told), bfloat16 autocast (the CPU's), TF32 (inputs are rounded), NCCL (gloo). Not emulated:
kernels and their errors, speed, real memory, and what happens below Python: the labels of tensors in there are lost.
"""

from __future__ import annotations

import contextlib
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
import torch.utils.checkpoint as checkpoint
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map_only

from tests.support.emulated_api import Stream, doubles

GIB = 1 << 30
CPU = torch.device("cpu")
LABEL = "_emulated_device"

#: May have tensors of several devices among their arguments, as with CUDA.
_MOVES = {
    "copy_",
    "to",
    "cpu",
    "cuda",
    "pin_memory",
    "__getitem__",
    "set_",
    "type_as",
    "_has_compatible_shallow_copy_type",
}


def label(tensor: Any) -> torch.device:
    """Return the device that *tensor* pretends to be on."""
    return tensor.__dict__.get(LABEL, CPU)


def _labelled(tensor: Any, device: torch.device) -> Any:
    tensor.__dict__[LABEL] = device
    return tensor


class _Mode(TorchFunctionMode):
    """Looks at each call of torch."""

    def __init__(self, cuda: EmulatedCuda) -> None:
        super().__init__()
        self._cuda = cuda

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__"):
            return self._attribute(func, name, args)
        if name == "_parse_to":
            return func(*args, **kwargs)
        if name in ("to", "cpu", "cuda", "pin_memory", "is_pinned"):
            return self._moved(func, name, args, kwargs)
        device = self._device_of(name, args, kwargs)
        if kwargs.get("device") is not None:
            device = self._checked(kwargs["device"])
            kwargs["device"] = CPU
        kwargs.pop("pin_memory", None)
        if name in ("mm", "matmul", "linear") and device.type == "cuda" and self._cuda.tf32(args):
            args = tuple(_ten_bits(one) if isinstance(one, torch.Tensor) else one for one in args)
        found = func(*args, **kwargs)
        if device.type == "cuda":
            tree_map_only(torch.Tensor, lambda one: one if LABEL in one.__dict__ else _labelled(one, device), found)
        return found

    def _device_of(self, name: str, args: Any, kwargs: Any) -> torch.device:
        """Return the one device of all tensors; numbers (no dimensions) of the CPU may be with any."""
        given = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.Tensor)]
        if name in _MOVES:
            return label(given[0]) if given else CPU
        devices = {label(one) for one in given if one.dim() or label(one) != CPU}
        if name in ("__setitem__", "index_put_") and label(given[0]) != CPU:
            devices -= {label(one) for one in given[1:-1]}  # places may be the CPU's
            devices.add(label(given[0]))
        if len(devices) > 1:
            raise RuntimeError(
                f"Expected all tensors to be on the same device in {name}, found {sorted(map(str, devices))}"
            )
        return next(iter(devices), CPU)

    def _attribute(self, func: Any, name: str, args: Any) -> Any:
        its = getattr(getattr(func, "__self__", None), "__name__", "")
        tensor = args[0]
        if name == "__set__":
            result = func(*args)
            if its in ("data", "grad") and isinstance(args[1], torch.Tensor):
                _labelled(tensor if its == "data" else args[1], label(args[1]))
            return result
        if its == "device":
            return label(tensor)
        if its == "is_cuda":
            return label(tensor).type == "cuda"
        found = func(*args)
        if isinstance(found, torch.Tensor) and LABEL not in found.__dict__:
            _labelled(found, label(tensor))
        return found

    def _moved(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        tensor, device = args[0], label(args[0])
        if name in ("pin_memory", "is_pinned"):
            pinned = tensor.__dict__.get("_pinned", False)
            if name == "is_pinned":
                return pinned
            if device != CPU:
                raise RuntimeError("cannot pin memory of a CUDA device")
            found = tensor.clone()
            found.__dict__["_pinned"] = True
            return found
        wanted, rest = _target(name, args[1:], kwargs)
        wanted = device if wanted is None else self._checked(wanted)
        kwargs.pop("non_blocking", None)
        found = tensor.to(*rest, **kwargs) if name == "to" else tensor
        if wanted != device and found is tensor:
            found = tensor.clone() if tensor.requires_grad and torch.is_grad_enabled() else tensor.detach().clone()
        return found if found is tensor else _labelled(found, wanted)

    def _checked(self, given: Any) -> torch.device:
        return self._cuda.device(given)


def _target(name: str, args: Any, kwargs: Any) -> tuple[Any, list[Any]]:
    """Return where `.to(...)`, `.cpu()` or `.cuda()` move to (None: nowhere), and the arguments for the CPU's `.to`."""
    if name == "cpu":
        return CPU, []
    if name == "cuda":
        return (args[0] if args else "cuda"), []
    wanted = kwargs.pop("device", None)
    for one in args:
        if isinstance(one, (str, torch.device, torch.Tensor)):
            wanted = label(one) if isinstance(one, torch.Tensor) else one
    return wanted, [CPU if isinstance(one, (str, torch.device)) else one for one in args]


def _ten_bits(tensor: Any) -> Any:
    """Return float32 rounded to the ten bits of mantissa that TF32 has."""
    return ((tensor.view(torch.int32) + (1 << 12)) & -(1 << 13)).view(torch.float32)


class EmulatedCuda:
    """So many devices of one compute capability. free_bytes: of each; peak_bytes: what is said to have been taken."""

    def __init__(self, count: int = 2, capability: tuple[int, int] = (9, 0), free_bytes: int = 64 * GIB) -> None:
        self.count, self.capability, self.free_bytes = count, capability, free_bytes
        self.peak_bytes = 0
        self.current = 0
        self._stack = contextlib.ExitStack()

    def device(self, given: Any) -> torch.device:
        """Return *given* ("cuda", "cuda:1", 1, a device) with its number. Raises RuntimeError where there is none."""
        device = torch.device("cuda", given) if isinstance(given, int) else torch.device(given)
        if device.type != "cuda":
            return device
        index = self.current if device.index is None else device.index
        if index >= self.count:
            raise RuntimeError(f"CUDA error: invalid device ordinal {index}")
        return torch.device("cuda", index)

    def tf32(self, args: Any) -> bool:
        """Say whether a product of *args* is one of TF32."""
        wide = all(one.dtype == torch.float32 for one in args if isinstance(one, torch.Tensor))
        return wide and self.capability >= (8, 0) and torch.get_float32_matmul_precision() != "highest"

    def __enter__(self) -> EmulatedCuda:
        for name, value in doubles(self).items():
            self._stack.enter_context(mock.patch.object(torch.cuda, name, value, create=name == "_lazy_init"))
        self._stack.enter_context(mock.patch.object(torch, "autocast", _autocast))
        self._stack.enter_context(mock.patch.object(torch.amp, "autocast", _autocast))
        self._stack.enter_context(mock.patch.object(torch.nn.Parameter, "__new__", _parameter))
        self._stack.enter_context(mock.patch.object(torch.Tensor, "record_stream", _record_stream))
        self._stack.enter_context(mock.patch.dict(checkpoint._allowed_determinism_checks_to_fns, default=_meta))
        self._stack.enter_context(mock.patch.object(torch, "load", self._load))
        self._stack.enter_context(mock.patch.object(dist, "init_process_group", _gloo))
        mode = self._stack.enter_context(_Mode(self))

        def engine(*given: Any, **named: Any) -> Any:
            with mode:  # what is computed again in there is Python, too
                return _ENGINE(*given, **named)

        self._stack.enter_context(mock.patch.object(torch.autograd, "_engine_run_backward", engine))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def _load(self, *given: Any, map_location: Any = CPU, **named: Any) -> Any:
        device = self.device(map_location)
        found = _LOAD(*given, map_location=CPU, **named)
        return tree_map_only(torch.Tensor, lambda one: _labelled(one, device), found)


_AUTOCAST = torch.amp.autocast_mode.autocast
_PARAMETER = torch.nn.Parameter.__new__
_ENGINE = torch.autograd._engine_run_backward
_LOAD = torch.load
_INIT = dist.init_process_group


def _autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
    return _AUTOCAST("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


def _parameter(cls: Any, data: Any = None, requires_grad: bool = True) -> Any:
    found = _PARAMETER(cls, data, requires_grad)
    return found if data is None else _labelled(found, label(data))


def _record_stream(tensor: Any, stream: Any) -> None:
    if label(tensor).type != "cuda" or not isinstance(stream, Stream):
        raise RuntimeError("record_stream: not a tensor of a CUDA device, or no stream")


def _meta(tensor: Any) -> dict[str, Any]:
    """Return what has to be the same when a layer is computed again: all but the device, which is lost below Python."""
    return {"shape": tensor.shape, "dtype": tensor.dtype}


def _gloo(backend: str, **named: Any) -> None:
    if backend == "nccl":
        if named.pop("device_id", CPU).type != "cuda":
            raise ValueError("NCCL needs the device of this rank")
        backend = "gloo"
    named.pop("device_id", None)
    _INIT(backend, **named)
