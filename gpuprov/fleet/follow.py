"""After the gate: what a host's frames mean, and how a host that went away is brought back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from gpuprov.errors import AgentError, AuthenticationError, GpuprovError, HostKeyError
from gpuprov.fleet.hostrun import HostRun, State

if TYPE_CHECKING:
    from gpuprov.fleet.run import Fleet, Folder

#: A runner that dies this often in one run is given up.
MOST_DEATHS = 3
RETRY_S = (0.5, 1.0, 2.0, 4.0, 8.0)


class Follower:
    """Turns frames into journal, folds and view, and decides when to connect again."""

    def __init__(self, fleet: Fleet, folder: Folder) -> None:
        self._fleet = fleet
        self._folder = folder
        self._options = fleet.options

    def start(self, host: HostRun) -> None:
        """Send the plan (or the wish to go on) and listen."""
        host.state = State.RUNNING
        self._fleet.listen(host)
        self._fleet.view.host_state(host.name, "running")
        if self._options.resume:
            job = lambda: host.attach(self._options, "resumed by a person", go_on=True)  # noqa: E731
        else:
            job = host.start
        self._fleet.work(host, job, lambda _, error: self._sent(host, error))

    def _sent(self, host: HostRun, error: BaseException | None) -> None:
        if error is not None and host.state is State.RUNNING:
            self.lost(host, str(error))

    def frame(self, host: HostRun, header: dict[str, Any], text: bytes) -> None:
        """Take one frame."""
        kind = header["t"]
        if kind == "event":
            self._event(host, header, text)
        elif kind == "beat":
            host.current = str(header.get("current", ""))[:200]
        elif kind == "files":
            need, layers = _names(header.get("need")), _names(header.get("layers"))
            self._fleet.view.host_state(host.name, "sending", f"{len(need) + len(layers)} files")
            self._fleet.work(host, lambda: host.send_files(need, layers), lambda _, e: self._files_sent(host, e))
        elif kind == "gone":
            self._gone(host, str(header.get("log", "")))
        elif kind == "fault":
            self._fault(host, header)

    def _files_sent(self, host: HostRun, error: BaseException | None) -> None:
        if isinstance(error, AgentError):
            self._fleet.fail(host, error)
        elif error is not None and host.state is State.RUNNING:
            self.lost(host, str(error))
        elif host.state is State.RUNNING:
            self._fleet.view.host_state(host.name, "running")

    def _event(self, host: HostRun, event: dict[str, Any], text: bytes) -> None:
        if not host.fold.event(event):
            return
        host.frame = b""  # the plan is there
        host.facts = {}
        self._folder.append(host.name, text)
        self._fleet.view.event(host.name, event, host.fold.node(str(event.get("id", ""))))  # type: ignore[arg-type]
        kind = event.get("kind")
        if kind in ("RunFinished", "RunStopped"):
            why, hint = str(event.get("why") or "stopped on request"), f"`gpuprov resume {self._options.run}` goes on"
            self._fleet.end(host, (lambda h: h.fold.interrupted(why, hint)) if kind == "RunStopped" else None)
        elif kind == "RebootStarted":
            host.state = State.REBOOTING
            host.reboot_boot_id = str(event.get("boot_id", ""))
            given = event.get("args")
            limit = given.get("reboot_timeout") if isinstance(given, dict) else None
            host.seek_until = time.monotonic() + (limit if isinstance(limit, int | float) else self._options.reboot_s)
            self._fleet.view.host_state(host.name, "rebooting", str(event.get("reason", "")))

    def _fault(self, host: HostRun, fault: dict[str, Any]) -> None:
        message, hint = str(fault.get("message")), str(fault.get("hint", ""))
        if fault.get("code") in ("locked", "interrupted-run", "disk-full"):
            self._fleet.end(host, lambda h: h.fold.refused(message, hint))
        elif fault.get("code") == "run-unknown" and host.frame:
            self._fleet.work(host, host.start, lambda _, error: self._sent(host, error))
        else:
            self._fleet.end(host, lambda h: h.fold.lost(message, hint))

    def _gone(self, host: HostRun, log: str) -> None:
        """The runner ended without saying so: a crash, a kill, or the reboot it asked for."""
        if host.state is State.REBOOTING:
            self.seek(host, "rebooting")
            return
        host.deaths += 1
        last = log.strip().splitlines()[-1:] or ["it left no message"]
        if host.deaths >= MOST_DEATHS or "no space" in last[0]:
            hint = "free some space, then resume" if "no space" in last[0] else "its log is in the run's folder there"
            self._fleet.end(host, lambda h: h.fold.lost(f"the runner on the host died: {last[0]}", hint))
            return
        self._fleet.view.message(f"{host.name}: the runner died ({last[0]}); going on from its journal", "warning")
        self.seek(host, "the runner died")

    def lost(self, host: HostRun, why: str) -> None:
        """The connection broke: look for the host again; its runner does not care."""
        if host.state is State.RUNNING:
            self._fleet.view.message(f"{host.name}: {why}; reconnecting", "warning")
        self.seek(host, why)

    def seek(self, host: HostRun, why: str) -> None:
        """Connect again, now and then, until the host's time is up."""
        self._fleet.stop_listening(host)
        host.drop_session()
        if host.state is State.DONE:
            return
        now = time.monotonic()
        if host.state is State.REBOOTING:
            host.retry_at = now + 1.0
        else:
            first = host.state is not State.RECONNECTING
            host.state = State.RECONNECTING
            host.seek_until = now + self._options.reconnect_s if first else host.seek_until
            host.retry_at = now + (0.0 if first else RETRY_S[min(host.tries, len(RETRY_S) - 1)])
            self._fleet.view.host_state(host.name, "reconnecting", why)

    def watch(self, now: float) -> None:
        """Look after silent, sought and overdue hosts."""
        silence = self._options.timeouts.silence_s
        for host in self._fleet.hosts.values():
            if host.state in (State.DONE, State.PARKED, State.CONNECTING):
                continue
            if self._options.total_s and now - host.started > self._options.total_s:
                limit = f"{self._options.total_s:.0f} s"
                self._fleet.end(host, lambda h: h.fold.lost(f"not done within {limit} (--host-timeout)"))  # noqa: B023
            elif host.session is not None and not host.busy and now - host.session.last_heard > silence:
                self.lost(host, f"nothing heard for {silence:.0f} s")
            elif host.session is None and not host.busy and now >= host.retry_at:
                self._retry(host, now)

    def _retry(self, host: HostRun, now: float) -> None:
        if now > host.seek_until:
            what = (
                "did not come back after its reboot" if host.state is State.REBOOTING else "could not be reached again"
            )
            hint = f"the run goes on there; `gpuprov resume {self._options.run}` collects it"
            self._fleet.end(host, lambda h: h.fold.lost(what, hint))
            return
        host.tries += 1
        self._fleet.work(
            host,
            lambda: host.open(self._fleet.ways, self._options),
            lambda session, error: self._reopened(host, session, error),
        )

    def _reopened(self, host: HostRun, session: Any, error: BaseException | None) -> None:
        if host.state is State.DONE:
            if session is not None:
                session.close()
            return
        host.retry_at = time.monotonic() + RETRY_S[min(host.tries, len(RETRY_S) - 1)]
        if error is not None:
            if isinstance(error, HostKeyError | AuthenticationError) and host.state is not State.REBOOTING:
                self._fleet.end(host, lambda h: h.fold.lost(error.message, error.hint))
            return
        boot_id = str(session.hello["facts"].get("boot_id", ""))
        if host.state is State.REBOOTING and boot_id == host.reboot_boot_id and time.monotonic() < host.seek_until:
            session.close()  # it has not gone down yet
            return
        host.session = session
        host.tries = 0
        why = "after a reboot" if host.state is State.REBOOTING else "after the connection was lost"
        self._again(host, why)

    def _again(self, host: HostRun, why: str) -> None:
        host.state = State.RUNNING
        self._fleet.listen(host)
        self._fleet.view.host_state(host.name, "running", why)
        job = lambda: host.attach(self._options, why, go_on=False)  # noqa: E731
        self._fleet.work(host, job, lambda _, error: self._sent(host, error))

    def stop(self, host: HostRun) -> None:
        """Ask the host to stop after its current task."""
        if host.busy:  # a worker is sending: two writers would mix their frames
            host.stop_wanted = True
            return
        if host.state is State.RUNNING and host.session is not None:
            session = host.session
            try:
                session.send({"t": "stop"})
            except GpuprovError as error:
                self.lost(host, error.message)
        elif host.state in (State.RECONNECTING, State.PARKED, State.REBOOTING):
            hint = f"`gpuprov resume {self._options.run}` collects what it does"
            self._fleet.end(host, lambda h: h.fold.interrupted("stopped while it was out of reach", hint))


def _names(value: Any) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list) else []
