"""Python packages for hosts: resolved and fetched once on the controller, sent by content hash.

    <cache>/sets/<key>.json                 which wheels a request means, for one kind of host
    <cache>/files/<sha256>/<filename>       the wheels

<cache> is $XDG_CACHE_HOME/gpuprov/wheels, else /var/cache/gpuprov/wheels for root and
~/.cache/gpuprov/wheels for others. A set is kept until `state: latest` asks anew, so that the
same request means the same versions on every host and every night.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gpuprov.agent import requirement
from gpuprov.agent.modules.pip_install import cuda_packages
from gpuprov.agent.modules.pip_tools import HOST_CACHE
from gpuprov.errors import RefusedError
from gpuprov.fleet import wheel_request as request
from gpuprov.fleet.pip_python import ignored
from gpuprov.fleet.pip_tool import Found, PipTool, Sources

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gpuprov.fleet.pip_python import Target
    from gpuprov.fleet.wheel_folder import WheelFolder

#: What installs on hosts: its wheel holds one static program.
UV = "uv>=0.9,<1"
#: Part of every key: raised when the meaning of a set's file changes.
_SCHEMA = 1

WheelSet = dict[str, Any]


def cache_folder() -> str:
    """Return where wheels are kept on this machine."""
    chosen = os.environ.get("XDG_CACHE_HOME")
    if not chosen and os.geteuid() == 0:
        return os.path.dirname(HOST_CACHE)
    return os.path.join(chosen or os.path.expanduser("~/.cache"), "gpuprov", "wheels")


class Wheelhouse:
    """The cache of wheels and what fills it. Safe to use from many threads and processes."""

    def __init__(self, folder: str = "", say: Callable[[str], None] | None = None) -> None:
        self.folder = folder or cache_folder()
        self._say = say or (lambda _: None)
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._sets: dict[str, WheelSet] = {}
        self._tools: dict[Target, PipTool] = {}
        self._folders: dict[str, WheelFolder] = {}
        self._offered: dict[str, bool] = {}

    def resolve(self, args: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Return what a pip task gains for one host: arguments (`_wheels`, `_uv`) and {sha256: path} of files.

        Blocks while pip resolves and fetches, once per request and kind of host. Raises
        RefusedError when there is nothing that fits the host.
        """
        if args.get("source") is None or args.get("state") == "absent" or not args.get("virtualenv"):
            return self._without(args)
        target = request.target_of(args, facts)
        if args.get("wheelhouse"):
            return self._carried(args, target, has_gpu=request.has_gpu(facts))
        if args["source"] == "host":
            return self._only_uv(target)
        wheels = self._packages(args, target, has_gpu=request.has_gpu(facts))
        uv = self._set([UV], target, Sources(), fresh=False)["wheels"][0]
        files = {one["sha256"]: self._path(one) for one in [*wheels, uv]}
        return {"_wheels": wheels, "_uv": uv}, files

    def _carried(self, args: Mapping[str, Any], target: Target, has_gpu: bool) -> tuple[dict[str, Any], dict[str, str]]:
        """Take everything out of a wheelhouse that was made elsewhere; ask nobody."""
        from gpuprov.fleet import locks

        if args["source"] != "controller":
            raise RefusedError(
                "a pip task with a wheelhouse needs source: controller",
                hint="gpuprov_torch_source: controller; hosts cannot reach the folder by themselves",
                code="wheelhouse-needs-controller",
            )
        if args.get("state") == "latest":
            raise RefusedError(
                "a wheelhouse has no newer packages than its locks name, so state: latest means nothing with it",
                hint="make the lock anew on a connected machine: gpuprov wheelhouse build --anew",
                code="wheelhouse-latest",
            )
        folder = self._folder(str(args["wheelhouse"]))
        managed = bool(args.get("managed_python"))
        wanted = locks.request(request.names_of(args), target, str(args.get("variant") or ""), managed)
        lock = folder.choose(wanted, has_gpu)
        wheels, uv = folder.described(lock)
        files = {one["sha256"]: folder.path_of(one) for one in [*wheels, uv]}
        gained = {"_wheels": wheels, "_uv": uv}
        if managed:
            archive = folder.python(target.python, target.machine)
            if archive is None:
                raise RefusedError(
                    f"the wheelhouse {folder.path} has no Python {target.python} for {target.machine}",
                    hint=f"on a connected machine: {lock.request.command(folder.path)}",
                    code="wheelhouse-lacks-python",
                )
            gained["_python"] = archive
            files[archive["sha256"]] = folder.path_of(archive)
        return gained, files

    def _folder(self, path: str) -> WheelFolder:
        from gpuprov.fleet.wheel_folder import WheelFolder

        with self._guard:
            if path not in self._folders:
                self._folders[path] = WheelFolder(path)
            return self._folders[path]

    def file_of(self, names: Sequence[str], target: Target, sources: Sources) -> str:
        """Return the path of the first wheel that *names* mean, fetched when it is not here. Raises RefusedError."""
        return self._path(self._set(names, target, sources, fresh=False)["wheels"][0])

    def _without(self, args: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        if args.get("source") == "controller" and args.get("state") != "absent":
            raise RefusedError(
                "a pip task with source: controller needs virtualenv",
                hint="wheels that travel are installed into a virtual environment only",
                code="wheels-need-virtualenv",
            )
        return {}, {}

    def _only_uv(self, target: Target) -> tuple[dict[str, Any], dict[str, str]]:
        """With source: host, uv travels when it can be had; otherwise the host uses its own uv or pip."""
        try:
            uv = self._set([UV], target, Sources(), fresh=False)["wheels"][0]
        except RefusedError as error:
            self._say(f"uv could not be fetched, so hosts use their own uv or pip: {error.message}")
            return {}, {}
        return {"_uv": uv}, {uv["sha256"]: self._path(uv)}

    def _packages(self, args: Mapping[str, Any], target: Target, has_gpu: bool) -> list[dict[str, Any]]:
        names = request.names_of(args)
        if not names:
            return []
        sources = Sources(*(str(args.get(name) or "") for name in ("index_url", "find_links", "torch_index_url")))
        fresh = args.get("state") == "latest"
        found = self._set(names, target, sources, fresh, has_gpu)
        further = str(args.get("cpu_index_url") or "")
        if found["cuda"] and not has_gpu and further and self._offers(further, names, target):
            sources = replace(sources, torch_index_url=further)
            found = self._set(names, target, sources, fresh, has_gpu)
        if found["cuda"] and not has_gpu:
            raise request.cuda_without_gpu(names, found["cuda"], target, further)
        request.check_variant(
            str(args.get("variant") or ""), [(one["name"], one["version"]) for one in found["wheels"]]
        )
        wheels: list[dict[str, Any]] = found["wheels"]
        return wheels

    def _offers(self, index_url: str, names: Sequence[str], target: Target) -> bool:
        """Say whether an index answers and has some of *names*. Asked once in this process; never kept."""
        import tempfile

        key = _key(names, target, Sources(index_url))
        with self._guard:
            lock = self._locks.setdefault("offers " + key, threading.Lock())
        with lock, tempfile.TemporaryDirectory(prefix="gpuprov-") as scratch:
            if key not in self._offered:
                self._say(f"asking {index_url} for a CPU build of {', '.join(names)}")
                self._offered[key] = self._tool(target).offers(names, index_url, scratch)
            return self._offered[key]

    def _set(
        self, names: Sequence[str], target: Target, sources: Sources, fresh: bool, has_gpu: bool = True
    ) -> WheelSet:
        """Return the set of wheels for a request, from memory, from the cache or from pip."""
        key = _key(names, target, sources)
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            done = self._sets.get(key)
            if done is None or (done["cuda"] and has_gpu and not done["wheels"]):
                done = self._fill(key, list(names), target, sources, fresh, has_gpu)
                self._sets[key] = done
            return done

    def _read(self, key: str, has_gpu: bool) -> WheelSet | None:
        """Return a set whose files are all still there."""
        try:
            with open(os.path.join(self.folder, "sets", key + ".json"), encoding="utf-8") as f:
                found: WheelSet = json.load(f)
            whole = all(os.path.getsize(self._path(one)) == one["size"] for one in found["wheels"])
        except (OSError, ValueError, KeyError):
            return None
        if not found["wheels"] and has_gpu:
            return None
        return found if whole else None

    def _fill(
        self, key: str, names: list[str], target: Target, sources: Sources, fresh: bool, has_gpu: bool
    ) -> WheelSet:
        """Resolve, fetch and keep. CUDA packages are not fetched for a host that cannot use them."""
        import tempfile

        done = None if fresh else self._read(key, has_gpu)
        if done is not None:
            return done
        os.makedirs(os.path.join(self.folder, "sets"), exist_ok=True)
        with open(os.path.join(self.folder, "sets", key + ".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = None if fresh else self._read(key, has_gpu)
            if done is not None:  # another process was quicker
                return done
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=self.folder) as scratch:
                self._say(f"resolving {', '.join(names)} for {target}")
                tool = self._tool(target)
                found = tool.resolve(names, sources, scratch)
                cuda = cuda_packages([f"{one.name}=={one.version}" for one in found])
                done = {"names": names, "target": str(target), "cuda": cuda, "wheels": []}
                if has_gpu or not cuda:
                    done["wheels"] = self._fetch(tool, found, sources, scratch)
                if done["wheels"] or not sources.torch_index_url:  # an index that did not answer is asked again
                    self._write(key, done)
        return done

    def _fetch(self, tool: PipTool, found: Sequence[Found], sources: Sources, scratch: str) -> list[dict[str, Any]]:
        folder = os.path.join(scratch, "wheels")
        self._say(f"fetching {len(found)} wheel{'s' if len(found) > 1 else ''} for {tool.target}")
        tool.download(found, sources, folder)
        by_name = {requirement.normalise(name.split("-")[0]): name for name in os.listdir(folder)}
        return [self._keep(os.path.join(folder, by_name[one.name]), one) for one in found]

    def _keep(self, path: str, found: Found) -> dict[str, Any]:
        """Move a fetched wheel into the cache. Raises RefusedError when it is not what was resolved."""
        with open(path, "rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
        if found.sha256 and digest != found.sha256:
            raise RefusedError(
                f"the wheel of {found.name} {found.version} does not have the hash that the index states",
                hint="try again; if it stays so, the index or a proxy serves a damaged or replaced file",
                code="hash-mismatch",
            )
        one = request.described_wheel(path, found.name, found.version, digest)
        os.makedirs(os.path.dirname(self._path(one)), exist_ok=True)
        os.replace(path, self._path(one))
        return one

    def _write(self, key: str, done: WheelSet) -> None:
        path = os.path.join(self.folder, "sets", key + ".json")
        temporary = f"{path}.{os.getpid()}"
        with open(temporary, "w", encoding="utf-8") as f:
            json.dump(done, f, indent=1)
        os.replace(temporary, path)

    def _path(self, one: Mapping[str, Any]) -> str:
        return os.path.join(self.folder, "files", one["sha256"], one["filename"])

    def _tool(self, target: Target) -> PipTool:
        with self._guard:
            if target not in self._tools:
                if not self._tools and (left_out := ignored()):
                    self._say(f"not heeded on this machine while wheels are fetched: {', '.join(left_out)}")
                self._tools[target] = PipTool(target)
            return self._tools[target]


def _key(names: Sequence[str], target: Target, sources: Sources) -> str:
    parts = [_SCHEMA, sorted(names), target.python, target.machine, target.glibc, *sources.words()]
    parts += ["torch", sources.torch_index_url] if sources.torch_index_url else []
    parts += [os.environ.get(name, "") for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
