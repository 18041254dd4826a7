"""What was raised about a template, for tests that also run under bare unittest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpuprov.templating.problem import TemplateProblem

if TYPE_CHECKING:
    from collections.abc import Callable


def problem_of(work: Callable[..., Any], *args: Any) -> TemplateProblem:
    """Return the TemplateProblem that *work* raises."""
    try:
        found = work(*args)
    except TemplateProblem as problem:
        return problem
    raise AssertionError(f"nothing was raised; it gave {found!r}")
