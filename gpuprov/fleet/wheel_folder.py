"""A folder of wheels for sites without a way to an index: made once, carried in, checked, served from.

    <folder>/locks/<name>.lock              which wheels a request means (fleet/locks.py)
    <folder>/files/<sha256>/<filename>      wheels, uv, Python archives
    <folder>/wheelhouse.json                the manifest: every file with size and hash

`files` has the layout of the controller's and of the hosts' own stores.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gpuprov.errors import GpuprovError, RefusedError
from gpuprov.fleet import locks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gpuprov.fleet.locks import Lock, Request

MANIFEST = "wheelhouse.json"
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong with a folder; kind is "missing", "damaged" or "unknown" (a file nobody asked for)."""

    kind: str
    path: str
    message: str


class WheelFolder:
    """The folder at *path*, read once. Safe to use from many threads. Raises GpuprovError when it is none."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))
        self._guard = threading.Lock()
        self._locks: list[Lock] | None = None
        self._files: dict[str, dict[str, Any]] | None = None

    def locks(self) -> list[Lock]:
        """Return its locks. Raises SourceErrors, GpuprovError."""
        with self._guard:
            if self._locks is None:
                if not os.path.isdir(self.path):
                    raise GpuprovError(
                        f"there is no wheelhouse {self.path}",
                        hint=f"gpuprov wheelhouse build ... --out {self.path} makes one, on a connected machine",
                        code="wheelhouse-missing",
                    )
                self._locks = locks.read_all(os.path.join(self.path, "locks"))
            return self._locks

    def files(self) -> dict[str, dict[str, Any]]:
        """Return what the manifest says of every file, by hash; {} without a manifest. Raises GpuprovError."""
        with self._guard:
            if self._files is None:
                self._files = read_manifest(self.path)
            return self._files

    def path_of(self, one: Mapping[str, Any]) -> str:
        """Return where a file of the manifest lies."""
        return os.path.join(self.path, "files", one["sha256"], os.path.basename(one["filename"]))

    def choose(self, request: Request, has_gpu: bool) -> Lock:
        """Return the lock for a request. Raises RefusedError with the command that makes it."""
        found = locks.best(self.locks(), request, has_gpu)
        if found is None:
            raise self._nothing_for(request, has_gpu)
        return found

    def described(self, lock: Lock) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return the wheels of a lock, and uv's, as the manifest describes them.

        Looks at sizes; hashes are checked where the wheels are used. Raises RefusedError when some are missing.
        """
        known = self.files()
        lacking = [pin for pin in (*lock.pins, lock.uv) if not self._whole(known.get(pin.sha256))]
        if lacking:
            shown = ", ".join(f"{pin.name}=={pin.version}" for pin in lacking[:4])
            more = f" and {len(lacking) - 4} more" if len(lacking) > 4 else ""
            raise RefusedError(
                f"the wheelhouse {self.path} lacks {len(lacking)} of {len(lock.pins) + 1} wheels of its lock"
                f" {lock.name}: {shown}{more}",
                hint=f"on a connected machine: {lock.request.command(self.path)}",
                code="wheelhouse-incomplete",
            )
        return [known[pin.sha256] for pin in lock.pins], known[lock.uv.sha256]

    def python(self, version: str, machine: str) -> dict[str, Any] | None:
        """Return the newest archive of a managed Python "3.12" that is wholly here; None when there is none."""
        fitting = [
            one
            for one in self.files().values()
            if one["kind"] == "python" and one["machine"] == machine and _minor(one["version"]) == version
        ]
        fitting = [one for one in fitting if self._whole(one)]
        return max(fitting, key=lambda one: [int(part) for part in one["version"].split(".")], default=None)

    def _whole(self, one: Mapping[str, Any] | None) -> bool:
        try:
            return one is not None and os.path.getsize(self.path_of(one)) == one["size"]
        except OSError:
            return False

    def _nothing_for(self, request: Request, has_gpu: bool) -> RefusedError:
        have = [str(lock.request) for lock in self.locks()]
        shown = "; ".join(have[:3]) + (f"; and {len(have) - 3} more" if len(have) > 3 else "")
        cpu = " without a GPU" if not has_gpu else ""
        if request.target.glibc:
            target = replace(request.target, glibc=locks.glibc_class(request.target.glibc))
            variant = request.variant or ("cpu" if not has_gpu else "")
            wanted = locks.request(request.names, target, variant, request.managed)
            hint = f"on a connected machine: {wanted.command(self.path)}"
        else:
            hint = "this host's C library is not glibc, and no wheels of torch run on it"
        return RefusedError(
            f"the wheelhouse {self.path} has nothing for {request}{cpu}; it has: {shown or 'nothing'}",
            hint=hint,
            code="wheelhouse-lacks",
        )

    def verify(self) -> Iterator[Trouble]:
        """Yield everything that is wrong: reads every file. Raises SourceErrors, GpuprovError."""
        known = self.files()
        for sha256, one in known.items():
            path = self.path_of(one)
            if not os.path.isfile(path):
                yield Trouble("missing", path, f"{one['filename']} is not there")
            elif os.path.getsize(path) != one["size"]:
                found = os.path.getsize(path)
                yield Trouble("damaged", path, f"{one['filename']} has {found} bytes, {one['size']} are right")
            elif digest_of(path) != sha256:
                yield Trouble("damaged", path, f"{one['filename']} does not have its hash {sha256[:12]}...")
        for lock in self.locks():
            for pin in (*lock.pins, lock.uv):
                if pin.sha256 not in known:
                    yield Trouble("missing", lock.path, f"{lock.name} needs {pin.name}=={pin.version}")
        yield from self._strangers(known)

    def _strangers(self, known: Mapping[str, Any]) -> Iterator[Trouble]:
        folder = os.path.join(self.path, "files")
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            if name not in known:
                yield Trouble("unknown", os.path.join(folder, name), f"files/{name} is in no manifest")


def read_manifest(folder: str) -> dict[str, dict[str, Any]]:
    """Return {sha256: description} of a folder's files; {} without a manifest. Raises GpuprovError."""
    path = os.path.join(folder, MANIFEST)
    try:
        with open(path, encoding="utf-8") as f:
            found = json.load(f)
        if found["schema"] != SCHEMA:
            raise ValueError(f"schema {found['schema']} was found, {SCHEMA} is known")
        return {one["sha256"]: _checked(one) for one in found["files"]}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = "gpuprov wheelhouse build makes it anew from what is there"
        raise GpuprovError(f"{path} is no manifest: {error}", hint=hint, code="wheelhouse-manifest") from None


def _checked(one: dict[str, Any]) -> dict[str, Any]:
    """Return an entry of a manifest when it cannot name a place outside its folder. Raises ValueError, KeyError."""
    sha256, filename = one["sha256"], one["filename"]
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef") or os.path.basename(filename) != filename:
        raise ValueError(f"{filename!r} with hash {sha256!r} is no file of a wheelhouse")
    if one["kind"] not in ("wheel", "python") or not isinstance(one["size"], int):
        raise ValueError(f"{filename!r} has no known kind or size")
    return one


def write_manifest(folder: str, files: Mapping[str, Mapping[str, Any]], made: str, version: str) -> None:
    """Write the manifest of *files* in one step."""
    entries = sorted(files.values(), key=lambda one: (str(one["name"]), str(one["version"]), str(one["filename"])))
    text = json.dumps({"schema": SCHEMA, "gpuprov": version, "made": made, "files": entries}, indent=1) + "\n"
    path = os.path.join(folder, MANIFEST)
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    os.replace(temporary, path)


def digest_of(path: str) -> str:
    """Return the SHA-256 of a file as hex. Raises OSError."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
