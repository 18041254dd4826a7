"""What a pip task asks for: names, versions, files, URLs, and the lines of requirements files."""

from __future__ import annotations

import os
import re

from gpuprov.agent import requirement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.agent.python_env import Installed

_SCHEME = re.compile(r"^(?:(?:git|hg|svn|bzr)\+)?[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class Wanted:
    """One thing to be installed. text is what pip gets; requirement is None for an unnamed URL or folder."""

    __slots__ = ("editable", "requirement", "text", "url")

    def __init__(
        self, text: str, requirement: requirement.Requirement | None, url: str = "", editable: bool = False
    ) -> None:
        self.text = text
        self.requirement = requirement
        self.url = url
        self.editable = editable

    def unmet(self, packages: dict[str, Installed], variables: dict[str, str]) -> str:
        """Return what is missing ("torch==2.13.0 (2.12.1 is installed)"), or ""."""
        need = self.requirement
        if need is not None and not requirement.holds(need.marker, variables):
            return ""
        if self.url:
            for package in packages.values():
                if _same_url(package.url, self.url) and (package.editable or not self.editable):
                    return ""
            if need is None or not need.specifiers:
                return self.text
        assert need is not None
        return _unmet(need, packages, variables)


def _unmet(need: requirement.Requirement, packages: dict[str, Installed], variables: dict[str, str]) -> str:
    shown = need.name + ",".join(op + version for op, version in need.specifiers)
    package = packages.get(need.name)
    if package is None:
        return shown
    if need.specifiers and not need.allows(package.version):
        return "%s (%s is installed)" % (shown, package.version)
    if need.extras:
        for inner in package.dependencies(variables, need.extras):
            missing = _unmet(inner, packages, variables)
            if missing:
                return "%s for %s[%s]" % (missing, need.name, ",".join(need.extras))
    return ""


def _same_url(have: str, want: str) -> bool:
    return bool(have) and have.split("#")[0].rstrip("/") == want.split("#")[0].rstrip("/")


def names_of(names: list[str], version: str | None) -> list[str]:
    """Join what a comma in one name split ("a>=1,<2"), and append a task's *version*."""
    joined: list[str] = []
    for name in names:
        text = str(name).strip()
        if joined and text[:1] in ("<", ">", "=", "!", "~"):
            joined[-1] += "," + text
        else:
            joined.append(text)
    if version is not None and len(joined) == 1:
        joined[0] += ("" if version[:1] in "<>=!~" else "==") + version
    return joined


def wanted(text: str, folder: str, editable: bool = False) -> Wanted:
    """Take one name, path or URL apart; relative paths start at *folder*. Raises ValueError."""
    if _SCHEME.match(text):
        return _from_url(text, text, editable)
    path = text.split("[")[0]
    if ("/" in path and "@" not in path) or path in (".", "..") or path.endswith((".whl", ".tar.gz", ".zip")):
        full = os.path.normpath(os.path.join(folder, path))
        return _from_url(text, "file://" + full, editable)
    need = requirement.parse(text)
    return Wanted(text, need, need.url, editable)


def _from_url(text: str, url: str, editable: bool) -> Wanted:
    name = url.split("#")[0].rpartition("/")[2]
    if name.endswith(".whl"):
        parts = name.split("-")
        return Wanted(text, requirement.parse("%s==%s" % (parts[0], parts[1])), url, editable)
    egg = re.search(r"[#&]egg=([A-Za-z0-9._-]+)", url)
    return Wanted(text, requirement.parse(egg.group(1)) if egg else None, url, editable)


def read(path: str, seen: tuple[str, ...] = ()) -> list[Wanted]:
    """Return everything that a requirements file asks for. Raises OSError, ValueError with file and line."""
    found: list[Wanted] = []
    folder = os.path.dirname(os.path.abspath(path))
    with open(path, encoding="utf-8-sig", errors="replace") as f:
        text = re.sub(r"\\\r?\n", " ", f.read())
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s)#.*$", "", raw).strip()
        if not line:
            continue
        try:
            found += _line(line, folder, (*seen, os.path.realpath(path)))
        except ValueError as error:
            raise ValueError("%s:%d: %s" % (path, number, error)) from None
    return found


def _line(line: str, folder: str, seen: tuple[str, ...]) -> list[Wanted]:
    option = re.match(r"(-r|--requirement|-e|--editable)(?:\s+|=)?(.+)$", line)
    if option:
        value = option.group(2).strip()
        if option.group(1) in ("-e", "--editable"):
            return [wanted(value, folder, editable=True)]
        inner = os.path.join(folder, value)
        if os.path.realpath(inner) in seen:
            raise ValueError("%s includes itself" % value)
        return read(inner, seen)
    if line.startswith("-"):  # an index, a constraint: where and how, not what
        return []
    bare = re.sub(r"\s+--(?:hash|global-option|config-settings?)(?:=|\s+)\S+", "", line).strip()
    return [wanted(bare, folder)]
