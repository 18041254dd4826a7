"""Names on disk: run ids, and host names that are never a path. Pure but for the clock."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time

from gpuprov.errors import UsageError

_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\Z")
_RUN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}\Z")


def new_run_id(now: float | None = None) -> str:
    """Return a run id that sorts by time, "20261123-154501-a1b2c3" (UTC)."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{secrets.token_hex(3)}"


def is_run_id(name: str) -> bool:
    """Return whether *name* is a run id."""
    return _RUN.match(name) is not None


def file_name(host: str) -> str:
    """Return *host* as a file name: itself when it is safe, else what is safe of it and a hash."""
    if _SAFE.match(host):
        return host
    kept = re.sub(r"[^A-Za-z0-9_-]", "_", host)[:60].lstrip("-") or "host"
    return f"{kept}-{hashlib.sha256(host.encode('utf-8', 'surrogatepass')).hexdigest()[:10]}"


def default_root() -> str:
    """Return the folder of all runs: $XDG_STATE_HOME/gpuprov/runs."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):  # the specification says: ignore relative ones
        home = os.path.expanduser("~")
        if not os.path.isabs(home):
            raise UsageError("neither XDG_STATE_HOME nor HOME says where runs are kept", hint="give --run-dir")
        state = os.path.join(home, ".local", "state")
    return os.path.join(state, "gpuprov", "runs")
