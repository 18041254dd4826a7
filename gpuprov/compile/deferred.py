"""What has to wait for a result on the host, and what travels with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from gpuprov.compile.magic import CONTROLLER_NAMES, SITUATION_NAMES
from gpuprov.compile.stale import names_stale
from gpuprov.source import plain
from gpuprov.templating.names import NONE, Names, names_of, text_names
from gpuprov.templating.problem import TemplateProblem
from gpuprov.templating.values import OMIT, has_template

if TYPE_CHECKING:
    from gpuprov.templating.renderer import Renderer

#: Texts that can stand between quotes as they are.
_PLAIN = re.compile(r"[\w ./:,=+@-]*", re.ASCII)
#: Names that get their value on the host, whatever the playbook says.
_ON_HOST = frozenset(name for name in SITUATION_NAMES if name.startswith("ansible_failed"))


class Deferral:
    """Decides for one host what is known now. *results* are the names that its tasks register or set."""

    def __init__(self, results: frozenset[str], facts: Mapping[str, Any]) -> None:
        self.results = results | _ON_HOST
        self._facts = facts
        self._known: dict[int, tuple[Any, Names]] = {}

    def reach(self, names: Names, renderer: Renderer) -> Names:
        """Return *names* and everything that the variables among them name, and so on."""
        found = names
        seen: set[str] = set()
        queue = list(names.all)
        while queue:
            name = queue.pop()
            if name in seen:
                continue
            seen.add(name)
            below = self._below(name, renderer)
            if below is not NONE:
                found = found | below
                queue += below.all
        return found

    def _below(self, name: str, renderer: Renderer) -> Names:
        try:
            value, final = renderer.raw(name)
        except KeyError:
            return NONE
        if final or isinstance(value, int | float | bool | None):
            return NONE
        if isinstance(value, str):
            return text_names(str(value)) if "{" in value else NONE
        known = self._known.get(id(value))
        if known is None:
            known = self._known[id(value)] = (value, names_of(value))
        return known[1]

    def waits(self, reach: Names, stale: frozenset[str], passes: frozenset[str] = frozenset()) -> bool:
        """Say whether something with this *reach* waits for the host. *passes*: names of a deferred loop."""
        names = reach.all
        if not self.results.isdisjoint(names) or not passes.isdisjoint(names):
            return True
        return bool(stale) and names_stale(reach.facts, names, stale)

    def carried(self, names: Names, renderer: Renderer, stale: frozenset[str], skip: frozenset[str]) -> dict[str, Any]:
        """Return the variables that deferred templates with these *names* need on the host.

        What is known is rendered here; what waits travels as it is, with what it names in turn.
        Names in *skip* are the host's own. Raises TemplateProblem for what only the controller has.
        """
        _refuse_controller_only(names)
        found: dict[str, Any] = {}
        queue = sorted(names.all - skip)
        while queue:
            name = queue.pop()
            if name in found:
                continue
            try:
                value, final = renderer.raw(name)
            except KeyError:
                continue  # a result, or undefined, which `is defined` may ask for
            if final and (name == "ansible_facts" or name.removeprefix("ansible_") in self._facts):
                continue  # the host has its facts
            below = NONE if final else self._below(name, renderer)
            found[name] = self._carried_value(name, value, below, renderer, stale, skip)
            if found[name] is value and below is not NONE:
                found[name] = plain(value)
                _refuse_controller_only(below)
                queue += sorted(below.all - skip)
        return dict(sorted(found.items()))

    def _carried_value(
        self, name: str, value: Any, below: Names, renderer: Renderer, stale: frozenset[str], skip: frozenset[str]
    ) -> Any:
        """Return *value* itself when the host has to render it, else what it is as a template."""
        if below is not NONE and self.waits(self.reach(below, renderer), stale, skip):
            return value
        try:
            return quoted(renderer.value(name))
        except TemplateProblem as problem:
            if problem.code != "undefined" or below is NONE:
                raise
            return value  # the host may never ask for it


def _refuse_controller_only(reach: Names) -> None:
    for kind, name in sorted(reach.controller):
        raise TemplateProblem(
            f"{kind} {name} works on the controller only, and this waits for a result on the host",
            code="controller-only",
            token=name,
            hint="give its value to a variable of its own, which is rendered before the run",
        )
    for name in sorted(CONTROLLER_NAMES & reach.all):
        raise TemplateProblem(
            f"{name} is known on the controller only, and this waits for a result on the host",
            code="controller-only",
            token=name,
            hint="give what is needed of it to a variable of its own, which is rendered before the run",
        )


def quoted(value: Any) -> Any:
    """Return a rendered value as a template that gives exactly it, and as plain JSON."""
    if isinstance(value, str):
        return "{{ " + text_literal(value) + " }}" if has_template(value) else str(value)
    if isinstance(value, Mapping):
        return {quoted(k): quoted(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [quoted(v) for v in value]
    return "{{ omit }}" if value is OMIT else value


def text_literal(text: str) -> str:
    """Return an expression that gives *text*, whatever is in it, wherever a template may be."""
    if _PLAIN.fullmatch(text):
        return f"'{text}'"
    return f"('{quote(text)}' | urldecode)"


def expression_of(value: Any) -> str:
    """Return an authored value as one expression without braces. Raises TemplateProblem."""
    if isinstance(value, str):
        return _text_expression(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{expression_of(k)}: {expression_of(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(expression_of, value)) + "]"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return repr(value)


def _text_expression(text: str) -> str:
    if not has_template(text):
        return text_literal(text)
    stripped = text.strip()
    inner = stripped[2:-2]
    if stripped.startswith("{{") and stripped.endswith("}}") and "{{" not in inner and "}}" not in inner:
        return "(" + inner.strip("-+ ") + ")"
    raise TemplateProblem(
        "an item of a loop that waits for a result on the host is one {{ expression }} or plain text",
        source=text,
        hint="join texts inside the braces: {{ a ~ '-' ~ b }}",
    )
