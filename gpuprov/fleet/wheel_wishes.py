"""What a wheelhouse is to hold: read off the command line, or off the plans of an inventory's hosts."""

from __future__ import annotations

import platform
import re
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gpuprov.agent import requirement
from gpuprov.agent.modules.pip_install import FAMILY
from gpuprov.errors import Problem, SourceErrors
from gpuprov.fleet import locks, wheel_request
from gpuprov.fleet.managed_python import PythonSources
from gpuprov.fleet.pip_python import USUAL_GLIBC, Target
from gpuprov.fleet.pip_tool import Sources
from gpuprov.source import place_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuprov.fleet.locks import Request

KEYS = ("torch", "torchvision", "torchaudio", "variant", "packages", "python", "managed", "machine", "glibc")
_PYTHON = re.compile(r"3\.\d{1,2}")
_VARIANT = re.compile(r"auto|cpu|cu\d{3}")


@dataclass(frozen=True, slots=True)
class Wish:
    """One request and where its packages may come from."""

    request: Request
    sources: Sources = field(default_factory=Sources)
    cpu_index_url: str = ""
    pythons: PythonSources = field(default_factory=PythonSources)


def of_stack(stack: Mapping[str, Any]) -> Request:
    """Return the request that `--stack` describes. Raises SourceErrors with everything that is wrong. Pure."""
    problems: list[Problem] = []

    def wrong(key: str, message: str, hint: str = "") -> None:
        problems.append(Problem("stack", message, place_of(stack, key), hint))

    for key in stack:
        if key not in KEYS:
            wrong(key, f"{key} is not known in --stack; known are {', '.join(KEYS)}")
    python = _python(stack, wrong)
    variant = str(stack.get("variant") or "auto")
    if not _VARIANT.fullmatch(variant):
        wrong("variant", f"variant {variant} is none of auto, cpu, cu130 (and other cuNNN)")
    names = _names(stack, wrong)
    glibc = str(stack.get("glibc") or USUAL_GLIBC)
    if not re.fullmatch(r"2\.\d+", glibc):
        wrong("glibc", f"glibc {glibc} is not a version such as 2.28")
    if problems:
        raise SourceErrors(problems)
    target = Target(python, str(stack.get("machine") or platform.machine()), locks.glibc_class(glibc))
    return locks.request(names, target, "" if variant == "auto" else variant, stack.get("managed") is True)


def _python(stack: Mapping[str, Any], wrong: Any) -> str:
    python = stack.get("python")
    if python is None:
        wrong("", "--stack needs python", "as in --stack '{torch: 2.13.0, python: \"3.11\"}'")
    elif isinstance(python, float) or not _PYTHON.fullmatch(str(python)):
        hint = 'write it in quotes, as in "3.10"' if isinstance(python, float) else 'as in "3.12"'
        wrong("python", f"python {python} is not a version as text", hint)
    return str(python)


def _names(stack: Mapping[str, Any], wrong: Any) -> list[str]:
    packages = stack.get("packages") or []
    if not isinstance(packages, list):
        wrong("packages", "packages is not a list", "as in packages: [nvidia-ml-py, numpy]")
        packages = []
    names = [f"{name}=={stack[name]}" for name in FAMILY if stack.get(name) is not None]
    names += [str(one) for one in packages]
    for name in names:
        try:
            requirement.parse(name)
        except ValueError as error:
            wrong("packages", f"not a package: {error}", 'as in "numpy>=2"')
    if not names:
        wrong("", "--stack names no package", "torch, or packages")
    return names


class Recorder:
    """Stands in for the wheelhouse while plans are compiled, and notes what would be asked for. Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._wishes: dict[Request, Wish] = {}

    def resolve(self, args: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Note one pip task of one host. Raises RefusedError for what can be no wheel."""
        if args.get("source") is None or args.get("state") == "absent" or not args.get("virtualenv"):
            return {}, {}
        names = wheel_request.names_of(args)
        if names:
            wish = _wish(args, facts, names)
            with self._guard:
                self._wishes.setdefault(wish.request, wish)
        return {}, {}

    def wishes(self) -> list[Wish]:
        """Return what was noted, in order."""
        return sorted(self._wishes.values(), key=lambda wish: str(wish.request))


def _wish(args: Mapping[str, Any], facts: Mapping[str, Any], names: list[str]) -> Wish:
    target = wheel_request.target_of(args, facts)
    target = replace(target, glibc=locks.glibc_class(target.glibc or USUAL_GLIBC))
    variant = str(args.get("variant") or "") or ("" if wheel_request.has_gpu(facts) else "cpu")
    given = {name: str(args.get(name) or "") for name in ("index_url", "find_links", "torch_index_url")}
    return Wish(
        locks.request(names, target, variant, bool(args.get("managed_python"))),
        Sources(**given),
        str(args.get("cpu_index_url") or ""),
        PythonSources(str(args.get("python_mirror") or ""), str(args.get("python_downloads") or "")),
    )
