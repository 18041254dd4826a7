"""Ask the agent of an open session what shows that something is wrong with its host."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from gpuprov.agent.evidence import VIRTUALENV
from gpuprov.errors import AgentError
from gpuprov.wire.frames import FrameError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuprov.fleet.session import Session

#: The agent bounds each program itself; this is for one that does not answer at all.
LIMIT_S = 90.0


def ask(session: Session, virtualenv: str | None = None, limit_s: float = LIMIT_S) -> Mapping[str, Any]:
    """Return the evidence: source -> lines and values. Raises SessionLost, AgentError; blocks."""
    session.send({"t": "evidence", "virtualenv": virtualenv or VIRTUALENV})
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        session.channel.wait(min(1.0, max(0.0, deadline - time.monotonic())))
        try:
            for header, _, _ in session.frames():
                if header["t"] == "evidence" and isinstance(header.get("evidence"), dict):
                    return dict(header["evidence"])
                if header["t"] == "fault":
                    raise AgentError(str(header.get("message")), code=str(header.get("code")))
        except FrameError as error:
            raise AgentError(f"the host answered nonsense: {error}", code="protocol") from None
    raise AgentError(f"the agent did not answer within {limit_s:.0f} s", hint="does the host hang?", code="silent")
