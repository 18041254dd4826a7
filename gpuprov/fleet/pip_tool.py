"""The controller's pip: which one fits, what it would install for a host, and fetching it.

pip reads its own configuration and environment (indexes, proxies, certificates), so whatever
works for the admin by hand works here.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gpuprov.agent import requirement
from gpuprov.agent.modules.pip_install import FAMILY
from gpuprov.errors import RefusedError
from gpuprov.fleet.pip_python import USUAL_GLIBC, Target, choose, pip_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

_TIMEOUT_S = 3600
#: How often the closure of dependencies is looked at again when pip evaluates conditions for another Python.
_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Sources:
    """Where packages come from, beside what pip is configured with.

    torch_index_url: where torch, torchvision and torchaudio come from with all that they need, and
    nothing else: a second index beside the first would let pip take the build with the highest version.
    """

    index_url: str = ""
    find_links: str = ""
    torch_index_url: str = ""

    def words(self) -> list[str]:
        """Return pip's options for all packages but torch's."""
        options = {"--index-url": self.index_url, "--find-links": self.find_links}
        return [word for name, value in options.items() if value for word in (name, value)]

    def of_torch(self) -> Sources:
        """Return the sources of torch and what it needs."""
        return Sources(self.torch_index_url or self.index_url, self.find_links)


@dataclass(frozen=True, slots=True)
class Found:
    """One package that pip chose. needs are its dependencies as its metadata states them.

    of_torch: it came from the index that torch has for itself. url: where pip would fetch it.
    """

    name: str
    version: str
    sha256: str
    needs: tuple[str, ...] = ()
    of_torch: bool = False
    url: str = ""


@dataclass(frozen=True, slots=True)
class Pin:
    """One wheel, exactly. of_torch: it came from the index that torch has for itself."""

    name: str
    version: str
    sha256: str
    of_torch: bool = False


class PipTool:
    """pip of one interpreter, for one kind of host."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._interpreter = choose(target)
        self._foreign = not self._interpreter.fits(target)

    def resolve(self, names: Sequence[str], sources: Sources, scratch: str) -> list[Found]:
        """Return everything that *names* need on the target. Fetches metadata only. Raises RefusedError."""
        family = [name for name in names if requirement.parse(name).name in FAMILY]
        if not sources.torch_index_url or not family:
            return self._closure(names, sources, scratch)
        others = [name for name in names if name not in family]
        found = self._closure(family, sources.of_torch(), scratch, constraints=_constraints(others))
        first = [replace(one, of_torch=True) for one in found]
        if not others:
            return first
        have = {one.name for one in first}
        pins = [f"{one.name} @ {one.url}" for one in first]  # the very files: their index is not asked again
        second = self._closure(others, sources, scratch, constraints=pins)
        return [*first, *(one for one in second if one.name not in have)]

    def _closure(
        self, names: Sequence[str], sources: Sources, scratch: str, constraints: Sequence[str] = ()
    ) -> list[Found]:
        """Return *names* with all their dependencies, within *constraints*."""
        more: list[str] = []
        if constraints:
            path = os.path.join(scratch, "constraints.txt")
            with open(path, "w", encoding="utf-8") as f:
                f.writelines(one + "\n" for one in constraints)
            more = ["--constraint", path]
        wanted = list(names)
        for _ in range(_ROUNDS):
            found = self._report(wanted, sources, scratch, *more)
            lacking = _lacking(found, self.target) if self._foreign else []
            if not lacking:
                return found
            wanted += lacking
        raise RefusedError(
            f"the dependencies of {', '.join(names)} for {self.target} do not come to an end",
            hint=f"install Python {self.target.python} with pip on this machine, or use gpuprov_torch_source: host",
            code="wheels-unresolvable",
        )

    def offers(self, names: Sequence[str], index_url: str, scratch: str) -> bool:
        """Say whether *index_url* answers and has one of *names* for the target."""
        for name in names:
            try:  # alone and with few tries: an index that does not answer costs pip minutes for each dependency
                self._report([name], Sources(index_url), scratch, "--no-deps", "--retries", "1")
            except RefusedError:
                continue
            return True
        return False

    def download(self, found: Sequence[Found], sources: Sources, folder: str) -> None:
        """Put the wheels of *found* into *folder*; those with a known hash are checked. Raises RefusedError."""
        for of_torch, where in ((True, sources.of_torch()), (False, sources)):
            names = [f"{one.name}=={one.version}" for one in found if one.of_torch is of_torch]
            if names:
                self._pip(["download", "--no-deps", "--dest", folder, *self._common(where), *names], names, where)

    def download_pinned(self, pins: Sequence[Pin], sources: Sources, folder: str, scratch: str) -> None:
        """Put exactly the wheels of *pins* into *folder*, each checked by pip. Raises RefusedError."""
        for of_torch, where in ((True, sources.of_torch()), (False, sources)):
            some = [pin for pin in pins if pin.of_torch is of_torch]
            if not some:
                continue
            path = os.path.join(scratch, "pins.txt")
            with open(path, "w", encoding="utf-8") as f:
                f.writelines(f"{pin.name}=={pin.version} --hash=sha256:{pin.sha256}\n" for pin in some)
            words = ["download", "--no-deps", "--require-hashes", "--dest", folder, *self._common(where)]
            self._pip([*words, "--requirement", path], [f"{pin.name}=={pin.version}" for pin in some], where)

    def _report(self, names: Sequence[str], sources: Sources, scratch: str, *more: str) -> list[Found]:
        report = os.path.join(scratch, "report.json")
        words = ["install", "--dry-run", "--ignore-installed", "--report", report, *more]
        words.append("--use-feature=fast-deps")  # an index without metadata files: reads the end of each wheel
        words += ["--target", os.path.join(scratch, "target")] if self._foreign else []
        self._pip([*words, *self._common(sources), *names], names, sources)
        with open(report, encoding="utf-8") as f:
            items = json.load(f)["install"]
        return [_found(item) for item in items]

    def _common(self, sources: Sources) -> list[str]:
        words = ["--quiet", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", *sources.words()]
        if self._foreign:
            words += ["--implementation", "cp", "--python-version", self.target.python]
            words += [word for tag in platforms(self.target) for word in ("--platform", tag)]
        return words

    def _pip(self, words: Sequence[str], names: Sequence[str], sources: Sources) -> None:
        import subprocess

        argv = [self._interpreter.path, "-m", "pip", *words]
        env = pip_environment()
        if sources.index_url:  # an index that is named is alone: one that is configured beside it would win by version
            env["PIP_EXTRA_INDEX_URL"] = sources.index_url
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, env=env)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RefusedError(f"pip on this machine failed: {error}", code="wheels-unresolvable") from None
        if done.returncode != 0:
            raise _failure(done.stderr or done.stdout, names, self.target)


def _constraints(names: Sequence[str]) -> list[str]:
    """Return what *names* say of versions, for resolving something else beside them."""
    parsed = [requirement.parse(name) for name in names]
    return [one.name + ",".join(op + version for op, version in one.specifiers) for one in parsed if one.specifiers]


def platforms(target: Target) -> list[str]:
    """Return the platform tags that run on *target*, best first."""
    major, minor = (int(part) for part in (target.glibc or USUAL_GLIBC).split(".")[:2])
    machine = target.machine
    tags = [f"manylinux_{major}_{number}_{machine}" for number in range(minor, 16, -1)]
    tags.append(f"manylinux2014_{machine}")
    if machine == "x86_64":
        tags += [f"manylinux_{major}_12_{machine}", f"manylinux2010_{machine}", f"manylinux_{major}_5_{machine}"]
        tags.append(f"manylinux1_{machine}")
    return [*tags, f"linux_{machine}"]


def _found(item: dict[str, Any]) -> Found:
    meta, download = item["metadata"], item["download_info"]
    digest = download.get("archive_info", {}).get("hashes", {}).get("sha256", "")
    needs = tuple(meta.get("requires_dist", ()))
    return Found(requirement.normalise(meta["name"]), meta["version"], digest, needs, url=download["url"])


def _lacking(found: Sequence[Found], target: Target) -> list[str]:
    """Return dependencies that hold on the target and that pip, thinking of its own Python, left out."""
    have = {one.name for one in found}
    variables = requirement.environment(target.python, target.machine)
    lacking = []
    for one in found:
        for text in one.needs:
            need = requirement.parse(text)
            if need.name not in have and requirement.holds(need.marker, variables):
                lacking.append(need.name + ",".join(op + version for op, version in need.specifiers))
    return sorted(set(lacking))


def _failure(text: str, names: Sequence[str], target: Target) -> RefusedError:
    errors = [line.partition("ERROR: ")[2] for line in text.splitlines() if line.startswith("ERROR: ")]
    said = errors[0] if errors else (text.strip().splitlines() or ["it said nothing"])[-1]
    shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    if re.search("No matching distribution|Could not find a version", text):
        return RefusedError(
            f"no wheel of {shown} for {target}: {said[:300]}",
            hint="check name, version and index (gpuprov_torch_index, gpuprov_torch_find_links)",
            code="wheels-unresolvable",
        )
    return RefusedError(
        f"pip on this machine could not fetch {shown} for {target}: {said[:300]}",
        hint=f"see what it says by hand: python3 -m pip download {' '.join(names[:4])}",
        code="wheels-unresolvable",
    )
