"""The start of one booted host: systemd as its process 1, in a root of its own, by systemd-nspawn.

    supervisor ── builder   own mounts; the host's root on its copy-on-write layer, its cgroup
                   └─ leaver   makes a new pid namespace, forks, ends
                       └─ nspawn   first process of it; starts and ends with the host

Builder and leaver end at once, and the supervisor, a child subreaper, becomes nspawn's parent. When
nspawn ends, however that is, the kernel ends all of its pid namespace: the host's systemd too.
It ends with 133 when the host reboots and with 0 when it is switched off.

Root of the host is an ordinary user of the machine (debian.py), so /proc/sys and the like are
as safe as from any user. The network is the machine's.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
from typing import TYPE_CHECKING

from gpuprov.lab import boot, cgroups, inside, root, syscalls
from gpuprov.lab.debian import UID_COUNT, UID_SHIFT, base_root
from gpuprov.lab.layout import FIRST_START, INSIDE
from gpuprov.lab.syscalls import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_REC, mount

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuprov.lab.root import HostSpec


_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "SYSTEMD_LOG_TARGET": "console",  # as process 1 of its namespace nspawn would write to the kernel's log
    "SYSTEMD_COLORS": "0",
}
_SSHD = "/etc/ssh/sshd_config.d/00-gpuprov-lab.conf"
_FIRST_UNIT = "gpuprov-lab-first-start.service"
_FIRST_START_UNIT = f"""\
[Unit]
Description=Accounts of this lab host
ConditionPathExists={FIRST_START}
Before=ssh.service
After=systemd-sysusers.service systemd-tmpfiles-setup.service

[Service]
Type=oneshot
ExecStart=/bin/sh -e {FIRST_START}
ExecStartPost=/bin/rm {FIRST_START}

[Install]
RequiredBy=ssh.service
"""


def build(spec: HostSpec, life: int, report: int) -> None:
    """Leave a running nspawn of the host behind; this process is the builder. Raises OSError."""
    if not spec.own_users:
        raise OSError("booted hosts need user namespaces, and this machine gives out none")
    machine_proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    folder = os.open(spec.layout.host(spec.name), os.O_PATH | os.O_DIRECTORY)
    log = os.open(spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with open(spec.layout.host(spec.name, "booted"), "w", encoding="ascii") as f:
        f.write(spec.options.booted)
    syscalls.unshare(syscalls.NEW_MOUNTS)
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    view = _mount_root(spec)
    cgroups.show()
    cgroups.enter(spec.layout, spec.name)
    go_r, go_w = os.pipe()
    first = _leave(lambda: _become_nspawn(spec, view, (go_r, go_w, life, log)), report)
    boot.note(folder, machine_proc, first)
    os.write(go_w, b"g")
    os.write(report, b"ok %d\n" % first)


def _leave(work: Callable[[], None], report: int) -> int:
    """Have a process in between leave one behind that does *work*, the first of a new pid namespace; return its pid."""
    pid_r, pid_w = os.pipe()
    builder = os.getpid()
    leaver = os.fork()
    if leaver == 0:

        def leave() -> None:
            syscalls.unshare(syscalls.NEW_PIDS)
            first = os.fork()
            if first == 0:
                boot.child(work, report)
            os.write(pid_w, b"%d" % first)

        boot.child(leave, report, builder)
    os.close(pid_w)
    answer = os.read(pid_r, 16)
    os.waitpid(leaver, 0)
    if not answer:
        raise OSError("the host's pid namespace could not be made")
    return int(answer)


def _mount_root(spec: HostSpec) -> str:
    """Mount the host's root; furnish it before its first start. Return where it is."""
    layers = spec.layout.layers(spec.name)
    view, ready = os.path.join(layers, "view"), os.path.join(layers, root.READY)
    fresh = not os.path.exists(ready)
    if fresh:
        shutil.rmtree(layers, ignore_errors=True)
        os.makedirs(os.path.join(layers, "root", "upper"))
        os.chown(os.path.join(layers, "root", "upper"), UID_SHIFT, UID_SHIFT)
    os.makedirs(view, exist_ok=True)
    root.overlay(os.path.join(layers, "root"), base_root(spec.options.booted), view)
    if fresh:
        _furnish(spec, view)
        with open(ready, "w", encoding="ascii"):
            pass
    journal = spec.layout.host(spec.name, "journal")  # as in ordinary hosts: there fsync is a real one
    os.makedirs(journal, mode=0o700, exist_ok=True)
    os.chown(journal, UID_SHIFT, UID_SHIFT)
    # nspawn keeps a few things in /run; the machine's is none of a lab's business
    mount("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=16m")
    return view


def _furnish(spec: HostSpec, view: str) -> None:
    options = spec.options
    write = _Writer(view)
    write("/etc/hostname", f"{spec.name}\n")
    write("/etc/hosts", f"127.0.0.1 localhost\n::1 localhost\n{spec.address} {spec.name}\n")
    write("/etc/machine-id", f"{os.urandom(16).hex()}\n", 0o444)
    with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as f:
        write("/etc/resolv.conf", f.read())
    lines = [line for line in inside.sshd_settings(spec) if not line.startswith(("Subsystem ", "PidFile "))]
    write(_SSHD, "\n".join(lines) + "\n")
    with open(spec.host_key, encoding="ascii") as f:
        write(f"{INSIDE}/host_key", f.read(), 0o600)
    write(f"{INSIDE}/authorized_keys", spec.authorized_key)
    if options.banner:
        write(f"{INSIDE}/banner", options.banner)
    if options.users:
        write(FIRST_START, "".join(map(inside.add_user, options.users)), 0o600)
        write(f"/etc/systemd/system/{_FIRST_UNIT}", _FIRST_START_UNIT)
        write.link(f"/etc/systemd/system/ssh.service.requires/{_FIRST_UNIT}", f"../{_FIRST_UNIT}")
    for path, text in options.files.items():
        write(path, text)
    write.folder("/var/lib/gpuprov", 0o700)


class _Writer:
    """Puts files into a root that has never run, so that they belong to its root user."""

    def __init__(self, view: str) -> None:
        self._view = view

    def __call__(self, path: str, text: str, mode: int = 0o644) -> None:
        self.folder(os.path.dirname(path))
        place = self._view + path
        if os.path.lexists(place):
            os.unlink(place)
        with open(place, "x", encoding="utf-8") as f:
            f.write(text)
        os.chmod(place, mode)
        os.chown(place, UID_SHIFT, UID_SHIFT)

    def folder(self, path: str, mode: int = 0o755) -> None:
        """Make folder *path*, and those that it is in, where they are missing."""
        place = self._view + path
        if os.path.isdir(place):
            return
        self.folder(os.path.dirname(path))
        os.mkdir(place)
        os.chmod(place, mode)
        os.chown(place, UID_SHIFT, UID_SHIFT)

    def link(self, path: str, target: str) -> None:
        """Put a symbolic link at *path*."""
        self.folder(os.path.dirname(path))
        os.symlink(target, self._view + path)
        os.lchown(self._view + path, UID_SHIFT, UID_SHIFT)


def _become_nspawn(spec: HostSpec, view: str, fds: tuple[int, int, int, int]) -> None:
    """Wait until the host is on the record, then run nspawn as process 1 of this pid namespace."""
    go, go_writer, life, log = fds
    os.close(go_writer)
    if os.read(go, 1) != b"g":
        os._exit(1)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    # Who forked us is gone by now, and the supervisor is the parent whose end is ours.
    if select.select([life], [], [], 0)[0]:
        os._exit(1)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    null = os.open("/dev/null", os.O_RDWR)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    os.closerange(3, 65536)
    os.setsid()
    os.umask(0o022)
    argv = _command(spec, view)
    os.execvpe(argv[0], argv, _ENVIRONMENT)  # noqa: S606


def _command(spec: HostSpec, view: str) -> list[str]:
    return [
        "systemd-nspawn",
        "--quiet",
        "--boot",
        "--settings=no",
        "--keep-unit",
        "--register=no",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--console=pipe",
        f"--private-users={UID_SHIFT}:{UID_COUNT}",
        "--private-users-ownership=off",
        f"--machine={spec.name}",
        f"--directory={view}",
        f"--bind={spec.layout.host(spec.name, 'journal').replace(':', chr(92) + ':')}:/var/lib/gpuprov",
    ]
