"""The detached runner: takes a plan to its end, whoever is watching.

It writes to the journal and to nothing else. It leaves the login session's control group where
logind would kill it with the session, holds the host's lock, and afterwards tidies up and compiles
the bundle for the next start.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from gpuprov.agent.engine import Engine, Stopped
from gpuprov.agent.journal import JournalFull
from gpuprov.agent.launch import boot_id
from gpuprov.agent.system import System
from gpuprov.agent.tidy import tidy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.journal import Journal
    from gpuprov.agent.lock import Lock

#: Where logind's settings are, the strongest last; drop-ins of all folders come after the files.
_LOGIND = ("/usr/lib/systemd/logind.conf", "/etc/systemd/logind.conf")
_LOGIND_PARTS = ("/usr/lib/systemd/logind.conf.d", "/run/systemd/logind.conf.d", "/etc/systemd/logind.conf.d")


def run_detached(
    plan: dict[str, Any], journal: Journal, lock: Lock, context: dict[str, Any], done: list[dict[str, Any]]
) -> None:
    """Run *plan* in this process and end it. done: the events of earlier runners of it. Never returns."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    system = System()
    _escape_session(system)
    started = time.monotonic()
    try:
        if not done:
            check = bool(plan.get("check"))
            journal.write("RunStarted", run=plan["run"], boot_id=boot_id(), pid=os.getpid(), check=check)
        engine = Engine(plan, journal, system, context)
        # the host goes down, or a person wants us gone: the time they leave us is the current task's
        signal.signal(signal.SIGTERM, lambda *_: engine.stop("the runner was asked to end (SIGTERM)"))
        engine.restore(done)
        outcome = _outcome(engine, journal)
        if outcome == "rebooting":
            os._exit(0)  # the lock's file stays ours across the boot
        if outcome != "stopped":
            duration_s = round(time.monotonic() - started, 3)
            journal.write(
                "RunFinished", sync=engine.acted, outcome=outcome, counts=engine.counts, duration_s=duration_s
            )
    except JournalFull as error:
        sys.stderr.write("no space for events: %s\n" % error)
        os._exit(1)  # without an end in the journal: the run counts as interrupted
    lock.clear()
    journal.close()
    in_use = [*context["layers"].values(), context["in_use"]]
    tidy(context["home"], plan, context["run"], outcome == "ok", in_use)
    lock.let_go()
    _compile([context["source"], engine.source])
    os._exit(0)


def _outcome(engine: Engine, journal: Journal) -> str:
    try:
        return engine.run()
    except Stopped as stop:
        journal.write("RunStopped", sync=True, why=str(stop), counts=engine.counts)
        return "stopped"


def _escape_session(system: System) -> None:
    """Leave the login session's scope where logind kills what a session leaves behind."""
    if "session-" not in system.read_text("/proc/self/cgroup") or not _kills_user_processes(system):
        return
    call = ["busctl", "call"] + ([] if os.geteuid() == 0 else ["--user"])
    call += ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"]
    call += ["StartTransientUnit", "ssa(sv)a(sa(sv))", "gpuprov-%d.scope" % os.getpid(), "fail"]
    call += ["1", "PIDs", "au", "1", str(os.getpid()), "0"]
    bus = {"XDG_RUNTIME_DIR": "/run/user/%d" % os.geteuid()} if os.geteuid() != 0 else {}
    try:
        done = system.run(call, bus, timeout_s=10)
    except OSError as error:
        sys.stderr.write("cannot leave the login session: %s\n" % error)
        return
    if done.rc != 0:
        sys.stderr.write("cannot leave the login session: %s\n" % done.last_line)


def _kills_user_processes(system: System) -> bool:
    parts = [(name, folder) for folder in _LOGIND_PARTS if os.path.isdir(folder) for name in os.listdir(folder)]
    paths = [*_LOGIND, *(os.path.join(folder, name) for name, folder in sorted(parts) if name.endswith(".conf"))]
    setting = ""
    for path in paths:
        for line in system.read_text(path).splitlines():
            if line.strip().startswith("KillUserProcesses="):
                setting = line.split("=", 1)[1].strip().lower()
    return setting in ("yes", "true", "1", "on")


def _compile(sources: list[str]) -> None:
    """Beside zips of sources that were imported, leave byte code of this Python: the next run starts faster."""
    from gpuprov.agent.byte_code import beside, keep

    for source in sources:
        if source and not os.path.exists(beside(source)):
            os.nice(19)
            keep(source)
