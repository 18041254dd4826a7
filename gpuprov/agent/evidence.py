"""What shows that something is wrong with a host's GPUs: lines of logs and programs, and a few values. Reads only.

Every source is asked in a child of its own, all at once, each with a deadline: a program that hangs in the kernel
(nvidia-smi does, when a GPU is gone) cannot be killed and is never waited for. It counts as evidence itself.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gpuprov.agent.system import System

#: Of each source: lines, characters of a line, and bytes of the whole answer.
LINES, LINE_CHARS, ANSWER_BYTES = 200, 400, 256 * 1024
PROGRAM_S = 15.0
#: What a source gets beyond its program's deadline: time to end it by force, which takes process.GRACE_S.
MARGIN_S = 8.0
#: Importing torch from a cold disk takes a while.
TORCH_S = 40.0
VIRTUALENV = "/opt/gpuprov/torch"
UNITS = ("nvidia-persistenced", "nvidia-fabricmanager", "nvidia-dcgm", "nvidia-imex")
LIBRARIES = ("libcuda.so.1", "libnvidia-ml.so.1", "libcudart", "libcudnn", "libnccl", "libcublas")
#: Variables of a login shell that decide about GPUs; no others, they may be secrets.
VARIABLES = re.compile(r"(?:PATH|LD_LIBRARY_PATH|LD_PRELOAD|CUDA_\w+|NCCL_\w+|NVIDIA_\w+|CONDA_PREFIX|VIRTUAL_ENV)$")
KERNEL = re.compile(
    r"NVRM|Xid|nvidia|nouveau|AER:|PCIe Bus Error|BAR \d|Out of memory|oom-kill|unavailable key|Lockdown", re.IGNORECASE
)
BUILD = re.compile(r"error|fatal|No such file|differs from", re.IGNORECASE)
PROBE = """
import json, sys, warnings
said = []
warnings.showwarning = lambda message, *rest, **more: said.append(str(message))
import torch
available = torch.cuda.is_available()
found = {"version": torch.__version__, "cuda": torch.version.cuda, "available": available, "python": sys.executable}
found.update(count=torch.cuda.device_count() if available else 0, warning=said[0] if said else "", lines=said)
print(json.dumps(found))
"""


class Untold(Exception):
    """A source that could not be asked; the message says why."""


def gather(system: System, virtualenv: str = VIRTUALENV) -> dict[str, dict[str, Any]]:
    """Return source -> {"lines", more values}, or {"error": why it could not be told}. At most TORCH_S + MARGIN_S."""
    sources: dict[str, Callable[[System], dict[str, Any]]] = {
        "kernel": kernel,
        "dkms": dkms,
        "packages": packages,
        "libraries": libraries,
        "nvidia_smi": nvidia_smi,
        "services": services,
        "environment": environment,
        "fabric": fabric,
        "torch": lambda system: torch(system, virtualenv),
    }
    asked = {name: _fork(system, source) for name, source in sources.items()}
    deadlines = {name: (TORCH_S if name == "torch" else PROGRAM_S) + MARGIN_S for name in asked}
    return {name: _answer(*asked[name], deadlines[name], name) for name in asked}


def kernel(system: System) -> dict[str, Any]:
    """Return what the kernel said about GPUs since it booted."""
    said = ""
    for argv in (["dmesg"], ["journalctl", "-k", "-b", "--no-pager", "-q", "-o", "short-iso"]):
        done = _run(system, argv)
        if done is not None and done.rc == 0 and done.out.strip():
            return {"lines": _kept(line for line in done.out.splitlines() if KERNEL.search(line))}
        said = said or (done.last_line if done is not None else "")
    raise Untold(said or "neither dmesg nor journalctl showed the kernel's log")


def dkms(system: System) -> dict[str, Any]:
    """Return the state of NVIDIA's modules, and what their last build complained about when one is not installed."""
    done = _run(system, ["dkms", "status"])
    if done is None:
        return {"lines": [], "installed": False}
    lines = [line for line in (done.out + done.err).splitlines() if "nvidia" in line]
    if any(not line.rstrip().endswith("installed") for line in lines):
        for folder, _, files in os.walk("/var/lib/dkms"):
            if "make.log" in files and "nvidia" in folder:
                lines += [line for line in system.read_text(folder + "/make.log").splitlines() if BUILD.search(line)]
    return {"lines": _kept(lines), "installed": True}


def packages(system: System) -> dict[str, Any]:
    """Return what the package manager finds wrong. Takes no lock."""
    audit = _run(system, ["dpkg", "--audit"])
    if audit is None:
        return {"lines": []}
    check = _run(system, ["apt-get", "-o", "Debug::NoLocking=1", "-qq", "check"])
    lines = (audit.out + audit.err).splitlines() + (check.err.splitlines() if check is not None else [])
    return {"lines": _kept(lines), "check_rc": None if check is None else check.rc}


def libraries(system: System) -> dict[str, Any]:
    """Say which libraries the loader knows."""
    done = _run(system, ["ldconfig", "-p"])
    if done is None or done.rc != 0:
        raise Untold(done.last_line if done is not None else "there is no ldconfig")
    return {"lines": [], "known": {name: "\t" + name in done.out for name in LIBRARIES}}


def nvidia_smi(system: System) -> dict[str, Any]:
    """Return what nvidia-smi says of each GPU, or why it says nothing."""
    words = "index,name,pci.bus_id,driver_version,compute_mode,mig.mode.current,mig.mode.pending"
    done = _run(system, ["nvidia-smi", "--query-gpu=" + words, "--format=csv,noheader"])
    if done is None:
        return {"lines": [], "rc": 127}
    if done.timed_out:
        return {"lines": ["nvidia-smi: no answer within %.0f s" % PROGRAM_S], "rc": done.rc}
    lines = (done.out + done.err).splitlines()
    more = _run(system, ["nvidia-smi", "-q", "-d", "PERFORMANCE,ROW_REMAPPER"]) if done.rc == 0 else None
    lines += [line for line in more.out.splitlines() if ": Active" in line or ": Yes" in line] if more else []
    return {"lines": _kept(lines), "rc": done.rc}


def services(system: System) -> dict[str, Any]:
    """Return the state of the services that GPUs need, and the last words of those that failed."""
    if not os.path.isdir("/run/systemd/system"):
        raise Untold("systemd is not running")
    done = _run(system, ["systemctl", "is-active", *UNITS])
    if done is None or len(done.out.split()) != len(UNITS):
        raise Untold(done.last_line if done is not None else "there is no systemctl")
    states = dict(zip(UNITS, done.out.split()))
    lines: list[str] = []
    for unit in UNITS:
        if states[unit] == "failed":
            journal = _run(system, ["journalctl", "-u", unit, "-b", "-n", "20", "--no-pager", "-q", "-o", "short-iso"])
            lines += journal.out.splitlines() if journal is not None else []
    return {"lines": _kept(lines), "states": states}


def environment(system: System) -> dict[str, Any]:
    """Return the variables about GPUs that a login shell has, starting from nothing."""
    shell = system.which("bash") or "/bin/sh"
    home = os.environ.get("HOME") or "/"
    done = system.run(["env", "-i", "HOME=" + home, shell, "-lc", "ulimit -l; env"], timeout_s=PROGRAM_S)
    first, _, rest = done.out.partition("\n")
    pairs = (line.partition("=") for line in rest.splitlines())
    found = {name: value[:LINE_CHARS] for name, equals, value in pairs if equals and VARIABLES.match(name)}
    if not found:
        raise Untold(done.last_line or "the login shell said nothing")
    return {"lines": [], "variables": found, "memlock_kib": first.strip()}


def fabric(system: System) -> dict[str, Any]:  # noqa: ARG001 - one signature for all sources
    """Return the InfiniBand devices."""
    folder = "/sys/class/infiniband"
    return {"lines": [], "infiniband": sorted(os.listdir(folder)) if os.path.isdir(folder) else []}


def torch(system: System, virtualenv: str) -> dict[str, Any]:
    """Return what torch in *virtualenv* says of itself, or the error with which it does not load."""
    python = os.path.join(virtualenv, "bin", "python")
    if not os.access(python, os.X_OK):
        return {"lines": [], "python": None}
    variables: dict[str, str] = {}
    try:
        variables = environment(system)["variables"]
    except (Untold, OSError):  # then torch gets the environment that we have
        pass
    own = {name: value for name, value in variables.items() if name in ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")}
    done = system.run([python, "-c", PROBE], own, "/", timeout_s=TORCH_S - PROGRAM_S)
    if done.timed_out:
        return {"lines": ["torch: no answer within %.0f s" % (TORCH_S - PROGRAM_S)], "python": python}
    try:
        found: dict[str, Any] = json.loads(done.out.splitlines()[-1])
    except (ValueError, IndexError):
        return {"lines": _kept((done.out + done.err).splitlines()[-20:]), "python": python}
    return dict(found, lines=_kept(found["lines"]))


def _run(system: System, argv: list[str]) -> Any:
    """Return how the program ended, or None when it is not there."""
    program = system.which(argv[0]) or system.which(argv[0], "/usr/sbin:/sbin:/usr/bin:/bin")
    return None if program is None else system.run([program, *argv[1:]], timeout_s=PROGRAM_S)


def _kept(lines: Any) -> list[str]:
    """Return the last lines, bounded: the end says what happened."""
    return [line[:LINE_CHARS] for line in [one for one in lines if one.strip()][-LINES:]]


def _fork(system: System, source: Callable[[System], dict[str, Any]]) -> tuple[int, int]:
    """Ask *source* in a child; return its pid and the pipe with its answer."""
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    try:
        os.setpgid(0, 0)
        try:
            answer = source(system)
        except Untold as error:
            answer = {"error": str(error)[:LINE_CHARS]}
        except OSError as error:
            answer = {"error": "%s: %s" % (error.filename or "the system", error.strerror)}
        with os.fdopen(write, "wb") as pipe:
            pipe.write(json.dumps(answer).encode("utf-8", "replace"))
    finally:
        os._exit(0)


def _answer(pid: int, pipe: int, limit_s: float, name: str) -> dict[str, Any]:
    """Return the child's answer; a child that does not come to its end is left behind."""
    data, end = b"", time.monotonic() + limit_s
    poll = select.poll()
    poll.register(pipe, select.POLLIN | select.POLLHUP)
    complete = False
    while not complete and len(data) < ANSWER_BYTES and time.monotonic() < end:
        if poll.poll(max(0.0, end - time.monotonic()) * 1000):
            piece = os.read(pipe, 65536)
            data += piece
            complete = not piece
    os.close(pipe)
    if not complete:
        try:
            os.killpg(pid, signal.SIGKILL)
        except OSError:
            pass
        return {"error": "no answer within %.0f s" % limit_s, "lines": ["%s: no answer in time" % name]}
    os.waitpid(pid, 0)
    try:
        found = json.loads(data.decode("utf-8", "replace"))
    except ValueError:
        return {"error": "it ended without an answer"}
    return found if isinstance(found, dict) else {"error": "it gave no answer"}
