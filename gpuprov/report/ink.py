"""Colours and widths of plain terminals, without a library: recap and plain lines need no more."""

from __future__ import annotations

import os
import shutil
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

#: The colours that Ansible gave to outcomes; verdicts have theirs.
CODES = {
    "ok": "32",
    "pass": "32",
    "changed": "33",
    "warn": "33",
    "rescued": "33",
    "skipped": "36",
    "skip": "36",
    "failed": "31",
    "fail": "31",
    "lost": "1;31",
    "unreachable": "1;31",
    "unhealthy": "1;35",
    "refused": "35",
    "interrupted": "35",
    "ignored": "36",
    "unknown": "35",
    "warning": "35",
    "error": "31",
    "bold": "1",
    "dim": "2",
    "+": "32",
    "-": "31",
    "@": "36",
}


class Ink:
    """Paints words, or leaves them as they are."""

    def __init__(self, color: bool) -> None:
        self.color = color

    def __call__(self, word: str, text: str) -> str:
        """Return *text* in the colour of *word* (an outcome, a verdict, "bold", "dim")."""
        code = CODES.get(word) if self.color and text else None
        return f"\x1b[{code}m{text}\x1b[0m" if code else text


def wants_color(stream: TextIO) -> bool:
    """Return whether *stream* is a terminal that shows colours. NO_COLOR and FORCE_COLOR are honoured."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def width_of(stream: TextIO) -> int:
    """Return how many columns *stream* has; what is no terminal has 120."""
    return max(60, shutil.get_terminal_size((120, 24)).columns) if stream.isatty() else 120


def wrapped(text: str, width: int, indent: str = "", used: int = 0) -> str:
    """Return *text* in lines of at most *width* columns.

    The first line goes behind *used* columns that are written already; the others start with *indent*.
    """
    width = max(width, used + 20, len(indent) + 20)
    lines = textwrap.wrap(
        text, width, initial_indent=" " * used, subsequent_indent=indent, break_on_hyphens=False, drop_whitespace=True
    )
    return "\n".join(lines)[used:]


def printable(text: str, stream: TextIO) -> str:
    """Return *text* with what *stream*'s encoding cannot say replaced."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def seconds(value: float) -> str:
    """Return a duration as a person says it."""
    if value < 0.0995:
        return f"{max(0, round(value * 1000))} ms"
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def plural(count: int, word: str) -> str:
    """Return "1 host", "2 hosts"."""
    return f"{count} {word}{'' if count == 1 else 's'}"
