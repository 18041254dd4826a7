"""Child processes: started in a group of their own, watched, bounded in time and output, reaped.

`subprocess` would double the agent's start-up time, and it neither kills groups nor caps output.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: What is kept of one command's stdout and of its stderr, head and tail together, in bytes.
OUTPUT_LIMIT_BYTES = 256 * 1024
#: How long a process group gets between TERM and KILL.
GRACE_S = 5.0
#: What the agent ignores and its children must not.
_RESET = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Finished:
    """How a command ended. rc is negative for a signal; out and err are decoded and capped."""

    __slots__ = ("dropped", "duration_s", "err", "out", "rc", "timed_out")

    def __init__(self, rc: int, out: str, err: str, duration_s: float, timed_out: bool, dropped: int) -> None:
        self.rc = rc
        self.out = out
        self.err = err
        self.duration_s = duration_s
        self.timed_out = timed_out
        self.dropped = dropped

    @property
    def why(self) -> str:
        """One clause on how it ended: "exit code 3", "killed by SIGKILL", "timed out"."""
        if self.timed_out:
            return "timed out after %.0f s" % self.duration_s
        if self.rc < 0:
            return "killed by %s" % signal_name(-self.rc)
        return "exit code %d" % self.rc

    @property
    def last_line(self) -> str:
        """The last line that says something, stderr first: usually the reason."""
        for text in (self.err, self.out):
            for line in reversed(text.splitlines()):
                if line.strip():
                    return line.strip()[:500]
        return ""


def signal_name(number: int) -> str:
    """Return "SIGKILL" for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return "signal %d" % number


class _Capture:
    """Keeps the head and the tail of a stream, and hands complete lines on while they come."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._line = b""
        self._on_line = on_line
        self.dropped = 0

    def feed(self, data: bytes) -> None:
        room = OUTPUT_LIMIT_BYTES // 2 - len(self._head)
        self._head += data[:room] if room > 0 else b""
        rest = data[room:] if room > 0 else data
        self._tail += rest
        over = len(self._tail) - OUTPUT_LIMIT_BYTES // 2
        if over > OUTPUT_LIMIT_BYTES // 2:
            self.dropped += over
            del self._tail[:over]
        if self._on_line:
            self._lines(data)

    def _lines(self, data: bytes) -> None:
        assert self._on_line is not None
        *lines, last = (self._line + data[-65536:]).replace(b"\r", b"\n").split(b"\n")
        self._line = last[-4096:]
        for line in lines:
            if line.strip():
                self._on_line(line[:4096].decode("utf-8", "backslashreplace"))

    def text(self) -> str:
        if self._on_line and self._line.strip():
            self._on_line(self._line.decode("utf-8", "backslashreplace"))
        over = len(self._tail) - OUTPUT_LIMIT_BYTES // 2
        if over > 0:
            self.dropped += over
            del self._tail[:over]
        middle = b"\n... %d bytes left out ...\n" % self.dropped if self.dropped else b""
        return bytes(self._head + middle + self._tail).decode("utf-8", "backslashreplace")


def run(
    argv: list[str],
    env: dict[str, str],
    cwd: str | None,
    stdin: bytes,
    deadline: float | None,
    on_line: Callable[[str, str], None] | None,
    umask: int | None,
) -> Finished:
    """Run *argv* to its end; see System.run. deadline is in monotonic seconds."""
    started = time.monotonic()
    process = _spawn(argv, env, cwd, umask)
    captures = {
        process.out: _Capture((lambda line: on_line("stdout", line)) if on_line else None),
        process.err: _Capture((lambda line: on_line("stderr", line)) if on_line else None),
    }
    timed_out = _pump(process, captures, stdin, deadline)
    rc = _reap(process.pid)
    out, err = captures[process.out].text(), captures[process.err].text()
    dropped = captures[process.out].dropped + captures[process.err].dropped
    return Finished(rc, out, err, time.monotonic() - started, timed_out, dropped)


class _Process:
    __slots__ = ("err", "out", "pid", "stdin")

    def __init__(self, pid: int, stdin: int, out: int, err: int) -> None:
        self.pid = pid
        self.stdin = stdin
        self.out = out
        self.err = err


def _spawn(argv: list[str], env: dict[str, str], cwd: str | None, umask: int | None) -> _Process:
    """Start *argv*. Raises OSError with the child's errno when exec or chdir failed."""
    in_r, in_w = os.pipe()
    out_r, out_w = os.pipe()
    err_r, err_w = os.pipe()
    ours, theirs = (in_w, out_r, err_r), (in_r, out_w, err_w)
    try:
        pid = _fork(argv, env, cwd, umask, theirs) if cwd or umask is not None else _posix_spawn(argv, env, theirs)
    except OSError:
        for fd in ours:
            os.close(fd)
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    return _Process(pid, *ours)


def _posix_spawn(argv: list[str], env: dict[str, str], ends: tuple[int, int, int]) -> int:
    """Start a program without copying our page tables: half the cost of fork. Returns its pid."""
    actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(ends)]
    program = argv[0] if "/" in argv[0] else _found(argv[0], env.get("PATH") or os.defpath)
    try:
        return os.posix_spawn(program, argv, env, file_actions=actions, setsid=True, setsigdef=_RESET)
    except NotImplementedError:  # a C library that cannot start sessions
        return _fork(argv, env, None, None, ends)
    except OSError as error:
        raise OSError(error.errno, error.strerror, argv[0]) from None


def _found(name: str, path: str) -> str:
    """Return the program that exec would find. Raises OSError as exec does."""
    denied = False
    for folder in path.split(":"):
        full = os.path.join(folder, name)
        if os.access(full, os.X_OK) and not os.path.isdir(full):
            return full
        denied = denied or os.path.isfile(full)
    number = errno.EACCES if denied else errno.ENOENT
    raise OSError(number, os.strerror(number), name)


def _fork(argv: list[str], env: dict[str, str], cwd: str | None, umask: int | None, ends: tuple[int, int, int]) -> int:
    """Start a program in another folder, or with another umask. Returns its pid."""
    bad_r, bad_w = os.pipe()  # close-on-exec: EOF means that exec succeeded
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            for number, fd in enumerate(ends):
                os.dup2(fd, number)
            for number in _RESET:
                signal.signal(number, signal.SIG_DFL)
            if umask is not None:
                os.umask(umask)
            if cwd:
                os.chdir(cwd)
            os.execvpe(argv[0], argv, env)  # noqa: S606 - what a shell would make of it is the caller's choice
        except OSError as error:
            os.write(bad_w, b"%d" % (error.errno or errno.EINVAL))
        except BaseException:
            os.write(bad_w, b"%d" % errno.EINVAL)
        finally:
            os._exit(127)
    os.close(bad_w)
    bad = os.read(bad_r, 16)
    os.close(bad_r)
    if bad:
        os.waitpid(pid, 0)
        raise OSError(int(bad), os.strerror(int(bad)), cwd if cwd and not os.path.isdir(cwd) else argv[0])
    return pid


class _Watch:
    """Ends a process group at its deadline, and stops listening when only strangers hold the pipes."""

    def __init__(self, pid: int, deadline: float | None) -> None:
        self._pid = pid
        self._deadline = deadline
        self._kill_at: float | None = None
        self._ended_at: float | None = None
        self.timed_out = False

    def goes_on(self, now: float) -> bool:
        """Do what is due; False one second after the command has ended (a grandchild keeps the pipes open)."""
        if self._deadline is not None and now >= self._deadline and not self.timed_out:
            self.timed_out, self._kill_at = True, now + GRACE_S
            kill_group(self._pid, signal.SIGTERM)
        if self._kill_at is not None and now >= self._kill_at:
            kill_group(self._pid, signal.SIGKILL)
            self._kill_at = None
        if self._ended_at is None and has_ended(self._pid):
            self._ended_at = now
        return self._ended_at is None or now - self._ended_at <= 1.0

    def wait_s(self, now: float) -> float:
        """Return how long nothing is due."""
        due = [limit - now for limit in (None if self.timed_out else self._deadline, self._kill_at) if limit]
        return max(0.0, min([1.0, *due]))


def _pump(process: _Process, captures: dict[int, _Capture], stdin: bytes, deadline: float | None) -> bool:
    """Feed stdin and drain both outputs to their end; return whether the deadline passed."""
    poll = select.poll()
    for fd in captures:
        os.set_blocking(fd, False)
        poll.register(fd, select.POLLIN)
    pending = memoryview(stdin)
    if pending:
        os.set_blocking(process.stdin, False)
        poll.register(process.stdin, select.POLLOUT)
    else:
        os.close(process.stdin)
    open_fds = set(captures)
    watch = _Watch(process.pid, deadline)
    while open_fds and watch.goes_on(time.monotonic()):
        for fd, _ in poll.poll(watch.wait_s(time.monotonic()) * 1000):
            if fd == process.stdin:
                pending = _feed(fd, pending)
                if not pending:
                    poll.unregister(fd)
                    os.close(fd)
            elif not _drain(fd, captures[fd]):
                poll.unregister(fd)
                open_fds.discard(fd)
    for fd in captures:
        os.close(fd)
    if pending:
        os.close(process.stdin)
    return watch.timed_out or _wait_until(process.pid, deadline)


def _feed(fd: int, pending: memoryview) -> memoryview:
    try:
        return pending[os.write(fd, pending[:65536]) :]
    except BlockingIOError:
        return pending
    except BrokenPipeError:
        return pending[len(pending) :]


def _drain(fd: int, capture: _Capture) -> bool:
    try:
        data = os.read(fd, 65536)
    except BlockingIOError:
        return True
    if data:
        capture.feed(data)
    return bool(data)


def has_ended(pid: int) -> bool:
    """Say whether our child *pid* is a zombie, without reaping it."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _wait_until(pid: int, deadline: float | None) -> bool:
    """Wait for a child that closed its outputs early; kill its group at the deadline."""
    delay = 0.001
    while deadline is not None and not has_ended(pid):
        if time.monotonic() >= deadline:
            kill_group(pid, signal.SIGTERM)
            time.sleep(0.2)
            kill_group(pid, signal.SIGKILL)
            return True
        time.sleep(delay)
        delay = min(delay * 2, 0.1)
    return False


def _reap(pid: int) -> int:
    _, status = os.waitpid(pid, 0)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def kill_group(pid: int, number: int) -> None:
    """Signal the process group of *pid*, if it is still there."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        pass
