"""known_hosts files: read once per run, indexed by host, written under a lock.

The format is sshd(8)'s: hashed names (|1|salt|hash), [host]:port, patterns with ! negation,
@revoked and @cert-authority lines.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import fnmatch
import hashlib
import hmac
import os
import re
import tempfile
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpuprov.errors import HostKeyError
from gpuprov.transport.agent import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

DEFAULT_PORT = 22

#: Algorithms to negotiate for a recorded key type, best first.
ALGORITHMS = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}


@dataclass(frozen=True, slots=True)
class HostKey:
    """A public host key."""

    type: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """Return its SHA256 fingerprint as ssh prints it."""
        return fingerprint(self.blob)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a known_hosts file."""

    key: HostKey
    path: str
    line: int

    @property
    def where(self) -> str:
        """Return path:line."""
        return f"{self.path}:{self.line}"


@dataclass(slots=True)
class Known:
    """What is on record about one host."""

    keys: list[Entry] = field(default_factory=list)
    revoked: list[Entry] = field(default_factory=list)
    authorities: list[Entry] = field(default_factory=list)

    def __iadd__(self, other: Known) -> Known:
        self.keys += other.keys
        self.revoked += other.revoked
        self.authorities += other.authorities
        return self

    def algorithms(self) -> tuple[str, ...]:
        """Return the algorithms to ask the host for: those of recorded keys; none when nothing is recorded."""
        types = {entry.key.type for entry in self.keys}
        return tuple(name for type_, names in ALGORITHMS.items() if type_ in types for name in names)


def lookup_name(host: str, port: int) -> str:
    """Return the name under which known_hosts has *host*."""
    host = host.lower()
    return host if port == DEFAULT_PORT else f"[{host}]:{port}"


class KnownHostsFile:
    """One file, indexed. Lookups cost a dictionary access, plus one HMAC per hashed line."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._plain: dict[str, Known] = {}
        self._patterns: list[tuple[list[tuple[bool, re.Pattern[str]]], str, Entry]] = []
        self._hashed: list[tuple[bytes, bytes, str, Entry]] = []
        #: Clauses about lines that could not be read.
        self.bad_lines: list[str] = []
        self._read()

    def _read(self) -> None:
        try:
            with open(self.path, encoding="utf-8", errors="replace") as f:
                for number, line in enumerate(f, 1):
                    self._add(line, number)
        except FileNotFoundError:
            return
        except OSError as error:
            self.bad_lines.append(f"{self.path} cannot be read ({(error.strerror or str(error)).lower()})")

    def _add(self, line: str, number: int) -> None:
        words = line.split()
        if not words or words[0].startswith("#"):
            return
        marker = words.pop(0).lower() if words[0].startswith("@") else ""
        try:
            names, type_, encoded = words[:3]
            entry = Entry(HostKey(type_, base64.b64decode(encoded, validate=True)), self.path, number)
            if marker not in {"", "@revoked", "@cert-authority"}:
                raise ValueError(marker)
            self._index(names, marker, entry)
        except (ValueError, binascii.Error):
            self.bad_lines.append(f"{self.path}:{number} is not a known_hosts line and is ignored")

    def _index(self, names: str, marker: str, entry: Entry) -> None:
        if names.startswith("|1|"):
            salt, digest = (base64.b64decode(part, validate=True) for part in names[3:].split("|"))
            self._hashed.append((salt, digest, marker, entry))
        elif any(c in names for c in "*?!"):
            patterns = []
            for name in names.lower().split(","):
                negated = name.startswith("!")
                patterns.append((negated, re.compile(pattern_regex(name[negated:]))))
            self._patterns.append((patterns, marker, entry))
        else:
            for name in names.lower().split(","):
                _put(self._plain.setdefault(name, Known()), marker, entry)

    def lookup(self, name: str) -> Known:
        """Return what the file has about *name* (see lookup_name)."""
        found = Known()
        if name in self._plain:
            found += self._plain[name]
        for patterns, marker, entry in self._patterns:
            hits = [negated for negated, regex in patterns if regex.fullmatch(name)]
            if hits and not any(hits):
                _put(found, marker, entry)
        for salt, digest, marker, entry in self._hashed:
            if hmac.digest(salt, name.encode(), hashlib.sha1) == digest:
                _put(found, marker, entry)
        return found


def _put(known: Known, marker: str, entry: Entry) -> None:
    {"": known.keys, "@revoked": known.revoked, "@cert-authority": known.authorities}[marker].append(entry)


def pattern_regex(pattern: str) -> str:
    """Return the regular expression of an ssh pattern: * and ? only, brackets are ordinary characters."""
    return fnmatch.translate(pattern.replace("[", "[[]"))


class KnownHosts:
    """All known_hosts files of a run. Thread-safe. warn hears of each line that cannot be read."""

    def __init__(self, warn: Callable[[str], None] = lambda _: None) -> None:
        self._warn = warn
        self._lock = threading.RLock()
        self._files: dict[str, KnownHostsFile] = {}
        self._found: dict[tuple[tuple[str, ...], str, int], Known] = {}

    def lookup(self, files: Sequence[str], host: str, port: int) -> Known:
        """Return what *files* have about *host*; like ssh, with the plain name's keys when a port has none."""
        key = (tuple(files), host, port)
        with self._lock:
            if key not in self._found:
                self._found[key] = self._lookup(files, lookup_name(host, port))
                if port != DEFAULT_PORT:
                    plain = self._lookup(files, host.lower())
                    if not self._found[key].keys:
                        self._found[key].keys += plain.keys
                    self._found[key].revoked += plain.revoked
            return self._found[key]

    def _lookup(self, files: Sequence[str], name: str) -> Known:
        found = Known()
        for path in files:
            if path not in self._files:
                self._files[path] = KnownHostsFile(path)
                for clause in self._files[path].bad_lines:
                    self._warn(clause)
            found += self._files[path].lookup(name)
        return found

    def record(self, path: str, host: str, port: int, keys: Iterable[HostKey], *, hashed: bool = False) -> None:
        """Add *keys* of *host* to the file *path*; HostKeyError when it cannot be written."""
        name = lookup_name(host, port)
        shown = _hash_name(name) if hashed else name
        lines = [f"{shown} {key.type} {base64.b64encode(key.blob).decode()}\n" for key in keys]
        with self._lock:
            if os.path.realpath(path) != os.devnull:
                _rewrite(path, lambda text: text + ("" if not text or text.endswith("\n") else "\n") + "".join(lines))
            self._forget(path)

    def forget_keys(self, path: str, host: str, port: int, types: Iterable[str]) -> None:
        """Remove the keys of these types that *path* has for exactly *host*, as ssh-keygen -R does."""
        doomed = {e.line for e in KnownHostsFile(path).lookup(lookup_name(host, port)).keys if e.key.type in set(types)}
        with self._lock:
            _rewrite(path, lambda text: _without(text, doomed, lookup_name(host, port)))
            self._forget(path)

    def _forget(self, path: str) -> None:
        self._files.pop(path, None)
        self._found.clear()


def _without(text: str, doomed: set[int], name: str) -> str:
    kept = []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if number not in doomed:
            kept.append(line)
            continue
        names, _, rest = line.lstrip().partition(" ")
        others = [n for n in names.split(",") if n.lower() != name] if not names.startswith("|1|") else []
        if others:
            kept.append(",".join(others) + " " + rest)
    return "".join(kept)


def _hash_name(name: str) -> str:
    salt = os.urandom(20)
    digest = hmac.digest(salt, name.encode(), hashlib.sha1)
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def _rewrite(path: str, change: Callable[[str], str]) -> None:
    """Replace *path* by change(text) atomically, one process at a time."""
    try:
        real = os.path.realpath(path)
        folder = os.path.dirname(real)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with _locked(folder):
            before, mode = _text_and_mode(real)
            handle, temporary = tempfile.mkstemp(prefix=".known_hosts.", dir=folder)
            try:
                with open(handle, "w", encoding="utf-8", errors="surrogateescape") as f:
                    f.write(change(before))
                    f.flush()
                    os.fsync(f.fileno())
                os.chmod(temporary, mode)
                os.replace(temporary, real)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise HostKeyError(
            f"the host key cannot be recorded in {path} ({reason})", hint="is it yours to write?"
        ) from error


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Hold a lock on *folder* itself, so that no lock file is left in anybody's ~/.ssh."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _text_and_mode(path: str) -> tuple[str, int]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            return f.read(), os.fstat(f.fileno()).st_mode & 0o777
    except FileNotFoundError:
        return "", 0o600
