"""What a connected machine reaches, in small: two package indexes over HTTP, and a mirror of managed Pythons.

torch, torchvision and torchaudio here are test wheels: a few bytes with the real names and dependencies.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import sysconfig
import tarfile
from pathlib import Path

from tests.support.wheels import make_wheel

BUILD = "20261110"
_LEFT_OUT = {
    *("test", "tests", "site-packages", "dist-packages", "idlelib", "tkinter", "turtledemo", "lib2to3"),
    *("ensurepip", "__pycache__", "pydoc_data"),
}


class Index:
    """A package index below *folder*/*name*, as pip reads it over HTTP."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._simple = folder / name
        self._files = folder / "files" / name
        for one in (self._simple, self._files):
            one.mkdir(parents=True)

    def add(self, name: str, version: str, *requires: str, files=None, stated: bool = True) -> Path:
        """Add a test wheel. stated: the page gives its hash."""
        path = Path(make_wheel(self._files, name, version, requires, files=files))
        page = self._simple / name
        page.mkdir(exist_ok=True)
        digest = "#sha256=" + hashlib.sha256(path.read_bytes()).hexdigest() if stated else ""
        quoted = path.name.replace("+", "%2B")
        with (page / "index.html").open("a") as f:
            f.write(f'<a href="/files/{self.name}/{quoted}{digest}">{path.name}</a>\n')
        return path


def make_pythons(folder: Path) -> tuple[str, str]:
    """Make a mirror of managed Pythons in *folder* with one archive; return (version, path of uv's list of them).

    The archive has the layout of python-build-standalone's and holds this machine's own Python, without
    its tests and packages.
    """
    version = platform.python_version()
    name = f"cpython-{version}+{BUILD}-{platform.machine()}-unknown-linux-gnu-install_only_stripped.tar.gz"
    path = folder / BUILD / name
    path.parent.mkdir(parents=True)
    _pack(path)
    upstream = "https://github.com/astral-sh/python-build-standalone/releases/download"
    major, minor, patch = sys.version_info[:3]
    entry = {
        "name": "cpython",
        "arch": {"family": platform.machine(), "variant": None},
        "os": "linux",
        "libc": "gnu",
        "major": major,
        "minor": minor,
        "patch": patch,
        "prerelease": "",
        "url": f"{upstream}/{BUILD}/{name.replace('+', '%2B')}",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "variant": None,
        "build": BUILD,
    }
    listing = folder / "pythons.json"
    listing.write_text(json.dumps({f"cpython-{version}-linux-{platform.machine()}-gnu": entry}))
    return version, str(listing)


def _pack(path: Path) -> None:
    short = "python%d.%d" % sys.version_info[:2]
    stdlib = Path(sysconfig.get_path("stdlib"))

    def wanted(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        parts = Path(info.name).parts
        left_out = _LEFT_OUT.intersection(parts) or any(part.startswith("config-") for part in parts)
        return None if left_out else info

    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        archive.add(os.path.realpath(sys.executable), f"python/bin/{short}")
        for alias in ("python3", "python"):
            link = tarfile.TarInfo(f"python/bin/{alias}")
            link.type, link.linkname = tarfile.SYMTYPE, short
            archive.addfile(link)
        archive.add(stdlib, f"python/lib/{short}", filter=wanted)
        empty = tarfile.TarInfo(f"python/lib/{short}/site-packages")
        empty.type, empty.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(empty)
        library = Path(sysconfig.get_config_var("LIBDIR") or "") / (sysconfig.get_config_var("INSTSONAME") or "")
        if library.is_file() and library.suffix != ".a":
            archive.add(library, f"python/lib/{library.name}")
