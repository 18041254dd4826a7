"""Private keys and agents: each read once per run, shared by all hosts."""

from __future__ import annotations

import copy
import os
import stat
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from gpuprov.errors import AuthenticationError
from gpuprov.transport.agent import Agent, AgentKey, fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable

    import paramiko

#: Tried when nobody names a key; the strongest first, and what most people have first.
DEFAULT_NAMES = ("id_ed25519", "id_ecdsa", "id_rsa")


class SigningKey(Protocol):
    """What authentication needs of a key, be it from a file or an agent."""

    def get_name(self) -> str:
        """Return its type."""

    def asbytes(self) -> bytes:
        """Return its public part."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A key that can be offered. label says where it comes from."""

    label: str
    key: SigningKey

    def describe(self) -> str:
        """Return it as an error message names it."""
        return f"{self.label} ({self.key.get_name()} {fingerprint(self.key.asbytes())})"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which keys one host may be offered. explicit files were named by a person, for this host."""

    files: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    explicit: bool = False
    identities_only: bool = False
    agent: str | None = None
    passphrase: str | None = field(default=None, repr=False)


class KeyRing:
    """Every key of a run. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._files: dict[tuple[str, str | None], paramiko.PKey | AuthenticationError] = {}
        self._certified: dict[tuple[str, str], paramiko.PKey | None] = {}
        self._agents: dict[str, tuple[AgentKey, ...]] = {}

    def identities(self, wanted: Wanted) -> tuple[list[Identity], list[str]]:
        """Return the keys to offer, in order, and a clause for each named file that cannot be used.

        Keys that were named come first: a server counts every offer, and an agent may hold
        more than the server's patience.
        """
        held = {key.blob: key for key in self.agent_keys(wanted.agent)} if wanted.agent else {}
        offered: dict[bytes, Identity] = {}
        excuses = []
        for path in wanted.files:
            try:
                found = self._from_file(path, wanted, held)
            except AuthenticationError as error:
                excuses.append(error.message)
            else:
                for identity in found:
                    offered.setdefault(_blob(identity), identity)
        from_agent = {} if wanted.identities_only else {k.blob: Identity("agent", k) for k in held.values()}
        named_first = offered if wanted.explicit else {}
        return list({**named_first, **from_agent, **offered}.values()), excuses

    def agent_keys(self, path: str) -> tuple[AgentKey, ...]:
        """Return the keys of the agent at *path*; none when it cannot be reached."""
        with self._lock:
            if path not in self._agents:
                try:
                    self._agents[path] = Agent(path).keys()
                except (OSError, ValueError):
                    self._agents[path] = ()
            return self._agents[path]

    def close(self) -> None:
        """Hang up on all agents."""
        with self._lock:
            for keys in self._agents.values():
                for key in keys[:1]:
                    key.agent.close()
            self._agents.clear()

    def _from_file(self, path: str, wanted: Wanted, held: dict[bytes, AgentKey]) -> list[Identity]:
        """Return the key of *path*, with its certificates before it; or the agent's copy of it."""
        try:
            key = self._load(path, wanted.passphrase)
        except AuthenticationError:
            twin = held.get(public_half(path) or b"")
            if twin is None:
                raise
            return [Identity(path, twin)]
        certificates = [c for c in (*wanted.certificates, path + "-cert.pub") if os.path.exists(c)]
        return [*self._certificates(path, key, certificates), Identity(path, key)]

    def _certificates(self, path: str, key: paramiko.PKey, candidates: Iterable[str]) -> Iterable[Identity]:
        for candidate in candidates:
            with self._lock:
                if (path, candidate) not in self._certified:
                    self._certified[path, candidate] = certify(key, candidate)
                certified = self._certified[path, candidate]
            if certified is not None:
                yield Identity(candidate, certified)

    def _load(self, path: str, passphrase: str | None) -> paramiko.PKey:
        with self._lock:
            found = self._files.get((path, passphrase))
            if found is None:
                try:
                    found = load_key(path, passphrase)
                except AuthenticationError as error:
                    found = error
                self._files[path, passphrase] = found
        if isinstance(found, AuthenticationError):
            raise found
        return found


def load_key(path: str, passphrase: str | None) -> paramiko.PKey:
    """Read a private key; AuthenticationError says why it cannot be used."""
    import paramiko
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        with open(path, "rb") as f:
            mode = os.fstat(f.fileno())
            head = f.read(4096)
    except OSError as error:
        raise AuthenticationError(f"{path} cannot be read ({(error.strerror or str(error)).lower()})") from error
    if b"PRIVATE KEY" not in head:
        raise AuthenticationError(f"{path} is not a private key")
    if mode.st_uid == os.getuid() and stat.S_IMODE(mode.st_mode) & 0o077:
        # as ssh has it: a key that others can read is not a secret
        raise AuthenticationError(
            f"{path} can be read by others (mode {stat.S_IMODE(mode.st_mode):04o}) and is ignored; chmod 600 {path}"
        )
    try:
        # cryptography wants bytes, paramiko's annotation says str and its code takes both
        key = paramiko.PKey.from_path(path, passphrase.encode() if passphrase else None)  # type: ignore[arg-type]
    except (paramiko.PasswordRequiredException, TypeError) as error:
        raise AuthenticationError(f"{path} is encrypted and the ssh-agent does not hold it; ssh-add {path}") from error
    except (paramiko.SSHException, ValueError, AssertionError) as error:
        clause = "the passphrase does not open it" if passphrase else "its content is damaged or of an unknown kind"
        raise AuthenticationError(f"{path} cannot be used: {clause}") from error
    except (paramiko.pkey.UnknownKeyType, UnsupportedAlgorithm) as error:
        raise AuthenticationError(f"{path} is of a kind of key that is not supported") from error
    key.public_blob = None  # from_path takes <path>-cert.pub along; certificates are offered beside the plain key
    return key


def certify(key: paramiko.PKey, certificate: str) -> paramiko.PKey | None:
    """Return *key* with *certificate*; None when that is for another key, as ssh skips it."""
    import paramiko

    certified = copy.copy(key)
    try:
        certified.load_certificate(certificate)
    except (OSError, ValueError, paramiko.SSHException):
        return None
    blob = certified.public_blob
    return certified if blob is not None and key.asbytes()[-32:] in blob.key_blob else None


def public_half(path: str) -> bytes | None:
    """Return the public key of the private key file *path*, from its .pub; None when there is none."""
    import base64
    import binascii

    try:
        with open(path + ".pub", encoding="ascii") as f:
            return base64.b64decode(f.readline().split()[1])
    except (OSError, IndexError, UnicodeDecodeError, binascii.Error):
        return None


def _blob(identity: Identity) -> bytes:
    blob = getattr(identity.key, "public_blob", None)
    return blob.key_blob if blob is not None else identity.key.asbytes()
