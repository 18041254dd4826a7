"""The modules `dnf` and `yum`: packages of RHEL, Rocky, AlmaLinux, Fedora."""

from __future__ import annotations

import re

from gpuprov.agent.modules.base import Change, ModuleError, State, absent
from gpuprov.agent.modules.dnf_command import dnf, options, would_change
from gpuprov.agent.modules.rpm import Rpm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC: dict[str, Any] = {
    "summary": "Packages of RHEL, Rocky, AlmaLinux, Fedora.",
    "args": {
        "name": {
            "type": "list",
            "aliases": ["pkg"],
            "doc": "Packages: foo, foo-1.2, foo >= 1.2, @group, a path or URL of a package; * with state latest.",
        },
        "state": {
            "type": "str",
            "choices": ["absent", "installed", "latest", "present", "removed"],
            "default": "present",
            "doc": "What is wanted of the packages.",
        },
        "update_cache": {
            "type": "bool",
            "default": False,
            "aliases": ["expire-cache"],
            "doc": "Read the package sources, when needed.",
        },
        "update_only": {"type": "bool", "default": False, "doc": "latest: only packages that are installed already."},
        "autoremove": {"type": "bool", "default": False, "doc": "Remove packages that nothing needs any more."},
        "enablerepo": {"type": "list", "default": [], "doc": "Package sources to use as well."},
        "disablerepo": {"type": "list", "default": [], "doc": "Package sources not to use."},
        "exclude": {"type": "list", "default": [], "doc": "Packages to leave alone."},
        "disable_excludes": {"type": "str", "doc": "all, main or a source, whose excludes do not count."},
        "disable_gpg_check": {"type": "bool", "default": False, "doc": "Permit packages that are not signed."},
        "allow_downgrade": {"type": "bool", "default": False, "doc": "Permit an older version."},
        "allowerasing": {"type": "bool", "default": False, "doc": "Permit the removal of what is in conflict."},
        "nobest": {"type": "bool", "default": False, "doc": "Permit a version that is not the newest."},
        "best": {"type": "bool", "doc": "Insist on the newest version."},
        "skip_broken": {"type": "bool", "default": False, "doc": "Leave out what cannot be installed."},
        "install_weak_deps": {"type": "bool", "default": True, "doc": "Install recommended packages, too."},
        "security": {"type": "bool", "default": False, "doc": "latest: only what mends security."},
        "bugfix": {"type": "bool", "default": False, "doc": "latest: only what mends mistakes."},
        "releasever": {"type": "str", "doc": "Release of the distribution to take packages from."},
        "conf_file": {"type": "path", "doc": "dnf's configuration file."},
        "sslverify": {"type": "bool", "default": True, "doc": "Check the certificates of package sources."},
        "validate_certs": {"type": "bool", "default": True, "doc": "Check certificates of package URLs."},
        "lock_timeout": {"type": "int", "default": 30, "doc": "Seconds to wait for dnf's lock; 0: for ever."},
        "use_backend": {"type": "str", "default": "auto", "doc": "Accepted; the host's dnf or yum is used."},
        "use": {"type": "str", "default": "auto", "doc": "Accepted; the host's dnf or yum is used."},
    },
    "one_of": [["name", "autoremove", "update_cache"]],
    "unsupported": {
        "installroot": "run dnf --installroot in a command task",
        "list": "use the command module with dnf list, or package_facts",
        "download_only": "use a command task with dnf download",
        "download_dir": "use a command task with dnf download",
        "enable_plugin": "set it in /etc/dnf/plugins",
        "disable_plugin": "set it in /etc/dnf/plugins",
        "cacheonly": "packages are always resolved against the package sources",
    },
    "returns": {
        "stdout": "dnf's output, when something was done.",
        "stderr": "dnf's errors, when something was done.",
        "results": "What differed.",
    },
}
_COMPARISON = re.compile(r"^(\S+)\s*(>=|<=|>|<|==?)\s*(\S+)$")


class Dnf(State):
    """Packages of rpm."""

    _did = False

    def probe(self) -> Change:
        """Ask rpm what is there, and dnf only for what rpm cannot know."""
        self.names = [str(name).strip() for name in self.args.get("name") or [] if str(name).strip()]
        self.state = {"installed": "present", "removed": "absent"}.get(self.args["state"], self.args["state"])
        self._rpm = Rpm(self.system)
        simple = [name for name in self.names if _simple(name)]
        there = self._rpm.installed(simple)
        if self.state == "absent":
            change = Change(["package %s is installed" % name for name in simple if there[name]])
            change.differences += self._asked([name for name in self.names if not _simple(name)], "remove")
        else:
            change = Change(["package %s is not installed" % name for name in simple if not there[name]])
            if self.args["update_only"] and self.state == "latest":
                change.differences = []
            change.differences += self._unknown_to_rpm(bool(change.differences))
        if self.args["autoremove"] and not self.names:
            change.differences += would_change(self.call, ["autoremove"])
        if self.args["update_cache"] and not self.names and not self._did:
            change.differences.append("package cache")
        if change.differences and self.call.check:
            self._foresee(change)
        change.result["results"] = list(change.differences)
        if change.differences and self.call.diff:
            change.diff = [{"before": "", "after": "".join("%s\n" % one for one in change.differences)}]
        return change

    def converge(self, change: Change) -> None:
        """Install, upgrade or remove. Raises ModuleError with dnf's reason."""
        outputs = []
        if self.args["update_cache"] and self.state != "absent":
            outputs.append(dnf(self.call, "makecache", "--refresh"))
        for words in self._commands():
            outputs.append(dnf(self.call, *words))
        self._did = True
        change.result["stdout"] = "".join(done.out for done in outputs)
        change.result["stderr"] = "".join(done.err for done in outputs)

    def _unknown_to_rpm(self, changes_already: bool) -> list[str]:
        """Return what dnf would do for groups, URLs, comparisons, and for latest."""
        names = []
        for name in self.names:
            if name.endswith(".rpm") and "://" not in name:
                package, version = self._rpm.of_file(name)
                names += [] if self._rpm.version(package) == version else ["package %s %s" % (package, version)]
        special = [name for name in self.names if not _simple(name) and not (_is_path(name) or name == "*")]
        names += self._asked(special, "install")
        if self.state == "latest" and not changes_already and not names:
            plain = [] if "*" in self.names else self.names
            refresh = ["--refresh"] if self.args["update_cache"] and not self._did else []
            names += would_change(self.call, ["upgrade", *refresh, *options(self.args), *plain])
        return names

    def _asked(self, names: list[str], verb: str) -> list[str]:
        names = [_spelled(name) for name in names if not _is_path(name)]
        return would_change(self.call, [verb, *options(self.args), *names]) if names else []

    def _commands(self) -> list[list[str]]:
        names, more = [_spelled(name) for name in self.names], options(self.args)
        if not names:
            return [["autoremove"]] if self.args["autoremove"] else []
        if self.state == "absent":
            keep = [] if self.args["autoremove"] else ["--setopt=clean_requirements_on_remove=False"]
            return [["remove", *keep, *more, *names]]
        if "*" in names:
            return [["upgrade", *more]]
        commands = [] if self.args["update_only"] else [["install", *more, *names]]
        if self.args["allow_downgrade"] and any(self._is_older(name) for name in self.names):
            commands = [["downgrade", *more, *names]]
        return [*commands, ["upgrade", *more, *names]] if self.state == "latest" else commands

    def _is_older(self, name: str) -> bool:
        """Say whether another version of the named package is there, so that install alone could refuse."""
        plain = re.sub(r"-\d[^/]*$", "", name)
        return plain != name and bool(self._rpm.version(plain))

    def _foresee(self, change: Change) -> None:
        """Check mode: fail now for what dnf could not install, and note what later tasks may rely on."""
        missing = [name for name in self.names if _simple(name)]
        if self.state == "present" and missing:
            try:
                would_change(self.call, ["install", *options(self.args), *missing])
            except ModuleError as error:
                raise absent(self.call, error.message, error.hint, code=error.code) from None
        self.call.pending.update(["package " + name for name in self.names] + change.differences)


def _is_path(name: str) -> bool:
    return name.endswith(".rpm") and "://" not in name


def _simple(name: str) -> bool:
    """Say whether rpm alone can tell if the package is there."""
    return not (name.startswith("@") or name.endswith(".rpm") or re.search(r"[*?\[<>=\s]", name))


def _spelled(name: str) -> str:
    """Return a name as dnf takes it: "foo >= 1.2" with blanks, so that it is no file name pattern."""
    match = _COMPARISON.match(name)
    return "%s %s %s" % match.groups() if match else name


MODULE = Dnf
