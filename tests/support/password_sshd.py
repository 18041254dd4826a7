"""An SSH server inside the test, for logins that an sshd without PAM and accounts cannot offer."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import paramiko

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Door(paramiko.ServerInterface):
    """Lets in who has the password, by the methods that are offered, one after the other."""

    def __init__(
        self, password: str, methods: tuple[str, ...], both: bool, prompts: tuple[tuple[str, bool], ...]
    ) -> None:
        self.password = password
        self.methods = methods
        self.both = both
        self.prompts = prompts
        self.key_was_shown = False
        self.answers: list[str] = []

    def get_allowed_auths(self, username: str) -> str:
        if self.both:
            return "password" if self.key_was_shown else "publickey"
        return ",".join(self.methods)

    def check_auth_none(self, username: str) -> int:
        return paramiko.AUTH_FAILED

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self.key_was_shown = self.both
        return paramiko.AUTH_PARTIALLY_SUCCESSFUL if self.both else paramiko.AUTH_FAILED

    def check_auth_password(self, username: str, password: str) -> int:
        if "password" not in self.methods or (self.both and not self.key_was_shown):
            return paramiko.AUTH_FAILED
        return paramiko.AUTH_SUCCESSFUL if password == self.password else paramiko.AUTH_FAILED

    def check_auth_interactive(self, username: str, submethods: str) -> object:
        return paramiko.InteractiveQuery("", "", *self.prompts)

    def check_auth_interactive_response(self, responses: list[str]) -> int:
        self.answers += responses
        return paramiko.AUTH_SUCCESSFUL if responses == [self.password] else paramiko.AUTH_FAILED


@contextlib.contextmanager
def password_sshd(
    host_key: Path,
    password: str,
    *methods: str,
    both: bool = False,
    prompts: tuple[tuple[str, bool], ...] = (("Password: ", False),),
) -> Iterator[tuple[int, Door]]:
    """Serve logins on 127.0.0.1; yield the port and what the door has seen."""
    listener = socket.create_server(("127.0.0.1", 0))
    door = Door(password, methods, both, prompts)
    open_transports: list[paramiko.Transport] = []

    def loop() -> None:
        with contextlib.suppress(OSError, paramiko.SSHException, EOFError):
            while True:
                sock, _ = listener.accept()
                transport = paramiko.Transport(sock)
                open_transports.append(transport)
                transport.add_server_key(paramiko.PKey.from_path(str(host_key)))
                transport.start_server(server=door, event=threading.Event())

    threading.Thread(target=loop, daemon=True).start()
    try:
        yield listener.getsockname()[1], door
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for transport in open_transports:
            transport.close()
