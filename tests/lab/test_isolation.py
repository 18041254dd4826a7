"""What a run does to a lab host never touches the machine."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from gpuprov.lab.syscalls import DROPPED_CAPABILITIES
from tests.support.lab import NEEDS_LAB, lab_of, run_on

pytestmark = NEEDS_LAB

#: Sysctls that count what the machine does: they change while nobody changes them.
COUNTERS = (
    "random/",
    "ns_last_pid",
    "pty/nr",
    "inode-",
    "inode-nr",
    "dentry-state",
    "file-nr",
    "aio-nr",
    "stat_refresh",
)

DESTRUCTION = r"""
hostname wrecked
echo wrecked >/etc/hostname; echo wrecked >/etc/gpuprov-wrecked; rm -rf /etc/apt /var/lib/dpkg /opt /boot
echo 0 >/proc/sys/vm/swappiness; sysctl -w vm.swappiness=0 kernel.panic=77 net.ipv4.ip_forward=1 kernel.hostname=x
mount -o remount,rw /proc/sys; mount -o remount,bind,rw /proc/sys; umount -l /proc/sys
echo 0 >/proc/sys/vm/swappiness
mkdir -p /mnt/p /mnt/s /mnt/b
mount -t proc proc /mnt/p && echo 0 >/mnt/p/sys/vm/swappiness
mount -t sysfs sysfs /mnt/s && echo 0 >/mnt/s/class/net/lo/flags
mount -o remount,rw /sys; echo 1500 >/sys/class/net/lo/mtu
unshare -m -U -r sh -c 'mount -t proc proc /mnt/p; echo 0 >/mnt/p/sys/vm/swappiness'
mount --bind / /mnt/b
mount -t tmpfs -o size=1m scratch /mnt && echo mounted-inside
mount -t devtmpfs dev /media; mount /dev/vda /media; mount -t debugfs debug /media; mount -t cgroup2 none /media
mknod /dev/mem c 1 1; mknod /tmp/disk b 254 0; mknod /tmp/kmsg c 1 11
date -s '2001-01-01'; hwclock --systohc
python3 - <<'END'
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
say = lambda *words: print(*words, flush=True)
say("init_module", libc.syscall(175, b"x", 1, b""), os.strerror(ctypes.get_errno()))
say("swapon", libc.swapon(b"/etc/passwd", 0), os.strerror(ctypes.get_errno()))
say("iopl", libc.syscall(172, 3), os.strerror(ctypes.get_errno()))
say("klogctl clear", libc.klogctl(5, None, 0), os.strerror(ctypes.get_errno()))
say("clock_settime", libc.settimeofday(ctypes.byref((ctypes.c_long * 2)(10, 0)), None), os.strerror(ctypes.get_errno()))
say("acct", libc.acct(b"/tmp/acct"), os.strerror(ctypes.get_errno()))
END
echo c >/proc/sysrq-trigger; echo 1 >/proc/irq/default_smp_affinity
ip link set lo down; ip link set lo mtu 1500; ip address add 127.9.9.9/8 dev lo; ip route add 203.0.113.0/24 dev lo
for pid in VICTIMS; do kill -9 $pid; done
swapoff -a; dmesg -C; losetup -f /etc/passwd
"""


def fingerprint() -> dict[str, object]:
    """Return what a careless play could have changed on this machine."""
    return {
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "sysctls": sysctls(),
        "/etc": digests("/etc"),
        "dpkg": digests("/var/lib/dpkg"),
        "folders": [sorted(os.listdir(path)) for path in ("/opt", "/boot", "/dev")],
        "modules": sorted(line.split()[0] for line in Path("/proc/modules").read_text().splitlines())
        if Path("/proc/modules").exists()
        else [],
        "swaps": Path("/proc/swaps").read_text(),
        "hostname": socket.gethostname(),
        "links": subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout,
        "addresses": subprocess.run(["ip", "-o", "-4", "address"], capture_output=True, text=True, check=True).stdout,
        "routes": Path("/proc/net/route").read_text(),
        "listening": listening_outside_loopback(),
        "clock": round(time.time() - time.monotonic(), 0),
    }


def sysctls() -> dict[str, bytes]:
    values = {}
    for part in ("kernel", "vm", "fs", "net/ipv4", "net/core"):
        for folder, _, names in os.walk(f"/proc/sys/{part}"):
            for name in names:
                path = f"{folder}/{name}"
                if not any(word in path for word in COUNTERS):
                    try:
                        values[path] = Path(path).read_bytes()
                    except OSError:  # write-only, or not on this machine
                        continue
    return values


def digests(root: str) -> dict[str, str]:
    found = {}
    for folder, folders, names in os.walk(root):
        for name in [*folders, *names]:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            text = f"{info.st_mode} {info.st_uid} {info.st_gid}"
            if os.path.isfile(path) and not os.path.islink(path) and info.st_size < 1 << 20:
                text += hashlib.sha256(Path(path).read_bytes()).hexdigest()
            found[path] = text
    return found


def listening_outside_loopback() -> list[str]:
    """Return what listens on addresses that are not 127.x.y.z."""
    found = []
    for table in ("tcp", "tcp6"):
        path = Path("/proc/net", table)
        for line in path.read_text().splitlines()[1:] if path.exists() else []:
            fields = line.split()
            if fields[3] == "0A" and not fields[1].split(":")[0].endswith("7F"):
                found.append(f"{table} {fields[1]}")
    return sorted(found)


def test_the_machine_is_the_same_after_destruction_inside():
    with lab_of(2) as lab, subprocess.Popen(["sleep", "1000"]) as victim:
        others = [status.pid for status in lab.status()]
        before = fingerprint()
        pids = " ".join(map(str, [victim.pid, os.getpid(), *others]))
        done = run_on(lab, "gpu01", "sh", stdin=DESTRUCTION.replace("VICTIMS", pids))
        inside = run_on(lab, "gpu01", "hostname; cat /etc/gpuprov-wrecked; ls /var/lib/dpkg /boot; findmnt -n /mnt")
        after = fingerprint()
        alive = victim.poll() is None
        victim.kill()
        assert alive
        for name, value in before.items():
            assert after[name] == value, f"{name} changed"
        # so that the above has compared a machine with one on which something happened
        assert "mounted-inside" in done.stdout
        assert inside.stdout.splitlines()[:2] == ["wrecked", "wrecked"]
        assert "scratch" in inside.stdout
        assert "cannot access '/var/lib/dpkg'" in inside.stderr
        assert run_on(lab, "gpu02", "hostname; ls -d /var/lib/dpkg").stdout == "gpu02\n/var/lib/dpkg\n"


@pytest.mark.parametrize("user_namespaces", [True, False])
def test_forbidden_calls_are_refused_not_missing(user_namespaces):
    """Each is refused for want of privilege, on machines without user namespaces too."""
    with lab_of(1, user_namespaces=user_namespaces) as lab:
        assert lab.confined == user_namespaces
        done = run_on(lab, "gpu01", "sh", stdin=DESTRUCTION.replace("VICTIMS", ""))
        for call in ("init_module", "swapon", "iopl", "klogctl clear", "clock_settime", "acct"):
            said = [line for line in done.stdout.splitlines() if line.startswith(f"{call} ")]
            # the kernel may lack modules and port access altogether
            refusals = ["Operation not permitted"] + ["Function not implemented"] * (call in ("init_module", "iopl"))
            assert said in [[f"{call} -1 {refusal}"] for refusal in refusals]
        for command in ("date: cannot set date", "mknod: /dev/mem", "mknod: /tmp/disk", "mount: /proc/sys:"):
            assert command in done.stderr
        swappiness = Path("/proc/sys/vm/swappiness").read_text()
        assert run_on(lab, "gpu01", "cat /proc/sys/vm/swappiness").stdout == swappiness


def test_no_process_of_a_host_can_have_the_dropped_capabilities(lab):
    for command in ("cat /proc/self/status", "cat /proc/1/status"):
        lines = run_on(lab, "gpu01", command).stdout.splitlines()
        bounding = int(next(line for line in lines if line.startswith("CapBnd")).split()[1], 16)
        held = [name for name, number in DROPPED_CAPABILITIES.items() if bounding >> number & 1]
        assert held == []
        assert bounding >> 22 & 1  # SYS_BOOT: a host reboots itself


def test_a_host_sees_neither_the_lab_nor_the_checkout_nor_anybodys_home(lab):
    code = Path(__file__).resolve().parents[2]
    seen = run_on(lab, "gpu01", f"ls -A {lab.layout.state} {code} /root /home; ps -e -o comm=")
    words = [line for line in seen.stdout.splitlines() if line and not line.endswith(":")]
    assert {line.strip() for line in words} <= {"init", "sshd", "sshd-session", "bash", "sh", "ps"}


def test_devices_are_few_and_work(lab):
    seen = run_on(
        lab, "gpu01", "ls /dev; echo x >/dev/null; head -c 4 /dev/zero | wc -c; head -c 8 /dev/urandom | wc -c"
    )
    assert seen.stdout.split() == [
        *("fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"),
        *("4", "8"),
    ]
    terminal = ["ssh", "-F", lab.layout.path("ssh_config"), "-tt", "-o", "LogLevel=ERROR", "gpu01", "tty"]
    done = subprocess.run(terminal, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.stdout.strip() == "/dev/pts/0"


def test_the_journals_folder_is_on_a_real_file_system(lab):
    seen = run_on(lab, "gpu01", "stat -f -c %T / /var/lib/gpuprov; stat -c %a /var/lib/gpuprov")
    machine = subprocess.run(["stat", "-f", "-c", "%T", lab.layout.state], capture_output=True, text=True, check=True)
    assert seen.stdout.split() == ["overlayfs", machine.stdout.strip(), "700"]


def test_packages_install_into_the_host_alone(lab, tmp_path):
    """With the real dpkg; nothing is downloaded."""
    package = tmp_path / "pkg"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "usr/share/gpuprov-lab-probe").mkdir(parents=True)
    (package / "usr/share/gpuprov-lab-probe/here").write_text("yes\n")
    control = "Package: gpuprov-lab-probe\nVersion: 1\nArchitecture: all\nMaintainer: x <x@localhost>\nDescription: x\n"
    (package / "DEBIAN/control").write_text(control)
    start = "#!/bin/sh\ninvoke-rc.d ssh start || true\n"  # as packages with a service do
    (package / "DEBIAN/postinst").write_text(start)
    (package / "DEBIAN/postinst").chmod(0o755)
    file = tmp_path / "probe.deb"
    subprocess.run(["dpkg-deb", "-b", "--root-owner-group", package, file], check=True, capture_output=True)
    key = lab.layout.path("ssh_config")
    subprocess.run(["scp", "-q", "-F", key, file, "gpu02:/root/probe.deb"], check=True)
    before = listening_outside_loopback()
    done = run_on(lab, "gpu02", "apt-get install -y -qq /root/probe.deb && dpkg -s gpuprov-lab-probe")
    assert "Status: install ok installed" in done.stdout
    assert listening_outside_loopback() == before
    assert not Path("/usr/share/gpuprov-lab-probe").exists()
