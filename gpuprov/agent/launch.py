"""Start, find again and follow a run on this host: everything around the detached runner.

<home>/lock               who holds the host
<home>/blobs/<sha256>     files that travelled here
<home>/bundle/            the agent's code and its optional layers
<home>/runs/<run>/        plan.json, journal, current, stop, runner.log
"""

from __future__ import annotations

import json
import os
import time

from gpuprov.agent.blobs import Blobs, StopAsked
from gpuprov.agent.follow import follow
from gpuprov.agent.journal import Journal, JournalFull
from gpuprov.agent.lock import Lock, Locked, describe, holder
from gpuprov.agent.modules import PROOFS
from gpuprov.agent.system import System

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.channel import Channel

#: How long the controller gets to hear why a run could not start, while it may still be sending.
FAREWELL_S = 5.0


#: Modules that look and measure; a plan of these alone leaves nothing half done.
LOOKING = frozenset(
    (*PROOFS, "assert", "debug", "fail", "gather_facts", "gpuprov_applied_info", "ping", "set_fact", "setup", "stat")
)


def harmless(plan: dict[str, Any]) -> bool:
    """Say whether *plan* only looks and measures, so that nothing is half done when it is cut off. Pure."""

    def only_looks(nodes: list[dict[str, Any]]) -> bool:
        parts = [node.get(part) or [] for node in nodes for part in ("block", "rescue", "always")]
        tasks = [node for node in nodes if node.get("kind") != "block"]
        return all(task.get("action") in LOOKING for task in tasks) and all(only_looks(part) for part in parts)

    plays = plan.get("plays") or []
    return all(only_looks(play.get("nodes") or []) and only_looks(play.get("handlers") or []) for play in plays)


def boot_id() -> str:
    """Return what changes with every boot of this host."""
    with open("/proc/sys/kernel/random/boot_id") as f:
        return f.read().strip()


def start(boot: dict[str, Any], channel: Channel, found: dict[str, Any], header: dict[str, Any]) -> bool:
    """Take a new plan: lock the host, get the files that are missing, run it, follow it."""
    plan = header["plan"]
    launch = _Launch(boot, channel, found, header, plan["run"])
    launch.guarded(lambda: launch.begin(plan))
    return True


def attach(boot: dict[str, Any], channel: Channel, found: dict[str, Any], header: dict[str, Any]) -> bool:
    """Follow a run that was started before: its runner lives, or is to go on, or has ended."""
    launch = _Launch(boot, channel, found, header, header["run"])
    plan = launch.plan()
    if plan is None:
        channel.send({"t": "fault", "code": "run-unknown", "message": "this host has no run %s" % header["run"]})
        return False
    owner, alive = holder(boot["home"])
    end = _end(launch.run)
    if (alive and owner.get("run") == header["run"]) or end == "RunFinished" or (end and not header.get("go_on")):
        follow(channel, launch.run, header.get("after", 0), -1)
    else:
        launch.guarded(lambda: launch.resume(plan))
    return True


def unlock(boot: dict[str, Any], channel: Channel) -> bool:
    """Forget an interrupted run that holds the host. A living runner keeps it."""
    owner, alive = holder(boot["home"])
    if alive:
        channel.send({"t": "fault", **describe(owner, True)})
        return True
    if owner:
        lock = Lock(boot["home"])
        lock.take({"run": owner.get("run", "?")})
        lock.clear()
        lock.let_go()
    channel.send({"t": "unlocked", "owner": owner})
    return True


class _Launch:
    """One attempt to get a run going, under the host's lock."""

    def __init__(
        self, boot: dict[str, Any], channel: Channel, found: dict[str, Any], header: dict[str, Any], name: str
    ) -> None:
        self.home: str = boot["home"]
        self.run = os.path.join(self.home, "runs", os.path.basename(name))
        self._boot = boot
        self._channel = channel
        self._found = found
        self._header = header
        self._name = name
        self._layers: dict[str, str] = header.get("layers", {})
        self._lock = Lock(self.home)

    def plan(self) -> dict[str, Any] | None:
        """Return the plan as it lies on disk, None when there is none."""
        try:
            with open(os.path.join(self.run, "plan.json")) as f:
                plan = json.load(f)
        except (OSError, ValueError):
            return None
        return plan if isinstance(plan, dict) else None

    def guarded(self, work: Any) -> None:
        """Do *work* under the lock. What keeps the run from going on becomes a fault, and frees the host again."""
        owner = {"run": self._name, "owner": str(self._header.get("owner", ""))[:200], "since": round(time.time())}
        try:
            self._lock.take(dict(owner, boot_id=boot_id()), bool(self._header.get("force")))
        except Locked as held:
            self._fault(**describe(held.owner, held.alive))
            return
        try:
            work()
        except BaseException as error:
            if self._lock.held:
                self._lock.give_up()
            fault = self._explained(error)
            if fault is None:
                raise
            self._fault(**fault)

    def _explained(self, error: BaseException) -> dict[str, str] | None:
        """Return the fault for an error that is the host's, not ours."""
        from gpuprov.agent.masking import SecretsMissing

        hint = "free some space there"
        if isinstance(error, JournalFull):
            return {"code": "disk-full", "message": "no space for the run's journal under %s" % self.home, "hint": hint}
        if isinstance(error, SecretsMissing):
            hint = "give the same -e, vault and become passwords as before, or start a new run with --take-over"
            return {"code": "secrets-missing", "message": str(error), "hint": hint}
        if isinstance(error, OSError) and not isinstance(error, ConnectionError):
            message = "cannot write %s: %s" % (error.filename or self.home, error.strerror or error)
            return {"code": "disk", "message": message, "hint": hint}
        return None

    def _fault(self, **fault: str) -> None:
        self._channel.send({"t": "fault", **fault})
        self._channel.drain(FAREWELL_S)

    def begin(self, plan: dict[str, Any]) -> None:
        """Keep a plan that has just arrived, and run it. Raises OSError, JournalFull."""
        os.makedirs(self.run, 0o700, exist_ok=True)
        kept = plan
        if plan.get("secrets"):
            from gpuprov.agent.masking import without_secrets

            kept = without_secrets(plan)
        _write(os.path.join(self.run, "plan.json"), json.dumps(kept, separators=(",", ":")).encode())
        self._go(plan)

    def resume(self, plan: dict[str, Any]) -> None:
        """Go on with a plan from disk. Raises SecretsMissing, OSError, JournalFull."""
        from gpuprov.agent.masking import with_secrets

        self._go(with_secrets(plan, self._header.get("secrets") or []))

    def _go(self, plan: dict[str, Any]) -> None:
        """Get the files, start the runner, follow it."""
        asked_to_stop = not self._fetch(plan)
        journal = Journal(
            os.path.join(self.run, "journal"),
            plan.get("secrets"),
            sync_with=(os.path.join(self.run, "plan.json"), self._lock.path),
        )
        after = self._header.get("after", 0)
        done = journal.recover(after)
        journal.reserve()
        if done:
            # here, not in the runner: a follower must never take an old "stopped" for the end
            journal.write("Resumed", boot_id=boot_id(), why=self._header.get("why", "resumed"))
        _forget_stop(self.run)
        if asked_to_stop:
            journal.write("RunStopped", why="asked to stop before the first task")
            journal.close()
            self._lock.clear()
            self._lock.let_go()
            follow(self._channel, self.run, after, -1)
            return
        context = {"home": self.home, "run": self.run, "facts": self._found, "layers": self._layers}
        context.update(source=self._boot["source"], in_use=self._boot["in_use"])
        self._lock.begin(harmless(plan))
        wake = _detach(plan, journal, self._lock, context, done, self._channel)
        follow(self._channel, self.run, after, wake)

    def _fetch(self, plan: dict[str, Any]) -> bool:
        """Ask for the files that are missing here; False when the controller says stop instead."""
        blobs = Blobs(self.home, System())
        missing = blobs.missing(plan)
        layers = [name for name, digest in self._layers.items() if not blobs.has_layer(name, digest)]
        if not missing and not layers:
            return True
        blobs.expect_space(missing, plan)
        self._channel.send({"t": "files", "need": missing, "layers": layers})
        try:
            blobs.receive(self._channel, missing, layers, self._layers)
        except StopAsked:
            return False
        return True


def _end(run: str) -> str:
    """Return the kind of the event that ended the run so far, "" when it did not end."""
    try:
        with open(os.path.join(run, "journal"), "rb") as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - 65536))
            last = f.read().splitlines()[-1:]
        kind = str(json.loads(last[0]).get("kind")) if last else ""
    except (OSError, ValueError):
        return ""
    return kind if kind in ("RunFinished", "RunStopped") else ""


def _forget_stop(run: str) -> None:
    try:
        os.unlink(os.path.join(run, "stop"))
    except FileNotFoundError:
        pass


def _detach(
    plan: dict[str, Any],
    journal: Journal,
    lock: Lock,
    context: dict[str, Any],
    done: list[dict[str, Any]],
    channel: Channel,
) -> int:
    """Fork the runner into its own session; return the pipe that tells of its events and its end."""
    wake_r, wake_w = os.pipe()
    os.set_blocking(wake_r, False)
    if os.fork() == 0:
        try:
            os.setsid()
            _leave_channel(context["run"], channel)
            os.close(wake_r)
            journal.notify(wake_w)
            from gpuprov.agent.runner import run_detached

            run_detached(plan, journal, lock, context, done)
        except BaseException:  # the log is what the controller shows of a dead runner
            import traceback

            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(wake_w)
    lock.let_go()
    return wake_r


def _leave_channel(run: str, channel: Channel) -> None:
    """Let go of the SSH channel: neither can it block us, nor do we keep it open."""
    null = os.open("/dev/null", os.O_RDWR)
    log = os.open(os.path.join(run, "runner.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(null)
    os.close(log)
    channel.leave()


def _write(path: str, data: bytes) -> None:
    """Put *data* at *path* in one step."""
    temporary = path + ".new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)
    os.rename(temporary, path)
