"""The agent's first life, the *front*: facts, plan and files in, then the journal's tail out.

It runs as long as the SSH channel does. The runner that it starts does not: it is detached,
never touches the channel, and goes on when this process is gone.
"""

from __future__ import annotations

import os
import sys

from gpuprov.agent import facts
from gpuprov.agent.channel import Channel, ChannelClosed
from gpuprov.agent.preflight import preflight
from gpuprov.agent.system import System
from gpuprov.wire import PROTOCOL
from gpuprov.wire.frames import FrameError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(boot: dict[str, Any]) -> None:
    """Serve one controller until it leaves. Never returns."""
    os.environ.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    sys.dont_write_bytecode = True
    channel = Channel(0, 1)
    try:
        _serve(boot, channel)
    except (ChannelClosed, ConnectionError, KeyboardInterrupt):
        os._exit(0)
    except FrameError as error:
        _say(channel, "protocol", "the controller sent nonsense: %s" % error)
        os._exit(1)
    except Exception as error:  # the last stop: a bug must reach a person as a sentence
        import traceback

        detail = traceback.format_exc()
        _say(channel, "agent-crashed", "the agent met a bug: %s: %s" % (type(error).__name__, error), detail)
        os._exit(1)
    os._exit(0)


def _say(channel: Channel, code: str, message: str, detail: str = "") -> None:
    try:
        channel.send({"t": "fault", "code": code, "message": message, "detail": detail})
    except OSError:  # nobody listens any more
        return


def _serve(boot: dict[str, Any], channel: Channel) -> None:
    system = System()
    found = facts.gather(system)
    if boot.get("survey"):
        from gpuprov.agent.survey import survey

        found["gpuprov"]["survey"] = survey(system, network=boot["survey"] == {"network": True})
    channel.send(
        {
            "t": "hello",
            "protocol": PROTOCOL,
            "pid": os.getpid(),
            "uid": os.geteuid(),
            "python": "%d.%d.%d" % sys.version_info[:3],
            "home": boot["home"],
            "trouble": preflight(boot["home"]),
            "facts": found,
        }
    )
    while True:
        header, _ = channel.receive()
        if _ends(boot, channel, found, header):
            return


def _ends(boot: dict[str, Any], channel: Channel, found: dict[str, Any], header: dict[str, Any]) -> bool:
    """Do what one frame asks for; True when the session is over afterwards."""
    kind = header["t"]
    if kind == "bye":
        return True
    if kind == "evidence":
        from gpuprov.agent import evidence

        channel.send({"t": "evidence", "evidence": evidence.gather(System(), header["virtualenv"])})
        return False
    from gpuprov.agent import launch

    if kind == "plan":
        return launch.start(boot, channel, found, header)
    if kind == "attach":
        return launch.attach(boot, channel, found, header)
    if kind == "unlock":
        return launch.unlock(boot, channel)
    channel.send({"t": "fault", "code": "protocol", "message": "unknown frame %r" % kind})
    return True
