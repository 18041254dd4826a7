"""Prove to a server who we are: keys first, then the password, with a reason when nothing worked."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpuprov.errors import AuthenticationError, SessionLost, TransportError
from gpuprov.transport.link import Link, RecordingAuthHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpuprov.transport.keys import Identity

#: How long a server may think about one key or password; slow directories behind PAM need some.
ATTEMPT_TIMEOUT_S = 30.0


@dataclass(slots=True)
class Attempts:
    """What has been tried at one server. allowed is what the server would take next."""

    who: str
    allowed: tuple[str, ...] = ()
    tried: list[str] = field(default_factory=list)
    excuses: list[str] = field(default_factory=list)


def authenticate(
    link: Link, user: str, who: str, identities: Sequence[Identity], password: str | None, methods: Sequence[str]
) -> Attempts | None:
    """Log in over *link*. None when that worked, else everything that was tried."""
    attempts = Attempts(who)
    if "publickey" in methods:
        for identity in identities:
            if attempts.allowed and "publickey" not in attempts.allowed:
                break
            attempts.tried.append(identity.describe())
            if _one(link, attempts, _with_key(user, identity)):
                return None
    if password is not None:
        if _may("password", methods, attempts):
            attempts.tried.append("the password")
            if _one(link, attempts, lambda h, e: h.auth_password(user, password, e)):
                return None
        if _may("keyboard-interactive", methods, attempts):
            attempts.tried.append("the password (keyboard-interactive)")
            if _one(link, attempts, lambda h, e: h.auth_interactive(user, _answering(password), e)):
                return None
    if attempts.tried:
        return attempts
    # nothing to offer: ask, so that the message can say what the server would take
    return None if _one(link, attempts, lambda h, e: h.auth_none(user, e)) else attempts


def _may(method: str, methods: Sequence[str], attempts: Attempts) -> bool:
    return method in methods and (not attempts.allowed or method in attempts.allowed)


def _one(link: Link, attempts: Attempts, request: Callable[[RecordingAuthHandler, threading.Event], None]) -> bool:
    """Make one attempt; True when it opened the door."""
    answered = threading.Event()
    handler = RecordingAuthHandler(link)
    link.auth_handler = handler
    request(handler, answered)
    finished = answered.wait(ATTEMPT_TIMEOUT_S)
    if link.is_authenticated():
        return True
    if not link.is_active():
        raise _broken(link, attempts)
    if not finished:
        link.close()
        message = f"{attempts.who} did not answer a login attempt within {ATTEMPT_TIMEOUT_S:.0f} s"
        raise AuthenticationError(message, hint="its user directory (LDAP, SSSD) may be slow or down")
    attempts.allowed = handler.allowed or attempts.allowed
    if handler.excuse:
        attempts.excuses.append(handler.excuse)
    return False


def _with_key(user: str, identity: Identity) -> Callable[[RecordingAuthHandler, threading.Event], None]:
    return lambda handler, answered: handler.auth_publickey(user, identity.key, answered)  # type: ignore[arg-type]


def _broken(link: Link, attempts: Attempts) -> TransportError:
    if "too many authentication failures" in link.server_said.lower():
        tried = ", ".join(attempts.tried)
        return AuthenticationError(
            f"{attempts.who} ended the login after too many keys; tried: {tried}",
            hint="name the right key with ansible_ssh_private_key_file or --private-key, or set IdentitiesOnly yes",
        )
    return SessionLost(f"{attempts.who}: {link.why_dead} during the login", hint="the host's sshd log says why")


def _answering(password: str) -> Callable[[str, str, list[tuple[str, bool]]], list[str]]:
    def answer(_title: str, _instructions: str, prompts: list[tuple[str, bool]]) -> list[str]:
        # a prompt that echoes, or several at once, ask for something else than a password
        secret = len(prompts) == 1 and not prompts[0][1]
        return [password if secret else "" for _ in prompts]

    return answer


def refusal(attempts: Attempts, user: str, password_given: bool) -> AuthenticationError:
    """Return the error for *attempts* that all failed."""
    allowed = ", ".join(attempts.allowed) or "nothing that gpuprov knows"
    parts = [f"{attempts.who} refused the login as {user}"]
    parts.append("tried " + ", ".join(attempts.tried) if attempts.tried else "there was no key or password to try")
    parts.append(f"the host accepts: {allowed}")
    parts += attempts.excuses
    if "publickey" in attempts.allowed:
        hint = f"is the public key in ~{user}/.ssh/authorized_keys there? Name another key with --private-key"
    elif password_given:
        hint = "the password (ansible_password) is wrong, or the account is locked"
    else:
        hint = "the host takes no keys: give a password with ansible_password (from a vault)"
    return AuthenticationError("; ".join(parts), hint=hint)
