"""Values that go into templates and come out of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

from jinja2 import Undefined

from gpuprov.templating.problem import TemplateProblem

#: Texts that mean no where a condition gives a text (`-e flag=false` makes one).
FALSE_WORDS = frozenset(["", "no", "off", "0", "false", "f", "n", "0.0"])
_LEAVES = frozenset([str, int, float, bool, type(None)])


class Omit:
    """The type of `omit`: whatever is this value is left out of its mapping, list or arguments."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "omit"

    def __str__(self) -> str:
        raise TemplateProblem("omit can only be a whole value, not a part of a text")


OMIT = Omit()


def has_template(value: Any) -> bool:
    """Say whether rendering *value* could change it. Looks into lists and mappings."""
    if isinstance(value, str):
        return "{" in value and ("{{" in value or "{%" in value or "{#" in value)
    if isinstance(value, dict):
        return any(has_template(v) or has_template(k) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return any(map(has_template, value))
    return value is OMIT


def as_text(value: Any) -> str:
    """Return *value* as a part of a text: nothing for None, Python's spelling for the rest."""
    return "" if value is None else value if type(value) is str else str(value)


def truth(value: Any) -> bool:
    """Return what *value* means as a condition.

    A text that spells a boolean means that boolean, so that `-e flag=false` is false; any
    other value counts as Python counts it (empty is false).
    """
    if isinstance(value, str):
        return value.strip().lower() not in FALSE_WORDS
    if isinstance(value, Undefined) or value is OMIT:
        fail_undefined(value)
    return bool(value)


def fail_undefined(value: Any) -> None:
    """Raise the error that using undefined *value* means."""
    str(value)
    raise TemplateProblem("an undefined value was used")  # not reached: str() of these raises


def native(value: Any) -> Any:
    """Return *value* as plain data: iterators and sets become lists, omitted entries are gone.

    Raises TemplateProblem for what is no data (a function, a macro), and the error of an
    undefined value wherever it hides.
    """
    if type(value) in _LEAVES or value is OMIT or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Undefined):
        fail_undefined(value)
    if isinstance(value, Mapping):
        pairs = ((native(k), native(v)) for k, v in value.items())
        return {k: v for k, v in pairs if v is not OMIT and k is not OMIT}
    if isinstance(value, date):
        return str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Iterable) and not callable(value):
        return [v for v in map(native, value) if v is not OMIT]
    raise TemplateProblem(f"the expression gives a {type(value).__name__}, which is no data")
