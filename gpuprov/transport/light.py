"""Import paramiko without what it imports and this room never uses."""

from __future__ import annotations

import sys
import threading

_LOCK = threading.Lock()


def load() -> None:
    """Import paramiko, unless that was done.

    paramiko wants Invoke for one thing, `Match exec` in its own ssh_config, and does without it when
    it is not there. Here ssh_config is read by route.py, and importing Invoke (with asyncio and
    unittest.mock) would cost every run 45 ms of CPU.
    """
    with _LOCK:
        if "paramiko" in sys.modules or "invoke" in sys.modules:
            return
        sys.modules["invoke"] = None  # type: ignore[assignment]
        try:
            import paramiko  # noqa: F401 - for its effect
        finally:
            del sys.modules["invoke"]
