"""Hints for names that nobody knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


def did_you_mean(name: Any, known: Iterable[str], otherwise: str = "", most: int = 1) -> str:
    """Return "did you mean X?" with the *most* known names nearest to *name*; *otherwise* when none is near."""
    import difflib  # here, since most runs have nothing to hint at and it is slow to import

    from gpuprov.load.ranges import natural_key

    near = sorted(difflib.get_close_matches(str(name), list(known), most), key=natural_key)
    return f"did you mean {' or '.join(near)}?" if near else otherwise
