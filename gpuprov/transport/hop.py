"""One SSH server on the way to a host, with every setting resolved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpuprov.transport.keys import Wanted
from gpuprov.transport.known_hosts import lookup_name

if TYPE_CHECKING:
    from gpuprov.transport.target import Checking

#: Methods of RFC 4252 that gpuprov can use, in the order in which it tries them.
METHODS = ("publickey", "password", "keyboard-interactive")


@dataclass(frozen=True, slots=True)
class Algorithms:
    """Lists of ssh_config as written, with their +, - and ^; empty where the defaults apply."""

    kex: str = ""
    ciphers: str = ""
    macs: str = ""
    keys: str = ""
    pubkeys: str = ""


@dataclass(frozen=True, slots=True)
class Hop:
    """Where to connect, who to be, whom to believe. via is the hop before this one.

    Hashable: hosts whose via is equal share one connection to it. key_name is what
    known_hosts files call the server; record_in is the file that new keys go to.
    """

    label: str
    host: str
    port: int
    user: str
    key_name: str
    keys: Wanted = field(default_factory=Wanted)
    password: str | None = field(default=None, repr=False)
    methods: tuple[str, ...] = METHODS
    known_hosts: tuple[str, ...] = ()
    record_in: str = ""
    hash_names: bool = False
    checking: Checking = "yes"
    connect_timeout_s: float = 10
    keepalive_s: float = 10
    keepalive_count: int = 3
    algorithms: Algorithms = field(default_factory=Algorithms)
    family: int = 0
    bind_address: str | None = None
    proxy_command: str | None = None
    via: Hop | None = None

    @property
    def address(self) -> str:
        """Return user@host:port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@{host}:{self.port}"

    @property
    def who(self) -> str:
        """Return the server as a sentence names it: its address, and the label where that differs."""
        place = lookup_name(self.host, self.port)
        return place if self.label == self.host else f"{self.label} ({place})"
