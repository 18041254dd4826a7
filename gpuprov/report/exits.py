"""What exit codes mean, in the words of docs/exit-codes.md. Pure."""

from __future__ import annotations

from gpuprov import errors

MEANINGS = {
    errors.EXIT_OK: "every host is as wanted",
    errors.EXIT_ERROR: "gpuprov could not do its work",
    errors.EXIT_FAILED: "a task failed on a host",
    errors.EXIT_UNHEALTHY: "not healthy: a check failed, or an expected GPU was not proved",
    errors.EXIT_UNREACHABLE: "a host was unreachable or lost",
    errors.EXIT_INPUT: "bad input, or nothing matched; nothing was changed",
    errors.EXIT_REFUSED: "a host was refused by the preflight",
    errors.EXIT_INTERRUPTED: "interrupted by a person",
    errors.EXIT_BUG: "a bug in gpuprov",
}


def meaning(code: object, *, check: bool = False) -> str:
    """Return the sentence for exit code *code*, "" for None. check: nothing was changed."""
    if check and code == errors.EXIT_OK:
        return "nothing would fail; check mode changed nothing"
    return MEANINGS.get(code, "") if isinstance(code, int) else ""
