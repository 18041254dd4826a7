"""Read ssh_config files: lines, quotes, Host, Match and Include, with the position of every mistake."""

from __future__ import annotations

import glob
import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpuprov.errors import Problem
from gpuprov.source import Position
from gpuprov.transport.known_hosts import pattern_regex
from gpuprov.transport.options import HONOURED, IGNORED, OptionError, keyword, split_keyword, split_words
from gpuprov.transport.ssh_config import Block, Criterion, Setting, SshConfig, patterns_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuprov.transport.ssh_config import Patterns

#: ssh's own limit for Include within Include.
MAX_DEPTH = 16

MATCH_WITH_ARGUMENT = frozenset({"host", "originalhost", "user", "localuser", "exec"})
MATCH_ALONE = frozenset({"all", "canonical", "final"})
#: Criteria of ssh that depend on what gpuprov does not have.
MATCH_UNSUPPORTED = frozenset({"tagged", "localnetwork", "version", "sessiontype", "command"})


def parse(
    path: str, home: str, problems: list[Problem], *, user_file: bool = True, must_exist: bool = False
) -> SshConfig:
    """Read the ssh_config file *path*; one that does not exist is empty, unless it must.

    user_file: relative Includes are in ~/.ssh, and the file must not be writable by others.
    """
    parser = _Parser(home, problems, user_file)
    blocks = tuple(parser.blocks(path, (), 0, must_exist=must_exist))
    return SshConfig(path, blocks, parser.wants_final)


@dataclass(slots=True)
class _Parser:
    home: str
    problems: list[Problem]
    user_file: bool
    wants_final: bool = False
    unknown_allowed: list[re.Pattern[str]] = field(default_factory=list)

    def bad(self, position: Position | None, message: str, hint: str = "") -> None:
        self.problems.append(Problem("ssh-config", message, position, hint))

    def lines(self, path: str, must_exist: bool) -> list[str]:
        try:
            with open(path, encoding="utf-8", errors="replace") as f:
                mode = os.fstat(f.fileno())
                text = f.read()
        except (FileNotFoundError, NotADirectoryError):
            if must_exist:
                self.bad(Position(path), "there is no such file")
            return []
        except OSError as error:
            self.bad(Position(path), f"cannot be read ({(error.strerror or str(error)).lower()})")
            return []
        if self.user_file and (mode.st_uid not in {0, os.getuid()} or stat.S_IMODE(mode.st_mode) & 0o022):
            self.bad(
                Position(path), "belongs to, or can be written by, others: ssh refuses it too", f"chmod 600 {path}"
            )
            return []
        return text.splitlines()

    def blocks(
        self, path: str, outer: tuple[Patterns | tuple[Criterion, ...], ...], depth: int, *, must_exist: bool = False
    ) -> Iterator[Block]:
        """Yield the blocks of *path*; *outer* are the conditions of the Include that named it."""
        conditions, settings = outer, list[Setting]()
        for number, line in enumerate(self.lines(path, must_exist), 1):
            position = Position(path, number)
            try:
                parsed = self.line(line, position)
            except OptionError as error:
                self.bad(position, str(error), error.hint)
                continue
            if parsed is None:
                continue
            if parsed.key in {"host", "match", "include"}:
                yield Block(conditions, tuple(settings))
                settings = []
            if parsed.key == "include":
                yield from self.include(parsed, conditions, depth)
            elif parsed.key == "host":
                conditions = (*outer, patterns_of(parsed.arguments, fold=False))
            elif parsed.key == "match":
                conditions = (*outer, self.criteria(parsed))
            else:
                settings.append(parsed)
        yield Block(conditions, tuple(settings))

    def include(
        self, setting: Setting, conditions: tuple[Patterns | tuple[Criterion, ...], ...], depth: int
    ) -> Iterator[Block]:
        if depth >= MAX_DEPTH:
            self.bad(setting.position, f"Include is nested more than {MAX_DEPTH} deep", "does a file include itself?")
            return
        base = os.path.join(self.home, ".ssh") if self.user_file else "/etc/ssh"
        for word in setting.arguments:
            text = self.home + word[1:] if word == "~" or word.startswith("~/") else word
            for path in sorted(glob.glob(os.path.join(base, text))):
                yield from self.blocks(path, conditions, depth + 1)

    def line(self, line: str, position: Position) -> Setting | None:
        name, rest = split_keyword(line)
        if not name or name.startswith("#"):
            return None
        lower = name.lower()
        if lower in {"host", "match", "include"}:
            words = tuple(split_words(rest))
            if not words:
                raise OptionError(f"{name} needs an argument")
            return Setting(lower, words, position)
        try:
            key = keyword(name)
        except OptionError:
            if any(pattern.fullmatch(lower) for pattern in self.unknown_allowed):
                return None
            raise
        return self.setting(key, name, rest, position)

    def setting(self, key: str, name: str, rest: str, position: Position) -> Setting | None:
        if HONOURED.get(key) == "rest":
            words: tuple[str, ...] = (rest.strip(),) if rest.strip() else ()
        else:
            words = tuple(split_words(rest))
        if key == "ignoreunknown":
            self.unknown_allowed += [re.compile(pattern_regex(w.lower())) for w in ",".join(words).split(",")]
        if key in IGNORED:
            return None
        if not words:
            raise OptionError(f"{name} needs an argument")
        if HONOURED.get(key) == "one" and len(words) > 1:
            raise OptionError(f'{name} takes one argument, "{words[1]}" is too much')
        return Setting(key, words, position)

    def criteria(self, setting: Setting) -> tuple[Criterion, ...]:
        found: list[Criterion] = []
        words = iter(setting.arguments)
        for word in words:
            negated = word.startswith("!")
            kind, _, joined = word[negated:].partition("=")
            kind = kind.lower()
            if kind in MATCH_ALONE:
                self.wants_final |= kind == "final"
                found.append(Criterion(kind, negated))
                continue
            argument = joined or next(words, None)
            if kind not in MATCH_WITH_ARGUMENT or argument is None:
                self.bad_criterion(setting.position, kind, argument)
                return (Criterion("all", negated=True),)
            if kind == "exec":
                found.append(Criterion(kind, negated, command=argument))
            else:
                names = patterns_of(argument.split(","), fold=kind in {"host", "originalhost"})
                found.append(Criterion(kind, negated, names))
        return tuple(found)

    def bad_criterion(self, position: Position | None, kind: str, argument: str | None) -> None:
        allowed = ", ".join(sorted(MATCH_ALONE | MATCH_WITH_ARGUMENT))
        if kind in MATCH_WITH_ARGUMENT and argument is None:
            self.bad(position, f"Match {kind} needs an argument")
        elif kind in MATCH_UNSUPPORTED:
            self.bad(position, f"Match {kind} is not supported", f"supported: {allowed}")
        else:
            self.bad(position, f'"{kind}" is not a criterion of Match', f"allowed: {allowed}")
