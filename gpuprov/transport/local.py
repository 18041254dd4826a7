"""This machine as a host: the same protocols over a child process (ansible_connection: local)."""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from gpuprov.errors import SessionLost

if TYPE_CHECKING:
    from gpuprov.transport.base import Channel

#: Bytes of a command's stderr that are kept; more is read and dropped.
STDERR_LIMIT = 64 * 1024
#: How long a command may take to end after its pipes were closed, before it is killed.
GRACE_S = 2.0


class LocalConnection:
    """A connection that is always there."""

    why_dead = ""

    def __init__(self) -> None:
        self.address = f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()} (local)"
        self._open = True

    def run(self, command: str) -> Channel:
        """Run *command* through the login shell of the user who runs gpuprov, as sshd would."""
        if not self._open:
            raise SessionLost("the local connection was closed here")
        shell = pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh"
        try:
            process = subprocess.Popen(
                [shell, "-c", command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=os.path.expanduser("~"),
                start_new_session=True,
            )
        except OSError as error:
            message = f"the login shell {shell} cannot be started ({(error.strerror or str(error)).lower()})"
            raise SessionLost(message, hint="chsh sets another one") from error
        return LocalChannel(process)

    def alive(self) -> bool:
        """Return whether close() was not called yet."""
        return self._open

    def close(self) -> None:
        """Refuse further commands; those that run are their channels' business."""
        self._open = False


class LocalChannel:
    """One child process, by its pipes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._stdin, self._stdout, self._stderr_pipe = process.stdin, process.stdout, process.stderr
        for pipe in (self._stdin, self._stdout, self._stderr_pipe):
            os.set_blocking(pipe.fileno(), False)
        self._stderr = bytearray()
        self._stderr_kept = 0
        self._ended = False
        # one descriptor that is readable when either pipe is: stderr must be drained too
        self._both = select.epoll()
        self._both.register(self._stdout.fileno(), select.EPOLLIN)
        self._both.register(self._stderr_pipe.fileno(), select.EPOLLIN)

    def fileno(self) -> int:
        """Return a descriptor that is readable when stdout or stderr has something."""
        return self._both.fileno()

    def recv(self, limit: int = 65536) -> bytes | None:
        """Return what has arrived on stdout, None for nothing yet, b"" for the end."""
        self._drain_stderr()
        try:
            data = os.read(self._stdout.fileno(), limit)
        except BlockingIOError:
            return None
        self._ended = self._ended or not data
        return data

    def _drain_stderr(self) -> None:
        while True:
            try:
                data = os.read(self._stderr_pipe.fileno(), 65536)
            except BlockingIOError:
                return
            if not data:
                with contextlib.suppress(FileNotFoundError):
                    self._both.unregister(self._stderr_pipe.fileno())
                return
            room = STDERR_LIMIT - self._stderr_kept
            self._stderr += data[:room]
            self._stderr_kept += len(data[:room])

    def wait(self, timeout_s: float) -> bool:
        """Wait until recv would return something else than None."""
        deadline = time.monotonic() + timeout_s
        poll = select.poll()
        poll.register(self._stdout.fileno(), select.POLLIN)
        poll.register(self._stderr_pipe.fileno(), select.POLLIN)
        while True:
            ready = dict(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
            if self._stdout.fileno() in ready:
                return True
            if not ready:
                return False
            self._drain_stderr()
            if ready.get(self._stderr_pipe.fileno(), 0) & select.POLLHUP:
                poll.unregister(self._stderr_pipe.fileno())

    def stderr(self) -> bytes:
        """Return what arrived on stderr since the last call."""
        self._drain_stderr()
        data = bytes(self._stderr)
        self._stderr.clear()
        return data

    def send(self, data: bytes, timeout_s: float) -> None:
        """Send all of *data*."""
        deadline = time.monotonic() + timeout_s
        poll = select.poll()
        poll.register(self._stdin.fileno(), select.POLLOUT)
        view = memoryview(data)
        while view:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise SessionLost(f"the local command took no more input within {timeout_s:g} s", hint="it hangs")
            try:
                view = view[os.write(self._stdin.fileno(), view[:65536]) :]
            except BlockingIOError:
                continue
            except OSError as error:
                message = "the local command ended before it took its input"
                raise SessionLost(message, hint="its output and stderr say why") from error

    def stdin_eof(self) -> None:
        """Tell the command that no more input comes."""
        self._stdin.close()

    def exit_status(self) -> int | None:
        """Return the exit status; 128 + the signal's number for a command that was killed."""
        status = self._process.poll()
        return status if status is None or status >= 0 else 128 - status

    def close(self) -> None:
        """Close the pipes, as sshd does when a channel goes; reap the command."""
        self._both.close()
        for pipe in (self._stdin, self._stdout, self._stderr_pipe):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
