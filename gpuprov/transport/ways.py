"""All ways of one run: what is read once and shared by every connection."""

from __future__ import annotations

import contextlib
import resource
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from gpuprov.errors import ConnectError, Problem, SourceErrors, TransportError
from gpuprov.transport import light
from gpuprov.transport.keys import KeyRing
from gpuprov.transport.known_hosts import HostKey, Known, KnownHosts
from gpuprov.transport.local import LocalConnection
from gpuprov.transport.route import Router, config_files
from gpuprov.transport.ssh_config_file import parse
from gpuprov.transport.target import ConnectOptions, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gpuprov.transport.base import Connection
    from gpuprov.transport.hop import Hop
    from gpuprov.transport.ssh import SshConnection
    from gpuprov.transport.ssh_config import SshConfig

#: A bastion that could not be reached is not tried again for this long: hundreds of hosts wait behind it.
BASTION_RETRY_S = 10.0
#: Longest wait of a host for somebody else's attempt to reach their common bastion.
BASTION_WAIT_S = 120.0
#: Descriptors that a process needs besides its connections, and per connection (socket, doorbell, spare).
SPARE_DESCRIPTORS, DESCRIPTORS_PER_HOST = 256, 6


class Ways:
    """The way to every host of a run. Thread-safe; open one per run, close it at the end."""

    def __init__(self, options: ConnectOptions | None = None) -> None:
        self._warned: set[str] = set()
        self._lock = threading.Lock()
        given = options or ConnectOptions()
        self._show = given.warn
        self._options = _with_warn(given, self._warn_once)
        self._router = Router(self._options)
        self._configs: dict[tuple[tuple[str, bool], ...], tuple[SshConfig, ...]] = {}
        self._routes: dict[Target, Hop] = {}
        self._ring = KeyRing()
        self._bastions: dict[Hop, tuple[Future[SshConnection], float]] = {}
        self.known_hosts = KnownHosts(self._warn_once)

    def check(self, targets: Iterable[Target]) -> list[Problem]:
        """Return everything in ssh_config and the connection variables that would stop *targets*; connects nowhere."""
        problems: dict[Problem, None] = {}
        for target in targets:
            try:
                self.route(target)
            except SourceErrors as errors:
                problems.update(dict.fromkeys(errors.problems))
        return list(problems)

    def route(self, target: Target) -> Hop:
        """Return where *target* is and how it is reached. SourceErrors for what ssh_config gets wrong."""
        with self._lock:
            if target not in self._routes:
                self._routes[target] = self._router.route(target, self._configs_for(target))
                raise_descriptor_limit(len(self._routes))
            return self._routes[target]

    def connect(self, target: Target) -> Connection:
        """Return an authenticated connection. Blocks, every phase with its deadline.

        Raises ConnectError, AuthenticationError, HostKeyError or SessionLost, each with a sentence
        and a hint; SourceErrors when ssh_config cannot be honoured.
        """
        if target.connection == "local":
            return LocalConnection()
        return self._connect(self.route(target))

    def fetch_host_keys(self, hop: Hop) -> list[HostKey]:
        """Return every host key that *hop* offers, without logging in to it (to its bastions, yes)."""
        light.load()
        from gpuprov.transport.handshake import fetch_keys

        return fetch_keys(lambda: self._stream(hop), hop)

    def known(self, hop: Hop) -> Known:
        """Return what is on record about *hop*."""
        return self.known_hosts.lookup(hop.known_hosts, hop.key_name, hop.port)

    def close(self) -> None:
        """Close the bastions' connections and the agents. The hosts' connections are their owners'."""
        with self._lock:
            bastions, self._bastions = self._bastions, {}
        for future, _ in bastions.values():
            if future.done() and future.exception() is None:
                future.result().close()
        self._ring.close()

    def _configs_for(self, target: Target) -> tuple[SshConfig, ...]:
        files = config_files(target.common_args, self._options)
        if files not in self._configs:
            problems: list[Problem] = []
            must_exist = target.common_args.config_file is not None
            configs = tuple(
                parse(path, self._options.home, problems, user_file=mine, must_exist=must_exist) for path, mine in files
            )
            if problems:
                raise SourceErrors(problems)
            self._configs[files] = configs
        return self._configs[files]

    def _connect(self, hop: Hop) -> SshConnection:
        light.load()
        from gpuprov.transport.handshake import Trust, log_in

        return log_in(self._stream(hop), hop, Trust(self.known_hosts), self._ring)

    def _stream(self, hop: Hop) -> Any:
        from gpuprov.transport import sockets

        if hop.via is not None:
            return self._bastion(hop.via).tunnel(hop.host, hop.port)
        if hop.proxy_command is not None:
            return sockets.open_proxy(hop)
        return sockets.open_tcp(hop)

    def _bastion(self, hop: Hop) -> SshConnection:
        """Return the shared connection to *hop*; one thread makes it, the others wait for that one."""
        with self._lock:
            future, made_at = self._bastions.get(hop, (None, 0.0))
            if future is not None and future.done() and _spent(future, made_at):
                future = None
            mine = future is None
            if future is None:
                future = Future()
                self._bastions[hop] = (future, time.monotonic())
        if mine:
            self._fulfil(future, hop)
        try:
            return future.result(BASTION_WAIT_S)
        except TransportError as error:
            raise type(error)(f"bastion {error.message}", hint=error.hint, code=error.reference) from error
        except TimeoutError as error:
            raise ConnectError(f"bastion {hop.who} was not connected in time", hint="does it hang?") from error

    def _fulfil(self, future: Future[SshConnection], hop: Hop) -> None:
        try:
            connection = self._connect(hop)
        except BaseException as error:
            # whatever it is, the threads that wait for this bastion must hear of it
            future.set_exception(error)
        else:
            future.set_result(connection)
        with self._lock:
            if self._bastions.get(hop, (None, 0.0))[0] is future:
                self._bastions[hop] = (future, time.monotonic())

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._show(text)


def _spent(future: Future[SshConnection], made_at: float) -> bool:
    if future.exception() is not None:
        return time.monotonic() - made_at > BASTION_RETRY_S
    return not future.result().alive()


def _with_warn(options: ConnectOptions, warn: Callable[[str], None]) -> ConnectOptions:
    from dataclasses import replace

    return replace(options, warn=warn)


def raise_descriptor_limit(hosts: int) -> None:
    """Raise the soft limit of open files, as far as the hard one allows, when *hosts* need it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = SPARE_DESCRIPTORS + hosts * DESCRIPTORS_PER_HOST
    if soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(hard, max(wanted, soft))
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
