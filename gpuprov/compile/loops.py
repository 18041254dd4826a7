"""Loops: `loop`, and the `with_*` forms as what they are short for."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpuprov.source import place_of
from gpuprov.templating.filters_lists import flatten, subelements
from gpuprov.templating.problem import TemplateProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gpuprov.source import Position


@dataclass(frozen=True, slots=True)
class Loop:
    """A task's loop as written. kind is "loop" or the name after `with_`."""

    kind: str
    value: Any
    position: Position | None
    variable: str = "item"
    index: str = ""
    label: Any = None
    pause: Any = None

    @property
    def names(self) -> frozenset[str]:
        """The names that one pass of the loop defines."""
        return frozenset([self.variable, "ansible_loop_var", *([self.index] if self.index else [])])


def loop_of(keywords: Mapping[str, Any]) -> Loop | None:
    """Return the loop of a task with *keywords*, if it has one."""
    for name, value in keywords.items():
        if name == "loop" or name.startswith("with_"):
            control = keywords.get("loop_control") or {}
            return Loop(
                kind=name.removeprefix("with_"),
                value=value,
                position=place_of(keywords, name),
                variable=str(control.get("loop_var") or "item"),
                index=str(control.get("index_var") or ""),
                label=control.get("label"),
                pause=control.get("pause"),
            )
    return None


def _loop(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TemplateProblem(f"loop needs a list, it was given {_kind(value)}")
    return value


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _items(value: Any) -> list[Any]:
    return flatten(_listed(value), levels=1, skip_nulls=False)


def _dict(value: Any) -> list[Any]:
    if not isinstance(value, dict):
        raise TemplateProblem(f"with_dict needs a mapping, it was given {_kind(value)}")
    return [{"key": k, "value": v} for k, v in value.items()]


def _lists(value: Any, name: str) -> list[list[Any]]:
    if not isinstance(value, list):
        raise TemplateProblem(f"with_{name} needs a list of lists, it was given {_kind(value)}")
    return [_listed(part) for part in value]


def _subelements(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) not in (2, 3):
        raise TemplateProblem("with_subelements needs a list, the name of the inner list and perhaps options")
    options = value[2] if len(value) == 3 else {}
    return subelements(value[0], value[1], bool(options.get("skip_missing")))


_SEQUENCE = re.compile(r"(start|end|count|stride|format)=(\S+)")


def _sequence(value: Any) -> list[Any]:
    given = dict(_SEQUENCE.findall(str(value)))
    if not given:
        short = re.fullmatch(r"(?:(\d+)-)?(\d+)(?:/(\d+))?(?::(.+))?", str(value).strip())
        if short is None:
            raise TemplateProblem(f"with_sequence {value!r}: write start=1 end=5, perhaps with stride= and format=")
        keys = ("start", "end", "stride", "format")
        given = {k: v for k, v in zip(keys, short.groups(), strict=True) if v is not None}
    start, stride = int(given.get("start", 1)), int(given.get("stride", 1))
    end = start + stride * (int(given["count"]) - 1) if "count" in given else int(given.get("end", start - 1))
    form = given.get("format", "%d")
    return [form % n for n in range(start, end + (1 if stride > 0 else -1), stride)]


#: Name after `with_` (or "loop") -> function from the rendered value to the passes.
KINDS: dict[str, Callable[[Any], list[Any]]] = {
    "loop": _loop,
    "list": _listed,
    "items": _items,
    "flattened": lambda value: flatten(_listed(value)),
    "dict": _dict,
    "indexed_items": lambda value: [[i, item] for i, item in enumerate(_items(value))],
    "nested": lambda value: [list(p) for p in itertools.product(*_lists(value, "nested"))],
    "cartesian": lambda value: [list(p) for p in itertools.product(*_lists(value, "cartesian"))],
    "together": lambda value: [list(p) for p in itertools.zip_longest(*_lists(value, "together"))],
    "subelements": _subelements,
    "sequence": _sequence,
}
#: Those that look at the controller's files: their values come from the lookup of that name.
LOOKUPS = ("fileglob", "first_found", "file", "env", "pipe", "vars", "lines")
#: How the deferred ones are written for the host.
DEFERRED = {
    "loop": "{{ %s }}",
    "list": "{{ %s }}",
    "items": "{{ [%s] | flatten(levels=2, skip_nulls=false) }}",
    "flattened": "{{ [%s] | flatten }}",
    "dict": "{{ %s | dict2items }}",
}


def expand(loop: Loop, value: Any, lookup: Callable[[str, list[Any]], list[Any]]) -> list[Any]:
    """Return the passes of *loop*, whose rendered value is *value*. Raises TemplateProblem."""
    if loop.kind in LOOKUPS:
        return lookup(loop.kind, _listed(value))
    return KINDS[loop.kind](value)


def known_kinds() -> list[str]:
    """Return every form of loop that there is, as keywords."""
    return ["loop", *(f"with_{kind}" for kind in [*KINDS, *LOOKUPS] if kind != "loop")]


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
