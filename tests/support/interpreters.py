"""The Python interpreters of this machine that hosts may have, oldest and newest."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path


@cache
def interpreters() -> dict[tuple[int, int], str]:
    """Return (major, minor) -> path of every CPython >= 3.8 that is found on PATH or under pyenv."""
    found: dict[tuple[int, int], str] = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for path in sorted(pyenv.glob("3.*/bin/python3")):
        match = re.match(r"3\.(\d+)", path.parent.parent.name)
        if match and int(match[1]) >= 8:
            found[(3, int(match[1]))] = str(path)
    for minor in range(8, 20):
        path = shutil.which(f"python3.{minor}", path="/usr/bin:/usr/local/bin")
        if path:
            found[(3, minor)] = path
    return {version: path for version, path in found.items() if _works(path)}


def _works(path: str) -> bool:
    return subprocess.run([path, "-c", "import ssl, json"], capture_output=True, check=False).returncode == 0
