"""Putting another version of the driver's modules into the running kernel: services out of the way, and back.

The order is that of NVIDIA's own containers. A job is never killed: it is drained by the admin's command, or
the reload does not happen.
"""

from __future__ import annotations

import os

from gpuprov.agent.modules.base import ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from gpuprov.agent.modules.base import Call
    from gpuprov.agent.modules.driver_decision import Driver
    from gpuprov.agent.process import Finished
    from gpuprov.agent.survey_host import Host

#: What is taken out of the kernel, in this order, as far as it is there.
OUT = ("gdrdrv", "nvidia_fs", "nvidia_drm", "nvidia_modeset", "nvidia_uvm", "nvidia_peermem", "nvidia")
IN = ("nvidia", "nvidia_uvm", "nvidia_modeset")
#: Services that have the driver open, in the order of stopping; they are started again from the end.
SERVICES = (
    "nvidia-dcgm.service",
    "dcgm-exporter.service",
    "nvidia-imex.service",
    "nvidia-gridd.service",
    "nvidia-fabricmanager.service",
    "nvlsm.service",
    "nvidia-persistenced.service",
)


class Busy(Exception):
    """The kernel does not let go of a module; str() says which, and only a reboot helps."""


def jobs(driver: Driver, services: Sequence[str]) -> list[dict[str, Any]]:
    """Return the processes on the GPUs that are not those services."""
    found = []
    for process in driver.processes:
        groups = driver.host.text("/proc/%d/cgroup" % process["pid"])
        if not any("/%s" % service in groups for service in services):
            found.append(process)
    return found


def drain(call: Call, driver: Driver) -> None:
    """Run the admin's command that ends or moves the jobs; it gets their process ids. Raises ModuleError."""
    env = {**call.env, "GPUPROV_GPU_PIDS": " ".join(str(one["pid"]) for one in jobs(driver, call.args["services"]))}
    command = call.args["drain_command"]
    words, limit_s = ["/bin/sh", "-c", command], call.args["drain_timeout"]
    done = call.system.run(words, env=env, timeout_s=limit_s, on_line=call.output)
    if done.rc != 0:
        message = "drain_command did not succeed: %s" % (done.last_line or done.why)
        raise ModuleError(message, "the GPUs were left alone", code="drain-failed", rc=done.rc)


def refuse_jobs(found: Sequence[dict[str, Any]], drained: bool) -> None:
    """Raise ModuleError that names the processes, if there are any."""
    if not found:
        return
    names = ["%s (process %d of %s)" % (one["name"], one["pid"], one["user"] or "?") for one in found]
    more = " and %d more" % (len(names) - 3) if len(names) > 3 else ""
    still = "still " if drained else ""
    message = "the driver cannot be reloaded, the GPUs are %sused by %s%s" % (still, ", ".join(names[:3]), more)
    hint = "wait for them, or give a drain_command that moves them away; gpuprov kills no job"
    raise ModuleError(message, hint, code="gpu-busy", processes=list(found))


def reload(call: Call, driver: Driver) -> None:
    """Exchange the modules. Raises ModuleError, Busy; services that ran run again in any case."""
    stopped = _stop(call)
    try:
        _look_for_users(driver.host)
        for name in OUT:
            if driver.host.exists("/sys/module/" + name):
                _take_out(call, name)
        for name in IN:
            done = _run(call, "modprobe", name)
            if done.rc != 0:
                message = "modprobe %s: %s" % (name, (done.last_line or done.why).replace("modprobe: ", ""))
                raise ModuleError(message, "dmesg shows why", code="modprobe-failed", rc=done.rc)
    finally:
        for service in reversed(stopped):
            done = _run(call, "systemctl", "start", service)
            if done.rc != 0:
                call.warnings.append(
                    "%s was stopped and does not start again: %s" % (service, done.last_line or done.why)
                )


def _look_for_users(host: Host) -> None:
    """Raise Busy, before anything is taken out, when something else than our own modules uses one of them."""
    for name in OUT:
        users = host.text("/sys/module/%s/refcnt" % name).strip()
        ours = [one for one in host.names("/sys/module/%s/holders" % name) if one in OUT]
        if users.isdigit() and int(users) > len(ours):
            raise Busy("kernel module %s is in use, by no process and no service: a console or another module" % name)


def _take_out(call: Call, name: str) -> None:
    done = _run(call, "rmmod", name)
    if done.rc == 0:
        return
    said = done.last_line or done.why
    if "in use" in said or "busy" in said.lower():
        raise Busy("kernel module %s is in use: %s" % (name, said))
    raise ModuleError("rmmod %s: %s" % (name, said), code="rmmod-failed", rc=done.rc)


def _stop(call: Call) -> list[str]:
    """Stop the services that run; return them."""
    stopped: list[str] = []
    for service in call.args["services"]:
        if _run(call, "systemctl", "is-active", "--quiet", service).rc == 0:
            done = _run(call, "systemctl", "stop", service)
            if done.rc != 0:
                for one in reversed(stopped):
                    _run(call, "systemctl", "start", one)
                message = "%s does not stop: %s" % (service, done.last_line or done.why)
                raise ModuleError(message, code="service-failed")
            stopped.append(service)
    return stopped


def _run(call: Call, program: str, *words: str) -> Finished:
    path = call.system.which(program) or call.system.which(program, "/usr/sbin:/sbin:/usr/bin:/bin")
    if path is None:
        raise ModuleError("program %s is not on this host" % os.path.basename(program), code="program-missing")
    return call.system.run([path, *words], env=call.env, timeout_s=call.timeout_s)
