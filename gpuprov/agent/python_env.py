"""What is installed in a Python environment, read from its files: no interpreter is started.

A package counts as installed when its installer finished: INSTALLER is written last.
"""

from __future__ import annotations

import json
import os
import re

from gpuprov.agent import requirement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.system import System

_DIST = re.compile(r"(?P<name>[^-]+(?:-[^-0-9][^-]*)*)-(?P<version>\d[^-]*)(?:-py\d[\d.]*)?\.(?:dist|egg)-info")


class Installed:
    """One installed package. folder is its .dist-info; url and editable say where it came from."""

    __slots__ = ("editable", "folder", "name", "url", "version")

    def __init__(self, name: str, version: str, folder: str) -> None:
        self.name = name
        self.version = version
        self.folder = folder
        self.url = ""
        self.editable = False

    def dependencies(self, variables: dict[str, str], extras: list[str]) -> list[requirement.Requirement]:
        """Return what its *extras* need besides what it always needs. Raises OSError, ValueError."""
        found = []
        with open(os.path.join(self.folder, "METADATA"), encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if not line.strip():
                    break
                if line.startswith("Requires-Dist:"):
                    one = requirement.parse(line.partition(":")[2].strip())
                    if "extra" in one.marker and requirement.holds(one.marker, variables, extras):
                        found.append(one)
        return found


class VirtualEnvironment:
    """A virtual environment at *path*, which may not exist (completely) yet."""

    def __init__(self, path: str, system: System) -> None:
        self.path = path
        self.python = os.path.join(path, "bin", "python")
        self._system = system

    def settings(self) -> dict[str, str]:
        """Return the contents of pyvenv.cfg; empty when it is not there."""
        found = {}
        for line in self._system.read_text(os.path.join(self.path, "pyvenv.cfg")).splitlines():
            key, _, value = line.partition("=")
            found[key.strip().lower()] = value.strip()
        return found

    def python_version(self) -> str:
        """Return "3.11" of the interpreter that its bin/python is now, "" when there is none."""
        if not os.access(self.python, os.X_OK):
            return ""
        return interpreter_version(self.python, self._system)

    def trouble(self) -> str:
        """Return why it cannot be used as it is ("absent", "Python 3.9 became 3.11"), or ""."""
        settings = self.settings()
        if not settings:
            return "absent"
        now = self.python_version()
        if not now:
            return "its Python is gone"
        made_with = ".".join((settings.get("version_info") or settings.get("version") or now).split(".")[:2])
        return "" if made_with == now else "Python %s became %s" % (made_with, now)

    def search_path(self) -> list[str]:
        """Return the folders in which its packages are. Raises OSError."""
        version = self.python_version()
        if self.settings().get("include-system-site-packages", "false").lower() == "true":
            return search_path(self.python, self._system)
        return [os.path.join(self.path, lib, "python" + version, "site-packages") for lib in ("lib", "lib64")]


def interpreter_version(python: str, system: System) -> str:
    """Return "3.11" for an interpreter: from its file's name, else by asking it. Raises OSError."""
    found = re.fullmatch(r"python(3\.\d+)", os.path.basename(os.path.realpath(python)))
    if found:
        return found.group(1)
    done = system.run([python, "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], timeout_s=30)
    if done.rc != 0:
        raise OSError(8, "%s does not work: %s" % (python, done.last_line or done.why), python)
    return done.out.strip()


def search_path(python: str, system: System) -> list[str]:
    """Ask an interpreter where it looks for packages. Raises OSError when it does not answer."""
    done = system.run([python, "-c", "import json, sys; print(json.dumps(sys.path[1:]))"], timeout_s=30)
    if done.rc != 0:
        raise OSError(8, "%s does not work: %s" % (python, done.last_line or done.why), python)
    paths: list[str] = json.loads(done.out.splitlines()[-1])
    return paths


def installed(folders: list[str], origins: bool = False) -> dict[str, Installed]:
    """Return the packages in *folders* by normalised name; the first folder wins.

    origins: also read where each came from (url, editable). Raises OSError when a folder is
    there and cannot be read.
    """
    packages: dict[str, Installed] = {}
    for folder in dict.fromkeys(os.path.realpath(f) for f in folders):
        try:
            names = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            continue
        for name in names:
            found = _DIST.fullmatch(name)
            if not found:
                continue
            full = os.path.join(folder, name)
            if name.endswith(".dist-info") and not os.path.exists(os.path.join(full, "INSTALLER")):
                continue
            package = Installed(requirement.normalise(found.group("name")), found.group("version"), full)
            if origins:
                _read_origin(package)
            packages.setdefault(package.name, package)
    return packages


def half_installed(folders: list[str], names: set[str]) -> list[str]:
    """Return the .dist-info folders that an interrupted installation of *names* left."""
    left = []
    for folder in dict.fromkeys(os.path.realpath(f) for f in folders):
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            found = _DIST.fullmatch(name)
            full = os.path.join(folder, name)
            if found and name.endswith(".dist-info") and not os.path.exists(os.path.join(full, "INSTALLER")):
                left += [full] if requirement.normalise(found.group("name")) in names else []
    return left


def _read_origin(package: Installed) -> None:
    try:
        with open(os.path.join(package.folder, "direct_url.json"), encoding="utf-8") as f:
            origin: dict[str, Any] = json.load(f)
    except (OSError, ValueError):
        return
    url = str(origin.get("url", ""))
    source = origin.get("vcs_info") or {}
    if source:
        url = "%s+%s" % (source.get("vcs", ""), url)
        if source.get("requested_revision"):
            url += "@" + str(source["requested_revision"])
    package.url = url
    package.editable = bool((origin.get("dir_info") or {}).get("editable"))
