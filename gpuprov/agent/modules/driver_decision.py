"""What it takes until the driver that is installed is the one that runs. Pure, but for reading the survey."""

from __future__ import annotations

from gpuprov.agent.survey import part
from gpuprov.agent.survey_host import Untold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.survey_host import Host

_PARTS = (
    ("pci", "devices"),
    ("kernel", "kernel"),
    ("modules", "modules"),
    ("driver", "driver"),
    ("use", "gpu_processes"),
)
NONE, LOAD, RELOAD, REBOOT, UNKNOWN = "none", "load", "reload", "reboot", "unknown"


class Decision:
    """What has to be done: action and its reasons; wrong is why no action helps; skip is what was not looked at."""

    __slots__ = ("action", "notes", "reasons", "skip", "wrong")

    def __init__(self, action: str, *reasons: str) -> None:
        self.action = action
        self.reasons = list(reasons)
        self.notes: list[str] = []
        self.wrong: tuple[str, str, str] | None = None
        self.skip = ""


class Driver:
    """The driver as it is loaded, on the disk for the running kernel, and in the user's libraries; None = not there."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.found: dict[str, Any] = {}
        self.untold: list[str] = []
        for module, function in _PARTS:
            try:
                self.found.update(part(module, function)(host, self.found))
            except (Untold, OSError, ValueError, LookupError) as error:
                self.untold.append("%s: %s" % (module, error))
        self.untold += ["%s: %s" % item for item in host.untold.items() if item[0].startswith("modules.")]
        kernel = self.found.get("kernel", {})
        self.running: str = kernel.get("running", "")
        self.next: str | None = kernel.get("next")
        nvidia = self.found.get("modules", {}).get("nvidia", {})
        self.files: dict[str, dict[str, Any]] = nvidia.get("by_kernel", {})
        self.disk: dict[str, Any] = self.files.get(self.running, {})
        self.loaded: str | None = nvidia.get("version") if nvidia.get("loaded") else None
        self.is_loaded = bool(nvidia.get("loaded"))
        self.loaded_flavour: str | None = nvidia.get("flavour") if self.is_loaded else None
        self.user: str | None = self.found.get("driver", {}).get("version")
        self.installed_by: str | None = self.found.get("driver", {}).get("installed_by")
        self.processes: list[dict[str, Any]] = self.found.get("gpu_processes", [])

    @property
    def gpus(self) -> int:
        """How many GPUs are on the PCI bus."""
        from gpuprov.agent.survey_pci import gpus

        return len(gpus(self.found)) if "pci" in self.found else 0

    def has_modules_folder(self) -> bool:
        """Say whether the running kernel is one of this system's: a container has its machine's."""
        return self.host.exists("/lib/modules/%s" % self.running)


def decide(driver: Driver, version: str, flavour: str) -> Decision:
    """Return what has to be done so that the wanted driver (or any that is installed, "") runs."""
    if driver.untold:
        return Decision(UNKNOWN, *driver.untold)
    decision = _action(driver)
    decision.wrong = _wrong(driver, version, flavour)
    if not driver.has_modules_folder():
        decision.skip = "lab kernel: %s has no modules on this system, so nothing can be loaded" % driver.running
        if decision.action in (LOAD, RELOAD):
            decision.action = UNKNOWN
    elif driver.gpus and decision.wrong is None and decision.action == NONE and not driver.disk and driver.installed_by:
        message = "the driver has no module for the running kernel %s" % driver.running
        hint = "dkms status shows why; headers of exactly this kernel are needed, then dkms autoinstall"
        decision.wrong = ("module-missing", message, hint)
    if driver.next and driver.next != driver.running:
        decision.notes.append("kernel %s boots next, %s runs" % (driver.next, driver.running))
        if driver.disk and driver.next not in driver.files:
            decision.notes.append("kernel %s has no module of the driver: after a reboot it is gone" % driver.next)
    return decision


def _action(driver: Driver) -> Decision:
    modules = driver.found["modules"]
    if not driver.gpus:
        return Decision(NONE, "no NVIDIA GPU is on the PCI bus")
    if not driver.disk and driver.next and driver.next in driver.files:
        return Decision(
            REBOOT, "the module is built for kernel %s, which boots next; %s runs" % (driver.next, driver.running)
        )
    if not driver.disk:
        return Decision(NONE, "no module of the driver is on the disk" if not driver.is_loaded else "")
    for name in ("nouveau", "nova_core"):
        if modules[name]["loaded"]:
            return Decision(REBOOT, "%s is loaded and holds the GPUs" % name)
    if not driver.is_loaded:
        return Decision(LOAD, "the module %s is on the disk and not loaded" % driver.disk["version"])
    reasons = _differs(driver)
    if not reasons:
        return Decision(NONE, "the module that is loaded is the one on the disk: %s" % driver.loaded)
    if driver.found.get("nvswitches"):
        return Decision(REBOOT, *reasons, "the NVSwitch fabric is set up anew with another driver")
    return Decision(RELOAD, *reasons)


def _differs(driver: Driver) -> list[str]:
    reasons = []
    if driver.loaded != driver.disk["version"]:
        reasons.append(
            "%s is loaded, %s is on the disk" % (driver.loaded or "an unknown version", driver.disk["version"])
        )
    if driver.loaded_flavour and driver.disk.get("flavour") and driver.loaded_flavour != driver.disk["flavour"]:
        reasons.append(
            "the %s module is loaded, the %s one is on the disk" % (driver.loaded_flavour, driver.disk["flavour"])
        )
    return reasons


def _wrong(driver: Driver, version: str, flavour: str) -> tuple[str, str, str] | None:
    """Return code, message and hint of what neither a reload nor a reboot mends."""
    disk, user = driver.disk.get("version"), driver.user
    if disk and user and disk != user:
        message = "kernel module %s and libraries %s do not fit: the set of packages is broken" % (disk, user)
        return "driver-mixed", message, "install the whole set at one version (gpuprov_packages)"
    there = disk or user
    if version and there != version:
        message = "driver %s is installed, wanted is %s" % (there or "none", version)
        return "driver-other", message, "install it first (gpuprov_packages)"
    if flavour and driver.disk.get("flavour") and driver.disk["flavour"] != flavour:
        message = "the %s kernel module is installed, wanted is the %s one" % (driver.disk["flavour"], flavour)
        return "driver-other", message, "install it first (gpuprov_packages)"
    return None
