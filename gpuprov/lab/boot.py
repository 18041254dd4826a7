"""The start of one lab host: from a fork of the supervisor to a shell that is its pid 1.

Three short-lived processes are needed, since each namespace has to be made by someone who
still has, or no longer has, the machine's privileges:

    supervisor ── builder   own mounts; builds the root and makes it its own
                   ├─ leaver   joins a new user, pid, uts and ipc namespace, forks, ends
                   │   └─ init    pid 1 of the host; waits for /proc, then runs INIT
                   └─ mounter  a visitor of the pid namespace that mounts its /proc

The host's user namespace maps every id to itself, so files look as they are, but being root
in it gives no power over the machine: no modules, no clock, no sysctls, no device nodes, no
network settings. Mounts are made before it is entered, which locks them: root in the host can
neither remount /proc/sys writable nor uncover what is hidden. Builder and leaver end at once;
the supervisor, a child subreaper, becomes the parent of init.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from gpuprov.lab import inside, root, syscalls
from gpuprov.lab.layout import INSIDE
from gpuprov.lab.processes import Process, start_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuprov.lab.root import HostSpec

_NEW = syscalls.NEW_PIDS | syscalls.NEW_UTS | syscalls.NEW_IPC
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}


def start(spec: HostSpec, life: int, not_ours: tuple[int, ...]) -> int:
    """Fork a builder for *spec*; return a pipe that its report comes from.

    The report, to the end of the file, is a line "ok PID" with the pid of the host's init;
    anything else in it is what failed. *life* is the reading end of a pipe whose writing end
    only the caller holds; *not_ours* are descriptors that the builder closes, that end among them.
    """
    report_r, report_w = os.pipe()
    parent = os.getpid()
    if os.fork() == 0:
        for fd in (report_r, *not_ours):
            os.close(fd)
        child(lambda: _builder(spec)(spec, life, report_w), report_w, parent)
    os.close(report_w)
    return report_r


def _builder(spec: HostSpec) -> Callable[[HostSpec, int, int], None]:
    """Return what builds a host of this kind."""
    if not spec.options.booted:
        return _build
    from gpuprov.lab import booted  # in the builder: the supervisor needs it never

    return booted.build


def child(work: Callable[[], None], report: int, parent: int = 0) -> NoReturn:
    """Do *work* in a forked process and end; what goes wrong is told through *report*.

    With *parent*, its pid, end when it does, however that is.
    """
    code = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        if parent:
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it has ended before we could ask to be told
                os._exit(code)
        work()
        code = 0
    except OSError as error:
        os.write(report, f"{error}\n".encode()[:4000])
    except Exception:
        traceback.print_exc()  # to the supervisor's log
        os.write(report, b"a bug in gpuprov; the supervisor's log has its traceback\n")
    finally:  # never back into the supervisor's code
        os._exit(code)


def _build(spec: HostSpec, life: int, report: int) -> None:
    machine_proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    folder = os.open(spec.layout.host(spec.name), os.O_PATH | os.O_DIRECTORY)
    log = os.open(spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    inside.prepare(spec)
    syscalls.unshare(syscalls.NEW_MOUNTS)
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    root.build(spec)
    go_r, go_w = os.pipe()
    init = _leave(spec, machine_proc, (go_r, go_w, life, log, report))
    _visit(f"{init}/ns/pid", machine_proc, report)
    note(folder, machine_proc, init)
    os.write(go_w, b"g")
    os.write(report, b"ok %d\n" % init)


def _leave(spec: HostSpec, machine_proc: int, fds: tuple[int, int, int, int, int]) -> int:
    """Fork the leaver; return the pid of the init that it leaves behind."""
    report = fds[-1]
    pid_r, pid_w = os.pipe()
    mapped_r, mapped_w = os.pipe()
    maps = [_read_at(machine_proc, f"self/{kind}_map").decode() for kind in ("uid", "gid")]
    builder = os.getpid()
    leaver = os.fork()
    if leaver == 0:

        def work() -> None:
            if spec.own_users:
                syscalls.unshare(syscalls.NEW_USERS)
                os.write(pid_w, b"u")
                os.read(mapped_r, 1)
            syscalls.unshare(_NEW)
            init = os.fork()
            if init == 0:
                child(lambda: _become_init(spec, fds), report)
            os.write(pid_w, b"%d" % init)

        child(work, report, builder)
    os.close(pid_w)
    if spec.own_users and os.read(pid_r, 1):
        for kind, text in zip(("uid", "gid"), maps, strict=True):
            _write_at(machine_proc, f"{leaver}/{kind}_map", _identity(text))
        os.write(mapped_w, b"m")
    answer = os.read(pid_r, 16)
    os.waitpid(leaver, 0)
    if not answer:
        raise OSError("the host's namespaces could not be made")
    return int(answer)


def _visit(pid_namespace: str, machine_proc: int, report: int) -> None:
    """Mount /proc for the host's pid namespace, from inside it but with the machine's privileges."""
    fd = os.open(pid_namespace, os.O_RDONLY, dir_fd=machine_proc)
    syscalls.join(fd, syscalls.NEW_PIDS)
    mounter = os.fork()
    if mounter == 0:
        child(root.mount_proc, report)
    _, status = os.waitpid(mounter, 0)
    if status:
        raise OSError("its /proc could not be mounted")


def _become_init(spec: HostSpec, fds: tuple[int, int, int, int, int]) -> None:
    """Wait until all is mounted, give up what a host must not have, run INIT."""
    go, go_writer, life, log, _report = fds
    os.close(go_writer)
    if os.read(go, 1) != b"g":
        os._exit(1)
    # The leaver is gone by now, and the supervisor is the parent whose end is ours.
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if select.select([life], [], [], 0)[0]:
        os._exit(1)
    if spec.own_users:
        syscalls.unshare(syscalls.NEW_MOUNTS)
    socket.sethostname(spec.name)
    syscalls.drop_capabilities(also_admin=not spec.own_users)
    null = os.open("/dev/null", os.O_RDWR)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    os.closerange(3, 65536)
    os.setsid()
    os.umask(0o022)
    os.execve("/bin/sh", ["init", f"{INSIDE}/init"], _ENVIRONMENT)  # noqa: S606


def _identity(id_map: str) -> bytes:
    """Return the map that gives every id of *id_map* (of our own namespace) its own number."""
    lines = (line.split() for line in id_map.splitlines())
    return "".join(f"{first} {first} {count}\n" for first, _, count in lines).encode()


def note(folder: int, machine_proc: int, init: int) -> None:
    """Write down who the host is, before it is anything that `down` would have to know of."""
    process = Process(init, start_time(_read_at(machine_proc, f"{init}/stat")) or 0)
    fd = os.open("process.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=folder)
    os.write(fd, str(process).encode())
    os.close(fd)
    os.rename("process.new", "process", src_dir_fd=folder, dst_dir_fd=folder)


def _read_at(folder: int, name: str) -> bytes:
    with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=folder), "rb") as f:
        return f.read()


def _write_at(folder: int, name: str, data: bytes) -> None:
    fd = os.open(name, os.O_WRONLY, dir_fd=folder)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def trial(work: Callable[[], None]) -> str:
    """Do *work* in a forked process; return "" or the sentence on why it failed."""
    report_r, report_w = os.pipe()
    sys.stdout.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        child(work, report_w, parent)
    os.close(report_w)
    with os.fdopen(report_r, "rb") as f:
        answer = f.read().decode()
    _, status = os.waitpid(pid, 0)
    return answer or (f"ended with status {status}" if status else "")
