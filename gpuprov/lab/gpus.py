"""The simulated GPUs of a lab's hosts: what each is to have, and the files that say so.

Of each such host the lab's folder has hosts/NAME/gpus: `wanted`, the healthy `reading.json`, `faults.json`, the
library, and `shown`, which the host sees (gpu_shown.py). The host reads it at once when it is written.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gpuprov.errors import LabError
from gpuprov.lab import gpu_models, gpu_profile, nvml_double
from gpuprov.lab.gpu_faults import FAULTS, shown_with
from gpuprov.lab.gpu_shown import files_of, healthy_shown
from gpuprov.lab.keys import write_file
from gpuprov.lab.layout import label_of
from gpuprov.lab.options import HostOptions
from gpuprov.lab.processes import read_process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpuprov.lab.gpu_shown import Shown
    from gpuprov.lab.layout import Layout


def assigned(names: Sequence[str], wanted: str | Mapping[str, str]) -> dict[str, str]:
    """Return what GPUs each host is to have. Raises LabError.

    *wanted* is one number and model or recorded file for all, "gpu01=8xh100-sxm,gpu02=box.json", or a mapping.
    """
    if isinstance(wanted, str):
        wanted = _mapping(names, wanted)
    for name, text in wanted.items():
        if name not in names:
            raise LabError(f"GPUs for {name}, which is not one of the hosts {names[0]} to {names[-1]}")
        if not os.path.exists(text):
            gpu_models.parse(text)
    return {name: text.strip() for name, text in wanted.items()}


def _mapping(names: Sequence[str], text: str) -> dict[str, str]:
    if "=" not in text:
        return dict.fromkeys(names, text) if text else {}
    pairs = [item.strip().partition("=") for item in text.split(",")]
    wrong = [f"{name}{equals}{value}" for name, equals, value in pairs if not name or not value]
    if wrong:
        raise LabError(f"{wrong[0]!r} names no host and its GPUs", hint="such as gpu01=8xh100-sxm,gpu02=4xt4")
    return {name.strip(): value for name, _, value in pairs}


def with_gpus(options: Mapping[str, HostOptions], wanted: Mapping[str, str]) -> dict[str, HostOptions]:
    """Return *options* with the GPUs of each host that is to have some; no two of recorded ones have one identity."""
    told = dict(options)
    for name, text in wanted.items():
        told[name] = replace(told.get(name, HostOptions()), gpus=_label(text))
    return told


def _label(text: str) -> str:
    """Return what tells these GPUs from others: number and model, or a file's name and contents."""
    if not os.path.exists(text):
        count, name = gpu_models.parse(text)
        return f"{count}x{name}"
    with open(text, "rb") as f:
        return f"{os.path.basename(text)}@{hashlib.sha256(f.read()).hexdigest()[:12]}"


def need_same(up: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raise LabError for a host that is up with other GPUs than *wanted*; *up* has what each was given."""
    for name, text in wanted.items():
        if name in up and up[name] != _label(text):
            raise LabError(
                f"lab host {name} runs with {up[name] or 'no simulated GPUs'}, not {_label(text)}",
                hint="gpuprov lab down first, or another lab: GPUPROV_LAB_STATE=FOLDER",
            )


def furnish(layout: Layout, wanted: Mapping[str, str]) -> None:
    """Write what hosts with GPUs show, where they do not run yet. Raises LabError for one that runs with others."""
    running = {name: label_of(layout, name) for name in wanted if _runs(layout, name)}
    need_same(running, wanted)
    texts = list(wanted.values())
    for name, text in wanted.items():
        if name not in running and label_of(layout, name) != _label(text):
            _write_new(layout, name, _label(text), _reading(text, name, texts.count(text) > 1))


def _runs(layout: Layout, name: str) -> bool:
    process = read_process(layout.host(name, "process"))
    return process is not None and process.is_alive()


def _reading(text: str, name: str, shared: bool) -> dict[str, Any]:
    if not os.path.exists(text):
        return gpu_models.healthy(text, name)
    reading = gpu_profile.load(text)
    reading["switches"] = gpu_models.switches_of(reading)
    return gpu_profile.anonymous(reading, name) if shared else reading


def _write_new(layout: Layout, name: str, label: str, reading: dict[str, Any]) -> None:
    library = nvml_double.library()
    folder = layout.host(name, "gpus")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder, mode=0o755)
    driver = reading["library"].get("driver")
    shutil.copy(library, os.path.join(folder, f"libnvidia-ml.so.{driver if isinstance(driver, str) else 'simulated'}"))
    write_file(os.path.join(folder, "reading.json"), gpu_profile.dumped(reading))
    write_file(os.path.join(folder, "faults.json"), "[]\n")
    show(layout, name, healthy_shown(reading, nodes()))
    write_file(os.path.join(folder, "wanted"), label)  # last: it says that all is there


def nodes() -> int:
    """Return how many NUMA nodes this machine has."""
    return len(glob.glob("/sys/devices/system/node/node[0-9]*")) or 1


def healthy_of(layout: Layout, name: str) -> dict[str, Any]:
    """Return the healthy reading of a host that has simulated GPUs. Raises LabError."""
    if not label_of(layout, name):
        raise LabError(
            f"lab host {name} has no simulated GPUs", hint="gpuprov lab down; gpuprov lab up --gpus 8xh100-sxm"
        )
    return gpu_profile.load(layout.host(name, "gpus", "reading.json"))


def show(layout: Layout, name: str, shown: Shown) -> None:
    """Have host *name* show this, from now on. A reader finds each file whole, old or new."""
    folder = layout.host(name, "gpus", "shown")
    for path, text in files_of(shown).items():
        place = os.path.join(folder, path)
        os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
        if text.startswith("-> "):
            if not os.path.islink(place):
                os.symlink(text[3:], place)
        elif _text(place) != text:
            write_file(place, text)
            os.chmod(place, 0o644)
    _machines_own(os.path.join(folder, "pci"))


def _machines_own(folder: str) -> None:
    """Keep the machine's PCI functions in sight, all but NVIDIA's."""
    real = "/sys/bus/pci/devices"
    for address in os.listdir(real) if os.path.isdir(real) else []:
        if (_text(f"{real}/{address}/vendor") or "").strip() != "0x10de":
            with contextlib.suppress(FileExistsError):
                os.symlink(os.path.realpath(f"{real}/{address}"), os.path.join(folder, address))


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as f:
            return f.read()
    except OSError:
        return None


def put_fault(layout: Layout, name: str, kind: str, gpu: int) -> None:
    """Let host *name* have one more fault, from now on. Raises LabError."""
    if kind not in FAULTS:
        raise LabError(f"there is no fault {kind}", hint="gpuprov lab fault --list")
    now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    kept = [fault for fault in faults_of(layout, name) if (fault["kind"], fault["gpu"]) != (kind, gpu)]
    _set_faults(layout, name, [*kept, {"kind": kind, "gpu": gpu, "at_s": round(now_s, 6)}])


def clear_faults(layout: Layout, name: str) -> None:
    """Let host *name* be healthy. Raises LabError."""
    _set_faults(layout, name, [])


def _set_faults(layout: Layout, name: str, faults: list[dict[str, Any]]) -> None:
    shown = shown_with(healthy_of(layout, name), faults, nodes())  # raises before anything is written
    write_file(layout.host(name, "gpus", "faults.json"), json.dumps(faults) + "\n")
    show(layout, name, shown)


def faults_of(layout: Layout, name: str) -> list[dict[str, Any]]:
    """Return the faults that host *name* has: kind, gpu and at_s of each. Raises LabError without simulated GPUs."""
    healthy_of(layout, name)
    with open(layout.host(name, "gpus", "faults.json"), encoding="utf-8") as f:
        found: list[dict[str, Any]] = json.load(f)
    return found
