"""The tables with an admin's overlays, for every command that resolves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuprov.errors import SourceErrors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuprov.errors import Problem
    from gpuprov.stack import Tables


def tables_with(overlays: Sequence[str]) -> Tables:
    """Return gpuprov's tables with the rows of the files *overlays*. Raises SourceErrors."""
    from gpuprov.load.marks import load_yaml, shown_path
    from gpuprov.stack import load, overlaid

    tables = load()
    problems: list[Problem] = []
    for path in overlays:
        value = load_yaml(path, problems)
        if value is not None:
            tables = overlaid(tables, value, shown_path(path), problems)
    if problems:
        raise SourceErrors(problems)
    return tables
