"""A real systemd as process 1 of namespaces of its own, on a copy-on-write view of this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

SYSTEMD = "/lib/systemd/systemd"
REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
#: Runs in fresh mount, pid, cgroup and uts namespaces; $1 is a folder for the layers, $2 the repository.
BOOT = r"""
set -e
mount --make-rprivate /
mount -t tmpfs layers "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs run run
mount -t tmpfs tmp tmp
mount -t tmpfs dev dev
for name in null zero full random urandom tty; do touch dev/$name; mount --bind /dev/$name dev/$name; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mkdir tmp/repo
mount --bind "$2" tmp/repo
rm -f etc/systemd/system/*.wants/*
mkdir -p var/log/journal
export container=lxc
exec chroot . /lib/systemd/systemd --system --unit=basic.target
"""


class SystemdHost:
    """Use as a context manager; `python` runs a program of the repository inside."""

    def __enter__(self) -> SystemdHost:
        if not os.path.exists(SYSTEMD):
            subprocess.run(["apt-get", "install", "-y", "-q", "systemd"], stdout=subprocess.DEVNULL, check=True)
        self.layers = tempfile.mkdtemp(prefix="gpuprov-systemd-")
        words = ["unshare", "--fork", "--pid", "--mount", "--cgroup", "--uts", "--kill-child"]
        words += ["sh", "-c", BOOT, "sh", self.layers, REPO]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        self._wait()
        return self

    def __exit__(self, *error: object) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.stdout.close()
        self.process.wait()
        shutil.rmtree(self.layers)

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError("systemd did not start: %s" % self.process.stdout.read().decode())
            if self.run("systemctl", "is-active", "basic.target").stdout.strip() == b"active":
                return
            time.sleep(0.2)
        raise AssertionError("systemd did not come up in 60 s")

    def run(self, *words: str) -> subprocess.CompletedProcess:
        pid = self._init()
        if pid is None:
            return subprocess.CompletedProcess(words, 1, b"", b"")
        enter = ["nsenter", "-t", pid, "--mount", "--pid", "--cgroup", "--uts", "--root", "--wd"]
        return subprocess.run([*enter, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)

    def python(self, *words: str) -> subprocess.CompletedProcess:
        interpreter = os.path.realpath(sys.executable)
        return self.run("env", "-C", "/tmp/repo", "PYTHONDONTWRITEBYTECODE=1", interpreter, *words)

    def _init(self) -> str | None:
        """Return the process id of the new systemd, once unshare's child has become it."""
        path = "/proc/%d/task/%d/children" % (self.process.pid, self.process.pid)
        with open(path) as f:
            children = f.read().split()
        if children and os.path.basename(os.readlink("/proc/%s/exe" % children[0])) == "systemd":
            return children[0]
        return None
