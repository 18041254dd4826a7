"""How the module `pip` changes something: which installer, with which words, from which files."""

from __future__ import annotations

import os
import sys

from gpuprov.agent.installers import Installer
from gpuprov.agent.modules import pip_python
from gpuprov.agent.modules.base import ModuleError
from gpuprov.agent.modules.pip_tools import Tools
from gpuprov.agent.python_env import half_installed, installed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.requirement_file import Wanted
    from gpuprov.agent.system import System


#: What has an index of its own per build, and has to come from there together.
FAMILY = ("torch", "torchvision", "torchaudio")


class Work(Tools):
    """One change of what is installed."""

    def make_environment(self) -> None:
        """Make the virtual environment. Raises ModuleError."""
        pip_python.make_environment(self)

    def install(self, wanted: list[Wanted]) -> None:
        """Install from an index, newest fitting versions where asked. Raises ModuleError."""
        installer = self._installer()
        upgrade = self.args["state"] == "latest"
        torch_index = self._torch_index(installer, wanted, upgrade)
        family = [one for one in wanted if torch_index and one.requirement and one.requirement.name in FAMILY]
        if family:
            installer.install(["--index-url", torch_index, *self._words(family, upgrade)], self.run)
            wanted = [one for one in wanted if one not in family]
        if wanted or not family:
            pins = self._pins() if family else []
            installer.install([*self._index_words(), *pins, *self._words(wanted, upgrade)], self.run)

    def would_install(self, wanted: list[Wanted], upgrade: bool) -> list[str]:
        """Return what an installation would bring; changes nothing. Raises ModuleError."""
        installer, torch_index = self._installer(), str(self.args.get("torch_index_url") or "")
        family = [one for one in wanted if torch_index and one.requirement and one.requirement.name in FAMILY]
        others = [one for one in wanted if one not in family]
        found = []
        if family:
            words = ["--index-url", torch_index, *self._words(family, upgrade)]
            found += installer.would_install(words, self.run)
        if others or not family:
            found += installer.would_install([*self._index_words(), *self._words(others, upgrade)], self.run)
        return found

    def remove(self, names: list[str]) -> None:
        """Remove packages. Raises ModuleError."""
        self._installer().uninstall(names, self.run)

    def install_wheels(self, wheels: list[dict[str, Any]]) -> None:
        """Install exactly these files, each checked against its hash. Raises ModuleError."""
        if not wheels:
            return
        self.check_space(sum(wheel.get("installed_bytes", 0) for wheel in wheels))
        self._forget_halves({wheel["name"] for wheel in wheels})
        folder = os.path.join(self.private(), "wheels")
        os.mkdir(folder, 0o700)
        lines = []
        for wheel in wheels:
            os.symlink(self.file(wheel), os.path.join(folder, os.path.basename(wheel["filename"])))
            lines.append("%s==%s --hash=sha256:%s\n" % (wheel["name"], wheel["version"], wheel["sha256"]))
        listing = os.path.join(folder, "requirements.txt")
        with open(listing, "w", encoding="utf-8") as f:
            f.writelines(lines)
        words = ["--no-index", "--no-deps", "--require-hashes", "--find-links", folder, "-r", listing]
        installer = self._installer()
        if installer.uv:
            words = ["--offline", "--no-config", *words]
        if self.args["state"] == "forcereinstall":
            words.append("--reinstall" if installer.uv else "--force-reinstall")
        installer.install([*words, *(self.args.get("extra_args") or "").split()], self.run)
        if self.args["keep_wheels"]:
            self.keep([*wheels, *([self.args["_uv"]] if self.args.get("_uv") else [])])

    def _forget_halves(self, names: set[str]) -> None:
        """Remove what makes an installer believe that an interrupted installation was complete."""
        assert self.env is not None
        halves = half_installed(self.env.search_path(), names)
        if halves:
            import shutil

            for folder in halves:
                shutil.rmtree(folder)

    def _torch_index(self, installer: Installer, wanted: list[Wanted], upgrade: bool) -> str:
        """Return the index that torch is to come from, "" for the one of all others.

        On a host without GPU, one that needs no CUDA packages. It stands alone, never beside another: an
        installer that may choose takes the highest version, which is another build. Raises ModuleError.
        """
        own = str(self.args.get("torch_index_url") or "")
        words = self._words(wanted, upgrade)
        if self.call.facts.get("gpuprov", {}).get("gpus") != [] or "torch" not in " ".join(words):
            return own
        family = [one for one in wanted if one.requirement and one.requirement.name in FAMILY]
        asked = ["--index-url", own, *self._words(family, upgrade)] if own else [*self._index_words(), *words]
        needed = cuda_packages(installer.would_install(asked, self.run))
        if needed and self.args.get("cpu_index_url"):
            own = self.args["cpu_index_url"]
            asked = ["--index-url", own, *self._words(family, upgrade)]
            needed = cuda_packages(installer.would_install(asked, self.run))
        if needed:
            message = "these packages need CUDA (%s), and this host has no NVIDIA GPU" % ", ".join(needed[:4])
            raise ModuleError(message, "name an index with CPU builds: index_url", code="cuda-without-gpu")
        return own

    def _pins(self) -> list[str]:
        """Return options that keep what came with torch as it is, while the other packages are installed."""
        assert self.env is not None
        path = os.path.join(self.private(), "constraints.txt")
        have = installed(self.env.search_path())
        lines = ["%s==%s\n" % (have[name].name, have[name].version) for name in FAMILY if name in have]
        self.system.replace(path, "".join(lines).encode())
        return ["--constraint", path]

    def _index_words(self) -> list[str]:
        words = []
        if self.args.get("index_url"):
            words += ["--index-url", self.args["index_url"]]
        if self.args.get("find_links"):
            words += ["--find-links", self.args["find_links"]]
        return words

    def _words(self, wanted: list[Wanted], upgrade: bool) -> list[str]:
        args = self.args
        words = (args.get("extra_args") or "").split()
        words += ["--upgrade"] if upgrade else []
        if args["state"] == "forcereinstall":
            words.append("--reinstall" if self.find_uv() and self.env else "--force-reinstall")
        words += ["--break-system-packages"] if args["break_system_packages"] else []
        if args.get("requirements"):
            return [*words, "-r", os.path.expanduser(args["requirements"])]
        for one in wanted:
            words += ["-e", one.text] if one.editable else [one.text]
        return words

    def _installer(self) -> Installer:
        """Return uv for virtual environments, when it is here; else the Python's own pip."""
        if self.env is not None and self.find_uv():
            return Installer([self.uv, "pip"], self.env.python, self.uv_env())
        if self.args.get("executable"):
            return Installer([self.args["executable"]], "", {})
        python = self.env.python if self.env is not None else sys.executable
        return Installer([python, "-m", "pip"], "", {})


def cuda_packages(names: list[str]) -> list[str]:
    """Return those of "name==version" that only make sense with an NVIDIA GPU."""
    needed = []
    for name in names:
        bare, _, version = name.partition("==")
        local = version.partition("+")[2]
        if (bare.startswith(("nvidia-", "cuda-")) and bare != "nvidia-ml-py") or local.startswith("cu"):
            needed.append(name)
    return needed


def system_python(args: dict[str, Any], system: System) -> str:
    """Return the interpreter whose packages are meant when there is no virtual environment. Raises OSError."""
    if not args.get("executable"):
        return sys.executable
    path = system.which(args["executable"]) or args["executable"]
    first = system.read(path, 256).split(b"\n")[0].decode("utf-8", "replace")
    if not first.startswith("#!"):
        raise OSError(8, "the executable is no script, so its Python cannot be told", path)
    words = first[2:].split()
    if os.path.basename(words[0]) == "env":
        return system.which(words[-1]) or words[-1]
    return words[0]
