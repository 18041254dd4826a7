"""What a name without a value is in a template: strict, but its attributes may be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from jinja2 import StrictUndefined, UndefinedError
from jinja2.utils import missing


class NameUndefined(UndefinedError):
    """An undefined value was used. name is the variable, "" when it is an attribute; token the word itself."""

    def __init__(self, name: str, token: str, message: str | None = None) -> None:
        super().__init__(message)
        self.name = name
        self.token = token


class Missing(StrictUndefined):
    """An undefined value. Its attributes are undefined too, so `a.b.c is defined` works without `a`."""

    __slots__ = ()

    def __init__(
        self, hint: str | None = None, obj: Any = missing, name: Any = None, exc: Any = UndefinedError
    ) -> None:
        if exc is UndefinedError:
            exc = partial(NameUndefined, name if obj is missing and name else "", str(name or ""))
        if obj is missing and name is not None:
            hint = hint or f"{name} is undefined"
        elif hint is None and hasattr(obj, "why_missing"):  # a mapping that knows why it has no such key
            hint = obj.why_missing(name)
        elif hint is None and isinstance(obj, Mapping):
            hint = f"a mapping has no key {name!r}{near(name, obj)}"
        elif hint is None:
            hint = f"a value of type {type(obj).__name__} has no {name!r}"
        super().__init__(hint, obj, name, exc)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, name: Any) -> Any:
        return self


def near(name: Any, mapping: Mapping[Any, Any]) -> str:
    """Return "; did you mean 'x'?" for a key that is nearly *name*, or what few keys there are."""
    from difflib import get_close_matches

    keys = [str(key) for key in mapping]
    close = get_close_matches(str(name), keys, 1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return "; it has {}".format(", ".join(sorted(keys))) if 0 < len(keys) <= 12 else ""
