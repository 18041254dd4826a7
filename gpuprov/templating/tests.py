"""All tests (`x is ...`) beyond Jinja2's own, by name: a table that grows."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from jinja2 import pass_context

from gpuprov.templating.filters_numbers import version_key
from gpuprov.templating.filters_text import to_bool
from gpuprov.templating.problem import TemplateProblem

if TYPE_CHECKING:
    from jinja2.runtime import Context

    from gpuprov.templating.environment import ScopeContext


def _result(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TemplateProblem(f"the test {name!r} needs a registered result, it was given a {type(value).__name__}")
    return value


def failed(value: Any) -> bool:
    """Say whether a registered result is that of a failed task."""
    return bool(_result(value, "failed").get("failed", False))


def succeeded(value: Any) -> bool:
    """Say whether a registered result is not that of a failed task."""
    return not bool(_result(value, "succeeded").get("failed", False))


def changed(value: Any) -> bool:
    """Say whether a registered result, or one of its loop's passes, changed something."""
    result = _result(value, "changed")
    passes = result.get("results") if "changed" not in result else None
    return any(map(changed, passes)) if isinstance(passes, list) else bool(result.get("changed", False))


def skipped(value: Any) -> bool:
    """Say whether a registered result is that of a skipped task."""
    return bool(_result(value, "skipped").get("skipped", False))


def finished(value: Any) -> bool:
    """Say whether a background task has ended."""
    return bool(_result(value, "finished").get("finished", True))


def _matches(name: str, function: Callable[..., Any]) -> Callable[..., bool]:
    def test(value: Any, pattern: str = "", ignorecase: bool = False, multiline: bool = False) -> bool:
        if not isinstance(value, (str, int, float)):
            raise TemplateProblem(f"the test {name!r} needs a text, it was given a {type(value).__name__}")
        flags = (re.IGNORECASE if ignorecase else 0) | (re.MULTILINE if multiline else 0)
        return function(pattern, str(value), flags) is not None

    return test


def regex(
    value: Any, pattern: str = "", ignorecase: bool = False, multiline: bool = False, match_type: str = "search"
) -> bool:
    """Say whether *value* matches: match_type is search, match (from its start) or fullmatch."""
    function = {"search": re.search, "match": re.match, "fullmatch": re.fullmatch}.get(match_type)
    if function is None:
        raise TemplateProblem(f"match_type {match_type!r}: allowed are search, match and fullmatch")
    return _matches("regex", function)(value, pattern, ignorecase, multiline)


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    **dict.fromkeys(["==", "=", "eq"], operator.eq),
    **dict.fromkeys(["!=", "<>", "ne"], operator.ne),
    **dict.fromkeys([">", "gt"], operator.gt),
    **dict.fromkeys([">=", "ge"], operator.ge),
    **dict.fromkeys(["<", "lt"], operator.lt),
    **dict.fromkeys(["<=", "le"], operator.le),
}


def version(
    value: Any, other: Any, op: str = "eq", strict: bool | None = None, version_type: str | None = None
) -> bool:
    """Say whether *value* is a version before, after or the same as *other*. Loose, Ansible's default."""
    if strict or version_type not in (None, "loose"):
        raise TemplateProblem("version_type %s is not supported, only loose comparison is" % (version_type or "strict"))
    if op not in _OPERATORS:
        raise TemplateProblem("version: operator {!r}; allowed are {}".format(op, " ".join(_OPERATORS)))
    if not str(value).strip() or not str(other).strip():
        raise TemplateProblem("a version to compare is empty")
    return bool(_OPERATORS[op](version_key(value), version_key(other)))


def subset(value: Any, other: Any) -> bool:
    """Say whether all of *value* is in *other*."""
    return all(item in other for item in value)


def superset(value: Any, other: Any) -> bool:
    """Say whether all of *other* is in *value*."""
    return subset(other, value)


def contains(value: Any, item: Any) -> bool:
    """Say whether *item* is in *value*."""
    return item in value


def truthy(value: Any, convert_bool: bool = False) -> bool:
    """Say whether *value* counts as true."""
    return bool(to_bool(value)) if convert_bool else bool(value)


def _on_controller(name: str, function: Callable[[str], bool]) -> Callable[..., bool]:
    """Return a test of the controller's files, which is refused where the host renders."""

    @pass_context
    def test(context: Context, path: Any) -> bool:
        scope = cast("ScopeContext", context).scope
        if scope is None or scope.renderer.outside is None:
            raise TemplateProblem(
                f"the test {name!r} looks at the controller's files, and this expression is rendered on the host",
                code="controller-only",
                hint="use the stat module and its registered result",
            )
        return function(os.path.expanduser(str(path)))

    return test


_FILES: dict[str, Callable[[str], bool]] = {
    "directory": os.path.isdir,
    "is_dir": os.path.isdir,
    "file": os.path.isfile,
    "is_file": os.path.isfile,
    "link": os.path.islink,
    "is_link": os.path.islink,
    "exists": os.path.exists,
    "link_exists": os.path.lexists,
    "mount": os.path.ismount,
    "is_mount": os.path.ismount,
}
CONTROLLER_ONLY = frozenset(_FILES)

_OWN: dict[str, Callable[..., Any]] = {
    "failed": failed,
    "failure": failed,
    "succeeded": succeeded,
    "success": succeeded,
    "successful": succeeded,
    "changed": changed,
    "change": changed,
    "skipped": skipped,
    "skip": skipped,
    "finished": finished,
    "unreachable": lambda value: bool(_result(value, "unreachable").get("unreachable", False)),
    "reachable": lambda value: not _result(value, "reachable").get("unreachable", False),
    "timedout": lambda value: bool(_result(value, "timedout").get("timedout", False)),
    "match": _matches("match", re.match),
    "search": _matches("search", re.search),
    "regex": regex,
    "version": version,
    "version_compare": version,
    "subset": subset,
    "issubset": subset,
    "superset": superset,
    "issuperset": superset,
    "contains": contains,
    "any": any,
    "all": all,
    "truthy": truthy,
    "falsy": lambda value, convert_bool=False: not truthy(value, convert_bool),
    "nan": lambda value: isinstance(value, float) and value != value,
    "abs": lambda value: os.path.isabs(str(value)),
    "is_abs": lambda value: os.path.isabs(str(value)),
    **{name: _on_controller(name, function) for name, function in _FILES.items()},
}
#: Under their short names and as Ansible's fully qualified ones.
TESTS: dict[str, Callable[..., Any]] = {**_OWN, **{"ansible.builtin." + name: f for name, f in _OWN.items()}}
