"""Locks: exactly which wheels one request means on one kind of host, each with its hash.

    # gpuprov lock {"schema": 1, "names": ["torch==2.13.0"], "variant": "cpu", "python": "3.11", ...}
    filelock==3.20.0 --hash=sha256:...
    torch==2.13.0+cpu --hash=sha256:...

The text is a requirements file that pip and uv read as it is. It names no index: content is what
counts, wherever it comes from.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpuprov.agent import requirement
from gpuprov.agent.modules.pip_install import cuda_packages
from gpuprov.errors import Problem, RefusedError, SourceErrors
from gpuprov.fleet.pip_python import Target
from gpuprov.fleet.pip_tool import Pin
from gpuprov.source import Position

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SCHEMA = 1
SUFFIX = ".lock"
_HEADER = "# gpuprov lock "
_LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)\s+--hash=sha256:(?P<sha256>[0-9a-f]{64})")
#: glibc of the distributions that hosts run, oldest of each kind: a lock for one serves all newer ones.
GLIBC_CLASSES = ("2.17", "2.28", "2.34", "2.39")


@dataclass(frozen=True, slots=True)
class Request:
    """What is locked: packages as pip writes them, for one kind of host.

    variant: "cpu", "cu130" ...; "" when torch is not among the names. managed: the Python is one
    that uv brings, since the system has none that fits.
    """

    names: tuple[str, ...]
    target: Target
    variant: str = ""
    managed: bool = False

    def __str__(self) -> str:
        build = f" ({self.variant})" if self.variant else ""
        glibc = f", glibc {self.target.glibc}" if self.target.glibc else ""
        return f"{', '.join(self.names)}{build} for {self.target}{glibc}"

    def command(self, folder: str) -> str:
        """Return what puts this into *folder*, on a connected machine."""
        stack: dict[str, Any] = {"packages": list(self.names), "python": self.target.python}
        stack.update(machine=self.target.machine, glibc=self.target.glibc or None, variant=self.variant or None)
        stack["managed"] = True if self.managed else None
        wanted = json.dumps({key: value for key, value in stack.items() if value is not None})
        return f"gpuprov wheelhouse build --stack '{wanted}' --out {folder}"


@dataclass(frozen=True, slots=True)
class Lock:
    """One lock, as it is in its file. request.names are in sorted order; uv is the wheel that installs it."""

    request: Request
    pins: tuple[Pin, ...]
    uv: Pin
    made: str = ""
    path: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """The name of its file: torch's version, the variant, Python, machine, glibc, and a hash of the names."""
        torch = next((pin.version.partition("+")[0] for pin in self.pins if pin.name == "torch"), "")
        target = self.request.target
        digest = hashlib.sha256("\n".join(self.request.names).encode()).hexdigest()[:8]
        parts = [f"torch-{torch}" if torch else "packages", self.request.variant, f"py{target.python}"]
        parts += ["managed" if self.request.managed else "", target.machine, f"glibc{target.glibc}", digest]
        return "-".join(part for part in parts if part) + SUFFIX

    def text(self) -> str:
        """Return what its file holds."""
        target = self.request.target
        header = {
            "schema": SCHEMA,
            "names": list(self.request.names),
            "variant": self.request.variant,
            "python": target.python,
            "managed": self.request.managed,
            "machine": target.machine,
            "glibc": target.glibc,
            "made": self.made,
            "uv": [self.uv.version, self.uv.sha256],
            "from_torch_index": sorted(pin.name for pin in self.pins if pin.of_torch),
        }
        lines = [f"{pin.name}=={pin.version} --hash=sha256:{pin.sha256}" for pin in self.pins]
        return "\n".join([_HEADER + json.dumps(header), *sorted(lines), ""])

    def serves(self, request: Request, has_gpu: bool) -> bool:
        """Say whether this lock is an answer to *request*."""
        mine, target = self.request, request.target
        same = (mine.names, mine.target.python, mine.target.machine) == (request.names, target.python, target.machine)
        if not same or mine.managed != request.managed:
            return False
        if request.variant and mine.variant != request.variant:
            return False
        if not has_gpu and cuda_packages([f"{pin.name}=={pin.version}" for pin in self.pins]):
            return False
        if has_gpu and not request.variant and mine.variant == "cpu":
            return False  # a host with GPUs gets a CPU build only when somebody says so
        # a host that does not tell its glibc has another C library
        return bool(target.glibc) and requirement.version_key(mine.target.glibc) <= requirement.version_key(
            target.glibc
        )


def request(names: Iterable[str], target: Target, variant: str = "", managed: bool = False) -> Request:
    """Return a request with its names in order and without doubles, so that equal ones compare equal."""
    has_torch = any(requirement.parse(name).name == "torch" for name in names)
    return Request(tuple(sorted(set(names))), target, variant if has_torch else "", managed)


def glibc_class(glibc: str) -> str:
    """Return the class that serves a host with *glibc*: the newest that is not newer. Raises RefusedError."""
    fitting = [one for one in GLIBC_CLASSES if requirement.version_key(one) <= requirement.version_key(glibc)]
    if not fitting:
        raise RefusedError(
            f"glibc {glibc} is older than {GLIBC_CLASSES[0]}, and no wheels of torch run on it", code="glibc-too-old"
        )
    return fitting[-1]


def read(path: str) -> Lock:
    """Read one lock. Raises OSError, SourceErrors with everything that is wrong in it."""
    with open(path, encoding="utf-8") as f:
        lines = f.read().splitlines()
    problems: list[Problem] = []
    header = _header(lines[0] if lines else "", path, problems)
    pins = []
    of_torch = set(header.get("from_torch_index") or ())
    for number, line in enumerate(lines[1:], 2):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found:
            name = requirement.normalise(found["name"])
            pins.append(Pin(name, found["version"], found["sha256"], name in of_torch))
        else:
            message = f"{line.strip()[:80]!r} is not NAME==VERSION --hash=sha256:HASH"
            problems.append(Problem("lock-line", message, Position(path, number, 1), "make the lock anew"))
    if problems:
        raise SourceErrors(problems)
    target = Target(header["python"], header["machine"], header["glibc"])
    wanted = Request(tuple(header["names"]), target, header["variant"], bool(header["managed"]))
    return Lock(wanted, tuple(pins), Pin("uv", *header["uv"]), str(header.get("made", "")), path)


def _header(line: str, path: str, problems: list[Problem]) -> dict[str, Any]:
    """Return the JSON of the first line, or {} with a problem noted."""
    hint = "gpuprov wheelhouse lock makes one"
    try:
        found = json.loads(line.removeprefix(_HEADER)) if line.startswith(_HEADER) else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        problems.append(Problem("lock-header", f"the first line is not {_HEADER.strip()} {{...}}", _at(path), hint))
        return {}
    if found.get("schema") != SCHEMA:
        message = f"schema {found.get('schema')!r} was found, {SCHEMA} is known"
        problems.append(Problem("lock-schema", message, _at(path), "use the gpuprov that made it, or make it anew"))
        return {}
    texts = ("python", "machine", "glibc", "variant")
    wrong = [key for key in texts if not isinstance(found.get(key), str)]
    wrong += [key for key in ("names", "uv") if not _texts(found.get(key))]
    wrong += [] if isinstance(found.get("managed"), bool) else ["managed"]
    if len(found.get("uv") or ()) != 2 and "uv" not in wrong:
        wrong.append("uv")
    if wrong:
        problems.append(Problem("lock-header", f"the header lacks {', '.join(wrong)}", _at(path), hint))
        return {}
    return found


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _at(path: str) -> Position:
    return Position(path, 1, 1)


def read_all(folder: str) -> list[Lock]:
    """Return the locks of a folder, in order of their names. Raises OSError, SourceErrors."""
    names = sorted(name for name in os.listdir(folder) if name.endswith(SUFFIX)) if os.path.isdir(folder) else []
    found: list[Lock] = []
    problems: list[Problem] = []
    for name in names:
        try:
            found.append(read(os.path.join(folder, name)))
        except SourceErrors as error:
            problems += error.problems
    if problems:
        raise SourceErrors(problems)
    return found


def best(locks: Sequence[Lock], wanted: Request, has_gpu: bool) -> Lock | None:
    """Return the lock that serves *wanted*: of several, the one for the newest glibc, and then the newest variant."""
    fitting = [lock for lock in locks if lock.serves(wanted, has_gpu)]
    return max(fitting, key=_preference, default=None)


def _preference(lock: Lock) -> tuple[Any, int]:
    variant = lock.request.variant.removeprefix("cu")
    return requirement.version_key(lock.request.target.glibc), int(variant) if variant.isdigit() else 0
