"""The resolver: candidates in order of preference, the first that keeps every rule; else why not, and what instead.

Pure: the same input gives the same output.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

from gpuprov.stack.build import in_words
from gpuprov.stack.hosts import short_form
from gpuprov.stack.model import AUTO, NONE, Alternative, Refusal, Stack, Want
from gpuprov.stack.search import Search

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gpuprov.stack.model import HostFacts
    from gpuprov.stack.tables import Tables

#: How many alternatives a refusal offers at most.
OFFERED = 3
#: What may be given up, in this order, to find an alternative.
_RELAXED: tuple[dict[str, str], ...] = (
    {"torch": AUTO},
    {"python": AUTO},
    {"torch_variant": AUTO},
    {"flavour": AUTO},
    {"driver": AUTO},
    {"cuda": AUTO},
    {"repository": AUTO},
    {"repository": "distribution"},
    {"fabricmanager": AUTO},
    {"cudnn": AUTO},
    {"nccl": AUTO},
)
#: What is given up altogether, when nothing else helps.
_DROPPED: tuple[dict[str, str], ...] = (
    *({part: NONE} for part in ("cuda", "torch", "cudnn", "nccl", "fabricmanager", "dcgm", "container_toolkit")),
    {"driver": NONE},
    {"torch_variant": "cpu", "driver": NONE},
)
#: What is left when the GPU cannot be served: a torch without CUDA, and nothing that touches the GPU.
_LEFT_ALONE: tuple[dict[str, str], ...] = (
    {
        "torch_variant": "cpu",
        "driver": NONE,
        "fabricmanager": AUTO,
        **dict.fromkeys(("cuda", "cudnn", "nccl", "dcgm", "container_toolkit"), NONE),
    },
)
#: Wishes in other words for the same.
_MEANS = {
    **dict.fromkeys(("torch", "torch_variant", "flavour", "repository", "fabricmanager"), AUTO),
    **dict.fromkeys(("cuda", "cudnn", "nccl", "dcgm", "container_toolkit"), NONE),
}


def resolve(want: Want, host: HostFacts, tables: Tables) -> Stack | Refusal:
    """Return the stack for *host*, or why none fits with alternatives that were found to."""
    search = Search(host, tables)
    found = search.attempt(want)
    if isinstance(found, Stack):
        return found
    return Refusal(
        rule=found.rule,
        found=found.found,
        needed=found.needed,
        message=found.message,
        tables=tables.as_of,
        alternatives=tuple(_alternatives(want, search, beyond=found.part == "host")),
        source=found.source(tables),
    )


def _alternatives(want: Want, search: Search, *, beyond: bool) -> Iterator[Alternative]:
    """Yield other wishes that were found to be possible: those that give up one thing first, then two, three.

    beyond: it is the host that is in the way, so that only giving up something altogether can help.
    """
    seen: set[str] = set()
    for changes, more in _tried(want, beyond):
        if more and seen:  # less needs to be given up
            return
        other = replace(want, **changes)
        found = search.attempt(other)
        if not isinstance(found, Stack) or (text := in_words(found)) in seen:
            continue
        if found.torch is None and found.driver is None and want.torch != NONE:
            continue  # giving up everything is no way out
        seen.add(text)
        words = ", ".join(f"{name}: {value}" for name, value in changes.items())
        yield Alternative(other, found, f"gpuprov_stack: {{{words}}} gives {text}")
        if len(seen) == OFFERED:
            return


def _tried(want: Want, beyond: bool) -> Iterator[tuple[dict[str, str], bool]]:
    """Yield what to change in *want*, the least first, and whether more is given up from there on."""
    relaxed, dropped, alone = (list(_changing(some, want)) for some in (_RELAXED, _DROPPED, _LEFT_ALONE))
    levels: list[tuple[dict[str, str], list[dict[str, str]], int]] = [
        *(({}, relaxed, size) for size in (1, 2, 3) if not beyond),
        *(({}, [*relaxed, *dropped], size) for size in (1, 2)),
        *((alone[0], relaxed, size) for size in (0, 1, 2, 3) if alone),
    ]
    for always, given_up, size in levels:
        first = True
        for some in combinations(given_up, size):
            names = [name for one in (always, *some) for name in one]
            if len(set(names)) == len(names) > 0:
                yield {name: value for one in (always, *some) for name, value in one.items()}, first
                first = False


def _changing(some: Sequence[dict[str, str]], want: Want) -> Iterator[dict[str, str]]:
    """Yield the changes that change something, and add no part that nobody wants."""
    for one in some:
        found = {}
        for name, value in one.items():
            wanted = getattr(want, name) or _MEANS.get(name, "")
            adds = wanted == NONE and name not in ("driver", "fabricmanager")
            idle = want.torch == NONE and name in ("torch_variant", "python")
            if value != wanted and not adds and not idle:
                found[name] = value
        if found:
            yield found


__all__ = ["resolve", "short_form"]
