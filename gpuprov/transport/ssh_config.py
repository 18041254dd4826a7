"""What ssh_config says about one host: conditions, and the first value wins, as ssh does it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuprov.errors import Problem
from gpuprov.transport.known_hosts import pattern_regex
from gpuprov.transport.options import HONOURED, REFUSED, OptionError, check_refused, split_words
from gpuprov.transport.tokens import expand, tokens_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gpuprov.source import Position

#: Keywords of which every value counts, not only the first.
CUMULATIVE = frozenset({"identityfile", "certificatefile"})
#: How long a `Match exec` command may take, in seconds.
EXEC_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Patterns:
    """A pattern list: any may match, none of the negated ones."""

    wanted: tuple[re.Pattern[str], ...]
    unwanted: tuple[re.Pattern[str], ...]

    def match(self, name: str) -> bool:
        """Return whether *name* matches."""
        if any(p.fullmatch(name) for p in self.unwanted):
            return False
        return any(p.fullmatch(name) for p in self.wanted)


def patterns_of(words: Iterable[str], *, fold: bool = True) -> Patterns:
    """Return the Patterns of *words*, each maybe negated with !. fold: compare in lower case, as Match does."""
    wanted: list[re.Pattern[str]] = []
    unwanted: list[re.Pattern[str]] = []
    for word in words:
        negated = word.startswith("!")
        text = word[negated:].lower() if fold else word[negated:]
        (unwanted if negated else wanted).append(re.compile(pattern_regex(text)))
    return Patterns(tuple(wanted), tuple(unwanted))


@dataclass(frozen=True, slots=True)
class Criterion:
    """One part of a Match line."""

    kind: str
    negated: bool = False
    patterns: Patterns | None = None
    command: str = ""


@dataclass(frozen=True, slots=True)
class Setting:
    """One keyword with its arguments. position is None for the command line."""

    key: str
    arguments: tuple[str, ...]
    position: Position | None


@dataclass(frozen=True, slots=True)
class Block:
    """Settings, Includes in place, under conditions that must all hold: Host patterns or Match criteria."""

    conditions: tuple[Patterns | tuple[Criterion, ...], ...]
    settings: tuple[Setting, ...]


def run_command(command: str) -> bool:
    """Run a `Match exec` command as ssh does: through the shell, true when it exits with 0."""
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=EXEC_TIMEOUT_S,
            check=False,
        )
    except (subprocess.TimeoutExpired, OSError):
        return False
    return done.returncode == 0


@dataclass(slots=True)
class Asked:
    """Whom a configuration is evaluated for. home expands ~; run decides Match exec."""

    alias: str
    user: str
    local_user: str
    home: str
    final: bool = False
    run: Callable[[str], bool] = run_command


class Settings:
    """What applies to one host: the first value of each keyword, in ssh's order."""

    def __init__(self) -> None:
        self.first: dict[str, Setting] = {}
        self.all: dict[str, list[Setting]] = {}

    def add(self, setting: Setting) -> None:
        """Take *setting* unless an earlier one has said it."""
        if setting.key in CUMULATIVE:
            known = self.all.setdefault(setting.key, [])
            if all(s.arguments != setting.arguments for s in known):
                known.append(setting)
        elif not self._too_late(setting.key):
            self.first.setdefault(setting.key, setting)

    def _too_late(self, key: str) -> bool:
        """Of ProxyJump and ProxyCommand the first one counts; only `ProxyJump none` leaves room for the other."""
        if key == "proxyjump":
            return "proxycommand" in self.first
        return key == "proxycommand" and (self.text("proxyjump") or "none").lower() != "none"

    def text(self, key: str) -> str | None:
        """Return the (first) argument of *key*."""
        setting = self.first.get(key)
        return setting.arguments[0] if setting is not None else None

    def words(self, key: str) -> tuple[str, ...] | None:
        """Return all arguments of *key*."""
        setting = self.first.get(key)
        return setting.arguments if setting is not None else None

    def position(self, key: str) -> Position | None:
        """Return where *key* was set."""
        setting = self.first.get(key)
        return setting.position if setting is not None else None


@dataclass(slots=True)
class SshConfig:
    """One file with what it includes."""

    path: str
    blocks: tuple[Block, ...] = ()
    wants_final: bool = False

    def apply(self, settings: Settings, asked: Asked) -> None:
        """Add what this file says about *asked* to *settings*."""
        for block in self.blocks:
            if all(self._holds(c, settings, asked) for c in block.conditions):
                for setting in block.settings:
                    settings.add(setting)

    def _holds(self, condition: Patterns | tuple[Criterion, ...], settings: Settings, asked: Asked) -> bool:
        if isinstance(condition, Patterns):
            return condition.match(asked.alias)
        return all(self._criterion(c, settings, asked) is not c.negated for c in condition)

    def _criterion(self, criterion: Criterion, settings: Settings, asked: Asked) -> bool:
        host = expand(settings.text("hostname") or asked.alias, {"h": asked.alias})
        user = settings.text("user") or asked.user
        if criterion.kind == "exec":
            tokens = tokens_of(asked, host, int(settings.text("port") or 22), user)
            return asked.run(expand(criterion.command, tokens))
        if criterion.kind == "all":
            return True
        if criterion.kind in {"final", "canonical"}:
            return asked.final and criterion.kind == "final"
        value = {"host": host.lower(), "originalhost": asked.alias.lower(), "user": user, "localuser": asked.local_user}
        assert criterion.patterns is not None
        return criterion.patterns.match(value[criterion.kind])


def refused(settings: Settings) -> list[Problem]:
    """Return a Problem for each setting in force that cannot be ignored safely."""
    problems = []
    for key in REFUSED:
        setting = settings.first.get(key)
        if setting is not None:
            try:
                check_refused(key, " ".join(setting.arguments))
            except OptionError as error:
                problems.append(Problem("ssh-config", str(error), setting.position, error.hint))
    return problems


def evaluate(configs: Sequence[SshConfig], given: Iterable[tuple[str, str]], asked: Asked) -> Settings:
    """Return what *given* (the command line, strongest) and then *configs* say about *asked*."""
    settings = Settings()
    for key, value in given:
        words = tuple(split_words(value)) if HONOURED[key] == "many" else (value,)
        settings.add(Setting(key, words, None))
    for config in configs:
        config.apply(settings, asked)
    if any(config.wants_final for config in configs):
        asked.final = True
        for config in configs:
            config.apply(settings, asked)
    return settings
