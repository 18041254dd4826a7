"""A set of packages with the versions that they must have: words, and the rules a change must keep.

Pure: no process is started and no file is read here. apt_set.py and dnf_set.py say what there is.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from gpuprov.agent.modules.base import ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9+._:-]*$")
_PATTERN = re.compile(r"^[a-zA-Z0-9*?][a-zA-Z0-9+._:*?-]*$")
#: Versions that are listed in a sentence; all of them are in the result.
_SHOWN = 6
#: Packages of which a host must have all from one origin: files of theirs conflict otherwise.
DRIVER = (
    "nvidia-*",
    "libnvidia-*",
    "cuda-drivers*",
    "kmod-nvidia-*",
    "xserver-xorg-video-nvidia*",
    "libcuda1",
    "xorg-x11-drv-nvidia*",
)
#: Names like those of a driver that come on their own, from wherever.
NOT_DRIVER = (
    "*-container-*",
    "libnvidia-container*",
    "nvidia-cuda-*",
    "nvidia-gds*",
    "nvidia-cudnn*",
    "nvidia-driver-assistant",
    "*-keyring",
)


class Wanted:
    """One package of the set. version is exact, a pattern with *, or "" for any."""

    __slots__ = ("name", "version")

    def __init__(self, name: str, version: str = "") -> None:
        self.name = name
        self.version = version

    def fits(self, version: str) -> bool:
        """Say whether an installed or offered version is as wanted; "" is none."""
        if not version:
            return False
        return not self.version or matches(version, self.version)

    def __str__(self) -> str:
        return "%s %s" % (self.name, self.version) if self.version else self.name


class Candidate:
    """A version that a package source offers. usable: pins do not exclude it; source says where it is from."""

    __slots__ = ("source", "usable", "version")

    def __init__(self, version: str, source: str = "", usable: bool = True) -> None:
        self.version = version
        self.source = source
        self.usable = usable


class Step:
    """What the package manager would do with one package: install, upgrade, downgrade, reinstall, configure, remove."""

    __slots__ = ("action", "name", "new", "old", "source")

    def __init__(self, action: str, name: str, old: str = "", new: str = "", source: str = "") -> None:
        self.action = action
        self.name = name
        self.old = old
        self.new = new
        self.source = source

    def __str__(self) -> str:
        versions = " to ".join(version for version in (self.old, self.new) if version)
        return " ".join(word for word in (self.action, self.name, versions) if word)


class Meta:
    """What a source says of one version: what it depends on, and what it takes on the disk."""

    __slots__ = ("depends", "size_kb")

    def __init__(self, depends: Sequence[tuple[str, str]] = (), size_kb: int = 0) -> None:
        #: (name, version that it must equal or "")
        self.depends = list(depends)
        self.size_kb = size_kb


class Refusal:
    """One reason not to begin: rule, the package, what was found and needed, a sentence and the way out."""

    __slots__ = ("found", "message", "needed", "package", "remedy", "rule")

    def __init__(self, rule: str, package: str, found: str, needed: str, message: str, remedy: str) -> None:
        self.rule = rule
        self.package = package
        self.found = found
        self.needed = needed
        self.message = message
        self.remedy = remedy

    def to_json(self) -> dict[str, str]:
        """Return it as data, for the task's result."""
        return {name: getattr(self, name) for name in self.__slots__}


def refuse(refusals: Sequence[Refusal]) -> None:
    """Raise ModuleError for all of them at once; with none, do nothing."""
    if not refusals:
        return
    messages = list(dict.fromkeys(one.message for one in refusals))
    more = "; and %d more like it" % (len(messages) - 3) if len(messages) > 3 else ""
    remedies = list(dict.fromkeys(one.remedy for one in refusals if one.remedy))
    raise ModuleError(
        "refused, nothing was changed: " + "; ".join(messages[:3]) + more,
        "; ".join(remedies[:2]),
        code=refusals[0].rule,
        refusals=[one.to_json() for one in refusals],
    )


def parse_wanted(entries: Sequence[Any], patterns: bool = False) -> list[Wanted]:
    """Return the entries of `packages`: {name, version} or "name=version". Raises ModuleError, for all at once."""
    valid = _PATTERN if patterns else _NAME
    found: dict[str, Wanted] = {}
    wrong = []
    for entry in entries:
        if isinstance(entry, dict):
            name, version = str(entry.get("name") or ""), str(entry.get("version") or "")
            stray = sorted(set(entry) - {"name", "version"})
        else:
            name, _, version = str(entry).strip().partition("=")
            stray = []
        if not valid.match(name) or re.search(r"[\s=]", version) or stray:
            wrong.append("%r is no package with a version" % (entry,))
        elif name in found and found[name].version != version:
            wrong.append("%s is wanted as %s and as %s" % (name, found[name].version or "any", version or "any"))
        else:
            found[name] = Wanted(name, version)
    if wrong:
        raise ModuleError("; ".join(wrong), 'examples: {name: foo, version: "1.2-*"}, "foo=1.2-*", "foo"')
    return list(found.values())


def matches(version: str, pattern: str) -> bool:
    """Say whether a version is the one, or of the pattern, that is wanted; an epoch need not be written."""
    plain = version.split(":", 1)[-1]
    if ":" in pattern:
        return fnmatchcase(version, pattern) or (version == plain and fnmatchcase("0:" + version, pattern))
    return fnmatchcase(version, pattern) or fnmatchcase(plain, pattern)


def upstream(version: str) -> str:
    """Return a version without its epoch and packaging revision: 580.178.04 of 1:580.178.04-1ubuntu1."""
    return version.split(":", 1)[-1].rsplit("-", 1)[0]


def one_of(name: str, patterns: Sequence[str]) -> bool:
    """Say whether a package name matches one of these names and patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def is_driver(name: str) -> bool:
    """Say whether a package is a part of the driver, by its name."""
    return one_of(name, DRIVER) and not one_of(name, NOT_DRIVER)


def choose(wanted: Wanted, offered: Sequence[Candidate]) -> Candidate | Refusal:
    """Return the newest version offered that fits, or why there is none. *offered* is newest first."""
    fitting = [one for one in offered if wanted.fits(one.version)]
    usable = [one for one in fitting if one.usable]
    if usable:
        return usable[0]
    versions = [one.version for one in offered]
    listed = ", ".join(versions[:_SHOWN]) + (" and %d more" % (len(versions) - _SHOWN) if versions[_SHOWN:] else "")
    needed = wanted.version or "any version"
    if not offered:
        message = "package %s (wanted: %s) is in none of the host's package sources" % (wanted.name, needed)
        remedy = "check the name and the repository; update_cache: true reads the sources again"
        return Refusal("package-unknown", wanted.name, "no version", needed, message, remedy)
    if fitting:
        message = "%s %s is excluded by a pin of this host" % (wanted.name, fitting[0].version)
        remedy = "look into /etc/apt/preferences.d: the pin says which repository must not give this package"
        return Refusal("pinned-away", wanted.name, fitting[0].version, needed, message, remedy)
    branch = _named_branch(wanted, versions)
    if branch:
        message = "%s is a stub that brings %s: wanted %s, offered %s" % (wanted.name, branch, needed, listed)
        remedy = "the branch has ended in this repository: choose branch %s, or another repository" % branch
        return Refusal("package-stub", wanted.name, listed, needed, message, remedy)
    message = "%s %s is not in the host's package sources, which offer %s" % (wanted.name, needed, listed)
    remedy = "choose one of the versions offered, or use a mirror that keeps the one wanted"
    return Refusal("version-vanished", wanted.name, listed, needed, message, remedy)


def _named_branch(wanted: Wanted, versions: Sequence[str]) -> str:
    """Return the branch that all versions have, where the package's own name says another one; else ""."""
    branches = {upstream(version).split(".")[0] for version in versions}
    named = re.findall(r"(?<![0-9.])\d{3}(?![0-9.])", wanted.name)
    wants = re.match(r"\d+", wanted.version)
    if len(branches) == 1 and named and not branches.intersection(named) and wants and wants.group() in named:
        return branches.pop()
    return ""
