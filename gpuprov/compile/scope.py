"""Which names have a value where: for every host, without any host's facts."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from gpuprov.compile.magic import ALL_NAMES
from gpuprov.source import place_of
from gpuprov.templating.names import text_names
from gpuprov.templating.problem import TemplateProblem
from gpuprov.templating.values import has_template

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gpuprov.compile.prepare import Prepared, PreparedPlay
    from gpuprov.compile.problems import Problems
    from gpuprov.model import Inventory
    from gpuprov.source import Position

#: How many hosts are named before the rest is counted.
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Family:
    """Hosts of a play with the same variables, as far as names and templates go. results: see Deferral."""

    hosts: tuple[str, ...]
    variables: Mapping[str, Any]
    results: frozenset[str]


def families(inventory: Inventory, plays: Iterable[PreparedPlay], play: PreparedPlay) -> list[Family]:
    """Return the hosts of *play* in families: one of each is looked at for all."""
    found: dict[Any, list[str]] = {}
    for name in play.members:
        variables = inventory.hosts[name].variables
        templates = frozenset((n, id(v.value)) for n, v in variables.items() if has_template(v.value))
        defines = frozenset().union(*(p.defines for p in plays if name in p.hosts))
        found.setdefault((frozenset(variables), templates, defines), []).append(name)
    return [
        Family(tuple(names), {n: v.value for n, v in inventory.hosts[names[0]].variables.items()}, key[2])
        for key, names in found.items()
    ]


@dataclass(frozen=True, slots=True)
class Scope:
    """The names that one task sees. guarded are those that its `when` asks for with `is defined`."""

    prepared: Prepared
    play: PreparedPlay
    guarded: frozenset[str]

    def find(self, name: str, family: Family) -> tuple[bool, Any, Mapping[str, Any] | None]:
        """Return (whether *name* has a value, the value when it is known, the mapping that it is from)."""
        prepared = self.prepared
        if name in self.guarded or name in ALL_NAMES or name in family.results or name.startswith("ansible_"):
            return True, None, None
        if prepared.loop is not None and name in prepared.loop.names:
            return True, None, None
        layers = self.play.layers(prepared.role)
        for layer in (prepared.variables, layers.extra, layers.above, family.variables, layers.below):
            if name in layer:
                return True, layer[name], layer
        return False, None, None

    def names(self, family: Family) -> set[str]:
        """Return all names that could have been meant."""
        layers = self.play.layers(self.prepared.role)
        loop = self.prepared.loop.names if self.prepared.loop else frozenset()
        variables = (self.prepared.variables, layers.extra, layers.above, family.variables, layers.below)
        return {*ALL_NAMES, *family.results, *loop, *(name for layer in variables for name in layer)}


@dataclass(slots=True)
class Undefined:
    """Collects names without a value, each once, with all hosts that lack it."""

    problems: Problems
    found: dict[tuple[str, Position | None], dict[str, Any]] = field(default_factory=dict)

    def check(
        self,
        names: Iterable[str],
        scope: Scope,
        hosts: list[Family],
        text: str,
        at: Position | None,
        path: str = "",
    ) -> None:
        """Note those of *names*, needed by *text*, that have no value, or whose value needs one that has none."""
        for family in hosts:
            for name in sorted(names):
                self._one(name, scope, family, text, at, path, ())

    def _one(
        self,
        name: str,
        scope: Scope,
        family: Family,
        text: str,
        at: Position | None,
        path: str,
        via: tuple[str, ...],
    ) -> None:
        known, value, layer = scope.find(name, family)
        if not known:
            self._note(name, scope, family, text, at, path, via)
            return
        if name in via or layer is None or not has_template(value):
            return
        for source, place in texts(value, place_of(layer, name)):
            try:
                needed = text_names(str(source)).needed
            except TemplateProblem:
                continue  # reported where the variable is
            for below in sorted(needed):
                self._one(below, scope, family, source, place or at, "" if place else path, (*via, name))

    def _note(
        self,
        name: str,
        scope: Scope,
        family: Family,
        text: str,
        at: Position | None,
        path: str,
        via: tuple[str, ...],
    ) -> None:
        place = self.problems.place_in_file(path, name, None) if path else self.problems.place(text, at, name)
        entry = self.found.setdefault((name, place), {"hosts": {}, "via": via, "names": set(), "used": at})
        entry["hosts"].update(dict.fromkeys(family.hosts))
        entry["all"] = len(scope.play.members)
        entry["names"] |= scope.names(family)
        entry["path"] = path

    def report(self) -> None:
        """Turn what was noted into problems."""
        for (name, place), entry in self.found.items():
            hosts = list(entry["hosts"])
            near = get_close_matches(name, sorted(entry["names"]), 1)
            context = [f"on the way: variable {v}" for v in entry["via"]]
            if entry["path"]:
                context.append(f"used by {entry['used']}")
            if len(hosts) < entry["all"]:
                context.append(f"on {_listed(hosts)}")
            hint = f"did you mean {near[0]}?" if near else "give it a value, or write default() or `is defined`"
            self.problems.add("undefined", f"{name} is undefined", place, hint, context)


def texts(value: Any, at: Position | None) -> Iterator[tuple[str, Position | None]]:
    """Yield every text with a template in *value*, deep, with a place for it."""
    if isinstance(value, str):
        if has_template(value):
            yield value, at
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from texts(key, at)
            yield from texts(item, place_of(value, key) or at)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from texts(item, place_of(value, index) or at)


def _listed(hosts: list[str]) -> str:
    more = len(hosts) - _SHOWN
    return ", ".join(hosts[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
