"""NVML, asked row by row of calls.py. The only importer of pynvml (nvidia-ml-py) but for the versions of the proof.

Asking can hang in the kernel, so it happens in child processes: `read_library` in one, `read_gpu` in one for each
GPU. Before each call a child sends a "stage" that names it, after it the "value" that came; when a child has to
be killed, its last stage is the call that never returned. `assemble` makes the Reading of what was sent (pure).
"""

from __future__ import annotations

import ctypes
import importlib
import os

from gpuprov.proof.nvml import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from gpuprov.proof.check import Message

    Send = Callable[[Message], None]

#: What the fake library of rehearsal hosts exports, and no driver's does.
SIMULATED = "gpuprov_simulated_nvml"
#: How NVML spells "not available" where it has no error for it: all bits set, or these texts.
_NO_NUMBER = (2**32 - 1, 2**64 - 1)
_NO_TEXT = ("", "n/a", "[n/a]", "not available")
#: Elements of a list that are kept, so that a message stays below 4096 bytes.
_MOST = 64
_MOST_PROCESSES = 48
#: The number that every Linux gives the process namespace of the host itself: only there are NVML's pids ours.
HOST_PIDS = "pid:[4026531836]"
#: Errors after which no other call for the same GPU tells more.
LOST = ("GpuIsLost", "GpuNotFound", "ResetRequired")
#: The member of a field value's union, by nvmlValueType_t.
_UNION = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
#: Structures that the caller brings: of these functions, pynvml hands nothing back.
_BROUGHT = {
    "nvmlDeviceGetGpuFabricInfo": "c_nvmlGpuFabricInfo_t",
    "nvmlDeviceGetSramEccErrorStatus": "c_nvmlEccSramErrorStatus_v1_t",
}
#: Without these it is some other module of that name.
_NEEDED = ("NVMLError", "nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex")


def read_library(send: Send) -> None:
    """Send what the library and the driver say of themselves, and how many GPUs they have."""
    send(_stage("nvmlInit_v2", "the library"))
    nvml, failure = _opened()
    for key, value in _loaded(nvml).items():
        _send_value(send, "library", {"key": key}, value)
    if failure:
        send({"kind": "library", "key": "error", "value": failure})
        return
    for key, kind, function, args, field in calls.SYSTEM:
        send(_stage(function, "the library"))
        _send_value(send, "library", {"key": key}, _value(nvml, kind, _answer(nvml, (), kind, function, args), field))
    send(_stage("nvmlDeviceGetCount_v2", "the library"))
    try:
        count = int(nvml.nvmlDeviceGetCount())
    except nvml.NVMLError as error:
        send({"kind": "library", "key": "error", "value": _failure(error, "nvmlDeviceGetCount_v2")})
    else:
        send({"kind": "library", "key": "count", "value": count})


def read_gpu(index: int, send: Send) -> None:
    """Send each value of GPU *index*, then those of its NVLinks, then how it reaches the other GPUs."""
    where = f"GPU {index}"
    send(_stage("nvmlInit_v2", where, f"gpu:{index}"))
    nvml, failure = _opened()
    handle = None
    if not failure:
        send(_stage("nvmlDeviceGetHandleByIndex_v2", where, f"gpu:{index}"))
        handle, failure = _handle(nvml, index)
    if failure:
        for row in calls.GPU:
            _send_value(send, "value", {"gpu": index, "key": row[0]}, {"error": failure["error"]})
        return
    _read_rows(nvml, calls.GPU, (handle,), {"gpu": index}, where, send)
    _read_links(nvml, handle, index, send)
    _read_peers(nvml, handle, index, send)


def _read_rows(
    nvml: Any, rows: Iterable[calls.Row], before: tuple[Any, ...], of: Message, where: str, send: Send
) -> list[Any]:
    """Ask all *rows*, each function once for all fields of its answer; return the values."""
    answers: dict[tuple[Any, ...], Any] = {}
    values = []
    for key, kind, function, args, field in rows:
        asked = (function, args)
        if asked not in answers:
            named = "nvmlDeviceGetFieldValues" if kind == "value" else function
            send(_stage(named, where, f"gpu:{of['gpu']}"))
            answers[asked] = _answer(nvml, before, kind, function, args)
        value = _value(nvml, kind, answers[asked], field)
        _send_value(send, "value", dict(of, key=key), value)
        values.append(value)
    return values


def _read_links(nvml: Any, handle: Any, index: int, send: Send) -> None:
    """Ask for each NVLink until one says that the GPU has no such link."""
    for link in range(int(getattr(nvml, "NVML_NVLINK_MAX_LINKS", 18))):
        where = f"GPU {index}, link {link}"
        values = _read_rows(nvml, calls.LINK[:1], (handle, link), {"gpu": index, "link": link}, where, send)
        if isinstance(values[0], dict) and values[0].get("error") in ("InvalidArgument", *LOST):
            return
        if not isinstance(values[0], dict):
            _read_rows(nvml, calls.LINK[1:], (handle, link), {"gpu": index, "link": link}, where, send)


def _read_peers(nvml: Any, handle: Any, index: int, send: Send) -> None:
    """Ask how this GPU reaches those after it; the way back is the same."""
    try:
        count = int(nvml.nvmlDeviceGetCount())
    except nvml.NVMLError:
        return  # read_library has it
    for peer in range(index + 1, count):
        where = f"GPU {index} and GPU {peer}"
        send(_stage("nvmlDeviceGetHandleByIndex_v2", f"GPU {peer}", f"gpu:{index}"))
        other, error = _handle(nvml, peer)
        if not error:
            _read_rows(nvml, calls.PEER, (handle, other), {"gpu": index, "peer": peer}, where, send)


def _handle(nvml: Any, index: int) -> tuple[Any, Message]:
    try:
        return nvml.nvmlDeviceGetHandleByIndex(index), {}
    except nvml.NVMLError as error:
        return None, _failure(error, "nvmlDeviceGetHandleByIndex_v2")


def _opened() -> tuple[Any, Message]:
    """Return pynvml with the library loaded and initialised, and why that failed ({} when it did not)."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError as error:
        text = f"nvidia-ml-py is not installed in this environment ({error}): gpuprov apply installs it, and"
        text += " gpuprov[nvml] on the controller lets it come along"
        return None, {"error": "PynvmlMissing", "text": text}
    missing = [name for name in _NEEDED if not hasattr(nvml, name)]
    if missing:
        text = f"the module pynvml of this environment has no {missing[0]}: it is not nvidia-ml-py's"
        return None, {"error": "PynvmlMissing", "text": text}
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return nvml, _failure(error, "nvmlInit_v2")
    return nvml, {}


def _loaded(nvml: Any, maps: str = "/proc/self/maps") -> Message:
    """Return which library pynvml has loaded, and whether it is the simulated one; {} when none is."""
    library = getattr(nvml, "nvmlLib", None)
    if not isinstance(library, ctypes.CDLL):
        return {}
    try:
        with open(maps, encoding="utf-8", errors="replace") as f:
            path = next((line.split(None, 5)[5].strip() for line in f if "libnvidia-ml.so" in line), "")
    except OSError:
        path = ""
    return {"path": path, "simulated": hasattr(library, SIMULATED)}


def _answer(nvml: Any, before: tuple[Any, ...], kind: str, function: str, args: tuple[Any, ...]) -> Any:
    """Call *function* and return what it answers, or {"error": name}."""
    try:
        given = [_constant(nvml, arg) if isinstance(arg, str) else arg for arg in args]
        if kind == "value":
            return nvml.nvmlDeviceGetFieldValues(*before, [getattr(nvml, function)])[0]
        if function in _BROUGHT:
            brought = getattr(nvml, _BROUGHT[function])()
            getattr(nvml, function)(*before, *given, ctypes.byref(brought))
            return brought
        answer = getattr(nvml, function)(*before, *given)
    except (AttributeError, getattr(nvml, "NVMLLibraryMismatchError", AttributeError)):
        return {"error": "FunctionNotFound"}  # an nvidia-ml-py, or a driver, that is older than the call
    except UnicodeDecodeError:  # pynvml decodes text itself, and a broken InfoROM has bytes that are none
        return {"error": "NotText"}
    except nvml.NVMLError as error:
        return {"error": _name(error)}
    return True if kind == "done" else answer


def _constant(nvml: Any, name: str) -> Any:
    """Return pynvml's constant; some end in a stray comma there, and are tuples of one."""
    value = getattr(nvml, name)
    return value[0] if isinstance(value, tuple) else value


def _value(nvml: Any, kind: str, answer: Any, field: str) -> Any:
    """Return what is kept of an answer: a number, text, list, or {"error": name}."""
    if isinstance(answer, dict):
        return answer
    if kind == "value":
        if answer.nvmlReturn:
            return {"error": _name(nvml.NVMLError(answer.nvmlReturn))}
        return plain(getattr(answer.value, _UNION[answer.valueType]))
    if kind == "field":
        return plain(getattr(answer, field, None))
    if kind == "list":
        its = list(answer)
        return [_element(item) for item in its[: _MOST_PROCESSES if its and hasattr(its[0], "pid") else _MOST]]
    return plain(answer)


def _element(item: Any) -> Any:
    """Return one element of a list: a process as pid, memory and the name that it has at once, all else as it is.

    A process that ends later had a name; one that has none here was gone before NVML was asked.
    """
    if not hasattr(item, "pid"):
        return plain(item)
    found: Message = {"pid": int(item.pid), "memory": plain(item.usedGpuMemory)}
    name = _program(int(item.pid))
    return dict(found, name=name) if name else found


def _program(pid: int) -> str:
    """Return the name of a process of this host, "" where it is none, or where pids of the host say nothing."""
    try:
        if os.readlink("/proc/self/ns/pid") != HOST_PIDS:
            return ""
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as f:
            return f.read().strip()
    except OSError:
        return ""


def plain(value: Any) -> Any:
    """Return a number or text of NVML's as JSON has it, and its many ways to say "not available" as an error. Pure."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        text = value.strip().strip("\0")
        return {"error": "NotAvailable"} if text.lower() in _NO_TEXT else text
    if value is None or value in _NO_NUMBER:
        return {"error": "NotAvailable"}
    return value if isinstance(value, (bool, int, float)) else str(value)


def _name(error: Any) -> str:
    """Return the name of NVML's error without its prefix: GpuIsLost. Codes that pynvml does not know: Code31."""
    name = type(error).__name__
    return name[len("NVMLError_") :] if name.startswith("NVMLError_") else f"Code{getattr(error, 'value', '')}"


def _failure(error: Any, function: str) -> Message:
    return {"error": _name(error), "text": f"{function}: {error}"[:300]}


def _stage(function: str, where: str, device: str = "") -> Message:
    return {"kind": "stage", "text": f"{function} of {where}", "device": device}


def _send_value(send: Send, kind: str, of: Message, value: Any) -> None:
    send(dict(of, kind=kind, value=value))


def assemble(messages: Iterable[Message], hung: Mapping[int, str] | None = None) -> Message:
    """Return the Reading of all that children sent. Pure.

    hung: of each GPU whose child had to be killed, the stage that it was in; -1 is the library's child.
    """
    library: Message = {"path": "", "simulated": False, "driver": None, "nvml": None, "cuda": None}
    reading: Message = {"library": library, "error": None, "count": None, "gpus": []}
    gpus: dict[int, Message] = {}
    for message in messages:
        if message["kind"] == "library":
            of = reading if message["key"] in ("error", "count") else library
            of[message["key"]] = message["value"]
        elif message["kind"] == "value":
            _keep(gpus.setdefault(message["gpu"], _no_gpu(message["gpu"])), message)
    stages = dict(hung or {})
    if -1 in stages:
        function = stages.pop(-1).partition(" of ")[0]
        reading["error"] = {"error": "Hung", "text": f"{function} never returned"}
    for index, stage in stages.items():
        gpus.setdefault(index, _no_gpu(index))["hung"] = stage.partition(" of ")[0]
    for index in range(reading["count"] or 0):  # a child that died of something else has sent nothing
        gpus.setdefault(index, _no_gpu(index))
    reading["gpus"] = [gpus[index] for index in sorted(gpus)]
    return reading


def _no_gpu(index: int) -> Message:
    return {"index": index, "address": "", "values": {}, "links": [], "peers": {}}


def _keep(gpu: Message, message: Message) -> None:
    key, value = message["key"], message["value"]
    if "link" in message:
        while len(gpu["links"]) <= message["link"]:
            gpu["links"].append({})
        gpu["links"][message["link"]][key] = value
    elif "peer" in message:
        gpu["peers"].setdefault(str(message["peer"]), {})[key] = value
    else:
        gpu["values"][key] = value
        if key == "pci.address" and isinstance(value, str):
            gpu["address"] = address(value)


def address(text: str) -> str:
    """Return a PCI address as sysfs has it: NVML writes 00000000:1B:00.0, the driver's log 0000:1b:00. Pure."""
    parts = text.strip().lower().split(":")
    if len(parts) == 2:
        parts.insert(0, "0")
    try:
        domain, bus = int(parts[0], 16), int(parts[1], 16)
    except (ValueError, IndexError):
        return text.strip().lower()
    return f"{domain:04x}:{bus:02x}:{parts[2] if '.' in parts[2] else parts[2] + '.0'}"
