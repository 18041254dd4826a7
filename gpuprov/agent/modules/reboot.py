"""The module `reboot`. The engine records the reason, calls reboot_now and goes on after the boot."""

from __future__ import annotations

import os
import time

from gpuprov.agent.modules.base import Action, ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.system import System

SPEC: dict[str, Any] = {
    "summary": "Reboot the host, wait until it is back, and go on.",
    "args": {
        "reboot_timeout": {"type": "int", "default": 600, "doc": "Seconds until the host must be back."},
        "pre_reboot_delay": {"type": "int", "default": 0, "doc": "Seconds before the reboot."},
        "post_reboot_delay": {"type": "int", "default": 0, "doc": "Seconds after the host is back."},
        "msg": {"type": "str", "default": "Reboot initiated by gpuprov", "doc": "The reason, recorded and announced."},
        "test_command": {"type": "str", "default": "whoami", "doc": "Command that must succeed after the boot."},
        "connect_timeout": {"type": "int", "doc": "Accepted; attempts to connect after the boot follow --timeout."},
    },
    "unsupported": {
        "boot_time_command": "a new boot is proved by the kernel's boot id",
        "reboot_command": "systemctl reboot or reboot(2) is used, whichever the host has",
        "search_paths": "no program has to be searched for",
    },
    "returns": {"rebooted": "Whether the host booted.", "elapsed": "Seconds it took."},
}
_RESTART = 0x01234567


class Reboot(Action):
    """A reboot on request. The engine, not run, is what plans use: run does not come back."""

    def run(self) -> dict[str, Any]:
        """Take the host down. Raises ModuleError when it refuses."""
        reboot_now(self.system)
        return {"changed": True, "rebooted": True}


def await_services(system: System, args: dict[str, Any]) -> None:
    """After the boot: wait as the task says, and until its test command succeeds. Raises ModuleError."""
    time.sleep(args.get("post_reboot_delay") or 0)
    command = args.get("test_command") or "whoami"
    deadline = time.monotonic() + (args.get("reboot_timeout") or 600)
    while True:
        done = system.run(["/bin/sh", "-c", command], timeout_s=max(1.0, deadline - time.monotonic()))
        if done.rc == 0:
            return
        if time.monotonic() >= deadline:
            message = "the host is back, but `%s` does not succeed: %s" % (command, done.last_line or done.why)
            raise ModuleError(message, code="reboot-test-failed", rebooted=True)
        time.sleep(1.0)


def reboot_now(system: System) -> None:
    """Start a reboot, in order where an init system can. Raises ModuleError when the host refuses."""
    if os.path.isdir("/run/systemd/system"):
        done = system.run(["systemctl", "reboot"], timeout_s=60)
    elif system.which("reboot") and system.read_text("/proc/1/comm").strip() in ("init", "openrc-init", "runit"):
        done = system.run(["reboot"], timeout_s=60)
    else:
        _restart()
        return
    if done.rc != 0:
        raise ModuleError("the host refuses to reboot: %s" % (done.last_line or done.why), code="reboot-refused")


def _restart() -> None:
    """Ask the kernel: there is no init system that could do it in order."""
    import ctypes

    os.sync()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.reboot(ctypes.c_int(_RESTART)) != 0:
        reason = os.strerror(ctypes.get_errno())
        message = "the host cannot reboot itself: %s" % reason
        raise ModuleError(message, "a container is restarted by its host", code="reboot-refused")


MODULE = Reboot
