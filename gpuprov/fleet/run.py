"""The run: connect everybody, hold the gate, start the plans, consume every event, bring lost hosts back.

Worker threads do what blocks (connect, bootstrap, compile, send). One consumer, the calling
thread, owns every other state: it reads all channels, writes the journal, feeds folds and view.
"""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from gpuprov.errors import GpuprovError, RefusedError, SessionLost
from gpuprov.fleet.follow import Follower
from gpuprov.fleet.gate import Gate
from gpuprov.fleet.hostrun import Compiler, HostRun, State, Ways
from gpuprov.wire.frames import FrameError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpuprov.fleet.options import RunOptions
    from gpuprov.results import HostReport

TICK_S = 0.25


class View(Protocol):
    """What a run tells about itself while it goes on."""

    def host_state(self, host: str, state: str, detail: str = "") -> None:
        """Host changed its state."""

    def event(self, host: str, event: dict[str, Any], node: dict[str, Any] | None) -> None:
        """Something happened on host."""

    def message(self, text: str, level: str = "info") -> None:
        """Say one sentence about the run as a whole."""

    def tick(self, now: float) -> None:
        """A moment passed."""


class Folder(Protocol):
    """Where a run's journal is kept."""

    def append(self, host: str, event: bytes) -> None:
        """Keep one event's JSON text."""

    def tick(self, now: float) -> None:
        """A moment passed: write what is due."""


class Fleet:
    """One run over many hosts."""

    def __init__(self, compiler: Compiler, ways: Ways, view: View, folder: Folder, options: RunOptions) -> None:
        self.options = options
        self.view = view
        self.hosts: dict[str, HostRun] = {}
        self.compiler = compiler
        self._folder = folder
        self.ways = ways
        self._results: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._selector = selectors.DefaultSelector()
        self.interrupts = 0
        self._gate = Gate(self)
        self.follower = Follower(self, folder)
        self._pool = ThreadPoolExecutor(1)
        self._wake_r = self._wake_w = -1

    def run(self, hosts: Sequence[HostRun]) -> tuple[HostReport, ...]:
        """Take all *hosts* to their end; return their reports in the same order.

        Raises SourceErrors when facts reveal problems of the input, before any host is changed.
        """
        self.hosts = {host.name: host for host in hosts}
        self._pool = ThreadPoolExecutor(max(1, min(self.options.threads, len(hosts))), thread_name_prefix="gpuprov")
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        self._selector.register(self._wake_r, selectors.EVENT_READ)
        previous = self._catch_interrupts()
        try:
            self._gate.hold()
            self._follow()
        finally:
            if previous is not None:
                signal.signal(signal.SIGINT, previous)
            self._close()
        return tuple(host.fold.report() for host in hosts)

    # -- work for threads ----------------------------------------------------

    def work(self, host: HostRun, job: Callable[[], Any], then: Callable[[Any, BaseException | None], None]) -> None:
        """Run *job* in a worker thread, then *then*(result, error) in the consumer."""
        host.busy = True

        def in_thread() -> None:
            result, error = None, None
            try:
                result = job()
            except (GpuprovError, FrameError, OSError) as known:
                error = known
            except Exception as bug:  # one host's bug must not stop the fleet: it becomes that host's fault
                error = _bug(bug)

            def in_consumer() -> None:
                host.busy = False
                then(result, error)
                if host.stop_wanted and not host.busy and host.state is not State.DONE:
                    host.stop_wanted = False
                    self.follower.stop(host)

            self.soon(in_consumer)

        self._pool.submit(in_thread)

    def soon(self, job: Callable[[], None]) -> None:
        """Have the consumer do *job* next. Callable from worker threads."""
        self._results.put(job)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # the pipe is full (it will be read) or closed (the run is over)
            os.write(self._wake_w, b"w")

    # -- after the gate ------------------------------------------------------

    def _follow(self) -> None:
        while any(h.state is not State.DONE for h in self.hosts.values()):
            self.turn()
            self.follower.watch(time.monotonic())
            if self.interrupts > 1:
                self._leave()

    def turn(self) -> None:
        """Wait for something and take it: results of workers, frames of hosts, the passing of time."""
        for key, _ in self._selector.select(TICK_S):
            if key.data is None:
                self._drain()
            else:
                self._receive(key.data)
        now = time.monotonic()
        self.view.tick(now)
        self._folder.tick(now)

    def _drain(self) -> None:
        try:
            while len(os.read(self._wake_r, 65536)) == 65536:
                continue
        except BlockingIOError:
            pass
        while not self._results.empty():
            self._results.get()()

    def listen(self, host: HostRun) -> None:
        """Read *host*'s channel from now on."""
        assert host.session is not None
        self._selector.register(host.session.channel.fileno(), selectors.EVENT_READ, host)

    def stop_listening(self, host: HostRun) -> None:
        """Read *host*'s channel no more, if we did."""
        for key in list(self._selector.get_map().values()):
            if key.data is host:
                self._selector.unregister(key.fileobj)

    def _receive(self, host: HostRun) -> None:
        session = host.session
        try:
            for header, text, _ in session.frames() if session is not None else ():
                self.follower.frame(host, header, text)
                if host.session is not session:  # that frame was its last
                    return
        except SessionLost as lost:
            self.follower.lost(host, lost.message)
        except FrameError as error:
            self.follower.lost(host, f"the host sent nonsense: {error}")

    def end(self, host: HostRun, say: Callable[[HostRun], None] | None = None) -> None:
        """The host is done, for better or worse."""
        if host.state is State.DONE:
            return
        host.recall()
        if say is not None:
            say(host)
        self.stop_listening(host)
        host.drop_session()
        host.state = State.DONE
        host.frame = b""
        report = host.fold.report()
        self._gate.start_parked()
        self.view.host_state(host.name, "done", f"{report.outcome}: {report.cause}" if report.cause else report.outcome)

    def fail(self, host: HostRun, error: BaseException) -> None:
        """End *host* with what *error* says."""
        if isinstance(error, RefusedError):
            self.end(host, lambda h: h.fold.refused(error.message, error.hint, error.refusal))
        elif isinstance(error, GpuprovError):
            self.end(host, lambda h: h.fold.unreachable(error.message, error.hint))
        else:
            self.end(host, lambda h: h.fold.unreachable(str(error) or type(error).__name__))

    # -- interruption and the end --------------------------------------------

    def _catch_interrupts(self) -> Any:
        def handler(number: int, frame: Any) -> None:  # noqa: ARG001
            self.interrupts += 1
            self._results.put(self._interrupted)
            self._wake()

        try:
            return signal.signal(signal.SIGINT, handler)
        except ValueError:  # not the main thread: whoever embeds us handles signals
            return None

    def _interrupted(self) -> None:
        if self.interrupts == 1:
            text = "stopping after the current task on every host; again to leave at once (the hosts go on)"
            self.view.message(text, "warning")
            for host in self.hosts.values():
                self.follower.stop(host)

    def _leave(self) -> None:
        hint = f"`gpuprov resume {self.options.run}` collects what it does"
        for host in self.hosts.values():
            self.end(host, lambda h: h.fold.interrupted("left while it was working", hint))

    def _close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for host in self.hosts.values():
            host.drop_session()
        self._selector.close()
        os.close(self._wake_r)
        wake, self._wake_w = self._wake_w, -1
        os.close(wake)


def _bug(error: Exception) -> GpuprovError:
    import traceback

    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{os.path.basename(where.filename)}:{where.lineno}"
    return GpuprovError(
        f"a bug in gpuprov: {type(error).__name__}: {error} ({place})", hint="please report it", code="bug"
    )
