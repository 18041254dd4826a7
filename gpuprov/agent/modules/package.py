"""The module `package`: packages by the host's own package manager."""

from __future__ import annotations

from gpuprov.agent.modules import load
from gpuprov.agent.modules.arguments import check
from gpuprov.agent.modules.base import Change, ModuleError, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC: dict[str, Any] = {
    "summary": "Packages, by apt or dnf, whichever the host has.",
    "args": {
        "name": {"type": "list", "required": True, "aliases": ["pkg"], "doc": "Packages."},
        "state": {
            "type": "str",
            "choices": ["absent", "installed", "latest", "present", "removed"],
            "default": "present",
            "doc": "What is wanted of them.",
        },
        "use": {
            "type": "str",
            "choices": ["apt", "auto", "dnf", "yum"],
            "default": "auto",
            "doc": "Which package manager.",
        },
        "update_cache": {"type": "bool", "doc": "Read the package sources, when needed."},
        "cache_valid_time": {"type": "int", "doc": "apt: seconds for which what was read is fresh enough."},
        "autoremove": {"type": "bool", "doc": "Remove packages that nothing needs any more."},
        "lock_timeout": {"type": "int", "doc": "Seconds to wait for the package manager's locks."},
    },
    "returns": {"stdout": "The package manager's output.", "stderr": "The package manager's errors."},
}

_STATES = {"installed": "present", "removed": "absent"}


class Package(State):
    """Packages of apt or dnf."""

    def probe(self) -> Change:
        """Ask the host's package manager."""
        if not hasattr(self, "_inner"):
            self._inner = self._choose()
        return self._inner.probe()

    def converge(self, change: Change) -> None:
        """Let the host's package manager do it."""
        self._inner.converge(change)

    def _choose(self) -> State:
        use = self.args["use"]
        if use == "auto":
            use = "apt" if self.system.which("apt-get") else "dnf"
            if use == "dnf" and not (self.system.which("dnf") or self.system.which("yum")):
                raise ModuleError("this host has neither apt-get nor dnf", code="package-manager-unknown")
        given = {key: value for key, value in self.args.items() if key != "use" and value is not None}
        given["state"] = _STATES.get(given["state"], given["state"])
        if use != "apt":
            given.pop("cache_valid_time", None)
        manager = load(use)
        self.call.args, wrong = check(manager.SPEC, given)
        if wrong:
            raise ModuleError("%s: %s" % (use, wrong[0].message), wrong[0].hint)
        inner: State = manager.MODULE(self.call)
        return inner


MODULE = Package
