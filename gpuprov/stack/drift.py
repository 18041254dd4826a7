"""Where a host differs from the stack that it should have: wanted, installed, loaded, last applied. Pure.

Works on a stack's JSON and on an agent's survey: what the survey could not tell is a difference of its
own kind, never "as wanted".
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Parts of a stack that are packages, with the name a person knows them by.
PACKAGED = {
    "driver": "driver",
    "fabricmanager": "fabric manager",
    "cuda": "CUDA toolkit",
    "cudnn": "cuDNN",
    "nccl": "NCCL",
    "dcgm": "DCGM",
    "container_toolkit": "container toolkit",
}
UNKNOWN = "could not be told"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as wanted. kind: version, missing, extra, loaded, hold, applied, unknown."""

    part: str
    what: str
    kind: str
    wanted: str
    found: str

    def to_json(self) -> dict[str, str]:
        """Return it as JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.part}: {self.what}: wanted {self.wanted}, {self.found}"


def differences(stack: Mapping[str, Any], survey: Mapping[str, Any]) -> list[Difference]:
    """Return every difference between *stack* and what *survey* says of the host, in the order of the parts."""
    found = [*_packages(stack, survey), *_loaded(stack, survey), *_holds(stack, survey)]
    found += [*_torch(stack, survey), *_applied(stack, survey)]
    return found


def fits(version: str, pattern: str) -> bool:
    """Say whether an installed version is the wanted one; a pattern without an epoch fits any."""
    if not pattern:
        return bool(version)
    bare = version.partition(":")[2] if ":" in version and ":" not in pattern else version
    return fnmatchcase(bare, pattern)


def _packages(stack: Mapping[str, Any], survey: Mapping[str, Any]) -> Iterator[Difference]:
    installed = survey.get("packages")
    for part, name in PACKAGED.items():
        wanted = stack.get(part)
        if not wanted:
            continue
        if installed is None:
            yield _unknown(name, "packages", str(wanted["version"]), survey, "packages")
            continue
        for package in wanted.get("packages", ()):
            version = installed.get(package["name"], "")
            if not version:
                yield Difference(name, package["name"], "missing", package["version"] or "any", "not installed")
            elif not fits(version, package["version"]):
                yield Difference(name, package["name"], "version", package["version"], f"{version} is installed")


def _loaded(stack: Mapping[str, Any], survey: Mapping[str, Any]) -> Iterator[Difference]:
    """The loaded kernel module and the libraries have to be those of the driver."""
    driver = stack.get("driver")
    if not driver:
        if survey.get("modules", {}).get("nvidia", {}).get("loaded"):
            yield Difference("driver", "kernel module", "extra", "none", "nvidia is loaded")
        return
    wanted = str(driver["version"])
    modules = survey.get("modules")
    if modules is None:
        yield _unknown("driver", "loaded module", wanted, survey, "modules")
    else:
        module = modules.get("nvidia", {})
        if not module.get("loaded"):
            yield Difference("driver", "kernel module", "loaded", wanted, "not loaded")
        elif module.get("version") != wanted:
            yield Difference("driver", "kernel module", "loaded", wanted, f"{module.get('version')} is loaded")
    library = (survey.get("driver") or {}).get("version")
    if library and library != wanted:
        yield Difference("driver", "libraries", "version", wanted, f"{library} is installed")


def _holds(stack: Mapping[str, Any], survey: Mapping[str, Any]) -> Iterator[Difference]:
    driver = stack.get("driver")
    installed = survey.get("packages")
    if not driver or installed is None:
        return
    holds = survey.get("holds")
    if holds is None:
        yield _unknown("driver", "holds", "on hold", survey, "holds")
        return
    free = [
        package["name"]
        for package in driver.get("packages", ())
        if package["name"] in installed and not any(_held(package["name"], hold) for hold in holds)
    ]
    if free:
        yield Difference("driver", ", ".join(free), "hold", "on hold", "not on hold: an upgrade may change it")


def _held(name: str, hold: str) -> bool:
    """Say whether a hold is about *name*; versionlock writes name-version, also with an epoch or patterns."""
    return fnmatchcase(name, hold) or hold.lstrip("0123456789:").startswith(name + "-") or fnmatchcase(name, hold + "*")


def _torch(stack: Mapping[str, Any], survey: Mapping[str, Any]) -> Iterator[Difference]:
    torch, environments = stack.get("torch"), survey.get("environments")
    if not torch:
        return
    if environments is None:
        yield _unknown("torch", "environment", str(torch["version"]), survey, "environments")
        return
    versions = {path: one.get("torch") for path, one in environments.items() if one.get("torch")}
    if not versions:
        yield Difference("torch", "environment", "missing", str(torch["version"]), "not installed")
    for path, version in versions.items():
        if str(version).partition("+")[0] != torch["version"]:
            yield Difference("torch", path, "version", str(torch["version"]), f"{version} is installed")


def _applied(stack: Mapping[str, Any], survey: Mapping[str, Any]) -> Iterator[Difference]:
    """What was applied last may be another stack: the tables or the inventory have changed since."""
    if "applied" not in survey:
        yield _unknown("record", "last applied", "a record", survey, "applied")
        return
    last = last_applied(survey["applied"])
    if last is None:
        yield Difference("record", "last applied", "applied", "this stack", "gpuprov applied nothing here yet")
        return
    for part in (*PACKAGED, "torch", "python"):
        wanted, before = _version(stack, part), _version(last, part)
        if wanted != before:
            name = PACKAGED.get(part, part)
            yield Difference(name, "last applied", "applied", wanted or "none", f"{before or 'none'} was applied last")


def last_applied(record: Any) -> Mapping[str, Any] | None:
    """Return the stack that a host's record (applied.json) says is in place, or None."""
    return _entry(record, -1)


def previous_applied(record: Any) -> Mapping[str, Any] | None:
    """Return the stack that was in place before the last one, or None."""
    return _entry(record, -2)


def _entry(record: Any, index: int) -> Mapping[str, Any] | None:
    entries = record.get("applied") if isinstance(record, dict) else None
    if not isinstance(entries, list) or len(entries) < -index or not isinstance(entries[index], dict):
        return None
    stack = entries[index].get("stack")
    return stack if isinstance(stack, dict) else None


def _version(stack: Mapping[str, Any], part: str) -> str:
    found = stack.get(part)
    if not found:
        return ""
    more = found.get("flavour") or found.get("variant") or ""
    return f"{found['version']} {more}".strip()


def _unknown(part: str, what: str, wanted: str, survey: Mapping[str, Any], key: str) -> Difference:
    why = (survey.get("untold") or {}).get(key, "")
    return Difference(part, what, "unknown", wanted, f"{UNKNOWN}{': ' + str(why) if why else ''}")
