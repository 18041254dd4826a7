"""Booted hosts: Debian with systemd as process 1. The machine is as before, whatever they do and however they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from gpuprov.cli.main import main
from gpuprov.errors import LabError
from gpuprov.lab import HostOptions, Lab, User, checks, debian
from gpuprov.lab.faults import cut_power, freeze, processes_in, thaw
from gpuprov.lab.processes import read_process
from tests.lab.test_isolation import DESTRUCTION, fingerprint, listening_outside_loopback
from tests.lab.test_life import remains_of, wait_for
from tests.support.lab import NEEDS_BOOTED, lab_of, run_on

pytestmark = NEEDS_BOOTED
SUITE = "bookworm"
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


@pytest.fixture(scope="module")
def booted():
    with lab_of(2, booted=SUITE) as lab:
        yield lab


def cgroups() -> list[str]:
    """Return the cgroups of all labs of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        script = 'mount -t cgroup2 cgroup2 "$1" && cd "$1" && find . -name "gpuprov-lab-*"'
        words = ["unshare", "--mount", "sh", "-c", script, "sh", folder]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()


def test_process_1_is_systemd_and_all_is_well(booted):
    seen = run_on(
        booted,
        "gpu01",
        "systemctl is-system-running --wait; cat /proc/1/comm /etc/hostname; id -u; grep CODENAME /etc/os-release",
    )
    assert seen.stdout.split() == ["running", "systemd", "gpu01", "0", f"VERSION_CODENAME={SUITE}"]
    assert run_on(booted, "gpu02", "hostname; sudo -n id -u; python3 -c 'print(1)'").stdout.split() == [
        "gpu02",
        "0",
        "1",
    ]
    assert [status.booted for status in booted.status()] == [SUITE, SUITE]


def test_a_reboot_is_a_real_one_and_the_disk_stays(booted):
    old = run_on(booted, "gpu01", f"{BOOT_ID}; touch /etc/kept /var/lib/gpuprov/kept /tmp/lost /run/lost").stdout
    run_on(booted, "gpu01", "systemctl reboot")
    wait_for(lambda: run_on(booted, "gpu01", BOOT_ID).stdout not in ("", old), 60)
    seen = run_on(booted, "gpu01", "ls /etc/kept /var/lib/gpuprov/kept /tmp/lost /run/lost")
    assert seen.stdout.split() == ["/etc/kept", "/var/lib/gpuprov/kept"]
    assert run_on(booted, "gpu01", "systemctl is-system-running --wait").stdout == "running\n"


def test_services_start_and_stop(booted):
    unit = "[Service]\\nExecStart=/bin/sleep 1000\\n"
    run_on(
        booted,
        "gpu02",
        f"printf '{unit}' >/etc/systemd/system/nap.service; systemctl daemon-reload; systemctl start nap",
    )
    assert run_on(booted, "gpu02", "systemctl is-active nap; pgrep -c sleep").stdout.split() == ["active", "1"]
    assert run_on(booted, "gpu02", "systemctl stop nap; pgrep -c sleep").stdout == "0\n"


def test_the_machine_is_the_same_after_destruction_inside():
    with lab_of(2, booted=SUITE) as lab, subprocess.Popen(["sleep", "1000"]) as victim:
        others = [status.pid for status in lab.status()]
        before = fingerprint()
        pids = " ".join(map(str, [victim.pid, os.getpid(), *others]))
        done = run_on(lab, "gpu01", "sh", stdin=DESTRUCTION.replace("VICTIMS", pids))
        inside = run_on(lab, "gpu01", "ls /var/lib/dpkg; cat /etc/gpuprov-wrecked")
        after = fingerprint()
        alive = victim.poll() is None
        victim.kill()
        assert alive
        for name, value in before.items():
            assert after[name] == value, f"{name} changed"
        assert "mounted-inside" in done.stdout  # so that the above has seen a host on which something happened
        assert inside.stdout == "wrecked\n"
        assert run_on(lab, "gpu02", "hostname; ls -d /var/lib/dpkg").stdout == "gpu02\n/var/lib/dpkg\n"


def test_a_new_host_has_nothing_of_an_earlier_ones():
    with lab_of(1, booted=SUITE) as lab:
        assert (
            run_on(lab, "gpu01", "ls /etc/kept /etc/gpuprov-wrecked /var/lib/gpuprov").stdout == "/var/lib/gpuprov:\n"
        )


def test_switched_off_stays_off_power_cut_and_freeze(booted):
    run_on(booted, "gpu02", "touch /etc/kept; systemctl poweroff")
    wait_for(lambda: booted.status()[1].pid == 0, 60)
    time.sleep(0.5)  # longer than a restart waits
    assert [status.up for status in booted.status()] == [True, False]
    assert booted.ensure(2, booted=SUITE) is True
    assert run_on(booted, "gpu02", "ls /etc/kept").stdout == "/etc/kept\n"
    assert {"systemd-nspawn", "systemd", "sshd"} <= {name_of(process.pid) for process in processes_in(booted, "gpu02")}
    freeze(booted, "gpu02")
    with pytest.raises(subprocess.TimeoutExpired):
        run_on(booted, "gpu02", "true", timeout_s=1)
    thaw(booted, "gpu02")
    assert run_on(booted, "gpu02", "true").returncode == 0
    cut_power(booted, "gpu02")
    booted.up(2)
    assert run_on(booted, "gpu02", "ls /etc/kept").stdout == "/etc/kept\n"


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):  # a host that has just started starts and ends many
        return ""


def test_down_leaves_nothing_and_ordinary_hosts_run_beside():
    before = cgroups()
    listening = listening_outside_loopback()
    options = {
        "gpu02": HostOptions(),
        "gpu01": HostOptions(booted=SUITE, users=(User("admin", sudo="password", password="secret"),)),
    }
    with lab_of(2, options) as lab:
        state = Path(lab.layout.state)
        assert [status.booted for status in lab.status()] == [SUITE, ""]
        assert run_on(lab, "gpu01", "sudo -S id -u", user="admin", stdin="secret\n").stdout == "0\n"
        assert [run_on(lab, name, "cat /proc/1/comm").stdout for name in ("gpu01", "gpu02")] == ["systemd\n", "sh\n"]
        assert len(cgroups()) == len(before) + 1
        assert listening_outside_loopback() == listening
        run_on(lab, "gpu01", "setsid sleep 1000 >/dev/null 2>&1 & mount -t tmpfs x /mnt")
        lab.down()
        assert remains_of(state) == []
        assert cgroups() == before


@pytest.mark.parametrize("delay_s", [0.12, 0.3, 0.6])
def test_down_leaves_nothing_after_its_starter_was_killed(delay_s):
    before = cgroups()
    with tempfile.TemporaryDirectory(prefix="gpuprov-lab-") as folder:
        state = Path(folder, "state")
        code = f"from gpuprov.lab import Lab; print(flush=True); Lab({str(state)!r}).up(2, booted={SUITE!r})"
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as starter:
            assert starter.stdout is not None
            starter.stdout.read(1)
            time.sleep(delay_s)
            starter.kill()
        Lab(state).down()
        wait_for(lambda: remains_of(state) == [])  # an ssh-keygen that its starter left ends by itself
        assert cgroups() == before


def test_hosts_end_with_their_supervisor():
    with lab_of(1, booted=SUITE) as lab:
        run_on(lab, "gpu01", "touch /etc/old")
        supervisor = read_process(lab.layout.path("supervisor"))
        assert supervisor is not None
        hosts = processes_in(lab, "gpu01")
        assert len(hosts) > 5
        supervisor.kill(signal.SIGKILL)
        wait_for(lambda: not any(process.is_alive() for process in hosts))
        lab.up(1, booted=SUITE)
        assert run_on(lab, "gpu01", "ls /etc/old").stdout == ""


def test_an_inventory_starts_booted_hosts_and_no_others_pass_for_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GPUPROV_LAB_STATE", str(tmp_path / "state"))
    inventory, play = tmp_path / "inventory.yaml", tmp_path / "play.yaml"
    inventory.write_text("all: {hosts: {gpu01: }, vars: {gpuprov_lab: {hosts: 1, booted: true}}}\n")
    tasks = [{"command": "systemctl is-active ssh", "changed_when": False}]
    play.write_text(json.dumps([{"hosts": "all", "tasks": [*tasks, {"service": {"name": "ssh", "state": "started"}}]}]))
    argv = ["apply", str(inventory), str(play), "--run-dir", str(tmp_path / "runs")]
    try:
        assert main(argv) == 0
        capsys.readouterr()
        assert main(["lab", "status"]) == 0
        assert capsys.readouterr().out.splitlines()[0].split()[2:] == ["up", str(Lab().status()[0].pid), SUITE]
        inventory.write_text("all: {hosts: {gpu01: }, vars: {gpuprov_lab: {hosts: 1}}}\n")
        assert main(argv) == 1
        assert "lab host gpu01 is a booted bookworm host, not an ordinary one" in capsys.readouterr().err
    finally:
        main(["lab", "down"])


def test_what_cannot_be_is_refused_before_anything_is_touched(tmp_path, monkeypatch):
    lab = Lab(tmp_path / "state")
    for booted, options, said in (
        ("jessie", None, "no booted hosts of Debian jessie"),
        ("", {"gpu01": HostOptions(booted=SUITE, noexec_tmp=True, python="none")}, "no option noexec_tmp, python"),
    ):
        with pytest.raises(LabError, match=said):
            lab.up(1, booted=booted, options=options)
    monkeypatch.setattr(checks, "which", lambda program: None if program == "systemd-nspawn" else "/bin/true")
    with pytest.raises(LabError, match="need systemd-nspawn, which") as caught:
        lab.up(1, booted=SUITE)
    assert "lab prepare --booted" in caught.value.hint
    assert not (tmp_path / "state").exists()


def test_without_user_namespaces_it_says_so():
    with pytest.raises(LabError, match="need user namespaces"), lab_of(1, booted=SUITE, user_namespaces=False):
        pass


def test_a_machine_whose_apt_is_not_debians_is_told(tmp_path, monkeypatch):
    (tmp_path / "lists").mkdir()
    (tmp_path / "apt.conf").write_text(f'Dir::State::Lists "{tmp_path}/lists";\n')
    monkeypatch.setitem(debian._ENVIRONMENT, "APT_CONFIG", str(tmp_path / "apt.conf"))
    with pytest.raises(LabError, match="no source of Debian and Debian-Security"):
        debian.archives()


def test_prepare_says_what_is_there_already(booted, capsys):
    assert main(["lab", "prepare", "--booted"]) == 0
    assert (
        capsys.readouterr().out == f"the Debian {SUITE} root of booted hosts is in {debian.base_root(SUITE)} already\n"
    )
    assert main(["lab", "prepare", "--suite", "jessie"]) == 1
    assert "the suites are bookworm, trixie" in capsys.readouterr().err


@pytest.mark.slow
def test_the_root_is_made_whole_or_not_at_all(tmp_path, monkeypatch):
    """Minutes: debootstrap twice, once with a mirror that has nothing."""
    monkeypatch.setattr(debian, "CACHE", str(tmp_path))
    said: list[str] = []
    real = debian.archives()
    monkeypatch.setattr(debian, "archives", lambda: ("http://127.0.0.1:9/debian", real[1]))
    with pytest.raises(LabError, match="debootstrap of bookworm failed"):
        debian.make_base_root(SUITE, said.append)
    assert [path.name for path in tmp_path.iterdir()] == ["bookworm-1.lock"]
    monkeypatch.setattr(debian, "archives", lambda: real)
    debian.make_base_root(SUITE, said.append)
    root = Path(debian.base_root(SUITE))
    assert len(said) == 2
    assert not list(root.glob("etc/ssh/ssh_host_*"))
    assert (root / "usr/bin/su").stat().st_mode & 0o4000
    owners = {path.lstat().st_uid for path in root.rglob("*")}
    assert min(owners) >= debian.UID_SHIFT
    debian.make_base_root(SUITE, said.append)
    assert len(said) == 2


@pytest.mark.slow
def test_trixie_boots_too():
    with lab_of(1, booted="trixie") as lab:
        assert run_on(lab, "gpu01", "systemctl is-system-running --wait").stdout == "running\n"
