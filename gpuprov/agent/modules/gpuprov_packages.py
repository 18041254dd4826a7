"""The module `gpuprov_packages`: a whole set of packages at exact versions, or a refusal before any change."""

from __future__ import annotations

from gpuprov.agent.modules import package_record
from gpuprov.agent.modules.base import Change, ModuleError, NeedsEarlierChange, State, absent, planned
from gpuprov.agent.modules.version_set import parse_wanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.modules.package_manager import Manager

SPEC: dict[str, Any] = {
    "summary": "A set of packages at exact versions, simulated first, changed in one transaction, or refused.",
    "args": {
        "packages": {
            "type": "list",
            "default": [],
            "doc": 'Packages: {name: foo, version: "1.2-*"} or "foo=1.2-*"; without a version, any.',
        },
        "absent": {"type": "list", "default": [], "doc": "Packages that must not be there; * is allowed."},
        "family": {
            "type": "list",
            "default": [],
            "doc": "Further packages (* is allowed) that may change, go and be released from hold with the set.",
        },
        "brings": {
            "type": "list",
            "default": [],
            "doc": "What must be installed afterwards, as in packages; a name may be a pattern.",
        },
        "hold": {
            "type": "bool",
            "doc": "true: the set and its family are on hold afterwards; false: not. Default: what was on hold stays.",
        },
        "update_cache": {
            "type": "bool",
            "default": False,
            "doc": "Read the package sources first, when anything differs.",
        },
        "allow_downgrade": {"type": "bool", "default": True, "doc": "Permit older versions of the set and its family."},
        "purge": {"type": "bool", "default": False, "doc": "Remove configuration files, too (apt)."},
        "install_recommends": {"type": "bool", "default": False, "doc": "Install what is only recommended, too."},
        "module_stream": {"type": "str", "default": "", "doc": "dnf: stream to enable first, nvidia-driver:580-open."},
        "lock_timeout": {"type": "int", "default": 600, "doc": "Seconds to wait for the package manager's lock."},
        "use": {
            "type": "str",
            "choices": ["apt", "auto", "dnf"],
            "default": "auto",
            "doc": "Which package manager; auto: apt where it is, else dnf.",
        },
        "simulate_only": {"type": "bool", "default": False, "doc": "Only tell what would change, or why it cannot."},
    },
    "returns": {
        "packages": "What changed: name, before, after (empty: not installed).",
        "would_change": "Check mode and simulate_only: what the package manager would do.",
        "held": "Packages of the set and its family that are on hold.",
        "repaired": "Packages that an earlier run had left half-installed or half-configured.",
        "versions": "The installed version of each wanted package.",
        "refusals": "When refused: rule, package, found, needed, message, remedy of each reason.",
        "stdout": "The package manager's output, when something was done.",
    },
}


class Packages(State):
    """One set of packages, with holds."""

    def probe(self) -> Change:
        """Compare the package database with what is wanted; the package manager is asked in check mode only."""
        self.wanted = parse_wanted(self.args["packages"])
        self.manager = getattr(self, "manager", None) or _manager(self)
        self.manager.forget()
        change = Change(result={"versions": {one.name: self.manager.version(one.name) for one in self.wanted}})
        change.differences = self._differences()
        change.result["held"] = [name for name in self.manager.held() if name in self.names_to_hold()]
        if self.args["simulate_only"] or (self.call.check and change.differences):
            self._foresee(change)
        if change.differences and self.call.diff:
            change.diff = [{"before": "", "after": "".join("%s\n" % one for one in change.differences)}]
        return change

    def converge(self, change: Change) -> None:
        """Repair, simulate, refuse or change, hold. Raises ModuleError."""
        from gpuprov.agent.modules.package_change import change_packages

        change_packages(self, change)

    def names_to_hold(self) -> list[str]:
        """Return the installed packages whose holds are this task's business."""
        named = [one.name for one in self.wanted if self.manager.version(one.name)]
        return sorted({*named, *self.manager.matching(self.args["family"])})

    def _differences(self) -> list[str]:
        manager = self.manager
        left = package_record.interrupted(self.system)
        found = ["an earlier change of packages was interrupted"] if left else []
        found += manager.broken()
        found += manager.stream_differs(self.args["module_stream"])
        for one in self.wanted:
            version = manager.version(one.name)
            if not one.fits(version):
                now = version or "not installed"
                found.append("package %s is %s, not %s" % (one.name, now, one.version or "installed"))
        found += ["package %s is installed" % name for name in manager.matching(self.args["absent"])]
        if self.args["purge"]:
            found += ["package %s left files" % name for name in manager.leftovers(self.args["absent"])]
        if not found:
            found += ["package %s would go with others" % name for name in self.kept_by_others()]
            found += self._holds_differ()
        return found

    def kept_by_others(self) -> list[str]:
        """Return the wanted packages that are only there because others need them."""
        automatic = self.manager.automatic()
        return [one.name for one in self.wanted if one.name in automatic]

    def _holds_differ(self) -> list[str]:
        if self.args.get("hold") is None:
            return []
        held = self.manager.held()
        if self.args["hold"]:
            return ["package %s is not on hold" % name for name in self.names_to_hold() if name not in held]
        return ["package %s is on hold" % name for name in self.names_to_hold() if name in held]

    def _foresee(self, change: Change) -> None:
        """Ask the package manager now what would happen, or why it cannot."""
        from gpuprov.agent.modules.package_change import plan_of

        if self.call.check and (self.args["update_cache"] or planned(self.call, "package cache")):
            raise NeedsEarlierChange("the package sources would be read again first")
        if self.manager.broken():
            raise NeedsEarlierChange("the package database would be repaired first")
        if self.manager.stream_differs(self.args["module_stream"]):
            raise NeedsEarlierChange("only with the module stream %s is it known" % self.args["module_stream"])
        try:
            change.result["would_change"] = [str(step) for step in plan_of(self).steps]
        except ModuleError as error:
            if self.args["simulate_only"] and not self.call.check:
                raise
            raise absent(self.call, error.message, error.hint, code=error.code, **error.result) from None
        if self.args["simulate_only"]:
            change.differences = []
        self.call.pending.update("package " + one.name for one in self.wanted)


def _manager(module: Packages) -> Manager:
    """Return the host's package manager. Raises ModuleError."""
    which, use = module.system.which, module.args["use"]
    if use == "apt" or (use == "auto" and which("apt-get")):
        from gpuprov.agent.modules.apt_set import AptSet

        return AptSet(module.call)
    if use == "dnf" or which("dnf"):
        from gpuprov.agent.modules.dnf_set import DnfSet

        return DnfSet(module.call)
    raise ModuleError("this host has neither apt-get nor dnf", code="package-manager-unknown")


MODULE = Packages
