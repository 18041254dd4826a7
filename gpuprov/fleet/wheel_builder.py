"""Fills a wheelhouse on a connected machine: resolves requests to locks, and fetches what locks name.

pip resolves and fetches with this machine's own configuration; uv fetches Pythons.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gpuprov import __version__
from gpuprov.errors import RefusedError
from gpuprov.fleet import locks
from gpuprov.fleet.managed_python import PythonSources, fetch_python
from gpuprov.fleet.pip_tool import Pin, PipTool, Sources
from gpuprov.fleet.wheel_folder import WheelFolder, digest_of, read_manifest, write_manifest
from gpuprov.fleet.wheel_request import check_variant, described_wheel, variant_of
from gpuprov.fleet.wheelhouse import UV, cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gpuprov.fleet.locks import Lock, Request
    from gpuprov.fleet.pip_python import Target
    from gpuprov.fleet.pip_tool import Found


class Builder:
    """Works on one folder. Blocking; not for several threads or processes at once."""

    def __init__(self, folder: str, say: Callable[[str], None] | None = None) -> None:
        self.folder = os.path.abspath(os.path.expanduser(folder))
        self._say = say or (lambda _: None)
        self._files = read_manifest(self.folder)
        self._tools: dict[Target, PipTool] = {}
        self._uv_pins: dict[Target, Pin] = {}
        self._made = datetime.now(UTC).strftime("%Y-%m-%d")

    def lock(self, request: Request, sources: Sources, *, cpu_index_url: str = "", anew: bool = False) -> Lock:
        """Return the lock of a request: the one that is there, unless *anew*; else a new one, written.

        cpu_index_url: asked for a CPU build when that is wanted and the first answer needs CUDA packages.
        Raises RefusedError when nothing fits, SourceErrors when a lock cannot be read.
        """
        folder = os.path.join(self.folder, "locks")
        if not anew:
            for known in locks.read_all(folder):
                if known.request == replace(request, variant=request.variant or known.request.variant):
                    return known
        self._say(f"resolving {request}")
        with self._scratch() as scratch:
            tool = self._tool(request.target)
            found = tool.resolve(list(request.names), sources, scratch)
            packages = [(one.name, one.version) for one in found]
            if request.variant == "cpu" and cpu_index_url and variant_of(packages) not in ("", "cpu"):
                sources = replace(sources, torch_index_url=cpu_index_url)
                found = tool.resolve(list(request.names), sources, scratch)
                packages = [(one.name, one.version) for one in found]
            check_variant(request.variant, packages)
            request = replace(request, variant=variant_of(packages))
            pins = self._pins(found, request.target, sources, scratch)
            lock = locks.Lock(request, pins, self._uv_pin(request.target, scratch), self._made)
        self._drop_older(folder, request)
        os.makedirs(folder, exist_ok=True)
        _write(os.path.join(folder, lock.name), lock.text())
        return locks.read(os.path.join(folder, lock.name))

    def fetch(self, lock: Lock, sources: Sources) -> int:
        """Put the wheels of *lock* that are not here into the folder; return how many. Raises RefusedError."""
        missing = [pin for pin in lock.pins if not self._have(pin)]
        uv = [] if self._have(lock.uv) else [lock.uv]
        tool = self._tool(lock.request.target)
        with self._scratch() as scratch:
            for pins, where in ((missing, sources), (uv, Sources())):
                left = [pin for pin in pins if not self._from_cache(pin)]
                if left:
                    self._say(f"fetching {len(left)} wheel{'s' if len(left) > 1 else ''} for {lock.request.target}")
                    into = tempfile.mkdtemp(dir=scratch)
                    tool.download_pinned(left, where, into, scratch)
                    self._keep_all(left, into)
        if missing or uv:
            self.write_manifest()
        return len(missing) + len(uv)

    def fetch_python(self, version: str, machine: str, sources: PythonSources) -> dict[str, Any]:
        """Put the archive of a managed Python into the folder; return its description. Raises RefusedError."""
        known = WheelFolder(self.folder).python(version, machine)
        if known is not None:
            return known
        self._say(f"fetching Python {version} for {machine}")
        with self._scratch() as scratch:
            path, one = fetch_python(version, machine, sources, scratch)
            self._keep(path, one)
        self.write_manifest()
        return one

    def write_manifest(self) -> None:
        """Write what the folder holds, and forget and remove files that no lock names any more."""
        needed = {
            pin.sha256 for lock in locks.read_all(os.path.join(self.folder, "locks")) for pin in (*lock.pins, lock.uv)
        }
        for sha256, one in list(self._files.items()):
            if one["kind"] == "wheel" and sha256 not in needed:
                del self._files[sha256]
                shutil.rmtree(os.path.join(self.folder, "files", sha256), ignore_errors=True)
        write_manifest(self.folder, self._files, self._made, __version__)

    def adopt(self, lock: Lock) -> Lock:
        """Take over a lock that was made elsewhere; return it as it is in this folder."""
        folder = os.path.join(self.folder, "locks")
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, lock.name)
        self._drop_older(folder, lock.request, keep=lock.name)
        _write(path, lock.text())
        return locks.read(path)

    def _pins(self, found: Sequence[Found], target: Target, sources: Sources, scratch: str) -> tuple[Pin, ...]:
        """Return pins of *found*; wheels whose index states no hash are fetched, to know it."""
        unknown = [one for one in found if not one.sha256]
        digests = {one.name: one.sha256 for one in found}
        if unknown:
            into = tempfile.mkdtemp(dir=scratch)
            self._say(f"fetching {len(unknown)} wheels whose index states no hash")
            self._tool(target).download(unknown, sources, into)
            by_name = _by_name(into)
            for one in unknown:
                path = by_name[one.name]
                pin = Pin(one.name, one.version, digest_of(path))
                digests[one.name] = pin.sha256
                self._keep(path, described_wheel(path, pin.name, pin.version, pin.sha256))
        return tuple(Pin(one.name, one.version, digests[one.name], one.of_torch) for one in found)

    def _uv_pin(self, target: Target, scratch: str) -> Pin:
        if target not in self._uv_pins:
            found = self._tool(target).resolve([UV], Sources(), scratch)
            self._uv_pins[target] = self._pins(found, target, Sources(), scratch)[0]
        return self._uv_pins[target]

    def _drop_older(self, folder: str, request: Request, keep: str = "") -> None:
        for lock in locks.read_all(folder):
            if lock.request == request and os.path.basename(lock.path) != keep:
                os.unlink(lock.path)

    def _keep_all(self, pins: Sequence[Pin], folder: str) -> None:
        by_name = _by_name(folder)
        for pin in pins:
            path = by_name[pin.name]
            digest = digest_of(path)
            if digest != pin.sha256:
                raise RefusedError(
                    f"the wheel of {pin.name}=={pin.version} has the hash {digest[:12]}..., the lock wants"
                    f" {pin.sha256[:12]}...",
                    hint="the index or a proxy serves a damaged or replaced file; to take it: --anew",
                    code="hash-mismatch",
                )
            self._keep(path, described_wheel(path, pin.name, pin.version, digest))

    def _from_cache(self, pin: Pin) -> bool:
        """Take a wheel over from this machine's own store, if it is there."""
        folder = os.path.join(cache_folder(), "files", pin.sha256)
        names = os.listdir(folder) if os.path.isdir(folder) else []
        if len(names) != 1 or digest_of(os.path.join(folder, names[0])) != pin.sha256:
            return False
        path = os.path.join(folder, names[0])
        self._keep(path, described_wheel(path, pin.name, pin.version, pin.sha256), copy=True)
        return True

    def _keep(self, path: str, one: Mapping[str, Any], *, copy: bool = False) -> None:
        place = WheelFolder(self.folder).path_of(one)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if copy:
            shutil.copyfile(path, f"{place}.part")
            os.replace(f"{place}.part", place)
        else:
            os.replace(path, place)
        self._files[one["sha256"]] = dict(one)

    def _have(self, pin: Pin) -> bool:
        one = self._files.get(pin.sha256)
        try:
            return one is not None and os.path.getsize(WheelFolder(self.folder).path_of(one)) == one["size"]
        except OSError:
            return False

    def _scratch(self) -> tempfile.TemporaryDirectory[str]:
        os.makedirs(self.folder, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=".build-", dir=self.folder)

    def _tool(self, target: Target) -> PipTool:
        if target not in self._tools:
            self._tools[target] = PipTool(target)
        return self._tools[target]


def _by_name(folder: str) -> dict[str, str]:
    from gpuprov.agent.requirement import normalise

    return {normalise(name.split("-")[0]): os.path.join(folder, name) for name in os.listdir(folder)}


def _write(path: str, text: str) -> None:
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as f:
        f.write(text)
    os.replace(temporary, path)
