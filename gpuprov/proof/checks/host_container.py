"""Container engines: those that are to run do, and hand GPUs on where NVIDIA's toolkit is installed."""

from __future__ import annotations

import errno
import json
import re
import socket
from typing import NamedTuple

from gpuprov.proof.check import check
from gpuprov.proof.checks.host_files import Absent, Untold, gpus, host_part, listed, names, text, there

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

#: Engine -> its daemon, its socket, its unit. podman has no daemon, it reads CDI.
_DAEMONS = {
    "docker": ("/usr/bin/dockerd", "/run/docker.sock", "docker.service"),
    "containerd": ("/usr/bin/containerd", "/run/containerd/containerd.sock", "containerd.service"),
}
_PODMAN = "/usr/bin/podman"
_TOOLKIT = ("/usr/bin/nvidia-ctk", "/usr/bin/nvidia-container-runtime")
#: What docker itself looks for where it is asked for GPUs.
_HOOK = "/usr/bin/nvidia-container-runtime-hook"
_CDI_FOLDERS = ("/etc/cdi", "/run/cdi", "/var/run/cdi")
#: How long a daemon gets to take a connection; one that hangs does not.
_PATIENCE_S = 2.0


class Engine(NamedTuple):
    """answer: "" when a connection was taken, else why not. enabled: it is started with the host."""

    name: str
    answer: str
    enabled: bool


def read_engines(context: Context) -> list[Engine]:
    """Return the engines that have daemons."""
    found = []
    for name, (program, path, unit) in _DAEMONS.items():
        if there(context, program):
            wants = f"/etc/systemd/system/multi-user.target.wants/{unit}"
            found.append(Engine(name, _answer(context, path), unit in names(context, wants.rpartition("/")[0])))
    if not found:
        raise Absent("neither docker nor containerd is installed")
    return found


def _answer(context: Context, path: str) -> str:
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(_PATIENCE_S)
        try:
            s.connect(context.path(path))
        except socket.timeout:
            return f"{path} takes no connection"
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                raise Untold(f"cannot connect to {path}: {error.strerror}") from None
            return f"{path}: {error.strerror or error}"
    return ""


def judge_engines(found: list[Engine]) -> list[Message]:
    """Judge whether the daemons answer that are to run. Pure."""
    name, down = "container.engine", [engine for engine in found if engine.answer]
    more = {"evidence": [f"{engine.name}: {engine.answer or 'answers'}" for engine in found]}
    bad = [engine for engine in down if engine.enabled]
    if bad:
        reason = (
            f"{listed(engine.name for engine in bad)} is to start with the host, but does not answer: {bad[0].answer}"
        )
        return [check(name, "warn", reason, "down", "up", action="monitor", data=more)]
    up = [engine.name for engine in found if not engine.answer]
    if not up:
        reason = f"{listed(engine.name for engine in down)} is installed, but not enabled and not running"
        return [check(name, "skip", reason, data=more)]
    return [check(name, "pass", f"{listed(up)} answers", "up", "up", data=more)]


class Handing(NamedTuple):
    """By which ways each engine could hand on GPUs. wrong: why a file cannot be read as what it should be."""

    engines: tuple[str, ...]
    ways: tuple[str, ...]
    wrong: str


def read_handing(context: Context) -> Handing:
    """Return whether NVIDIA's runtime or a CDI specification is set up."""
    if not gpus(context):
        raise Absent("no NVIDIA GPU on the PCI bus")
    programs = {name: daemon[0] for name, daemon in _DAEMONS.items()}
    programs["podman"] = _PODMAN
    engines = tuple(name for name, program in programs.items() if there(context, program))
    if not engines:
        raise Absent("no container engine is installed")
    if not any(there(context, program) for program in _TOOLKIT):
        raise Absent("NVIDIA's container toolkit is not installed")
    ways = [f"{folder}/{name}" for folder in _CDI_FOLDERS for name in names(context, folder) if "nvidia" in name]
    docker, wrong = docker_way(text(context, "/etc/docker/daemon.json"))
    containerd = [f"/etc/containerd/{name}" for name in names(context, "/etc/containerd") if name.endswith(".toml")]
    containerd += [f"/etc/containerd/conf.d/{name}" for name in names(context, "/etc/containerd/conf.d")]
    ways += ["/etc/docker/daemon.json"] * docker
    ways += [f"docker run --gpus, by {_HOOK}"] * ("docker" in engines and there(context, _HOOK))
    ways += [
        path for path in containerd if re.search(r"^[^#]*nvidia-container-runtime", text(context, path) or "", re.M)
    ]
    return Handing(engines, tuple(ways), wrong)


def docker_way(config: str | None) -> tuple[bool, str]:
    """Return whether docker's configuration has NVIDIA's runtime, and what is wrong with the file. Pure."""
    if not config:
        return False, ""
    try:
        found = json.loads(config)
    except ValueError as error:
        return False, f"/etc/docker/daemon.json is not JSON, docker will not start with it: {error}"
    runtimes = found.get("runtimes") if isinstance(found, dict) else None
    return isinstance(runtimes, dict) and "nvidia" in runtimes, ""


def judge_handing(found: Handing) -> list[Message]:
    """Judge whether containers can get GPUs. Pure."""
    name, engines = "container.gpu", listed(found.engines)
    if found.wrong:
        return [check(name, "warn", found.wrong, action="monitor")]
    if found.ways:
        reason = f"GPUs are handed on to containers: {listed(found.ways)}"
        return [check(name, "pass", reason, list(found.ways)[:8], "a runtime or CDI")]
    reason = (
        f"NVIDIA's container toolkit is installed, but {engines} is not set up for it: nvidia-ctk runtime configure"
    )
    return [check(name, "warn", reason, "none", "a runtime or CDI", action="monitor")]


PARTS = (
    host_part("container.engine", read_engines, judge_engines, "sockets of docker and containerd"),
    host_part("container.gpu", read_handing, judge_handing, "/etc/docker, /etc/containerd, /etc/cdi, /run/cdi"),
)
