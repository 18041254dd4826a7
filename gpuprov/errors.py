"""Every error that the controller raises on purpose, with its exit code.

    GpuprovError                exit 1
    ├── SourceErrors            exit 5   everything wrong in the input, in one batch
    ├── UsageError              exit 5   options that make no sense, nothing matched
    ├── TransportError          per host exit 4
    │   ├── ConnectError                 name not found, refused, no route, timed out
    │   ├── AuthenticationError          no key or password was accepted
    │   ├── HostKeyError                 the host's key is unknown, changed or revoked
    │   └── SessionLost                  an open connection ended or fell silent
    ├── AgentError              per host exit 4   the host answered, its agent could not start
    ├── RefusedError            exit 6   the preflight said no before any change
    ├── LabError                exit 1   the rehearsal fleet
    └── Interrupted             exit 99  the person said stop

Anything else that escapes is a bug: exit 250 with a traceback.
Outcomes of tasks and hosts are values (results.py), never exceptions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gpuprov.source import Position

EXIT_OK = 0
EXIT_ERROR = 1
EXIT_FAILED = 2
EXIT_UNHEALTHY = 3
EXIT_UNREACHABLE = 4
EXIT_INPUT = 5
EXIT_REFUSED = 6
EXIT_INTERRUPTED = 99
EXIT_BUG = 250

#: With several exit codes to choose from, the first of these wins.
EXIT_ORDER = (250, 99, 5, 1, 6, 2, 4, 3, 0)


def worst_exit(codes: Iterable[int]) -> int:
    """Return the exit code that a run with all of *codes* ends with."""
    return min(codes, key=EXIT_ORDER.index, default=EXIT_OK)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in the input.

    message says what was found and what is allowed; hint is an action; code is kebab-case
    and stable.
    """

    code: str
    message: str
    position: Position | None = None
    hint: str = ""
    context: tuple[str, ...] = field(default=(), compare=False)


class GpuprovError(Exception):
    """Root of all errors raised on purpose: one sentence, and what to do about it."""

    exit_code: ClassVar[int] = EXIT_ERROR
    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.reference = code or self.code


class UsageError(GpuprovError):
    """Options that contradict each other, or a pattern that matches nothing."""

    exit_code = EXIT_INPUT
    code = "usage"


class SourceErrors(GpuprovError):
    """All problems of the input files, found before any connection was made."""

    exit_code = EXIT_INPUT
    code = "input"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        super().__init__(f"{count} problem{'s' if count != 1 else ''} in the input")


class TransportError(GpuprovError):
    """No way to the host, or the way broke."""

    exit_code = EXIT_UNREACHABLE
    code = "unreachable"


class ConnectError(TransportError):
    """The host's name was not found, or nothing answered at its address."""

    code = "connect-failed"


class AuthenticationError(TransportError):
    """The host accepted none of the keys or passwords offered."""

    code = "authentication-refused"


class HostKeyError(TransportError):
    """The host's key is unknown, has changed or was revoked."""

    code = "host-key"


class SessionLost(TransportError):
    """An open connection ended, or nothing came over it for too long."""

    code = "session-lost"


class AgentError(GpuprovError):
    """The host was reached, but its agent could not start or broke the protocol."""

    exit_code = EXIT_UNREACHABLE
    code = "agent"


class RefusedError(GpuprovError):
    """The preflight found a reason not to touch the host. refusal: the reason as data, when no stack fits."""

    exit_code = EXIT_REFUSED
    code = "refused"

    def __init__(
        self, message: str, *, hint: str = "", code: str = "", refusal: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.refusal = refusal or {}


class LabError(GpuprovError):
    """The rehearsal fleet could not be started, stopped or found."""

    code = "lab"


class Interrupted(GpuprovError):
    """The person at the keyboard asked to stop."""

    exit_code = EXIT_INTERRUPTED
    code = "interrupted"
