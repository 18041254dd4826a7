"""Which algorithms a connection may use: good defaults, and ssh_config's lists with their +, - and ^."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: AES-GCM first: one pass, and half the CPU of AES-CTR with a MAC for bulk data.
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
#: What OpenSSH offers too; CBC ciphers, 3DES and MD5 only when ssh_config asks for them.
MACS = (
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
    "hmac-sha1",
)

#: The standard's name of what paramiko knows by its older one only; hardened servers offer nothing else.
CURVE25519, CURVE25519_OLD = "curve25519-sha256", "curve25519-sha256@libssh.org"


def choose(wanted: str, default: Sequence[str], available: Sequence[str]) -> tuple[str, ...]:
    """Return what the list *wanted* of ssh_config leaves of *available*, best first; empty when nothing is left.

    `+a,b` is the default and then a, b; `-a,b*` the default without them; `^a,b` has them first;
    a plain list stands for itself. Names that are not available are dropped, as unknown to us.
    """
    sign, names = (wanted[0], wanted[1:]) if wanted[:1] in {"+", "-", "^"} else ("", wanted)
    patterns = [name.strip() for name in names.split(",")]
    named = [name for pattern in patterns for name in available if fnmatch.fnmatchcase(name, pattern)]
    if sign == "-":
        chosen = [name for name in default if name not in named]
    elif sign == "+":
        chosen = [*default, *named]
    elif sign == "^":
        chosen = [*named, *default]
    else:
        chosen = named
    return tuple(dict.fromkeys(chosen))
