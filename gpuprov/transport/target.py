"""One host as the transport sees it: Ansible's connection variables, read and checked."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from gpuprov.errors import Problem, SourceErrors
from gpuprov.source import position_of
from gpuprov.transport.common_args import CommonArgs, parse_common_args
from gpuprov.transport.options import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Checking = Literal["yes", "accept-new"]

#: Connection plugins of Ansible that mean "ssh" here.
SSH_CONNECTIONS = frozenset({"ssh", "smart", "paramiko", "paramiko_ssh", "ansible.builtin.ssh"})
LOCAL_CONNECTIONS = frozenset({"local", "ansible.builtin.local"})

#: Variables of Ansible that change how it connects and have no counterpart here.
UNSUPPORTED = {
    "ansible_ssh_private_key": "put the key into a file and name it with ansible_ssh_private_key_file",
    "ansible_paramiko_proxy_command": "use ProxyCommand in ~/.ssh/config or in ansible_ssh_common_args",
}


def _no_warning(_text: str) -> None:
    """Drop a warning: the default for callers that have no place to show it."""


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """What the command line says about all connections of a run.

    home is where ~/.ssh is looked for. keepalive_s and keepalive_count bound how long a silent
    peer is believed to live: keepalive_s * (keepalive_count + 1). warn is called with one
    sentence at most once per cause, from any thread.
    """

    user: str | None = None
    private_key: str | None = None
    connect_timeout_s: float = 10
    keepalive_s: float = 10
    keepalive_count: int = 3
    home: str = field(default_factory=lambda: os.path.expanduser("~"))
    system_ssh_config: str = "/etc/ssh/ssh_config"
    warn: Callable[[str], None] = _no_warning


@dataclass(frozen=True, slots=True)
class Target:
    """One host, all values rendered. address, port, user: None where ssh_config may say."""

    name: str
    address: str
    port: int | None = None
    user: str | None = None
    connection: str = "ssh"
    key_file: str | None = None
    key_passphrase: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    common_args: CommonArgs = field(default_factory=CommonArgs)
    known_hosts: tuple[str, ...] = ()
    host_key_checking: Checking | None = None
    connect_timeout_s: float | None = None


def target_of(host_name: str, variables: Mapping[str, Any], options: ConnectOptions) -> Target:
    """Return the Target that *variables* (rendered, merged) describe.

    Variables win over the command line's -u and --private-key, as in Ansible. Raises
    SourceErrors with every problem of this host. Pure.
    """
    reader = _Reader(host_name, variables)
    target = Target(
        name=host_name,
        address=reader.text("ansible_host", "ansible_ssh_host") or host_name,
        port=reader.port("ansible_port", "ansible_ssh_port"),
        user=reader.text("ansible_user", "ansible_ssh_user") or options.user,
        connection=reader.connection(),
        key_file=reader.text("ansible_private_key_file", "ansible_ssh_private_key_file") or options.private_key,
        key_passphrase=reader.text("ansible_ssh_private_key_passphrase"),
        password=reader.text("ansible_password", "ansible_ssh_pass", "ansible_ssh_password"),
        common_args=reader.common_args(),
        known_hosts=reader.files("gpuprov_known_hosts"),
        host_key_checking=reader.checking(),
        connect_timeout_s=reader.seconds("ansible_ssh_timeout", "ansible_timeout"),
    )
    reader.unsupported()
    if reader.problems:
        raise SourceErrors(reader.problems)
    return target


class _Reader:
    """Typed access to variables; collects a Problem for each bad one."""

    def __init__(self, host: str, variables: Mapping[str, Any]) -> None:
        self.host = host
        self.variables = variables
        self.problems: list[Problem] = []

    def find(self, names: tuple[str, ...]) -> tuple[str, Any]:
        for name in names:
            if self.variables.get(name) not in (None, ""):
                return name, self.variables[name]
        return names[0], None

    def bad(self, name: str, message: str, hint: str = "") -> None:
        where = position_of(self.variables.get(name))
        self.problems.append(Problem("bad-connection-variable", f"host {self.host}: {name} {message}", where, hint))

    def text(self, *names: str) -> str | None:
        name, value = self.find(names)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self.bad(name, f"is {value!r}", "it must be a string")
            return None
        text = str(value)
        if any(ord(c) < 32 or c == "\x7f" for c in text):
            self.bad(name, "has a line break or a control character in it")
        return text

    def port(self, *names: str) -> int | None:
        name, value = self.find(names)
        if value is None:
            return None
        if not isinstance(value, bool) and str(value).isascii() and str(value).isdigit() and 0 < int(value) < 65536:
            return int(value)
        self.bad(name, f"is {value!r}", "a port is a number from 1 to 65535")
        return None

    def seconds(self, *names: str) -> float | None:
        name, value = self.find(names)
        if value is None:
            return None
        try:
            seconds = float(value)
        except (TypeError, ValueError):
            seconds = 0.0
        if not isinstance(value, bool) and 0 < seconds < 86400:
            return seconds
        self.bad(name, f"is {value!r}", "it is a number of seconds above 0")
        return None

    def connection(self) -> str:
        name, value = self.find(("ansible_connection",))
        if value is None or value in SSH_CONNECTIONS:
            return "ssh"
        if value in LOCAL_CONNECTIONS:
            return "local"
        self.bad(name, f"is {value!r}", 'gpuprov connects through "ssh" or "local"')
        return "ssh"

    def checking(self) -> Checking | None:
        name, value = self.find(("ansible_ssh_host_key_checking", "ansible_host_key_checking"))
        if value is None:
            return None
        text = str(value).lower()
        if text in {"true", "yes", "on", "1"}:
            return "yes"
        if text in {"false", "no", "off", "0", "accept-new"}:
            return "accept-new"
        self.bad(name, f"is {value!r}", 'allowed: true, false, "accept-new"')
        return None

    def files(self, name: str) -> tuple[str, ...]:
        value = self.variables.get(name) or ()
        paths = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else (value,)
        if not all(isinstance(path, str) for path in paths):
            self.bad(name, f"is {value!r}", "it is a path or a list of paths")
            return ()
        return tuple(str(path) for path in paths)

    def common_args(self) -> CommonArgs:
        merged = CommonArgs()
        # ssh keeps the first value that it meets, and Ansible puts the extra args behind the common ones
        for name in ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args"):
            text = self.text(name)
            if text is None:
                continue
            try:
                found = parse_common_args(text)
            except OptionError as error:
                self.bad(name, f"has an option that cannot be honoured: {error}", error.hint)
                continue
            merged = CommonArgs(merged.settings + found.settings, merged.config_file or found.config_file)
        return merged

    def unsupported(self) -> None:
        for name, hint in UNSUPPORTED.items():
            if self.variables.get(name):
                self.bad(name, "is not supported", hint)
