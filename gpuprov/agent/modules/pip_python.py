"""Making a virtual environment: with the system's Python or a managed one that uv brings; not conda's unasked."""

from __future__ import annotations

import json
import os
import re
import sys

from gpuprov.agent.modules.base import ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gpuprov.agent.modules.pip_tools import Tools
    from gpuprov.agent.python_env import VirtualEnvironment


def conda_of(python: str) -> str:
    """Return the prefix of the conda environment that an interpreter belongs to, or ""."""
    prefix = os.path.dirname(os.path.dirname(os.path.realpath(python)))
    return prefix if os.path.isdir(os.path.join(prefix, "conda-meta")) else ""


def wanted_version(args: dict[str, Any]) -> str:
    """Return "3.12" when a task says which Python it wants; "" when it does not say, or only by a bare name."""
    given = str(args.get("managed_python") or os.path.basename(str(args.get("virtualenv_python") or "")))
    found = re.fullmatch(r"(?:python)?(3\.\d+)(?:\.\d+)?", given)
    return found.group(1) if found else ""


def trouble(env: VirtualEnvironment, args: dict[str, Any]) -> str:
    """Return why an environment cannot be used for a task as it is, or "". Raises OSError."""
    found, wanted = env.trouble(), wanted_version(args)
    if found or not wanted:
        return found
    have = env.python_version()
    return "" if have == wanted else "Python %s, %s is wanted" % (have, wanted)


def base_python(args: dict[str, Any], warn: Callable[[str], None]) -> str:
    """Return the interpreter for an environment when it is no managed one; conda's only when there is no other."""
    if args.get("virtualenv_python"):
        return str(args["virtualenv_python"])
    conda = conda_of(sys.executable)
    if not conda:
        return sys.executable
    other = "/usr/bin/python%d.%d" % sys.version_info[:2]
    if os.access(other, os.X_OK):
        warn("the Python that runs gpuprov belongs to conda (%s); the environment is made with %s" % (conda, other))
        return other
    warn(
        "the environment is made with the Python of conda (%s), whose libraries come with it; "
        "ansible_python_interpreter or gpuprov_managed_python names another" % conda
    )
    return sys.executable


def managed(folder: str, version: str) -> str:
    """Return the interpreter of the newest managed Python *version* ("3.12") that is there, or ""."""
    pattern = re.compile(r"cpython-%s\.(\d+)-linux-%s-\w+" % (re.escape(version), re.escape(os.uname().machine)))
    try:
        names = os.listdir(folder)
    except OSError:
        return ""
    found = sorted((int(match.group(1)), name) for name in names for match in [pattern.fullmatch(name)] if match)
    for _, name in reversed(found):
        path = os.path.join(folder, name, "bin", "python" + version)
        if os.access(path, os.X_OK):
            return path
    return ""


def make_environment(tools: Tools) -> None:
    """Make the virtual environment. Raises ModuleError."""
    assert tools.env is not None
    path = tools.env.path
    os.makedirs(os.path.dirname(path) or "/", exist_ok=True)
    python = _python(tools)
    site = ["--system-site-packages"] if tools.args["virtualenv_site_packages"] else []
    if tools.args.get("virtualenv_command"):
        command = tools.args["virtualenv_command"].split()
        chosen = ["-p", python] if tools.args.get("virtualenv_python") and "venv" not in command else []
        tools.run([*command, *chosen, *site, path], {})
    elif tools.find_uv():
        words = ["venv", "--allow-existing", "--no-project", "--python", python, *site, path]
        tools.run([tools.uv, *words], tools.uv_env())
    else:
        tools.run([tools.system.which(python) or python, "-m", "venv", *site, path], {})
    _forget_other_pythons(tools)


def _python(tools: Tools) -> str:
    """Return the interpreter to make an environment with, fetched when it is a managed one that is not here."""
    version, folder = tools.args.get("managed_python"), tools.args["managed_python_folder"]
    if not version:
        return base_python(tools.args, tools.warnings.append)
    found = managed(folder, version)
    if found:
        return found
    if not tools.find_uv():
        hint = "let it travel with source: controller, or install it on the host"
        raise ModuleError("only uv can bring Python %s, and there is none here" % version, hint, code="no-uv")
    os.makedirs(folder, exist_ok=True)
    words, env = fetch_words(folder, version), fetch_env(tools.args)
    if tools.args.get("_python"):
        words, env = [*words, "--offline", "--no-config"], {**env, **_carried_python(tools)}
    tools.run([tools.uv, *words], {**tools.uv_env(), **env})
    if tools.args.get("_python") and tools.args["keep_wheels"]:
        tools.keep([tools.args["_python"]])
    return needed(folder, version)


def _carried_python(tools: Tools) -> dict[str, str]:
    """Return what makes uv take the archive that travelled; uv checks its hash."""
    archive = tools.args["_python"]
    place = os.path.join(tools.private(), os.path.basename(archive["filename"]))
    os.symlink(tools.file(archive), place)
    path = os.path.join(tools.private(), "pythons.json")
    tools.system.replace(path, listing(archive, place).encode())
    return {"UV_PYTHON_DOWNLOADS_JSON_URL": path}


def _forget_other_pythons(tools: Tools) -> None:
    """Remove what an environment of another Python left: packages that nothing can import any more."""
    assert tools.env is not None
    now = "python" + tools.env.python_version()
    for folder in ("lib", "bin"):
        above = os.path.join(tools.env.path, folder)
        for name in os.listdir(above) if os.path.isdir(above) else ():
            path = os.path.join(above, name)
            if name == now or not re.fullmatch(r"python3\.\d+", name):
                continue
            if folder == "bin" and os.path.islink(path):
                os.unlink(path)
            elif folder == "lib" and os.path.isdir(path) and not os.path.islink(path):
                import shutil

                shutil.rmtree(path)


def fetch_words(folder: str, version: str) -> list[str]:
    """Return uv's words that put a Python of *version* into *folder*."""
    wanted = "cpython-%s-linux-%s-gnu" % (version, os.uname().machine)
    return ["python", "install", "--no-bin", "--install-dir", folder, wanted]


def fetch_env(args: dict[str, Any]) -> dict[str, str]:
    """Return the variables that tell uv where Pythons come from."""
    env = {"UV_PYTHON_DOWNLOADS": "automatic"}
    if args.get("python_mirror"):
        env["UV_PYTHON_INSTALL_MIRROR"] = args["python_mirror"]
    if args.get("python_downloads"):
        env["UV_PYTHON_DOWNLOADS_JSON_URL"] = args["python_downloads"]
    return env


def listing(archive: dict[str, Any], path: str) -> str:
    """Return uv's own list of Pythons with one entry: the archive that travelled here, at *path*. Pure."""
    major, minor, patch = (int(part) for part in archive["version"].split("."))
    entry = {
        "name": "cpython",
        "arch": {"family": archive["machine"], "variant": None},
        "os": "linux",
        "libc": "gnu",
        "major": major,
        "minor": minor,
        "patch": patch,
        "prerelease": "",
        "url": "file://" + path,
        "sha256": archive["sha256"],
        "variant": None,
        "build": None,
    }
    return json.dumps({"cpython-%s-linux-%s-gnu" % (archive["version"], archive["machine"]): entry})


def needed(folder: str, version: str) -> str:
    """Return the interpreter that was just put into *folder*. Raises ModuleError."""
    found = managed(folder, version)
    if not found:
        raise ModuleError("uv said nothing against it, and %s has no Python %s" % (folder, version), code="no-python")
    return found
