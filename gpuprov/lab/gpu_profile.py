"""From a reading (gpuprov/proof/nvml/reading.py) to the profile of the simulated library, and files of readings.

A profile is a text of lines "KEY VALUE": `gpu.0.temperature 34`, `gpu.0.link.3.state 1`, `gpu.0.peer.1.ancestor 30`,
`system.driver 580.95.05`. Instead of a value it has NVML's error (`!NotSupported`), or `!HANG`: a call that never
returns. `gpu.1 !GpuIsLost` is all of a GPU, `gpu.1 !Missing` none at all, `system !LibRmVersionMismatch` the library.
What is not there is NotSupported. The last line of a key counts. All but `load` is pure.
"""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from gpuprov.errors import LabError
from gpuprov.lab.gpu_models import MOST_GPUS, identity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Calls that hang or libraries that do not start, as a reading has them, and as the library has them.
_HUNG = "Hung"
#: How a reading spells that NVML has no answer: the double says so by having no line.
_NONE = ("NotSupported", "NotAvailable", "FunctionNotFound")


def profile(reading: Mapping[str, Any]) -> str:
    """Return the profile that makes the simulated library give this reading."""
    lines = ["# Simulated GPUs: no value comes from hardware.", *_system(reading)]
    for gpu in reading["gpus"]:
        lines += _gpu(gpu)
    return "\n".join(lines) + "\n"


def _system(reading: Mapping[str, Any]) -> Iterator[str]:
    for key in ("driver", "nvml", "cuda"):
        yield from _line(f"system.{key}", reading["library"].get(key))
    error = reading.get("error")
    if error:
        yield f"system !{'HANG' if error['error'] == _HUNG else error['error']}"


def _gpu(gpu: Mapping[str, Any]) -> Iterator[str]:
    at = f"gpu.{gpu['index']}"
    yield f"{at} present"
    for key, value in sorted(gpu["values"].items()):
        yield from _line(f"{at}.{key}", value)
    for number, link in enumerate(gpu.get("links", [])):
        for key, value in link.items():
            yield from _line(f"{at}.link.{number}.{key}", value)
    for peer, values in gpu.get("peers", {}).items():
        for key, value in values.items():
            yield from _line(f"{at}.peer.{peer}.{key}", value)
    if gpu.get("hung"):
        yield from (f"{at}.{key} !HANG" for key in _keys_of(gpu["hung"]))


def _line(key: str, value: Any) -> Iterator[str]:
    if value is None or (isinstance(value, dict) and value.get("error") in _NONE):
        return
    yield f"{key} {spelled(value)}".rstrip()


def spelled(value: Any) -> str:
    """Return a value of a reading as a profile has it."""
    if isinstance(value, dict) and "error" in value:
        return f"!{value['error']}"
    if isinstance(value, dict):  # a process
        memory = value.get("memory")
        return f"{value['pid']}:{memory}" if isinstance(memory, int) else str(value["pid"])
    if isinstance(value, (list, tuple)):
        return " ".join(map(spelled, value))
    if isinstance(value, bool):
        return str(int(value))
    return " ".join(str(value).split())


def _keys_of(function: str) -> list[str]:
    """Return the keys that *function* of NVML answers: those of its rows in calls.py, "name" for one that has none."""
    from gpuprov.proof.nvml import calls

    plain = function.partition("_v")[0]
    found = [row[0] for row in calls.GPU if row[2].partition("_v")[0] == plain]
    if plain == "nvmlDeviceGetFieldValues":
        found = [row[0] for row in calls.GPU if row[1] == "value"]
    return found or ["name"]


def anonymous(reading: Mapping[str, Any], name: str = "recorded") -> dict[str, Any]:
    """Return the reading with serials and UUIDs that are nobody's, the same for the same *name*."""
    changed: dict[str, Any] = copy.deepcopy(dict(reading))
    for gpu in changed["gpus"]:
        serial, its_uuid = identity(name, gpu["index"])
        for key, value in (("serial", serial), ("uuid", its_uuid)):
            if isinstance(gpu["values"].get(key), str):
                gpu["values"][key] = value
    changed["library"] = {**changed["library"], "path": ""}
    return changed


def dumped(reading: Mapping[str, Any]) -> str:
    """Return the text of a file that `load` reads: a reading, one GPU to a line."""
    rest = {key: value for key, value in reading.items() if key != "gpus"}
    gpus = ",\n".join(json.dumps(gpu, sort_keys=True) for gpu in reading["gpus"])
    return f'{json.dumps(rest)[:-1]}, "gpus": [\n{gpus}\n]}}\n'


def load(path: str) -> dict[str, Any]:
    """Return the reading in a file that `gpuprov verify --record` wrote. Raises LabError."""
    try:
        with open(path, encoding="utf-8") as f:
            reading = json.load(f)
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LabError(f"{path} is not the text of a recorded reading") from None
    except json.JSONDecodeError as error:
        raise LabError(f"{path}:{error.lineno}:{error.colno}: no recorded reading: {error.msg}") from None
    wrong = _why_no_reading(reading)
    if wrong:
        raise LabError(f"{path} is no recorded reading: {wrong}", hint="gpuprov verify --record writes them")
    found: dict[str, Any] = reading
    return found


def _why_no_reading(reading: Any) -> str:
    if not isinstance(reading, dict) or not isinstance(reading.get("gpus"), list):
        return 'it has no list "gpus"'
    if not isinstance(reading.get("library"), dict):
        return 'it has no "library"'
    if len(reading["gpus"]) > MOST_GPUS:
        return f"it has {len(reading['gpus'])} GPUs, {MOST_GPUS} are the most"
    for number, gpu in enumerate(reading["gpus"]):
        if not isinstance(gpu, dict) or not isinstance(gpu.get("index"), int):
            return f'GPU {number} has no "index"'
        if not isinstance(gpu.get("values"), dict):
            return f'GPU {number} has no "values"'
    return ""
