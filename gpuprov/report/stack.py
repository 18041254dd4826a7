"""Stacks and refusals as a person reads them: hosts with the same one together. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gpuprov.load.ranges import fold
from gpuprov.report.ink import Ink, plural, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gpuprov.results import HostReport

#: Part of a stack -> what it is called, in the order in which it is shown.
_PARTS = {
    "driver": "driver",
    "fabricmanager": "fabric manager",
    "cuda": "CUDA toolkit",
    "cudnn": "cuDNN",
    "nccl": "NCCL",
    "dcgm": "DCGM",
    "container_toolkit": "container toolkit",
    "torch": "torch",
}
#: What the summary leaves to `gpuprov explain`.
_NOT_COMPARED = ("reasons", "warnings", "host")


def summary(stack: Mapping[str, Any]) -> str:
    """Return a stack (its JSON) as one line: the parts that it has."""
    said = [f"{name} {_version(part, stack[part])}" for part, name in _PARTS.items() if stack.get(part)]
    repository = stack.get("repository") or {}
    if repository.get("name") and stack.get("driver"):
        said[0] += f", packages of {repository['name']}"
    return "; ".join(said) or "nothing"


def _version(name: str, part: Mapping[str, Any]) -> str:
    if name == "driver":
        return f"{part['version']} ({part['flavour']} kernel modules)"
    if name == "torch":
        return f"{part['version']} ({part['variant']})"
    return str(part["version"])


def render_stacks(hosts: Iterable[HostReport], *, ink: Ink | None = None, width: int = 120) -> str:
    """Return the fleet grouped by resolved stack, then by refusal; "" when no host asked for one."""
    ink = ink or Ink(False)
    hosts = list(hosts)
    lines = [
        *_groups([h for h in hosts if h.stack], "stack", ink, width),
        *_groups([h for h in hosts if h.refusal], "refusal", ink, width),
    ]
    return "\n".join(lines)


def _groups(hosts: list[HostReport], kind: str, ink: Ink, width: int) -> Iterator[str]:
    found: dict[str, list[HostReport]] = {}
    for host in hosts:
        found.setdefault(_same(getattr(host, kind)), []).append(host)
    for group in sorted(found.values(), key=len, reverse=True):
        names = f"{fold(h.host for h in group)}  ({plural(len(group), 'host')})"
        yield ink("bold", names) if kind == "stack" else ink("refused", f"{names}  refused")
        yield from _stack_lines(group[0].stack, width) if kind == "stack" else _refusal_lines(group[0].refusal, width)


def _same(value: Mapping[str, Any]) -> str:
    return json.dumps({k: v for k, v in value.items() if k not in _NOT_COMPARED}, sort_keys=True, default=str)


def _stack_lines(stack: Mapping[str, Any], width: int) -> Iterator[str]:
    yield "  " + wrapped(summary(stack), width, "    ", 2)
    for warning in stack.get("warnings", ()):
        yield "  " + wrapped(f"warning: {warning}", width, "    ", 2)


def _refusal_lines(refusal: Mapping[str, Any], width: int) -> Iterator[str]:
    yield "  " + wrapped(str(refusal.get("message", "")), width, "    ", 2)
    yield f"  rule {refusal.get('rule')}, tables of {refusal.get('tables')}"
    for other in refusal.get("alternatives", ()):
        yield "  " + wrapped(f"instead: {other.get('say', '')}", width, "    ", 2)
