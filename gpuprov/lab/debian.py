"""The root that booted hosts share: a small Debian, made once by debootstrap and kept in a cache.

Its files belong to a range of user ids that nobody else has: root of a booted host is user
UID_SHIFT of the machine, so no file of /proc or /sys that is root's lets it in.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gpuprov.errors import LabError
from gpuprov.lab.boot import trial
from gpuprov.lab.syscalls import MS_BIND, MS_PRIVATE, MS_REC, NEW_MOUNTS, mount, unshare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CACHE = "/var/cache/gpuprov/booted"
SUITES = ("bookworm", "trixie")
#: The programs that booted hosts need, and whether only the making of their root does.
PROGRAMS = {"systemd-nspawn": False, "debootstrap": True, "setpriv": True, "unshare": True}
#: The last range of those that systemd gives to containers.
UID_SHIFT, UID_COUNT = 1878982656, 65536
#: Raise it when roots made before must not be used any more.
_EDITION = 1
_PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "kmod",
    "libpam-systemd",
    "openssh-server",
    "procps",
    "python3",
    "sudo",
    "systemd",
    "systemd-sysv",
    "udev",
)
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_OWN_CERTIFICATES = "/usr/local/share/ca-certificates"
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "DEBIAN_FRONTEND": "noninteractive",
    "LANG": "C.UTF-8",
}
#: What makes an image of what debootstrap leaves: today's fixes, and nothing that hosts must not share.
_FINISH = """\
apt-get -qq update
apt-get -qq -y dist-upgrade
apt-get clean
update-ca-certificates
rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* /var/log/*.log /var/log/apt
: >/etc/machine-id
"""


def base_root(suite: str) -> str:
    """Return the folder of the root for *suite*, which may not be there yet."""
    return os.path.join(CACHE, f"{suite}-{_EDITION}")


def check_suite(suite: str) -> None:
    """Raise LabError for a suite that no booted host can have."""
    if suite not in SUITES:
        raise LabError(f"there are no booted hosts of Debian {suite}: the suites are {', '.join(SUITES)}")


def make_base_root(suite: str, say: Callable[[str], None]) -> None:
    """Make the root for *suite* unless it is there. Needs root and the network; a minute. Raises LabError."""
    root = base_root(suite)
    if os.path.isdir(root):
        return
    archive, security = archives()
    os.makedirs(CACHE, mode=0o755, exist_ok=True)
    with _lock(f"{root}.lock"):
        if os.path.isdir(root):  # somebody else has made it while we waited
            return
        say(f"making the Debian {suite} root that booted hosts share, once: about a minute")
        making = f"{root}.making"
        shutil.rmtree(making, ignore_errors=True)
        try:
            _debootstrap(suite, making, archive)
            _apt_settings(suite, making, archive, security)
            _certificates(making)
            reason = trial(lambda: _finish(making))
            if reason:
                raise LabError(f"the Debian {suite} root could not be made: {reason}")
            _shift_owners(making)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
        os.rename(making, root)


def archives() -> tuple[str, str]:
    """Return the addresses of Debian's archive and of its security updates, as this machine's apt has them.

    Raises LabError when its apt knows of none.
    """
    form = "$(ORIGIN)|$(LABEL)|$(REPO_URI)"
    argv = ["apt-get", "indextargets", "--format", form, "Created-By: Packages"]
    done = subprocess.run(argv, env=_environment(), capture_output=True, text=True, check=False)
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        origin, label, uri = line.split("|", 2)
        if origin == "Debian":
            found.setdefault(label, uri.rstrip("/"))
    missing = [label for label in ("Debian", "Debian-Security") if label not in found]
    if missing:
        raise LabError(
            f"this machine's apt has no source of {' and '.join(missing)}: booted hosts are installed from its mirror",
            hint="apt-get update, if its sources are Debian's; else run booted hosts on a Debian machine",
        )
    return found["Debian"], found["Debian-Security"]


def _debootstrap(suite: str, root: str, archive: str) -> None:
    """Run debootstrap in namespaces of its own: it leaves no mount, and it ends when we do."""
    if not os.path.exists(_KEYRING):
        raise LabError(f"{_KEYRING} is missing: Debian's signature cannot be checked", hint="debian-archive-keyring")
    argv = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    argv += ["debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}"]
    argv += [f"--keyring={_KEYRING}", "--force-check-gpg", suite, root, archive]
    done = subprocess.run(
        argv, env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = [line[3:] for line in (done.stdout + done.stderr).splitlines() if line.startswith(("E: ", "W: "))]
        raise LabError(f"debootstrap of {suite} failed: {'; '.join(last[-2:]) or f'exit code {done.returncode}'}")


def _apt_settings(suite: str, root: str, archive: str, security: str) -> None:
    """Give the root the machine's mirror, proxy and checks of dates."""
    stanza = f"Types: deb\nURIs: {{}}\nSuites: {{}}\nComponents: main\nSigned-By: {_KEYRING}\n"
    sources = stanza.format(archive, f"{suite} {suite}-updates") + "\n" + stanza.format(security, f"{suite}-security")
    _write(f"{root}/etc/apt/sources.list.d/debian.sources", sources)
    os.unlink(f"{root}/etc/apt/sources.list")
    dump = subprocess.run(
        ["apt-config", "dump", "Acquire"], env=_environment(), capture_output=True, text=True, check=True
    )
    kept = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries", "Acquire::ForceIP")
    lines = [line for line in dump.stdout.splitlines() if line.startswith(kept)]
    _write(f"{root}/etc/apt/apt.conf.d/90gpuprov-lab", "".join(f"{line}\n" for line in lines))


def _certificates(root: str) -> None:
    """Give the root the authorities that an admin has added to this machine: its mirrors may be signed by them."""
    if os.path.isdir(_OWN_CERTIFICATES):
        shutil.copytree(_OWN_CERTIFICATES, f"{root}{_OWN_CERTIFICATES}", dirs_exist_ok=True)


def _finish(root: str) -> None:
    """Run _FINISH in *root*, in a mount namespace of this (forked) process. Raises OSError."""
    unshare(NEW_MOUNTS)
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("proc", f"{root}/proc", "proc")
    mount("/dev", f"{root}/dev", None, MS_REC | MS_BIND)
    shutil.copyfile("/etc/resolv.conf", f"{root}/etc/resolv.conf")
    argv = ["chroot", root, "/bin/sh", "-e", "-c", _FINISH]
    done = subprocess.run(
        argv, env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise OSError(" ".join((done.stderr or done.stdout).split())[-300:])


def _shift_owners(root: str) -> None:
    """Move every owner and group of *root* by UID_SHIFT; modes stay."""
    for folder, folders, names in os.walk(root):
        for path in (folder, *(os.path.join(folder, name) for name in (*folders, *names))):
            info = os.lstat(path)
            if info.st_uid >= UID_SHIFT:  # met before: a folder, or another name of a file
                continue
            os.lchown(path, info.st_uid + UID_SHIFT, info.st_gid + UID_SHIFT)
            if not stat.S_ISLNK(info.st_mode):
                os.chmod(path, stat.S_IMODE(info.st_mode))  # chown takes set-id bits away


def _environment() -> dict[str, str]:
    proxies = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    return {**proxies, **_ENVIRONMENT}


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


@contextmanager
def _lock(path: str) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
