"""The ssh command lines that Ansible's inventories carry: ansible_ssh_common_args and its kin."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuprov.transport.options import HONOURED, OptionError, check_refused, keyword, split_keyword

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Letters of the ssh command line: what each stands for; None where it may be dropped.
FLAGS: dict[str, tuple[str, str] | None] = {
    "4": ("addressfamily", "inet"),
    "6": ("addressfamily", "inet6"),
    "C": None,
    "T": None,
    "q": None,
    "v": None,
    "x": None,
    "a": None,
}
VALUED = {
    "J": "proxyjump",
    "b": "bindaddress",
    "c": "ciphers",
    "i": "identityfile",
    "l": "user",
    "m": "macs",
    "p": "port",
}


@dataclass(frozen=True, slots=True)
class CommonArgs:
    """What an ssh command line says: settings as (keyword, argument), and -F."""

    settings: tuple[tuple[str, str], ...] = ()
    config_file: str | None = None


def parse_common_args(text: str) -> CommonArgs:
    """Return the settings of an ssh command line such as ansible_ssh_common_args."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise OptionError(f"cannot be split into words: {str(error).lower()}") from error
    settings: list[tuple[str, str]] = []
    config_file = None
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word in {"-", "--"}:
            raise OptionError(f'"{word}" is not an option', "allowed: " + allowed_flags())
        for letter, value in _letters(word, rest):
            if letter == "F":
                config_file = value
            elif letter == "o":
                settings += _dash_o(value)
            elif letter in VALUED:
                settings.append((VALUED[letter], value))
            elif (found := FLAGS[letter]) is not None:
                settings.append(found)
    return CommonArgs(tuple(settings), config_file)


def allowed_flags() -> str:
    """Return the letters that parse_common_args takes, as a person writes them."""
    return " ".join(f"-{letter}" for letter in ["F", "o", *VALUED, *FLAGS])


def _letters(word: str, rest: Iterator[str]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    position = 1
    while position < len(word):
        letter = word[position]
        position += 1
        if letter in VALUED or letter in "Fo":
            value = word[position:] or next(rest, None)
            if value is None:
                raise OptionError(f"-{letter} needs a value")
            found.append((letter, value))
            break
        if letter not in FLAGS:
            raise OptionError(f"-{letter} is not supported", "allowed: " + allowed_flags())
        found.append((letter, ""))
    return found


def _dash_o(text: str) -> list[tuple[str, str]]:
    name, value = split_keyword(text)
    key = keyword(name)
    if not value:
        raise OptionError(f'-o "{text}" has no value', "write it as -o Keyword=value")
    check_refused(key, value)
    return [(key, value)] if key in HONOURED else []
