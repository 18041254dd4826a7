"""What surrounds the GPUs on the host: fabric manager, ACS, harmful environment variables.

Each `judge_*` is pure; `run_*` reads below context.root.
"""

from __future__ import annotations

import os
import struct

from gpuprov.proof.check import check
from gpuprov.proof.checks.each import virtual
from gpuprov.proof.checks.versions import pci_gpus
from gpuprov.proof.nvml.reading import HOST_PIDS
from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context
    from gpuprov.proof.worker import Report

#: Variables that make every CUDA program slower, or another program, and are left behind by debugging.
HARMFUL = {
    "NSIGHT_CUDA_DEBUGGER": "a debugger attaches to every CUDA program",
    "CUDA_INJECTION32_PATH": "a library is loaded into every CUDA program",
    "CUDA_INJECTION64_PATH": "a library is loaded into every CUDA program",
    "CUDA_AUTO_BOOST": "clocks are no longer those of the GPU's own boost",
    "CUDA_ENABLE_COREDUMP_ON_EXCEPTION": "a failing kernel writes all GPU memory to disk",
    "CUDA_COREDUMP_FILE": "core dumps of GPUs are written",
    "CUDA_DEVICE_WAITS_ON_EXCEPTION": "a failing kernel waits for a debugger, for ever",
    "CUDA_PROFILE": "every CUDA program is profiled",
    "COMPUTE_PROFILE": "every CUDA program is profiled",
    "OPENCL_PROFILE": "every OpenCL program is profiled",
    "CUDA_LAUNCH_BLOCKING": "every kernel is waited for",
}
#: Values that switch such a variable off.
_OFF = ("", "0")
_NVSWITCH_CLASS = "0x0680"
#: The kernel keeps 15 characters of a program's name.
_FABRIC_MANAGER = "nv-fabricmanage"
#: The PCI capability "access control services", and the bits of its control register that send a
#: transfer between two GPUs up to the root port instead of straight across the switch.
_ACS_CAPABILITY = 0x000D
ACS_BITS = {0x04: "request redirect", 0x08: "completion redirect", 0x20: "egress control"}
_PLAIN_CONFIG_BYTES = 256


def run_environment(context: Context, report: Report) -> None:
    """Judge the proof's own environment and that of logins (/etc/environment)."""
    found = {name: (value, "the environment of this process") for name, value in os.environ.items() if name in HARMFUL}
    for line in _lines(context.path("etc/environment")):
        name, equals, value = line.partition("=")
        name = name.strip()[len("export ") :] if name.strip().startswith("export ") else name.strip()
        if equals and name in HARMFUL:
            found[name] = (value.strip().strip("\"'"), "/etc/environment")
    report.check(judge_environment(found))


def judge_environment(found: Mapping[str, tuple[str, str]]) -> Message:
    """Judge variables: name to value and where it is set. Pure."""
    bad = {name: what for name, what in found.items() if what[0] not in _OFF}
    if not bad:
        return check("gpu.environment", "pass", "no variable slows or changes every CUDA program", measured=0)
    told = [f"{name}={value[:80]} in {where}" for name, (value, where) in sorted(bad.items())]
    reason = "; ".join(f"{name} is set in {bad[name][1]}: {HARMFUL[name]}" for name in sorted(bad))
    return check("gpu.environment", "warn", reason, len(bad), 0, action="restart job", data={"evidence": told[:6]})


def run_fabric_manager(context: Context, report: Report) -> None:
    """Judge whether the fabric manager runs, on a host that has NVSwitches."""
    switches = _nvswitches(context)
    if switches and not host_processes(context):
        reason = "NVSwitches are here, and the host's processes are not seen from this container: ask the host"
        report.check(check("fabric.manager", "skip", reason))
        return
    running = [pid for pid in _pids(context) if "".join(_lines(context.path("proc", pid, "comm"))) == _FABRIC_MANAGER]
    report.check(judge_fabric_manager(len(switches), running))


def judge_fabric_manager(switches: int, pids: list[str]) -> Message:
    """Judge by how many NVSwitches the PCI bus has, and the processes of the fabric manager. Pure."""
    name = "fabric.manager"
    if not switches:
        return check(name, "skip", "no NVSwitch on the PCI bus, so that nothing needs a fabric manager")
    if not pids:
        reason = (
            f"{switches} NVSwitches, but no fabric manager: CUDA fails on every GPU until nvidia-fabricmanager runs"
        )
        return check(name, "fail", reason, measured="not running", expected="running", action="reset GPU")
    reason = f"the fabric manager runs (pid {pids[0]}) for {switches} NVSwitches"
    return check(name, "pass", reason, measured="running", expected="running")


def run_acs(context: Context, report: Report) -> None:
    """Judge the PCI bridges above each GPU: access control services send peer transfers the long way."""
    gpus = pci_gpus(context.path("sys"))
    bridges = _switch_ports([_bridges(context, gpu) for gpu in gpus])
    states = {bridge: acs_control(_bytes(context.path("sys/bus/pci/devices", bridge, "config"))) for bridge in bridges}
    report.check(judge_acs(len(gpus), states, virtual(context)))


def judge_acs(gpus: int, states: Mapping[str, int | None], guest: bool) -> Message:
    """Judge by the control registers of the bridges, None where one cannot be read. Pure."""
    name = "pcie.acs"
    if gpus < 2:
        return check(name, "skip", "one GPU has no peer" if gpus else "no NVIDIA GPU on the PCI bus")
    if guest:
        return check(name, "skip", "a virtual machine: its host needs ACS to keep machines apart")
    if not states:
        return check(name, "skip", "no PCI switch joins GPUs here: between them transfers go by the CPU anyway")
    on = {bridge: control for bridge, control in states.items() if control and _redirects(control)}
    unknown = [bridge for bridge, control in states.items() if control is None]
    if on:
        told = [f"{bridge}: {', '.join(_redirects(control))}" for bridge, control in sorted(on.items())]
        reason = (
            f"ACS is on in {len(on)} ports of PCI switches above GPUs: transfers between GPUs go up to the CPU and back"
        )
        return check(name, "warn", reason, len(on), 0, "bridges", action="none", data={"evidence": told[:6]})
    if unknown:
        reason = f"the configuration of {len(unknown)} PCI bridges cannot be read in full: root can"
        return check(name, "unknown", reason, data={"evidence": unknown[:6]})
    return check(
        name, "pass", f"ACS is off in all {len(states)} ports of PCI switches above GPUs", measured=0, expected=0
    )


def acs_control(config: bytes) -> int | None:
    """Return the control register of access control services: 0 without them, None when it cannot be known. Pure."""
    if len(config) <= _PLAIN_CONFIG_BYTES:
        return None  # without root the kernel gives 64 bytes
    offset, seen = _PLAIN_CONFIG_BYTES, set()
    while offset >= _PLAIN_CONFIG_BYTES and offset not in seen and offset + 8 <= len(config):
        seen.add(offset)
        (header,) = struct.unpack_from("<I", config, offset)
        if header & 0xFFFF == _ACS_CAPABILITY:
            return int(struct.unpack_from("<H", config, offset + 6)[0])
        offset = header >> 20
    return 0


def _redirects(control: int) -> list[str]:
    return [name for bit, name in ACS_BITS.items() if control & bit]


def _bridges(context: Context, gpu: str) -> list[str]:
    """Return the PCI addresses above a GPU, from the path that its entry in sysfs leads to."""
    real = os.path.realpath(context.path("sys/bus/pci/devices", gpu))
    above = os.path.dirname(real).split(os.sep)
    return [name for name in above if name.count(":") == 2 and "." in name]


def _switch_ports(paths: list[list[str]]) -> list[str]:
    """Return the ports of switches above GPUs. What hangs on a port of the CPU alone has nothing to be sent around."""
    direct = [path[0] for path in paths if len(path) == 1]
    found = {port for path in paths for port in path[1:]} | {port for port in direct if direct.count(port) > 1}
    return sorted(found)


def _nvswitches(context: Context) -> list[str]:
    folder = context.path("sys/bus/pci/devices")
    return [name for name in _names(folder) if _is_nvswitch(os.path.join(folder, name))]


def _is_nvswitch(folder: str) -> bool:
    kind, vendor = ("".join(_lines(os.path.join(folder, name))) for name in ("class", "vendor"))
    return vendor == "0x10de" and kind.startswith(_NVSWITCH_CLASS)


def host_processes(context: Context) -> bool:
    """Say whether this sees the host's processes, and not a container's own."""
    try:
        return os.readlink(context.path("proc/self/ns/pid")) == HOST_PIDS
    except OSError:
        return True


def _pids(context: Context) -> list[str]:
    return [name for name in _names(context.path("proc")) if name.isdigit()]


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read().splitlines()
    except OSError:
        return []


def _bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as f:
            return f.read(4096)
    except OSError:
        return b""


PARTS = (
    Part("gpu.environment", "quick", "host", run_environment, "environment of this process, /etc/environment"),
    Part("fabric.manager", "quick", "host", run_fabric_manager, "sysfs: NVSwitches; /proc: nv-fabricmanager"),
    Part("pcie.acs", "quick", "host", run_acs, "sysfs: configuration of the bridges above GPUs"),
)
