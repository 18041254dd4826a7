"""Functions that every template can call: range, lookup, query and their like."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, cast

from jinja2 import pass_context
from jinja2.defaults import DEFAULT_NAMESPACE
from jinja2.utils import missing

from gpuprov.templating.problem import TemplateProblem
from gpuprov.templating.values import OMIT

if TYPE_CHECKING:
    from jinja2.runtime import Context

    from gpuprov.templating.environment import ScopeContext

#: Lookups that need nothing but variables, so they work on hosts too.
EVERYWHERE = frozenset(["vars"])


@pass_context
def lookup(context: Context, name: str, *terms: Any, **options: Any) -> Any:
    """Return what lookup *name* finds: one value, or several joined by commas."""
    found = _run(context, name, terms, options)
    if options.get("wantlist"):
        return found
    if all(isinstance(value, str) for value in found):
        return ",".join(found)
    return found[0] if len(found) == 1 else found


@pass_context
def query(context: Context, name: str, *terms: Any, **options: Any) -> list[Any]:
    """Return what lookup *name* finds, as a list."""
    return _run(context, name, terms, options)


def _run(context: Context, name: str, terms: tuple[Any, ...], options: dict[str, Any]) -> list[Any]:
    name = name[len("ansible.builtin.") :] if name.startswith("ansible.builtin.") else name
    if name == "vars":
        return [_variable(context, str(term), options) for term in _flat(terms)]
    scope = cast("ScopeContext", context).scope
    outside = scope.renderer.outside if scope is not None else None
    if outside is None:
        raise TemplateProblem(
            f"lookup {name!r} runs on the controller only, and this expression is rendered on the host",
            code="controller-only",
        )
    function = outside.lookups.get(name)
    if function is None:
        from difflib import get_close_matches

        known = sorted([*outside.lookups, *EVERYWHERE])
        near = get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else "lookups that there are: {}".format(", ".join(known))
        raise TemplateProblem(f"there is no lookup {name!r}", code="unknown-lookup", hint=hint)
    return list(function(_flat(terms), options))


def _variable(context: Context, name: str, options: dict[str, Any]) -> Any:
    value = context.resolve_or_missing(name)
    if value is not missing:
        return value
    if "default" in options:
        return options["default"]
    raise TemplateProblem(f"{name} is undefined", code="undefined", name=name)


def _flat(terms: tuple[Any, ...]) -> list[Any]:
    found: list[Any] = []
    for term in terms:
        found.extend(term) if isinstance(term, (list, tuple)) else found.append(term)
    return found


def now(utc: bool = False, fmt: str | None = None) -> Any:
    """Return the present time, as text when *fmt* is given (strftime)."""
    time = datetime.now(timezone.utc).replace(tzinfo=None) if utc else datetime.now()
    return time.strftime(fmt) if fmt else time


def undef(hint: str = "") -> Any:
    """Raise: the value has to be given by someone else."""
    raise TemplateProblem(hint or "a mandatory value is undefined", code="undefined")


GLOBALS: dict[str, Any] = {
    **DEFAULT_NAMESPACE,
    "lookup": lookup,
    "query": query,
    "q": query,
    "now": now,
    "undef": undef,
    "omit": OMIT,
}
