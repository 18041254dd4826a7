"""From a Target to its Hop: command line, inventory and ssh_config, in ssh's order of precedence."""

from __future__ import annotations

import getpass
import os
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gpuprov.errors import Problem, SourceErrors
from gpuprov.transport.hop import METHODS, Algorithms, Hop
from gpuprov.transport.keys import DEFAULT_NAMES, Wanted
from gpuprov.transport.options import OptionError
from gpuprov.transport.ssh_config import (
    Asked,
    Settings,
    SshConfig,
    evaluate,
    refused,
    run_command,
)
from gpuprov.transport.tokens import expand, expand_path, tokens_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpuprov.transport.common_args import CommonArgs
    from gpuprov.transport.target import Checking, ConnectOptions, Target

MAX_HOPS = 8
YES = frozenset({"yes", "true", "ask", "on"})
NO = frozenset({"no", "false", "off"})
FAMILIES = {"any": 0, "inet": socket.AF_INET, "inet6": socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class Place:
    """A host to reach, as named: in the inventory, or in a ProxyJump."""

    label: str
    alias: str
    port: int | None = None
    user: str | None = None
    given: tuple[tuple[str, str], ...] = ()


class Router:
    """Resolves Targets. Reads nothing but the environment and DNS-free facts about this machine."""

    def __init__(self, options: ConnectOptions) -> None:
        self._options = options
        self._local_user = getpass.getuser()
        self._answers: dict[str, bool] = {}

    def route(self, target: Target, configs: Sequence[SshConfig]) -> Hop:
        """Return the Hop for *target*, its bastions in `via`. SourceErrors for what cannot be honoured."""
        place = Place(target.name, target.address, target.port, target.user, target.common_args.settings)
        hop = self._hop(place, configs, target, depth=0)
        return replace(hop, password=target.password)

    def _hop(self, place: Place, configs: Sequence[SshConfig], target: Target, depth: int) -> Hop:
        asked = Asked(place.alias, place.user or self._local_user, self._local_user, self._options.home, run=self._run)
        given = list(place.given)
        if place.port is not None:
            given.insert(0, ("port", str(place.port)))
        if place.user is not None:
            given.insert(0, ("user", place.user))
        try:
            settings = evaluate(configs, given, asked)
            problems = refused(settings)
            if problems:
                raise SourceErrors(problems)
            return _Resolver(self._options, settings, asked, place, target, own=depth == 0).hop(
                lambda spec: self._chain(spec, configs, target, place, depth)
            )
        except OptionError as error:
            problem = Problem("ssh-option", f"host {place.label}: {error}", None, error.hint)
            raise SourceErrors([problem]) from error

    def _chain(self, spec: str, configs: Sequence[SshConfig], target: Target, place: Place, depth: int) -> Hop | None:
        """Return the last hop of a ProxyJump; None when it names the host itself."""
        if depth >= MAX_HOPS:
            raise OptionError(f"ProxyJump goes through more than {MAX_HOPS} hosts", "does one name itself?")
        words = [parse_jump(word) for word in spec.split(",")]
        if any(word.alias == place.alias for word in words):
            return None  # `Host *` with a ProxyJump applies to the bastion as well; nobody means that
        hop: Hop | None = None
        for word in words:
            found = self._hop(word, configs, target, depth + 1)
            # on ssh's command line -J wins over the bastion's own ProxyJump, but for the first one
            hop = found if hop is None else replace(found, via=hop, proxy_command=None)
        return hop

    def _run(self, command: str) -> bool:
        if command not in self._answers:
            self._answers[command] = run_command(command)
        return self._answers[command]


def parse_jump(text: str) -> Place:
    """Return the Place that `[user@]host[:port]` or an ssh:// URI names."""
    rest = text.strip().removeprefix("ssh://").rstrip("/")
    user, at, rest = rest.rpartition("@")
    port = None
    if rest.startswith("["):
        host, _, tail = rest[1:].partition("]")
        port_text = tail.removeprefix(":")
    elif rest.count(":") == 1:
        host, _, port_text = rest.partition(":")
    else:
        host, port_text = rest, ""
    if port_text:
        if not port_text.isdigit() or not 0 < int(port_text) < 65536:
            raise OptionError(f'"{text}" is not a host to jump through', "write [user@]host[:port]")
        port = int(port_text)
    if not host or (at and not user):
        raise OptionError(f'"{text}" is not a host to jump through', "write [user@]host[:port]")
    return Place(host, host, port, user or None)


class _Resolver:
    """The settings of one hop, as typed values."""

    def __init__(
        self, options: ConnectOptions, settings: Settings, asked: Asked, place: Place, target: Target, *, own: bool
    ) -> None:
        self._options = options
        self._settings = settings
        self._place = place
        self._target = target
        self._own = own  # the target itself, not a bastion on the way
        self._port = self._number("port", 22, 1, 65535)
        self._user = settings.text("user") or asked.local_user
        self._host = expand(settings.text("hostname") or place.alias, {"h": place.alias, "n": place.alias})
        alias = settings.text("hostkeyalias") or ""
        self._key_name = alias or self._host
        jump = settings.text("proxyjump") or ""
        self._tokens = tokens_of(asked, self._host, self._port, self._user, alias, "" if jump == "none" else jump)

    def hop(self, chain: Callable[[str], Hop | None]) -> Hop:
        """Return the hop; *chain* makes bastions of a ProxyJump."""
        settings, options, target = self._settings, self._options, self._target
        proxy_command, via = self._proxy(chain)
        files = self._files("userknownhostsfile", ("~/.ssh/known_hosts", "~/.ssh/known_hosts2"))
        system = self._files("globalknownhostsfile", ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"))
        extra = tuple(expand_path(path, self._tokens) for path in target.known_hosts)
        timeout_s = self._number("connecttimeout", 0, 0, 86400)
        return Hop(
            label=self._place.label,
            host=self._host,
            port=self._port,
            user=self._user,
            key_name=self._key_name,
            keys=self._keys(),
            methods=self._methods(),
            known_hosts=extra + files + system,
            record_in=(extra or files or (expand_path("~/.ssh/known_hosts", self._tokens),))[0],
            hash_names=self._flag("hashknownhosts", default=False),
            checking=self._checking(),
            connect_timeout_s=(target.connect_timeout_s if self._own else None)
            or timeout_s
            or options.connect_timeout_s,
            keepalive_s=self._number("serveraliveinterval", 0, 0, 86400) or options.keepalive_s,
            keepalive_count=self._number("serveralivecountmax", options.keepalive_count, 1, 10000),
            algorithms=self._algorithms(),
            family=self._family(),
            bind_address=settings.text("bindaddress"),
            proxy_command=proxy_command,
            via=via,
        )

    def _proxy(self, chain: Callable[[str], Hop | None]) -> tuple[str | None, Hop | None]:
        """Return the ProxyCommand or the bastion; Settings keeps only one of them."""
        jump, command = self._settings.text("proxyjump"), self._settings.text("proxycommand")
        if jump is not None and jump.lower() != "none":
            return None, chain(jump)
        if command is not None and command.lower() != "none":
            return expand(command, self._tokens), None
        return None, None

    def _keys(self) -> Wanted:
        key = self._target.key_file if self._own else None
        configured = [s.arguments[0] for s in self._settings.all.get("identityfile", [])]
        named = ([key] if key else []) + [c for c in configured if c.lower() != "none"]
        files = [expand_path(path, self._tokens) for path in named]
        if not named and not configured:
            candidates = [os.path.join(self._options.home, ".ssh", name) for name in DEFAULT_NAMES]
            files = [path for path in candidates if os.path.exists(path)]
        certificates = [
            expand_path(s.arguments[0], self._tokens) for s in self._settings.all.get("certificatefile", [])
        ]
        return Wanted(
            files=tuple(dict.fromkeys(files)),
            certificates=tuple(certificates),
            explicit=bool(named),
            identities_only=self._flag("identitiesonly", default=False),
            agent=self._agent(),
            passphrase=self._target.key_passphrase if self._own else None,
        )

    def _agent(self) -> str | None:
        text = self._settings.text("identityagent")
        if text is None or text == "SSH_AUTH_SOCK":
            return os.environ.get("SSH_AUTH_SOCK") or None
        if text.lower() == "none":
            return None
        if text.startswith("$") and not text.startswith("${"):
            return os.environ.get(text[1:]) or None
        return expand_path(text, self._tokens)

    def _files(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        words = self._settings.words(key) or default
        return tuple(expand_path(word, self._tokens) for word in words if word.lower() != "none")

    def _checking(self) -> Checking:
        if self._own and self._target.host_key_checking is not None:
            return self._target.host_key_checking
        text = (self._settings.text("stricthostkeychecking") or "ask").lower()
        if text in YES:
            return "yes"
        if text == "accept-new":
            return "accept-new"
        if text in NO:
            self._options.warn(
                "StrictHostKeyChecking=no is taken as accept-new: new host keys are recorded, changed ones are refused"
            )
            return "accept-new"
        raise self._error("stricthostkeychecking", text, "yes, ask, accept-new, no")

    def _methods(self) -> tuple[str, ...]:
        wanted = (self._settings.text("preferredauthentications") or ",".join(METHODS)).lower().split(",")
        switches = {
            "publickey": "pubkeyauthentication",
            "password": "passwordauthentication",
            "keyboard-interactive": "kbdinteractiveauthentication",
        }
        return tuple(m for m in METHODS if m in wanted and self._flag(switches[m], default=True))

    def _algorithms(self) -> Algorithms:
        return Algorithms(
            kex=self._settings.text("kexalgorithms") or "",
            ciphers=self._settings.text("ciphers") or "",
            macs=self._settings.text("macs") or "",
            keys=self._settings.text("hostkeyalgorithms") or "",
            pubkeys=self._settings.text("pubkeyacceptedalgorithms") or "",
        )

    def _family(self) -> int:
        text = (self._settings.text("addressfamily") or "any").lower()
        if text not in FAMILIES:
            raise self._error("addressfamily", text, ", ".join(FAMILIES))
        return FAMILIES[text]

    def _flag(self, key: str, *, default: bool) -> bool:
        text = (self._settings.text(key) or "").lower()
        if not text:
            return default
        if text in YES | {"unbound", "host-bound"}:
            return True
        if text in NO:
            return False
        raise self._error(key, text, "yes, no")

    def _number(self, key: str, default: int, low: int, high: int) -> int:
        text = self._settings.text(key)
        if text is None or text.lower() == "none":
            return default
        if text.isascii() and text.isdigit() and low <= int(text) <= high:
            return int(text)
        raise self._error(key, text, f"a number from {low} to {high}")

    def _error(self, key: str, value: str, allowed: str) -> SourceErrors:
        position = self._settings.position(key)
        return SourceErrors([Problem("ssh-config", f'{key} is "{value}"', position, f"allowed: {allowed}")])


def config_files(target: CommonArgs, options: ConnectOptions) -> tuple[tuple[str, bool], ...]:
    """Return the ssh_config files for a target, strongest first, each with whether it is the user's."""
    if target.config_file == "none":
        return ()
    if target.config_file is not None:
        return ((os.path.expanduser(target.config_file), True),)
    return ((os.path.join(options.home, ".ssh", "config"), True), (options.system_ssh_config, False))
