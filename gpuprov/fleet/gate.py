"""Before the gate: connect, bootstrap, compile everybody, and decide whether anybody may start."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from gpuprov.errors import GpuprovError, Problem, SourceErrors
from gpuprov.fleet.hostrun import HostRun, State

if TYPE_CHECKING:
    from gpuprov.fleet.run import Fleet


class Gate:
    """Every host of the run is compiled or refused before any host is changed."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._problems: dict[Problem, None] = {}
        self._parked: list[HostRun] = []

    def hold(self) -> None:
        """Bring every host to ready or to an end; start nobody before that."""
        deadline = time.monotonic() + self._fleet.options.gate_timeout_s
        keep = len(self._fleet.hosts) <= self._fleet.options.forks
        late = f"no agent within {self._fleet.options.gate_timeout_s:.0f} s (--gate-timeout)"
        waiting = list(self._fleet.hosts.values())
        for host in waiting:
            host.state = State.CONNECTING
            self._begin(host, keep)
        while any(h.state is State.CONNECTING for h in waiting) and not self._fleet.interrupts:
            self._fleet.turn()
            if time.monotonic() > deadline:
                for host in waiting:
                    if host.state is State.CONNECTING and not host.answered:
                        self._fleet.end(host, lambda h: h.fold.unreachable(late))
        self._compile_late([host for host in waiting if host.state in (State.READY, State.PARKED)])
        if self._problems:
            raise SourceErrors(self._problems)
        self._decide()

    def _compile_late(self, ready: list[HostRun]) -> None:
        """Compile the plans that had to wait for other hosts' facts."""
        for host in ready:
            if not host.compiled:
                try:
                    host.compile(self._fleet.compiler, self._fleet.options)
                except SourceErrors as error:
                    self._problems.update(dict.fromkeys(error.problems))
                except GpuprovError as error:
                    self._fleet.fail(host, error)

    def _begin(self, host: HostRun, keep: bool) -> None:
        self._fleet.work(
            host, lambda: self._ready(host, keep), lambda result, error: self._was_readied(host, result, error)
        )

    def _ready(self, host: HostRun, keep: bool) -> Any:
        """Connect, bootstrap, compile. In a worker thread."""
        session = host.open(self._fleet.ways, self._fleet.options)
        host.answered = True  # what takes long from here on is ours: wheels to fetch
        self._fleet.soon(lambda: self._prepares(host))
        try:
            host.prepare(session, self._fleet.compiler, self._fleet.options)
        except BaseException:
            session.close()
            raise
        if not keep:
            session.close()
            return None
        return session

    def _prepares(self, host: HostRun) -> None:
        if host.state is State.CONNECTING:
            self._fleet.view.host_state(host.name, "preparing")

    def _was_readied(self, host: HostRun, session: Any, error: BaseException | None) -> None:
        if host.state is not State.CONNECTING:  # the gate did not wait for it
            if session is not None:
                session.close()
            return
        if isinstance(error, SourceErrors):
            self._problems.update(dict.fromkeys(error.problems))
            self._fleet.end(host, lambda h: h.fold.refused("the input has problems that its facts revealed"))
        elif error is not None:
            self._fleet.fail(host, error)
        else:
            host.session = session
            host.state = State.READY if session is not None else State.PARKED
            self._expect(host)
            self._fleet.view.host_state(host.name, "ready")
            self._refuse_trouble(host)

    def _expect(self, host: HostRun) -> None:
        gpus = host.facts.get("gpuprov", {}).get("gpus")
        host.fold.facts(host.facts)
        host.fold.expect(host.prepared.expected_gpus, len(gpus) if isinstance(gpus, list) else None)

    def _refuse_trouble(self, host: HostRun) -> None:
        for trouble in host.trouble:
            message, hint = str(trouble.get("message")), str(trouble.get("hint", ""))
            mine = trouble.get("run") == self._fleet.options.run and self._fleet.options.resume
            forced = trouble.get("code") == "interrupted-run" and self._fleet.options.take_over
            if mine or forced:
                continue
            if trouble.get("severity") == "refuse":
                self._fleet.end(host, lambda h, m=message, t=hint: h.fold.refused(m, t))  # type: ignore[misc]
                return
            host.fold.warn(message)

    def _decide(self) -> None:
        """The gate: one refusal stops everybody, unless the admin says otherwise."""
        ready = [h for h in self._fleet.hosts.values() if h.state in (State.READY, State.PARKED)]
        if self._fleet.interrupts:
            for host in ready:
                self._fleet.end(host, lambda h: h.fold.interrupted("stopped before it was started"))
            return
        refused = [h for h in self._fleet.hosts.values() if h.fold.report().outcome == "refused"]
        if refused and not self._fleet.options.skip_refused:
            for host in ready:
                self._fleet.end(
                    host, lambda h: h.fold.refused("not started, since other hosts were refused", "--skip-refused")
                )
            return
        for host in ready:
            if host.state is State.READY:
                self._fleet.follower.start(host)
        self._parked = [host for host in ready if host.state is State.PARKED]
        if not self._parked:
            self._fleet.compiler.forget()
        for _ in range(self._fleet.options.forks):
            self.start_parked()

    def start_parked(self) -> None:
        """Bring one host back whose session was closed after the facts, since there were too many."""
        if self._parked:
            host = self._parked.pop(0)
            host.state = State.CONNECTING
            host.compiled = False
            self._fleet.work(
                host, lambda: self._ready(host, True), lambda result, error: self._was_unparked(host, result, error)
            )

    def _was_unparked(self, host: HostRun, session: Any, error: BaseException | None) -> None:
        self._was_readied(host, session, error)
        if host.state is State.READY and not host.compiled:
            self._compile_late([host])
        if host.state is State.READY:
            self._fleet.follower.start(host)
