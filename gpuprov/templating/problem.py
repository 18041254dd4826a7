"""What goes wrong in a template, as one exception."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class TemplateProblem(Exception):
    """A template could not be read or rendered.

    message is one clause without the place. code is "template-syntax", "undefined",
    "template-loop", "unknown-filter", "unknown-test", "unknown-lookup", "controller-only" or
    "template-failed". name is the undefined variable, if that is what is wrong. token is the word
    to point at. source is the template itself (it may know its position in a file),
    lineno the line within it, counted from 1. via has the variables on the way to it, outermost
    first; path the template file, when it is one.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "template-failed",
        name: str | None = None,
        token: str = "",
        lineno: int | None = None,
        hint: str = "",
        source: str | None = None,
        via: Sequence[str] = (),
        path: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.name = name
        self.token = token or name or ""
        self.lineno = lineno
        self.hint = hint
        self.source = source
        self.via = tuple(via)
        self.path = path
