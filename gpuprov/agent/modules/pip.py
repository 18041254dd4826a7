"""The module `pip`: Python packages, through uv where there is one, else through pip."""

from __future__ import annotations

import os
import sys

from gpuprov.agent import requirement, requirement_file
from gpuprov.agent.modules import pip_install, pip_python, pip_tools
from gpuprov.agent.modules.base import Change, ModuleError, ProbeError, State, absent
from gpuprov.agent.python_env import VirtualEnvironment, installed, search_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.python_env import Installed
    from gpuprov.agent.system import System

SPEC: dict[str, Any] = {
    "summary": "Python packages in a virtual environment or a Python.",
    "args": {
        "name": {"type": "list", "aliases": ["pkg"], "doc": "Names, versions (torch==2.13.0), paths or URLs."},
        "version": {"type": "str", "doc": "Version of the one name given."},
        "requirements": {"type": "path", "doc": "A requirements file on the host."},
        "virtualenv": {"type": "path", "doc": "The virtual environment; made when it is not there."},
        "virtualenv_command": {"type": "str", "doc": "Makes it, instead of uv or the interpreter's venv."},
        "virtualenv_python": {"type": "str", "doc": "Its interpreter. Default: the one that runs gpuprov there."},
        "virtualenv_site_packages": {"type": "bool", "default": False, "doc": "It also sees the system's packages."},
        "state": {
            "type": "str",
            "choices": ["present", "absent", "latest", "forcereinstall"],
            "default": "present",
            "doc": "present: a fitting version is there; latest: the newest fitting one.",
        },
        "extra_args": {"type": "str", "doc": "More options for the installer."},
        "executable": {"type": "path", "doc": "The pip to use, for a Python that is not a virtual environment."},
        "chdir": {"type": "path", "doc": "Where relative paths start and the installer runs."},
        "editable": {"type": "bool", "default": False, "doc": "Install the names (folders, URLs) as editable."},
        "umask": {"type": "str", "doc": 'Umask of what is installed, octal ("0022").'},
        "break_system_packages": {"type": "bool", "default": False, "doc": "Install although the system says no."},
        "source": {
            "type": "str",
            "choices": ["host", "controller"],
            "doc": "controller: wheels are resolved and fetched there once and travel by content hash.",
        },
        "index_url": {"type": "str", "doc": "The package index. Default: as the installer is configured."},
        "find_links": {"type": "str", "doc": "A further page or folder with packages."},
        "cpu_index_url": {
            "type": "str",
            "doc": "The index of CPU builds, asked for hosts without a GPU when the first answer needs CUDA packages.",
        },
        "torch_index_url": {
            "type": "str",
            "doc": "The index of torch, torchvision, torchaudio and all they need; the others come from index_url.",
        },
        "variant": {"type": "str", "doc": "The build of torch that is meant: cpu, cu130 and so on."},
        "wheelhouse": {
            "type": "str",
            "doc": "With source: controller: a folder made by gpuprov wheelhouse build; nobody else is asked.",
        },
        "keep_wheels": {
            "type": "bool",
            "default": False,
            "doc": "With source: controller: keep the wheels on the host, so that they are never sent again.",
        },
        "managed_python": {
            "type": "str",
            "doc": 'Make it with a Python that uv brings: "3.12". Goes before virtualenv_python.',
        },
        "managed_python_folder": {
            "type": "path",
            "default": "/opt/gpuprov/python",
            "doc": "Where managed Pythons go.",
        },
        "python_mirror": {"type": "str", "doc": "Where uv fetches Pythons (UV_PYTHON_INSTALL_MIRROR)."},
        "python_downloads": {"type": "str", "doc": "uv's list of Pythons, another one (UV_PYTHON_DOWNLOADS_JSON_URL)."},
    },
    "exclusive": [["name", "requirements"], ["executable", "virtualenv"]],
    "returns": {
        "name": "The names asked for.",
        "version": "The version asked for.",
        "requirements": "The requirements file.",
        "virtualenv": "The virtual environment.",
        "state": "The state asked for.",
        "cmd": "The commands that ran.",
        "stdout": "What they said.",
        "packages": "Installed versions of what was asked for.",
    },
    "internal": ["_wheels", "_uv", "_python"],
}


class Pip(State):
    """Packages of one Python."""

    _forced = False

    def probe(self) -> Change:
        """Compare what is installed with what is wanted."""
        args = self.args
        if args.get("source") == "controller" and "_wheels" not in args and args["state"] != "absent":
            raise ModuleError("the wheels of this task were not resolved on the controller", code="wheels-missing")
        self.env = VirtualEnvironment(os.path.expanduser(args["virtualenv"]), self.system) if self._virtual() else None
        differences = self._environment_differences()
        self.packages = self._packages() if not self._trouble() else {}
        differences += self._package_differences(bool(differences))
        if differences and self.call.check:
            self.call.pending.update("package %s" % name for name in self._names())
        return Change(differences, self._diff(differences), self._result())

    def converge(self, change: Change) -> None:
        """Make the environment and install or remove what differs."""
        work = pip_install.Work(self.call, self.env)
        try:
            if self._trouble() and self.args["state"] != "absent":
                work.make_environment()
            if self.args["state"] == "absent":
                work.remove(sorted(set(self._names()) & set(self.packages)))
            elif "_wheels" in self.args:
                work.install_wheels(self._missing_wheels())
            elif self._wanted:
                work.install(self._wanted)
        finally:
            work.close()
        self._forced = True
        self.call.warnings.extend(work.warnings)
        change.result.update(cmd=[" ".join(c) for c in work.run.commands], stdout="\n".join(work.run.outputs))

    def _virtual(self) -> bool:
        return bool(self.args.get("virtualenv"))

    def _trouble(self) -> str:
        """Return why the environment cannot be used as it is, or ""."""
        try:
            return pip_python.trouble(self.env, self.args) if self.env is not None else ""
        except OSError as error:
            raise ProbeError("cannot tell what the environment is: %s" % error) from None

    def _environment_differences(self) -> list[str]:
        if self.env is None:
            return []
        if os.path.lexists(self.env.path) and not os.path.isdir(self.env.path):
            raise ModuleError("%s is not a folder" % self.env.path, code="not-a-directory")
        trouble = self._trouble()
        if trouble and self.args["state"] == "absent":
            return []
        if trouble == "absent" and os.path.isdir(self.env.path) and set(os.listdir(self.env.path)) - {"bin", "lib"}:
            message = "%s is not empty and not a virtual environment" % self.env.path
            raise ModuleError(message, "name another folder, or empty this one", code="not-a-virtualenv")
        return ["virtual environment (%s)" % trouble] if trouble else []

    def _packages(self) -> dict[str, Installed]:
        try:
            if self.env is not None:
                return installed(self.env.search_path(), origins=True)
            return installed(search_path(pip_install.system_python(self.args, self.system), self.system), origins=True)
        except OSError as error:
            raise ProbeError("cannot tell what is installed: %s" % error) from None

    def _package_differences(self, no_environment: bool) -> list[str]:
        """Return one line for each package that is not as wanted."""
        self._wanted = self._asked_for(no_environment)
        state = self.args["state"]
        if state == "absent":
            return ["package %s" % name for name in self._names() if name in self.packages]
        if "_wheels" in self.args:
            return ["package %s==%s" % (w["name"], w["version"]) for w in self._missing_wheels()]
        variables = self._variables()
        unmet = [u for u in (w.unmet(self.packages, variables) for w in self._wanted) if u]
        if state == "forcereinstall" and not self._forced:
            return ["package %s" % w.text for w in self._wanted]
        if state == "latest" and not unmet and not self._forced:
            unmet = self._newer()
        return ["package " + one for one in unmet]

    def _asked_for(self, no_environment: bool) -> list[requirement_file.Wanted]:
        """Return names and the requirements file's lines. Raises ModuleError when one cannot be understood."""
        args = self.args
        folder = os.path.expanduser(args.get("chdir") or os.getcwd())
        try:
            if args.get("requirements"):
                return requirement_file.read(os.path.join(folder, os.path.expanduser(args["requirements"])))
            names = requirement_file.names_of(args.get("name") or [], args.get("version"))
            if args.get("version") is not None and len(names) != 1:
                raise ModuleError("version needs exactly one name, and %d are given" % len(names), code="pip-version")
            if not names and not (no_environment or self._virtual()):
                raise ModuleError("one of name, requirements, virtualenv is needed", code="argument-missing")
            return [requirement_file.wanted(name, folder, args["editable"]) for name in names]
        except FileNotFoundError as error:
            raise absent(self.call, "%s does not exist" % error.filename, code="file-missing") from None
        except ValueError as error:
            hint = 'as in "torch==2.13.0" or "numpy>=1.26,<3"'
            raise ModuleError("not a package: %s" % error, hint, code="bad-requirement") from None

    def _variables(self) -> dict[str, str]:
        version = self.env.python_version() if self.env is not None else ""
        return requirement.environment(version or "%d.%d.%d" % sys.version_info[:3], os.uname().machine)

    def _newer(self) -> list[str]:
        """Ask the installer what `latest` would bring; it changes nothing."""
        work = pip_install.Work(self.call, self.env, looking=True)
        try:
            return work.would_install(self._wanted, upgrade=True)
        finally:
            work.close()

    def _names(self) -> list[str]:
        return [w.requirement.name for w in self._wanted if w.requirement is not None]

    def _missing_wheels(self) -> list[dict[str, Any]]:
        if self.args["state"] == "forcereinstall" and not self._forced:
            return list(self.args["_wheels"])
        return missing_wheels(self.args, self.packages)

    def _diff(self, differences: list[str]) -> list[dict[str, Any]]:
        if not self.call.diff or not differences:
            return []
        gone = self.args["state"] == "absent"
        concerned = [d[len("package ") :].split(" (")[0] for d in differences if d.startswith("package ")]
        have = ["%s==%s\n" % (p.name, p.version) for p in self.packages.values() if p.name in self._names()]
        want = [] if gone else [line + "\n" for line in concerned]
        return [{"before": "".join(sorted(have)), "after": "".join(sorted(want)), "before_header": "packages"}]

    def _result(self) -> dict[str, Any]:
        found = {p.name: p.version for p in self.packages.values() if p.name in self._names()}
        keys = {key: self.args.get(key) for key in ("name", "version", "requirements", "virtualenv", "state")}
        return {**keys, "packages": found}


def missing_wheels(args: dict[str, Any], packages: dict[str, Installed]) -> list[dict[str, Any]]:
    """Return the wheels of *args* whose exact version is not installed."""
    return [
        wheel
        for wheel in args["_wheels"]
        if wheel["name"] not in packages
        or requirement.version_key(packages[wheel["name"]].version) != requirement.version_key(wheel["version"])
    ]


def needs(args: dict[str, Any], system: System) -> list[str]:
    """Return the wheels that this host lacks, and uv's when anything is to be done; nothing in the good case."""
    if args.get("state") == "absent" or not args.get("virtualenv"):
        return []
    files = _wheels_to_send(args, system)
    if files is None:
        return []
    files = [*files, *([args["_uv"]] if args.get("_uv") else [])]
    if args.get("_python") and not pip_python.managed(args["managed_python_folder"], args["managed_python"]):
        files.append(args["_python"])
    return [one["sha256"] for one in files if not pip_tools.cached(one)]


def _wheels_to_send(args: dict[str, Any], system: System) -> list[dict[str, Any]] | None:
    """Return the wheels to install; None when all is as wanted."""
    env = VirtualEnvironment(os.path.expanduser(args["virtualenv"]), system)
    wheels: list[dict[str, Any]] = args.get("_wheels", [])
    if pip_python.trouble(env, args) or args.get("state") == "forcereinstall":
        return wheels
    packages = installed(env.search_path(), origins=True)
    if "_wheels" in args:
        return missing_wheels(args, packages) or None
    if args.get("state") == "latest" or args.get("requirements") or args.get("editable"):
        return []
    variables = requirement.environment(env.python_version(), os.uname().machine)
    names = requirement_file.names_of(args.get("name") or [], args.get("version"))
    return [] if any(requirement_file.wanted(n, "/").unmet(packages, variables) for n in names) else None


def needs_in_check_mode(args: dict[str, Any], system: System) -> list[str]:
    """Return uv's wheel when only uv can tell what would change; the packages are not needed for that."""
    if "_wheels" in args or args.get("state") != "latest":
        return []
    return needs(args, system)


MODULE = Pip
