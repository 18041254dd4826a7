"""What installing Python packages needs beside the packages: a private folder, uv, files that travelled, a store."""

from __future__ import annotations

import os
import re

from gpuprov.agent.installers import Run
from gpuprov.agent.modules.base import ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.modules.base import Call
    from gpuprov.agent.python_env import VirtualEnvironment
    from gpuprov.agent.system import System

#: Wheels that are on the host already (put there by an image, or by a controller that is this host).
HOST_CACHE = "/var/cache/gpuprov/wheels/files"
#: Beside a wheel that was kept because a task said so: the package's name.
KEPT = ".kept"
#: What an environment and the installer's own files need beside the packages, in bytes.
SPARE_BYTES = 64 * 1024 * 1024
#: Variables that put other packages, other libraries or another target under what is installed.
_LEAKS = re.compile(
    r"PYTHON(?:PATH|HOME|STARTUP|USERBASE|PLATLIBDIR)|VIRTUAL_ENV|CONDA_\w+|MAMBA_\w+|"
    r"PIP_(?:TARGET|PREFIX|ROOT|USER|NO_DEPS|PYTHON|REQUIREMENT|CONSTRAINT)|"
    r"UV_(?:PYTHON|TARGET|PREFIX|SYSTEM_PYTHON|PROJECT_ENVIRONMENT|OVERRIDE|CONSTRAINT)"
)
_LOADER = ("LD_LIBRARY_PATH", "LD_PRELOAD")


def without_leaks(env: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return *env* without what would change an installation behind its back, and the names left out. Pure."""
    left_out = sorted(name for name in env if _LEAKS.fullmatch(name))
    return {name: value for name, value in env.items() if name not in left_out}, left_out


def leaks(env: dict[str, str]) -> list[str]:
    """Return the variables of *env* that a virtual environment would feel: search paths, conda, loader. Pure."""
    return sorted(name for name in env if env[name] and (_LEAKS.fullmatch(name) or name in _LOADER))


class Tools:
    """The installer's program, its private folder, and what it said, for one change.

    looking: nothing may be left or made near the environment. warnings: what a person should know.
    """

    def __init__(self, call: Call, env: VirtualEnvironment | None, looking: bool = False) -> None:
        self.call = call
        self.args = call.args
        self.system = call.system
        self.env = env
        self._looking = looking
        self._folder = ""
        self.uv = ""
        given, left_out = without_leaks(call.env)
        self.warnings: list[str] = []
        if left_out:
            self.warnings.append("not passed on to the installer: %s" % ", ".join(left_out))
        around = leaks(dict(os.environ))
        if around and not looking:
            message = "commands on this host are given %s; the environment was made without" % ", ".join(around)
            self.warnings.append(message)
        umask = call.args.get("umask")
        try:
            mask = int(umask, 8) if umask else None
        except ValueError:
            raise ModuleError("umask %s is not an octal number" % umask, code="argument-type") from None
        self.run = Run(self.system, given, call.output, call.timeout_s, call.args.get("chdir"), mask)

    def close(self) -> None:
        """Remove what was only needed for the work."""
        if self._folder:
            import shutil

            shutil.rmtree(self._folder)

    def find_uv(self) -> str:
        """Return uv's path: the one that travelled, else the host's own; "" when there is none."""
        if not self.uv:
            self.uv = self._unpack_uv(self.args["_uv"]) if self.args.get("_uv") else self.system.which("uv") or ""
        return self.uv

    def _unpack_uv(self, uv: dict[str, Any]) -> str:
        """Take the program out of its wheel; the work's private folder holds it as long as it is needed."""
        import zipfile

        target = os.path.join(self.private(), "uv")
        path = self.file(uv)
        if self.system.sha256(path) != uv["sha256"]:
            hint = "remove it there and run again: it will be sent"
            raise ModuleError("%s does not have the expected content" % path, hint, code="hash-mismatch")
        with zipfile.ZipFile(path) as wheel:
            name = next((n for n in wheel.namelist() if n.endswith(".data/scripts/uv")), "")
            if not name:
                raise ModuleError("%s holds no uv for this machine" % uv["filename"], code="no-uv")
            self.system.replace(target, wheel.read(name), mode=0o700)
        return target

    def uv_env(self) -> dict[str, str]:
        """Give uv a cache of its own; it links files out of it, so that belongs on the environment's file system."""
        cache = os.path.join(self.private(), "cache")
        return {"UV_CACHE_DIR": cache, "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}

    def private(self) -> str:
        """Return a folder that close() removes, on the environment's file system where that is possible."""
        if not self._folder:
            import tempfile

            above = "" if self.env is None else os.path.dirname(self.env.path) or "/"
            if self._looking or not os.access(above, os.W_OK):
                above = self.call.state_dir if os.access(self.call.state_dir, os.W_OK) else ""
            self._folder = tempfile.mkdtemp(prefix=".gpuprov-pip-", dir=above or None)
        return self._folder

    def file(self, one: dict[str, Any]) -> str:
        """Return where a file is that travelled here, or was here. Raises ModuleError."""
        path = cached(one) or self.call.blob(one["sha256"])
        if not os.access(path, os.R_OK):
            hint = "use become: true without become_user, or source: host"
            raise ModuleError("only root can read the files that travelled here", hint, code="permission")
        return path

    def check_space(self, needed: int) -> None:
        """Raise ModuleError when the environment's file system cannot take *needed* bytes."""
        assert self.env is not None
        found = os.statvfs(self.env.path)
        free = found.f_bavail * found.f_frsize
        if needed + SPARE_BYTES > free:
            message = "%s needs %d MB and has %d MB free" % (
                self.env.path,
                (needed + SPARE_BYTES) // 10**6,
                free // 10**6,
            )
            raise ModuleError(message, "free some space, or put the environment elsewhere", code="disk-full")

    def keep(self, wheels: list[dict[str, Any]]) -> None:
        """Keep wheels that travelled where they are found again; an older one of the same package goes."""
        if os.geteuid() != 0:
            self.warnings.append("only root can keep wheels in %s; these are sent again when needed" % HOST_CACHE)
            return
        for wheel in wheels:
            if cached(wheel):
                continue
            place = os.path.join(HOST_CACHE, os.path.basename(wheel["sha256"]))
            os.makedirs(place, exist_ok=True)
            _link_or_copy(self.system, self.file(wheel), os.path.join(place, os.path.basename(wheel["filename"])))
            self.system.replace(os.path.join(place, KEPT), wheel["name"].encode(), mode=0o644)
        _forget_older(wheels)


def _link_or_copy(system: System, source: str, target: str) -> None:
    """Give a file a second name; a copy where that would cross file systems."""
    try:
        os.link(source, target)
        os.chmod(target, 0o644)
    except OSError:
        system.replace(target, source=source, mode=0o644)


def cached(one: dict[str, Any]) -> str:
    """Return where a file is on this host already, or "". Whoever uses it checks its hash."""
    path = os.path.join(HOST_CACHE, os.path.basename(one["sha256"]), os.path.basename(one["filename"]))
    try:
        return path if os.stat(path).st_size == one["size"] else ""
    except OSError:
        return ""


def _forget_older(wheels: list[dict[str, Any]]) -> None:
    """Remove kept wheels of the same packages that are no longer the ones in use."""
    import shutil

    names, current = {wheel["name"] for wheel in wheels}, {wheel["sha256"] for wheel in wheels}
    for folder in os.listdir(HOST_CACHE) if os.path.isdir(HOST_CACHE) else ():
        mark = os.path.join(HOST_CACHE, folder, KEPT)
        if folder not in current and os.path.isfile(mark):
            with open(mark, encoding="utf-8") as f:
                if f.read() in names:
                    shutil.rmtree(os.path.join(HOST_CACHE, folder))
