"""Pythons that uv brings, for systems whose own does not fit: which one, from where, as one archive.

uv knows builds by itself, with their hashes, and checks them. A mirror has the same files under the
same paths (UV_PYTHON_INSTALL_MIRROR); another list of builds is named by UV_PYTHON_DOWNLOADS_JSON_URL.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from gpuprov.errors import RefusedError
from gpuprov.fleet.pip_python import Target
from gpuprov.fleet.pip_tool import Sources
from gpuprov.fleet.wheel_folder import digest_of
from gpuprov.fleet.wheelhouse import UV, Wheelhouse

_TIMEOUT_S = 1800
_ARCHIVE = re.compile(r"cpython-(?P<version>3\.\d+\.\d+)")


@dataclass(frozen=True, slots=True)
class PythonSources:
    """Where Pythons come from; empty: as this machine's UV_PYTHON_... variables say, else from their makers."""

    mirror: str = ""
    downloads: str = ""

    def environment(self) -> dict[str, str]:
        """Return the variables that tell uv."""
        wanted = {"UV_PYTHON_INSTALL_MIRROR": self.mirror, "UV_PYTHON_DOWNLOADS_JSON_URL": self.downloads}
        return {name: value for name, value in wanted.items() if value}


def fetch_python(version: str, machine: str, sources: PythonSources, scratch: str) -> tuple[str, dict[str, Any]]:
    """Fetch the newest Python of *version* ("3.12"); return the archive's path and description.

    uv unpacks it, too, which shows that it is whole. Raises RefusedError.
    """
    import subprocess

    kept = os.path.join(scratch, "archives")
    env = {
        **os.environ,
        **sources.environment(),
        "UV_PYTHON_CACHE_DIR": kept,
        "UV_CACHE_DIR": os.path.join(scratch, "cache"),
        "UV_PYTHON_DOWNLOADS": "automatic",
        "UV_NO_PROGRESS": "1",
        "NO_COLOR": "1",
    }
    where = os.path.join(scratch, "unpacked")
    words = ["python", "install", "--no-bin", "--install-dir", where, f"cpython-{version}-linux-{machine}-gnu"]
    done = subprocess.run(
        [_uv_program(scratch), *words], env=env, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    found = [os.path.join(folder, name) for folder, _, names in os.walk(kept) for name in names]
    if done.returncode != 0 or len(found) != 1:
        said = " ".join((done.stderr or done.stdout).split())[-300:] or "it said nothing"
        raise RefusedError(
            f"uv could not fetch Python {version} for {machine}: {said}",
            hint="name a mirror with UV_PYTHON_INSTALL_MIRROR or --python-mirror",
            code="python-unavailable",
        )
    return found[0], _described(found[0], where, machine)


def _described(path: str, unpacked: str, machine: str) -> dict[str, Any]:
    name = re.sub(r"^[0-9a-f]{6,64}-", "", os.path.basename(path))  # uv puts a part of the hash in front
    version = _ARCHIVE.search(name)
    if not version:
        raise RefusedError(f"{name} does not say which Python it holds", code="python-unavailable")
    size = sum(os.lstat(os.path.join(folder, one)).st_size for folder, _, names in os.walk(unpacked) for one in names)
    return {
        "kind": "python",
        "name": "cpython",
        "version": version["version"],
        "machine": machine,
        "filename": name,
        "sha256": digest_of(path),
        "size": os.path.getsize(path),
        "installed_bytes": size,
    }


def _uv_program(scratch: str) -> str:
    """Return this machine's own copy of uv, out of its wheel. Raises RefusedError."""
    import platform
    import sys
    import zipfile

    target = Target(f"{sys.version_info[0]}.{sys.version_info[1]}", platform.machine(), platform.libc_ver()[1])
    wheel = Wheelhouse().file_of([UV], target, Sources())
    with zipfile.ZipFile(wheel) as file:
        name = next((one for one in file.namelist() if one.endswith(".data/scripts/uv")), "")
        if not name:
            raise RefusedError(f"{os.path.basename(wheel)} holds no uv for this machine", code="no-uv")
        path = os.path.join(scratch, "uv")
        with open(path, "wb") as f:
            f.write(file.read(name))
    os.chmod(path, 0o700)
    return path
