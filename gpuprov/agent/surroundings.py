"""Which environment variables commands are given on this host: in login shells, over ssh, in services."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.agent.process import Finished
    from gpuprov.agent.system import System

PLACES = ("clean", "login", "ssh", "service")
TIMEOUT_S = 30.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: What marks the beginning of the answer: shells may print what they like before.
_MARK = "gpuprov-environment:"
_TELL = "printf %s; env -0" % _MARK


class Untold(Exception):
    """A place that cannot be asked here; the message says why."""


def ask(place: str, system: System) -> dict[str, str]:
    """Return the variables of a place, root's. Raises Untold, OSError."""
    if place == "clean":
        return {}
    if place == "service":
        if not os.path.isdir("/run/systemd/system"):
            raise Untold("systemd is not running")
        # /bin/sh adds PWD and the like, nothing that matters here
        argv = ["systemd-run", "--wait", "--pipe", "--quiet", "--collect", "/bin/sh", "-c", _TELL]
        return _told(system.run(argv, timeout_s=TIMEOUT_S), place)
    base = ["HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/bash", "TERM=dumb", "PATH=" + _PATH]
    base += ["%s=%s" % pair for pair in pam_environment(system).items()]
    # SSH_CLIENT is how bash knows that sshd started it
    shell = ["SSH_CLIENT=127.0.0.1 9 22", "bash", "-c", _TELL] if place == "ssh" else ["bash", "-lc", _TELL]
    return _told(system.run(["env", "-i", *base, *shell], timeout_s=TIMEOUT_S), place)


def _told(done: Finished, place: str) -> dict[str, str]:
    _, mark, text = done.out.rpartition(_MARK)
    if done.rc != 0 or not mark:
        raise Untold("%s did not tell its environment: %s (%s)" % (place, done.last_line or "no output", done.why))
    return dict(one.split("=", 1) for one in text.split("\0") if "=" in one)


def pam_environment(system: System) -> dict[str, str]:
    """Return what /etc/environment gives to every session, as pam_env reads it: no shell, no expansion."""
    found = {}
    for line in system.read_text("/etc/environment").splitlines():
        text = line.strip()
        text = text[len("export ") :] if text.startswith("export ") else text
        name, equals, value = text.partition("=")
        if equals and not text.startswith("#") and name.isidentifier():
            value = value.strip()
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            found[name] = value[1:-1] if quoted else value
    return found
