"""The root file system of a lab host: a copy-on-write view of the machine's, and its mounts."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuprov.lab import syscalls
from gpuprov.lab.layout import FIRST_START, INSIDE, Layout
from gpuprov.lab.syscalls import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, bind, mount

if TYPE_CHECKING:
    from gpuprov.lab.options import HostOptions

#: Folders that may be a file system of their own and belong to the view of the machine.
_OWN_MOUNTS = ("/boot", "/etc", "/opt", "/usr", "/usr/local", "/var", "/var/cache", "/var/lib", "/var/log")
#: The file beside a host's layers that says that they are complete.
READY = "ready"
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
#: Files of /proc that reach past the host even when they cannot be written.
_PROC_HIDDEN = ("kcore", "kmsg", "sysrq-trigger", "keys", "timer_list")


@dataclass(frozen=True)
class HostSpec:
    """All that is needed to start one host. own_users: it gets a user namespace.

    hidden are folders of the machine that no host sees: other hosts' layers, the checkout.
    """

    name: str
    address: str
    port: int
    layout: Layout
    options: HostOptions
    sshd: str
    own_users: bool
    hidden: tuple[str, ...]
    authorized_key: str

    @property
    def log(self) -> str:
        """The file that the host's init and sshd write to."""
        return self.layout.host(self.name, "log")

    @property
    def host_key(self) -> str:
        """The file with the host's private ssh key."""
        return self.layout.host(self.name, "key")


class Layer:
    """The copy-on-write side of a host's root, written to while it is not mounted.

    Paths are the host's. Folders on the way get the owner and mode that they have here.
    """

    def __init__(self, folder: str) -> None:
        self._uppers = {point: os.path.join(folder, tag, "upper") for point, tag in mount_points().items()}
        for point, upper in self._uppers.items():
            os.makedirs(upper)
            _copy_owner(point, upper)

    def _place(self, path: str) -> str:
        """Return where *path* of the host is kept, its folder made."""
        # /bin, /lib and /sbin are links on today's systems; a layer holds the real place
        path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        point = max((p for p in self._uppers if path.startswith(p.rstrip("/") + "/")), key=len)
        place = self._uppers[point]
        *folders, name = path[len(point.rstrip("/")) + 1 :].split("/")
        shown = point
        for part in folders:
            place, shown = os.path.join(place, part), os.path.join(shown, part)
            if os.path.islink(place):  # a seed's, and it leads into the machine
                raise OSError(f"{path} cannot be written: {shown} is a link")
            if not os.path.isdir(place):
                os.mkdir(place, 0o755)
                if os.path.isdir(shown):
                    _copy_owner(shown, place)
        return os.path.join(place, name)

    def _fresh(self, path: str) -> str:
        """Return where *path* is kept, with nothing there: a file is never written through a link."""
        place = self._place(path)
        if os.path.lexists(place):
            os.unlink(place)
        return place

    def write(self, path: str, text: str, mode: int = 0o644, like: str = "") -> None:
        """Put a file at *path*; owner and mode as those of the machine's file *like*, if given."""
        place = self._fresh(path)
        with open(place, "x", encoding="utf-8") as f:
            f.write(text)
        os.chmod(place, mode)
        if like:
            _copy_owner(like, place)

    def put(self, path: str, source: str) -> None:
        """Put a copy of the machine's file *source* at *path*, for all to read and run."""
        place = self._fresh(path)
        shutil.copyfile(source, place)
        os.chmod(place, 0o755)  # noqa: S103 - a library or program

    def folder(self, path: str, mode: int) -> None:
        """Make sure that folder *path* is there."""
        place = self._place(path)
        os.makedirs(place, exist_ok=True)
        os.chmod(place, mode)

    def empty(self, path: str, mode: int) -> None:
        """Make *path* a folder that shows nothing of the machine's folder there."""
        self.folder(path, mode)
        os.setxattr(self._place(path), "trusted.overlay.opaque", b"y")

    def link(self, path: str, target: str) -> None:
        """Put a symbolic link at *path*."""
        os.symlink(target, self._fresh(path))

    def hide(self, path: str) -> None:
        """Make the machine's file *path* absent."""
        os.mknod(self._fresh(path), stat.S_IFCHR, os.makedev(0, 0))

    def copy(self, seed: str) -> None:
        """Copy folder *seed* over the root; everything belongs to root."""
        for folder, folders, names in os.walk(seed):
            shown = "/" + os.path.relpath(folder, seed)
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            for name in names + links:
                place = self._fresh(os.path.normpath(os.path.join(shown, name)))
                shutil.copy2(os.path.join(folder, name), place, follow_symlinks=False)
                os.chown(place, 0, 0, follow_symlinks=False)


def mount_points() -> dict[str, str]:
    """Return the machine's mounts that a host gets a view of, and a short tag for each."""
    points = {"/": "root"}
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        mounted = {line.split()[4] for line in f}
    for point in _OWN_MOUNTS:
        if point in mounted:
            points[point] = point.strip("/").replace("/", "-")
    return points


def build(spec: HostSpec) -> None:
    """Mount the host's root and make it this process's root. Needs a mount namespace of its own."""
    folder = spec.layout.layers(spec.name)
    new = os.path.join(folder, "view")
    os.makedirs(new, exist_ok=True)
    for point, tag in mount_points().items():
        overlay(os.path.join(folder, tag), point, os.path.normpath(new + point))
    if spec.options.python not in ("", "none"):
        prefix = os.path.dirname(os.path.dirname(os.path.realpath(spec.options.python)))
        bind(prefix, f"{new}{INSIDE}/python", MS_RDONLY)
    journal = f"{new}/var/lib/gpuprov"
    if spec.options.journal_kib:
        mount("gpuprov", journal, "tmpfs", MS_NOSUID | MS_NODEV, f"mode=700,size={spec.options.journal_kib}k")
    else:  # not on the overlay: there fsync would do nothing, and what must last would not
        os.makedirs(spec.layout.host(spec.name, "journal"), mode=0o700, exist_ok=True)
        bind(spec.layout.host(spec.name, "journal"), journal)
    noexec = MS_NOEXEC if spec.options.noexec_tmp else 0
    mount("tmp", f"{new}/tmp", "tmpfs", MS_NOSUID | MS_NODEV | noexec, "mode=1777")  # noqa: S108
    mount("run", f"{new}/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=64m")
    bind("/sys", f"{new}/sys", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if spec.options.gpus:
        _simulated_gpus(spec, new)
    _devices(f"{new}/dev")
    for path in (*spec.hidden, *spec.options.hidden):
        _cover(os.path.normpath(new + path))
    if os.path.exists(new + FIRST_START):
        _first_start(new, os.path.join(folder, READY))
    for path in spec.options.read_only:
        bind(new + path, new + path, MS_RDONLY)
    syscalls.pivot_root(new)


def _simulated_gpus(spec: HostSpec, new: str) -> None:
    """Show what gpus.py wrote where the kernel shows PCI functions and modules; /proc has its part later."""
    shown = spec.layout.host(spec.name, "gpus", "shown")
    flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
    bind(shown, f"{new}{INSIDE}/simulated", flags)
    bind(f"{shown}/pci", f"{new}/sys/bus/pci/devices", flags)
    os.chdir(shown)  # as in `overlay`: short paths
    mount("overlay", f"{new}/sys/module", "overlay", flags, "lowerdir=module:/sys/module")
    os.chdir("/")


def overlay(folder: str, lower: str, target: str) -> None:
    """Mount at *target* the view of *lower* whose changes are kept in *folder*."""
    # What a crashed or rebooted `volatile` overlay leaves in its work folder forbids the next mount.
    shutil.rmtree(os.path.join(folder, "work"), ignore_errors=True)
    os.mkdir(os.path.join(folder, "work"))
    os.chdir(folder)  # the option string has no good way to say "," and ":", so the paths are short
    data = f"lowerdir={lower},upperdir=upper,workdir=work"
    try:
        mount("overlay", target, "overlay", 0, f"{data},volatile")
    except OSError as error:
        if error.errno != errno.EINVAL:  # kernels before 5.10 do not know `volatile`
            raise
        mount("overlay", target, "overlay", 0, data)
    os.chdir("/")


def _first_start(new: str, ready: str) -> None:
    import subprocess  # here, since the supervisor itself needs it never

    argv = ["chroot", new, "/bin/sh", "-e", FIRST_START]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    done = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        os.unlink(ready)  # the next start begins with a new layer
        raise OSError(f"its first start failed: {done.stderr.strip()}")
    os.unlink(new + FIRST_START)


def _devices(dev: str) -> None:
    mount("dev", dev, "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=1m")
    mask = os.umask(0)
    for name, (major, minor) in _DEVICES.items():
        os.mknod(f"{dev}/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
    os.umask(mask)
    for name, target in _LINKS.items():
        os.symlink(target, f"{dev}/{name}")
    os.mkdir(f"{dev}/pts")
    mount("devpts", f"{dev}/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5")
    os.mkdir(f"{dev}/shm")
    mount("shm", f"{dev}/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")


def _cover(path: str) -> None:
    if os.path.isdir(path):
        mount("hidden", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV, "mode=555,size=4k")
    elif os.path.exists(path):
        bind("/dev/null", path, MS_RDONLY)


def mount_proc() -> None:
    """Mount /proc for the pid namespace of this process, nothing of the machine writable in it."""
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    mount("proc", "/proc", "proc", flags)
    for name in os.listdir("/proc"):
        path = f"/proc/{name}"
        if name.isdecimal() or os.path.islink(path):
            continue
        if name in _PROC_HIDDEN:
            bind("/dev/null", path, MS_RDONLY)
        elif os.path.isdir(path) or os.stat(path).st_mode & 0o222:
            bind(path, path, MS_RDONLY | flags)
    if os.path.isdir(f"{INSIDE}/simulated/driver"):
        bind(f"{INSIDE}/simulated/driver", "/proc/driver", MS_RDONLY | flags)
    text = os.urandom(16).hex()
    boot_id = "-".join((text[:8], text[8:12], "4" + text[13:16], "8" + text[17:20], text[20:]))
    with open("/run/boot_id", "w", encoding="ascii") as f:
        f.write(f"{boot_id}\n")
    os.chmod("/run/boot_id", 0o444)
    bind("/run/boot_id", "/proc/sys/kernel/random/boot_id", MS_RDONLY)


def _copy_owner(source: str, target: str) -> None:
    info = os.stat(source)
    os.chown(target, info.st_uid, info.st_gid)
    os.chmod(target, stat.S_IMODE(info.st_mode))
