"""What fits every GPU of the tables on every system with every release of torch, compressed to what differs. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gpuprov.stack.gpus import by_id
from gpuprov.stack.hosts import from_short
from gpuprov.stack.model import AUTO, NONE, Stack, Want
from gpuprov.stack.search import Search
from gpuprov.stack.versions import key, series

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gpuprov.stack.model import Gpu, HostFacts
    from gpuprov.stack.tables import Tables

#: What is used of a release of torch where a variant's choice depends on the system.
DIFFERS = "differs"


@dataclass(frozen=True)
class Group:
    """GPUs that get the same everywhere: driver by system, toolkit, torch's variant by release; rules where refused."""

    gpus: tuple[Gpu, ...]
    drivers: Mapping[str, str]
    toolkit: str
    variants: Mapping[str, str]


def systems(tables: Tables) -> list[str]:
    """Return the systems that packages are installed on."""
    return [f"{r['id']} {r['ver']}" for r in tables.rows("os") if r.get("family") and r.get("supported") is not False]


def releases(tables: Tables) -> list[str]:
    """Return torch's releases by their first two numbers, newest first."""
    return list(dict.fromkeys(series(version) for version in tables.newest_first("torch")))


def sweep(tables: Tables) -> list[Group]:
    """Return the groups, oldest compute capability first. About 15,000 hosts are resolved, in seconds."""
    alike: dict[tuple[object, ...], list[Gpu]] = {}
    for device in tables.rows("gpus"):
        gpu = by_id(tables, device)
        if gpu is not None:
            listed = (gpu.min_branch, tuple(gpu.open_first.items()), gpu.absent_in)
            alike.setdefault((gpu.cc, gpu.arch, gpu.fabric, *listed), []).append(gpu)
    merged: dict[tuple[object, ...], list[Gpu]] = {}
    found: dict[tuple[object, ...], Group] = {}
    for gpus in alike.values():
        group = _group(gpus[0], tables)
        same = (gpus[0].arch, tuple(group.drivers.items()), group.toolkit, tuple(group.variants.items()))
        merged.setdefault(same, []).extend(gpus)
        found[same] = group
    groups = [replace(found[same], gpus=tuple(gpus)) for same, gpus in merged.items()]
    return sorted(groups, key=lambda group: (_capability(group.gpus[0]), group.gpus[0].device))


def _capability(gpu: Gpu) -> tuple[int, ...]:
    return key(gpu.cc) if gpu.cc else (999,)


def _group(gpu: Gpu, tables: Tables) -> Group:
    drivers: dict[str, str] = {}
    toolkits: set[str] = set()
    variants: dict[str, set[str]] = {}
    for system in systems(tables):
        search = Search(_host(gpu, system, tables), tables)
        found = search.attempt(Want(torch=NONE))
        if not isinstance(found, Stack) or found.driver is None:
            drivers[system] = found.rule if not isinstance(found, Stack) else NONE
            continue
        drivers[system] = f"{found.driver.branch} {found.driver.flavour}"
        toolkits.add(_toolkit(search))
        for release, variant in _variants(search, tables):
            variants.setdefault(release, set()).add(variant)
    single = {release: said.pop() if len(said) == 1 else DIFFERS for release, said in variants.items()}
    return Group((gpu,), drivers, " or ".join(sorted(toolkits - {""}, key=key)), single)


def _host(gpu: Gpu, system: str, tables: Tables) -> HostFacts:
    return replace(from_short(tables, {"os": system}, []), gpus=(gpu,))


def _toolkit(search: Search) -> str:
    found = search.attempt(Want(torch=NONE, cuda=AUTO))
    return series(found.cuda.version) if isinstance(found, Stack) and found.cuda is not None else ""


def _variants(search: Search, tables: Tables) -> Iterator[tuple[str, str]]:
    for release in releases(tables):
        found = search.attempt(Want(torch=release, python=AUTO))
        yield release, found.torch.variant if isinstance(found, Stack) and found.torch is not None else ""
