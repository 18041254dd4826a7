"""The module `gpuprov_driver_check`: loaded = installed = pinned, or what is not; changes nothing."""

from __future__ import annotations

from gpuprov.agent.modules.base import Action, ModuleError, NeedsEarlierChange, ProbeError
from gpuprov.agent.modules.driver_decision import Driver
from gpuprov.agent.survey import part
from gpuprov.agent.survey_host import Host, Untold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC: dict[str, Any] = {
    "summary": "The driver that is loaded is the one that is installed and pinned; skipped where none can be loaded.",
    "args": {
        "version": {"type": "str", "required": True, "doc": "The driver that is wanted: 580.178.04."},
        "flavour": {
            "type": "str",
            "choices": ["", "open", "proprietary"],
            "default": "",
            "doc": "Of its kernel module.",
        },
        "held": {"type": "list", "default": [], "doc": "Packages that have to be on hold; * is allowed."},
    },
    "returns": {
        "loaded": "Version of the loaded module, or null.",
        "libraries": "Version of the user's libraries, or null.",
        "flavour": "Of the loaded module, or null.",
        "not_held": "Packages that should be on hold and are not.",
    },
}


class DriverCheck(Action):
    """One look. root is another root folder to look at."""

    reads = True
    unmeasured = True
    root = ""

    def skip(self) -> str:
        """Return why nothing can be loaded here, or "". Installed and pinned are checked all the same, and fail."""
        if self.call.check and self.call.pending:
            raise NeedsEarlierChange("an earlier task would change something that the driver may depend on")
        self.host = Host(self.system, self.root)
        self.driver = Driver(self.host)
        if self.driver.untold:
            raise ProbeError("the state of the driver cannot be told: %s" % self.driver.untold[0], code="unknown")
        self._installed()
        if not self.driver.has_modules_folder():
            return "lab kernel: %s is not this system's, so no module can be loaded" % self.driver.running
        return "" if self.driver.gpus else "driver installed, no GPU on the PCI bus"

    def run(self) -> dict[str, Any]:
        """Compare what is loaded. Raises ModuleError with both values."""
        driver, wanted = self.driver, self.args["version"]
        result = self._result()
        if driver.loaded != wanted:
            message = "driver %s is loaded, wanted and installed is %s" % (driver.loaded or "none", wanted)
            raise ModuleError(message, "reload the modules, or reboot", "driver-not-loaded", **result)
        flavour = self.args["flavour"]
        if flavour and driver.loaded_flavour and driver.loaded_flavour != flavour:
            message = "the %s kernel module is loaded, wanted is the %s one" % (driver.loaded_flavour, flavour)
            raise ModuleError(message, "reload the modules, or reboot", "driver-not-loaded", **result)
        return dict(result, changed=False)

    def _installed(self) -> None:
        """Raise ModuleError when the libraries, or the holds, are not as wanted."""
        wanted, result = self.args["version"], self._result()
        if self.driver.user != wanted:
            message = "driver %s is installed, wanted is %s" % (self.driver.user or "none", wanted)
            raise ModuleError(message, "look at the driver's packages: gpuprov drift", "driver-not-installed", **result)
        if result["not_held"]:
            message = "not on hold, so that an upgrade may change them: %s" % ", ".join(result["not_held"])
            raise ModuleError(message, "gpuprov_packages with hold: true", "driver-not-held", **result)

    def _result(self) -> dict[str, Any]:
        driver = self.driver
        keys = {"loaded": driver.loaded, "libraries": driver.user, "flavour": driver.loaded_flavour}
        return dict(keys, not_held=self._not_held())

    def _not_held(self) -> list[str]:
        if not self.args["held"]:
            return []
        try:
            holds = part("packages", "holds")(self.host, {})["holds"]
        except Untold as error:
            raise ProbeError("which packages are on hold cannot be told: %s" % error, code="unknown") from None
        return [name for name in self.args["held"] if not any(covers(hold, name) for hold in holds)]


def covers(hold: str, name: str) -> bool:
    """Say whether a hold, or a pattern of versionlock, is about package *name*. Pure."""
    from fnmatch import fnmatchcase

    bare = hold.lstrip("!")
    return fnmatchcase(name, bare) or bare.split(":")[-1].startswith(name + "-") or bare.startswith(name + "-")


MODULE = DriverCheck
