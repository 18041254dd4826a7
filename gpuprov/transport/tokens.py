"""%-tokens, ~ and ${VARIABLES} in the arguments of ssh_config."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from gpuprov.transport.options import OptionError

if TYPE_CHECKING:
    from gpuprov.transport.ssh_config import Asked


def tokens_of(asked: Asked, host: str, port: int, user: str, key_alias: str = "", jump: str = "") -> dict[str, str]:
    """Return the %-tokens of ssh_config(5) for one connection."""
    import hashlib
    import socket

    local = socket.gethostname()
    mixed = f"{local}{host}{port}{user}{jump}".encode()
    return {
        "h": host,
        "n": asked.alias,
        "p": str(port),
        "r": user,
        "u": asked.local_user,
        "d": asked.home,
        "i": str(os.getuid()),
        "l": local,
        "L": local.partition(".")[0],
        "k": key_alias or asked.alias,
        "j": jump,
        "C": hashlib.sha1(mixed, usedforsecurity=False).hexdigest(),
    }


def expand(text: str, tokens: dict[str, str]) -> str:
    """Return *text* with %-tokens replaced; OptionError for one that is not allowed there."""

    def replace(match: re.Match[str]) -> str:
        letter = match[1]
        if letter == "%":
            return "%"
        if letter not in tokens:
            raise OptionError(f'unknown token "%{letter}" in "{text}"', "a percent sign itself is written %%")
        return tokens[letter]

    return re.sub(r"%(.?)", replace, text) if "%" in text else text


def expand_path(text: str, tokens: dict[str, str]) -> str:
    """Return a path with ~, %-tokens and ${VARIABLES} replaced."""
    if text == "~" or text.startswith("~/"):
        text = tokens["d"] + text[1:]
    elif text.startswith("~"):
        text = os.path.expanduser(text)

    def variable(match: re.Match[str]) -> str:
        value = os.environ.get(match[1])
        if value is None:
            raise OptionError(f'the environment has no {match[1]}, which "{text}" needs')
        return value

    return expand(re.sub(r"\$\{([^}]*)\}", variable, text), tokens)
