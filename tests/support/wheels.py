"""Small real wheels, an index of them, and uv's own wheel: what tests of package installation need."""

from __future__ import annotations

import glob
import hashlib
import os
import subprocess
import sys
import zipfile


def make_wheel(folder, name, version, requires=(), extras=(), files=None):
    """Write a wheel into *folder*; return its path. files: path in the wheel -> text."""
    stem = name.replace("-", "_") + "-" + version
    path = os.path.join(str(folder), stem + "-py3-none-any.whl")
    info = stem + ".dist-info/"
    metadata = ["Metadata-Version: 2.1", "Name: " + name, "Version: " + version]
    metadata += ["Provides-Extra: " + one for one in extras] + ["Requires-Dist: " + one for one in requires]
    content = {name.replace("-", "_") + ".py": f"version = {version!r}\n"}
    content.update(files or {})
    content[info + "METADATA"] = "\n".join(metadata) + "\n"
    content[info + "WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    content[info + "RECORD"] = "".join(one + ",,\n" for one in [*content, info + "RECORD"])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for one, text in content.items():
            wheel.writestr(zipfile.ZipInfo(one, (2020, 1, 1, 0, 0, 0)), text)
    return path


def make_index(folder, wheels):
    """Make a package index of *wheels* in *folder*; return its URL."""
    for path in wheels:
        name = os.path.basename(path).split("-")[0].replace("_", "-").lower()
        os.makedirs(os.path.join(str(folder), name), exist_ok=True)
        with open(os.path.join(str(folder), name, "index.html"), "a") as f:
            f.write(f'<a href="file://{os.path.abspath(path)}">{os.path.basename(path)}</a>\n')
    return "file://" + str(folder)


def described_file(path):
    """Return what the controller says of any file that travels."""
    with open(path, "rb") as f:
        data = f.read()
    return {"filename": os.path.basename(path), "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def described(path, name, version):
    """Return what the controller says of a wheel in `_wheels`."""
    with zipfile.ZipFile(path) as wheel:
        unpacked = sum(one.file_size for one in wheel.infolist())
    return {
        "name": name,
        "version": version,
        **described_file(path),
        "installed_bytes": unpacked,
    }


def uv_wheel():
    """Return the path of uv's wheel for this machine, fetched once by pip with its own configuration."""
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "gpuprov-test", "uv")
    pattern = os.path.join(cache, "uv-*.whl")
    said = ""
    for python in (sys.executable, "python3", "/usr/bin/python3"):
        if glob.glob(pattern):
            break
        argv = [python, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run([*argv, "--dest", cache, "uv>=0.9,<1"], stderr=subprocess.PIPE, check=False)
        said = done.stderr.decode("utf-8", "replace")[-500:]
    found = sorted(glob.glob(pattern))
    if not found:
        raise RuntimeError("no pip here could fetch uv: " + said)
    return found[-1]
