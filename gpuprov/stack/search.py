"""The search for one host: candidates in order of preference, the first that keeps every rule. Pure.

A refusal's alternatives ask many times about the same parts, so what was found for them is remembered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuprov.stack import candidates
from gpuprov.stack.build import build
from gpuprov.stack.draft import Draft, Violation, broken, doubtful
from gpuprov.stack.model import Stack
from gpuprov.stack.rules_driver import RULES as DRIVER_RULES
from gpuprov.stack.rules_parts import FABRIC_RULES, TOOLKIT_RULES, TORCH_RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from gpuprov.stack.model import HostFacts, Want
    from gpuprov.stack.tables import Tables

    Rule = Callable[[Draft, HostFacts, Tables], Iterator[Violation]]


def of_host(draft: Draft, host: HostFacts, tables: Tables) -> Iterator[Violation]:
    """What no choice can mend, but to leave the GPUs alone."""
    make = doubtful if draft.alone else broken
    if host.refused_as:
        said = f"the host is {host.refused_as}, whose GPU stack gpuprov does not provision"
        yield broken("os_kind", "host", host.refused_as, "a Linux system that installs packages", said)
    for device in host.unknown_gpus:
        said = f"GPU {device} is not in the tables of {tables.as_of}; an overlay (--tables) can add it"
        if not device:
            said = "which GPUs the host has could not be told"
        yield make("gpu_unknown", "host", device or "unknown", "a GPU in the tables", said)
    for gpu in {one.device: one for one in host.gpus}.values():
        row = tables.arch(gpu.cc) if gpu.cc else None
        if row is None:
            said = f"the tables have nothing about {gpu.name} (compute capability {gpu.cc or 'unknown'})"
            yield make("gpu_unsupported", "host", gpu.cc, "a known compute capability", said)
        elif row.get("supported") is False:
            said = f"{gpu.name} ({row['arch']}) is older than what gpuprov supports"
            yield make("gpu_unsupported", "host", gpu.name, "Maxwell or newer", said)


#: All rules, in the order in which warnings are given.
EVERY = (of_host, *DRIVER_RULES, *TORCH_RULES, *TOOLKIT_RULES, *FABRIC_RULES)


class Search:
    """Finds stacks for one host."""

    def __init__(self, host: HostFacts, tables: Tables) -> None:
        self._host = host
        self._tables = tables
        self._drivers: dict[Draft, Violation | None] = {}
        self._torches: dict[tuple[str, ...], Mapping[str, Any] | Violation] = {}
        self._toolkits: dict[tuple[str, ...], str | Violation] = {}

    def attempt(self, want: Want) -> Stack | Violation:
        """Return the first combination that keeps every rule, or what the most preferred one broke."""
        host, tables = self._host, self._tables
        if want.driver == "" and host.driver is None and host.driver_by is not None:
            said = f"a driver is installed (by {host.driver_by}), and its version could not be told"
            needed = "gpuprov_stack: {driver: auto}, a branch, a version, or none"
            return broken("driver_unknown", "driver", "unknown", needed, said)
        why: list[tuple[bool, Violation]] = []
        for draft in candidates.drivers(want, host, tables):
            wrong = self._of_driver(draft)
            if wrong is not None and wrong.part == "host":  # no other driver mends it
                return wrong
            found = wrong or self._completed(draft, want)
            if isinstance(found, Stack):
                return found
            why.append((wrong is not None, found))
        return min(why, key=lambda one: one[0])[1]  # a driver that fits, with what then did not, says more

    def _of_driver(self, draft: Draft) -> Violation | None:
        if draft not in self._drivers:
            self._drivers[draft] = self._first((of_host, *DRIVER_RULES), draft)
        return self._drivers[draft]

    def _first(self, rules: Sequence[Rule], draft: Draft) -> Violation | None:
        """Return the first violation that refuses *draft*."""
        return next((v for rule in rules for v in rule(draft, self._host, self._tables) if not v.warning), None)

    def _completed(self, draft: Draft, want: Want) -> Stack | Violation:
        """Return the stack with this driver, or the first rule that its most preferred completion broke."""
        host, tables = self._host, self._tables
        draft = draft.having(fabricmanager=candidates.fabric(want, host, draft))
        wrong = self._first(FABRIC_RULES, draft)
        if wrong is not None:
            return wrong
        torch = self._torch(draft, want)
        if isinstance(torch, Violation):
            return torch
        cuda = self._toolkit(draft, want)
        if isinstance(cuda, Violation):
            return cuda
        whole = self._with_libraries(draft.having(**torch), cuda, want)
        found = [violation for rule in EVERY for violation in rule(whole, host, tables)]
        return build(whole, want, host, tables, found)

    def _torch(self, draft: Draft, want: Want) -> Mapping[str, Any] | Violation:
        """Return torch, its variant and Python, or what the most preferred of them broke; nothing if none is wanted."""
        key = (draft.driver, want.torch, want.torch_variant, want.python)
        if key not in self._torches:
            first: Violation | None = None
            for parts in candidates.torches(want, self._host, self._tables):
                wrong = self._first(TORCH_RULES, draft.having(**parts))
                if wrong is None:
                    self._torches[key] = parts
                    break
                first = first or wrong
            else:
                self._torches[key] = first or {}
        return self._torches[key]

    def _toolkit(self, draft: Draft, want: Want) -> str | Violation:
        """Return the toolkit, "" for none, or what the most preferred one broke, its libraries included."""
        place = (draft.driver, draft.kind, draft.repository)
        key = (*place, want.cuda, want.cudnn, want.nccl)
        if key not in self._toolkits:
            first: Violation | None = None
            for cuda in candidates.toolkits(want, self._host, draft, self._tables):
                wrong = self._first(TOOLKIT_RULES, self._with_libraries(draft, cuda, want))
                if wrong is None:
                    self._toolkits[key] = cuda
                    break
                first = first or wrong
            else:
                assert first is not None, "there is always a toolkit, or none, to try"
                self._toolkits[key] = first
        return self._toolkits[key]

    def _with_libraries(self, draft: Draft, cuda: str, want: Want) -> Draft:
        host, tables = self._host, self._tables
        draft = draft.having(cuda=cuda)
        return draft.having(
            cudnn=candidates.library("cudnn", want.cudnn, draft, host, tables),
            nccl=candidates.library("nccl", want.nccl, draft, host, tables),
            dcgm=candidates.addition("dcgm", want.dcgm, tables),
            container_toolkit=candidates.addition("container_toolkit", want.container_toolkit, tables),
        )
