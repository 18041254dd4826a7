"""Problems of the input as a person reads them: place, excerpt, what is wrong, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuprov.source import Position

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpuprov.errors import Problem


def render_problems(problems: Iterable[Problem]) -> str:
    """Return all *problems*, in file order, with the lines they are about."""
    ordered = sorted(problems, key=lambda p: (p.position is None, p.position or Position("")))
    parts = [_one(problem) for problem in ordered]
    count = len(parts)
    summary = f"{count} problem{'s' if count != 1 else ''}; nothing was connected to, nothing was changed"
    return "\n\n".join([*parts, summary])


def _one(problem: Problem) -> str:
    lines = [f"error[{problem.code}]: {problem.message}"]
    if problem.position is not None:
        lines.append(f"  --> {problem.position}")
        lines += _excerpt(problem.position)
    lines += [f"  {line}" for line in problem.context]
    if problem.hint:
        lines.append(f"hint: {problem.hint}")
    return "\n".join(lines)


def _excerpt(position: Position) -> list[str]:
    try:
        with open(position.path, encoding="utf-8", errors="replace") as f:
            text = f.read().splitlines()
    except OSError:
        return []
    if not 0 < position.line <= len(text):
        return []
    number = str(position.line)
    gap = " " * len(number)
    line = text[position.line - 1].replace("\t", " ")
    return [f"{gap} |", f"{number} | {line[:200]}", f"{gap} | {' ' * (position.column - 1)}^"]
