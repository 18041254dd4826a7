"""The module `apt`: packages of Debian and Ubuntu."""

from __future__ import annotations

import os
import re
import time
from fnmatch import fnmatchcase

from gpuprov.agent.modules.base import Change, ModuleError, NeedsEarlierChange, State, absent, planned
from gpuprov.agent.modules.dpkg import Dpkg, Installed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC: dict[str, Any] = {
    "summary": "Packages of Debian and Ubuntu.",
    "args": {
        "name": {
            "type": "list",
            "aliases": ["package", "pkg"],
            "doc": "Packages: foo, foo=1.2*, foo>=1.2, foo:i386. Patterns with * are allowed.",
        },
        "state": {
            "type": "str",
            "choices": ["absent", "build-dep", "fixed", "latest", "present"],
            "default": "present",
            "doc": "What is wanted of the packages.",
        },
        "deb": {"type": "path", "doc": "A package file on the host."},
        "upgrade": {
            "type": "str",
            "choices": ["dist", "full", "safe", "yes", "no", "True", "False"],
            "default": "no",
            "doc": "Upgrade everything; dist and full also install and remove packages.",
        },
        "update_cache": {"type": "bool", "aliases": ["update-cache"], "doc": "Read the package sources, when needed."},
        "cache_valid_time": {"type": "int", "default": 0, "doc": "Seconds for which what was read is fresh enough."},
        "update_cache_retries": {"type": "int", "default": 5, "doc": "How often reading the sources is tried."},
        "update_cache_retry_max_delay": {"type": "int", "default": 12, "doc": "Longest pause between tries, seconds."},
        "purge": {"type": "bool", "default": False, "doc": "absent: remove configuration files, too."},
        "autoremove": {"type": "bool", "default": False, "doc": "Remove packages that nothing needs any more."},
        "autoclean": {"type": "bool", "default": False, "doc": "Remove outdated package files from the cache."},
        "clean": {"type": "bool", "default": False, "doc": "Remove all package files from the cache."},
        "install_recommends": {"type": "bool", "aliases": ["install-recommends"], "doc": "Default: as apt is set up."},
        "default_release": {"type": "str", "aliases": ["default-release"], "doc": "Release to prefer."},
        "only_upgrade": {"type": "bool", "default": False, "doc": "Only packages that are installed already."},
        "allow_downgrade": {
            "type": "bool",
            "default": False,
            "aliases": ["allow-downgrade", "allow_downgrades", "allow-downgrades"],
            "doc": "Permit an older version.",
        },
        "allow_change_held_packages": {"type": "bool", "default": False, "doc": "Permit changes of held packages."},
        "allow_unauthenticated": {
            "type": "bool",
            "default": False,
            "aliases": ["allow-unauthenticated"],
            "doc": "Permit packages that are not signed.",
        },
        "fail_on_autoremove": {"type": "bool", "default": False, "doc": "Fail rather than remove a package."},
        "force": {"type": "bool", "default": False, "doc": "Permit downgrades and unsigned packages."},
        "force_apt_get": {"type": "bool", "default": False, "doc": "Accepted; apt-get is always used."},
        "lock_timeout": {"type": "int", "default": 60, "doc": "Seconds to wait for apt's locks; negative: for ever."},
        "dpkg_options": {"type": "str", "default": "force-confdef,force-confold", "doc": "dpkg options, with commas."},
    },
    "unsupported": {
        "policy_rc_d": "write /usr/sbin/policy-rc.d with a copy task before and remove it after",
        "auto_install_module_deps": "no Python bindings are needed",
    },
    "returns": {
        "cache_updated": "Whether the package sources were read.",
        "cache_update_time": "When they were read, seconds since 1970.",
        "stdout": "apt's output, when something was done.",
        "stderr": "apt's errors, when something was done.",
    },
}

LISTS = "/var/lib/apt/lists"
STAMP = "/var/lib/apt/periodic/update-success-stamp"
_SPEC = re.compile(r"^(?P<name>[a-z0-9*?][a-z0-9+.*?-]*(?::[a-z0-9-]+)?)(?:(?P<op>>?=)(?P<version>[^=\s]+))?$")
_SAFE, _FULL = ("upgrade", "--with-new-pkgs"), ("dist-upgrade",)
_UPGRADES = {"safe": _SAFE, "yes": _SAFE, "True": _SAFE, "dist": _FULL, "full": _FULL}


class Wanted:
    """One entry of name: a package or pattern, perhaps with a version or a pattern of versions."""

    __slots__ = ("exact", "name", "version")

    def __init__(self, text: str) -> None:
        match = _SPEC.match(text.strip())
        if not match or match.group("name").endswith("-"):
            raise ModuleError("%r is not a package name" % text, "examples: foo, foo=1.2*, foo>=1.2, foo:i386")
        self.name: str = match.group("name")
        self.version: str | None = match.group("version")
        self.exact = match.group("op") == "="

    @property
    def pattern(self) -> bool:
        """The name stands for several packages."""
        return "*" in self.name or "?" in self.name

    def __str__(self) -> str:
        return "%s=%s" % (self.name, self.version) if self.version and self.exact else self.name


class Apt(State):
    """Packages, and what apt knows about them."""

    _cache_read = False
    _cleaned = False

    def probe(self) -> Change:
        """Compare dpkg's database with what is wanted; asks apt only where that cannot be enough."""
        self.wanted = [Wanted(str(name)) for name in self.args.get("name") or [] if str(name).strip()]
        self.upgrade = _UPGRADES.get(self.args["upgrade"])
        self.dpkg = Dpkg(self.system)
        change = Change(result={"cache_updated": self._cache_read, "cache_update_time": int(_cache_time())})
        if self._cache_is_old() and (not self._any_package() or self._asks_apt()):
            if self.call.check and self._any_package():
                raise NeedsEarlierChange("the package sources would be read again first")
            change.differences.append("package cache")
        elif self.args["state"] == "absent":
            change.differences += self._too_many()
        else:
            change.differences += self._missing()
        change.differences += self._simulated() if not change.differences else []
        if (self.args["clean"] or self.args["autoclean"]) and not self._cleaned:
            change.differences += ["package files"] if _has_archives() else []
        if change.differences and self.call.check:
            self._foresee(change)
        if change.differences and self.call.diff:
            change.diff = [{"before": "", "after": "".join("%s\n" % name for name in change.differences)}]
        return change

    def converge(self, change: Change) -> None:
        """Read the sources if that is asked for and old, then install or remove."""
        from gpuprov.agent.modules.apt_change import change_packages

        change_packages(self, change)

    def forget(self) -> None:
        """Read dpkg's database again, after a change."""
        self.dpkg = Dpkg(self.system)

    def cache_was_read(self) -> None:
        """Note that the package sources are fresh, here and for cache_valid_time."""
        self._cache_read = True
        os.utime(LISTS)

    def cleaned(self) -> None:
        """Note that the package files were removed as far as asked."""
        self._cleaned = True

    def names_to_change(self) -> list[str]:
        """Return what apt-get is to install or remove."""
        if self.args["state"] == "absent":
            return [name for wanted in self.wanted for name in self._installed_names(wanted)]
        if self.args["only_upgrade"]:
            return [str(wanted) for wanted in self.wanted if wanted.pattern or self._works(wanted)]
        return [str(wanted) for wanted in self.wanted]

    def reads_first(self) -> bool:
        """Say whether reading the package sources was only the way to something else."""
        return self._any_package()

    def left_to_do(self) -> list[str]:
        """Return what differs now that the package sources were read."""
        return self._missing() + self._simulated()

    def cache_is_old(self) -> bool:
        """Say whether the package sources have to be read before something is installed."""
        return self._cache_is_old()

    def _any_package(self) -> bool:
        return bool(self.wanted or self.args.get("deb") or self.upgrade or self.args["state"] == "fixed")

    def _asks_apt(self) -> bool:
        return bool(self.args["state"] in ("latest", "build-dep") or self.upgrade)

    def _cache_is_old(self) -> bool:
        asked = self.args.get("update_cache") or (
            self.args.get("update_cache") is None and self.args["cache_valid_time"]
        )
        return bool(asked) and not self._cache_read and _cache_time() + self.args["cache_valid_time"] < time.time()

    def _too_many(self) -> list[str]:
        return ["package %s is installed" % name for wanted in self.wanted for name in self._installed_names(wanted)]

    def _installed_names(self, wanted: Wanted) -> list[str]:
        if wanted.pattern:
            return self.dpkg.matching(wanted.name)
        package = self.dpkg.find(wanted.name)
        if package is None:
            return []
        there = package.works or package.broken or (self.args["purge"] and package.state == "config-files")
        if there and wanted.version and not self._version_fits(wanted, package):
            return []
        return [wanted.name] if there else []

    def _missing(self) -> list[str]:
        names = []
        for wanted in self.wanted:
            if wanted.pattern or self.args["state"] == "build-dep":
                continue
            package = self.dpkg.find(wanted.name)
            if package is not None and package.broken:
                names.append("package %s is %s" % (wanted.name, package.state))
            elif package is not None and package.works:
                if wanted.version and not self._version_fits(wanted, package):
                    names.append("package %s is %s, not %s" % (wanted.name, package.version, wanted.version))
            elif not self.args["only_upgrade"] and not self.dpkg.provider(wanted.name):
                names.append("package %s is not installed" % wanted.name)
        if self.args.get("deb"):
            from gpuprov.agent.modules.apt_change import deb_differences

            names += deb_differences(self)
        return names

    def _works(self, wanted: Wanted) -> bool:
        package = self.dpkg.find(wanted.name)
        return package is not None and package.works

    def _version_fits(self, wanted: Wanted, package: Installed) -> bool:
        assert wanted.version is not None
        if wanted.exact:
            return package.version == wanted.version or fnmatchcase(package.version, wanted.version)
        return self.system.run(["dpkg", "--compare-versions", package.version, "ge", wanted.version]).rc == 0

    def _simulated(self) -> list[str]:
        """Return what apt would do for that which dpkg's database alone cannot decide."""
        from gpuprov.agent.modules.apt_change import simulated_commands, would_do

        names = []
        for words in simulated_commands(self):
            names += would_do(self.call, words)
        return names

    def _foresee(self, change: Change) -> None:
        """Check mode: fail now for what apt could not install, and note what later tasks may rely on."""
        from gpuprov.agent.modules.apt_change import option_words, would_do

        if self.wanted and self.args["state"] == "present" and not planned(self.call, "package cache"):
            try:
                would_do(self.call, ["install", *option_words(self), *self.names_to_change()])
            except ModuleError as error:
                if self._cache_is_old():
                    raise NeedsEarlierChange("the package sources would be read again first") from None
                raise absent(self.call, error.message, error.hint, code=error.code) from None
        self.call.pending.update("package " + wanted.name for wanted in self.wanted)
        self.call.pending.update(change.differences)


def _cache_time() -> float:
    """Return when the package sources were read last; 0 for never."""
    times = [0.0]
    for path in (STAMP, LISTS):
        try:
            times.append(os.stat(path).st_mtime)
        except FileNotFoundError:
            continue
    return max(times)


def _has_archives() -> bool:
    try:
        return any(name.endswith(".deb") for name in os.listdir("/var/cache/apt/archives"))
    except FileNotFoundError:
        return False


MODULE = Apt
