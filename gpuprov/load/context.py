"""Where the reader of a play is: which file, which role, and where problems go."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from gpuprov.errors import Problem
from gpuprov.load import keywords as kw
from gpuprov.source import Position, SourceDict

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from gpuprov.model import Block, RoleUse, Task


class RoleReader(Protocol):
    """How plays and tasks get roles (roles.py); a Protocol, since roles are made of tasks."""

    def listed(self, entry: Any, context: Context, at: Position) -> list[Block]:
        """Return the block of one entry of a play's `roles:`; none when it is there already."""

    def include(self, item: SourceDict, args: SourceDict, context: Context, *, static: bool) -> Block | None:
        """Return the block of the role that *args* name."""


@dataclass(slots=True)
class Gathered:
    """What the parts of one play contribute to it while they are read.

    applied has the roles that run only once; handlers_lost is True when a handler could not be read.
    """

    roles: list[RoleUse] = field(default_factory=list)
    handlers: dict[str, tuple[Task, ...]] = field(default_factory=dict)
    applied: set[str] = field(default_factory=set)
    handlers_lost: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """The place that is being read. files is the chain of files that led here, innermost last."""

    problems: list[Problem]
    playbook_folder: str
    files: tuple[str, ...]
    roles: RoleReader
    gathered: Gathered
    role: RoleUse | None = None
    handler: bool = False

    @property
    def folder(self) -> str:
        """The folder of the file that is being read."""
        return os.path.dirname(self.files[-1])

    def inside(self, path: str) -> Context:
        """Return the context of a file included from here."""
        return replace(self, files=(*self.files, path))

    def wrong(self, code: str, message: str, at: Position | None, hint: str = "") -> None:
        """Record a problem."""
        self.problems.append(Problem(code, message, at, hint))

    def keywords(
        self,
        item: SourceDict,
        table: Mapping[str, str],
        unsupported: Mapping[str, str],
        what: str,
        skip: Collection[Any] = (),
    ) -> SourceDict:
        """Return the keywords of *item* with their positions; report those that are unknown or have a bad value."""
        written = SourceDict(item.position)
        for key, value in item.items():
            if key in table:
                if key not in skip:
                    written[key] = value
                    written.keys_at[key] = item.keys_at[key]
            elif key in skip:
                continue
            elif isinstance(key, str) and kw.is_unsupported(key, unsupported):
                self.problems.append(kw.unsupported(what, key, item, unsupported))
            else:
                self.problems.append(kw.unknown(what, key, item, table))
        checked = {name: kind for name, kind in table.items() if name == "args" or name not in skip}
        kw.check_values(item, checked, self.problems)
        return written
