"""What ships to hosts: deterministic, content-addressed zip files, and the loader that starts them.

Three layers: `agent` (always), `jinja` (only for plans that defer templates), `proof` (only for
plans with a proof). Same sources, same bytes, same name.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gpuprov.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

T = TypeVar("T")
_making = threading.RLock()

PACKAGE = Path(__file__).resolve().parent
#: Tried in this order when the inventory names no interpreter; the first that is >= 3.8 is used.
PYTHONS = (
    "/usr/bin/python3",
    "python3",
    "python3.15",
    "python3.14",
    "python3.13",
    "python3.12",
    "python3.11",
    "python3.10",
    "python3.9",
    "python3.8",
    "/usr/libexec/platform-python",
)
#: Exit codes of the loader and of stage 2, before the agent speaks.
EXIT_NO_PYTHON = 85
EXIT_OLD_PYTHON = 86
EXIT_CONTROLLER_GONE = 87
EXIT_REFUSED = 88

_STAGE1 = (
    "import os,sys;sys.version_info<(3,8) and os._exit(86);"
    "f=lambda n:n and (lambda d:(d or os._exit(87)) and d+f(n-len(d)))(os.read(0,n)) or bytes();"
    "exec(f({size}))"
)


def _once(make: Callable[..., T]) -> Callable[..., T]:
    """Keep what *make* returns; it is called by one thread, however many ask at the same moment.

    Two that put the same file into the cache at once would read each other's halves.
    """
    kept = cache(make)

    @wraps(make)
    def once(*args: Hashable) -> T:
        with _making:
            return kept(*args)

    return once


@dataclass(frozen=True, slots=True)
class Layer:
    """One zip: its name, its bytes and their SHA-256."""

    name: str
    data: bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class Code:
    """The agent as byte code: which Pythons can run it (magic), its bytes and their hash."""

    magic: str
    data: bytes
    digest: str


@_once
def layer(name: str) -> Layer:
    """Return layer *name* ("agent", "jinja" or "proof"), made from the installed sources.

    Packing costs 20 ms of every run, so the result is kept in the user's cache under what the
    sources look like (names, sizes, times).
    """
    paths = {"agent": _agent_paths, "jinja": _jinja_paths, "proof": _proof_paths}[name]()
    make = lambda: _zip({inside: Path(path).read_bytes() for inside, path in paths.items()})  # noqa: E731
    data = _cached(f"{name}-{_looks(paths)}.zip", make)
    return Layer(name, data, hashlib.sha256(data).hexdigest())


@_once
def byte_code() -> Code:
    """Return the agent's layer as byte code of this Python: hosts with the same kind start 60 ms sooner."""
    from gpuprov.agent.byte_code import MAGIC, compiled, digest

    source = layer("agent")
    data = _cached(f"code-{MAGIC}-{source.sha256}.code", lambda: compiled(source.data))
    return Code(MAGIC, data, digest(data))


@_once
def packed_byte_code() -> bytes:
    """Return the byte code as it travels. On hosts it is stored unpacked: it starts faster."""
    import zlib

    return zlib.compress(byte_code().data, 6)


@_once
def stage2() -> bytes:
    """Return the source text that the loader executes, without its comments."""
    text = (PACKAGE / "agent/stage2.py").read_text()
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")).encode() + b"\n"


def loader_command(marker: str, python: str | None = None, sudo: str | None = None) -> str:
    """Return the one command line that starts an agent; valid in sh, bash, csh, tcsh and fish.

    It prints *marker* on a line of its own, finds a Python and executes what comes on stdin.
    *sudo* is a prompt text: root is taken through `sudo -S` with that prompt, or through
    `sudo -n` when it is empty.
    """
    stage1 = _STAGE1.format(size=len(stage2()))
    tries = " ".join([interpreter(python)] if python else PYTHONS)
    body = (
        f"echo {marker}; r=85; for p in {tries}; do command -v $p >/dev/null 2>&1 || continue; "
        f'$p -I -S -B -c "{stage1}"; r=$?; [ $r = 86 ] || exit $r; done; exit $r'
    )
    prefix = ""
    if sudo is not None:
        prefix = f"sudo -S -p {sudo} -H -- " if sudo else "sudo -n -H -- "
    return f"exec {prefix}/bin/sh -c '{body}'"


def interpreter(setting: str) -> str:
    """Return ansible_python_interpreter as one word that no shell changes. Raises UsageError."""
    words = setting.split()
    if len(words) == 2 and words[0] in ("/usr/bin/env", "/bin/env", "env"):  # as Ansible's users write it
        words = words[1:]
    if len(words) != 1 or not re.fullmatch(r"[\w./+@%:,=-]+", words[0]):
        raise UsageError(
            f"ansible_python_interpreter is {setting!r}, which is not the path of a program",
            hint="give a path without blanks and quotes, or leave it out",
        )
    return words[0]


def _agent_paths() -> dict[str, str]:
    paths = {"gpuprov/__init__.py": os.path.join(PACKAGE, "__init__.py")}
    for room in ("wire", "agent"):
        paths |= _sources(os.path.join(PACKAGE, room), f"gpuprov/{room}")
    del paths["gpuprov/agent/stage2.py"]
    return paths


def _proof_paths() -> dict[str, str]:
    from importlib.util import find_spec

    own = {"gpuprov/__init__.py": os.path.join(PACKAGE, "__init__.py")}
    spec = find_spec("pynvml")
    if spec is not None and spec.origin is not None:  # for hosts that have none of their own: verify installs nothing
        own["guests/pynvml.py"] = spec.origin
    return own | _sources(os.path.join(PACKAGE, "proof"), "gpuprov/proof")


def _jinja_paths() -> dict[str, str]:
    from importlib.util import find_spec

    paths = _sources(os.path.join(PACKAGE, "templating"), "gpuprov/templating")
    for name in ("jinja2", "markupsafe"):
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        paths |= _sources(os.path.dirname(spec.origin), name)
    return paths


def _sources(folder: str, prefix: str) -> dict[str, str]:
    """Return name in the zip -> path of all Python files below *folder*."""
    found = {}
    for parent, _, names in os.walk(folder):
        inside = prefix + parent[len(folder) :].replace(os.sep, "/")
        found.update({f"{inside}/{name}": os.path.join(parent, name) for name in names if name.endswith(".py")})
    return found


def _looks(paths: dict[str, str]) -> str:
    """Return a short word that changes with the names, sizes and times of these files."""
    looks = []
    for inside, path in sorted(paths.items()):
        found = os.stat(path)
        looks.append(f"{inside} {found.st_size} {found.st_mtime_ns}")
    return hashlib.sha256("\n".join(looks).encode()).hexdigest()[:32]


def _cached(name: str, make: Callable[[], bytes]) -> bytes:
    """Return what is in the cache under *name*, intact, or make it and put it there."""
    folder = _cache_folder()
    data = _read_own(folder / name) if folder else None
    if data is None:
        data = make()
        if folder:
            _keep(folder / name, data)
    return data


def _cache_folder() -> Path | None:
    """Return the cache's folder, None when it is not ours alone to write."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpuprov" / "bundle"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError:
        return None
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        return None
    return folder


def _read_own(path: Path) -> bytes | None:
    """Return a file of the cache, None when it is somebody else's, or damaged by a power cut."""
    try:
        data = path.read_bytes() if path.stat().st_uid == os.geteuid() else b""
    except OSError:
        return None
    return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None


def _keep(path: Path, data: bytes) -> None:
    """Put *data* after its hash into the cache, and remove older ones of its kind."""
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        temporary.write_bytes(hashlib.sha256(data).digest() + data)
        temporary.rename(path)
        for old in path.parent.glob(f"{path.name.split('-')[0]}-*"):
            if old != path:
                old.unlink(missing_ok=True)
    except OSError:  # a cache that cannot be written is only slow
        return


def _zip(files: dict[str, bytes]) -> bytes:
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, files[name])
    return buffer.getvalue()
