"""A lab from up to down, whatever happens to those who look after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from gpuprov.errors import LabError
from gpuprov.lab import Lab
from gpuprov.lab.addresses import listening_addresses
from gpuprov.lab.faults import cut_power, freeze, processes_in, thaw
from gpuprov.lab.processes import read_process
from tests.support.lab import NEEDS_LAB, lab_of, run_on

pytestmark = NEEDS_LAB


def remains_of(state: Path) -> list[str]:
    """Return what a lab has left behind on this machine: processes, mounts, sockets, files."""
    found = [str(path) for path in (state,) if path.exists()]
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
            mounts = (entry / "mountinfo").read_text(errors="replace")
        except (OSError, ValueError):
            continue
        if entry.name.isdecimal() and (str(state) in command or str(state) in mounts):
            found.append(f"process {entry.name}: {command[:80]}")
    return found


def wait_for(condition, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_every_host_answers_as_itself_with_a_key_of_its_own(lab):
    assert [run_on(lab, name, "hostname").stdout for name in ("gpu01", "gpu02")] == ["gpu01\n", "gpu02\n"]
    keys = [line.split() for line in Path(lab.layout.path("known_hosts")).read_text().splitlines()]
    assert len({key for _, _, key in keys}) == 2
    assert all(kind == "ssh-ed25519" for _, kind, _ in keys)


def test_connection_has_what_an_inventory_would_say(lab):
    given = lab.connection("gpu02")
    argv = ["ssh", "-F", "none", "-i", given["ansible_ssh_private_key_file"], "-p", str(given["ansible_port"])]
    argv += ["-o", f"UserKnownHostsFile={given['gpuprov_known_hosts']}", "-o", "StrictHostKeyChecking=yes"]
    argv += ["-o", "IdentitiesOnly=yes", f"{given['ansible_user']}@{given['ansible_host']}", "hostname"]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "gpu02\n"
    with pytest.raises(LabError, match="has no host gpu03: it has gpu01 to gpu02"):
        lab.connection("gpu03")


def test_ensure_is_quick_when_all_is_up(lab):
    times = []
    for _ in range(10):
        started = time.perf_counter()
        assert lab.ensure(2) is False
        times.append(time.perf_counter() - started)
    assert min(times) < 0.05


def test_a_lab_grows_and_what_ran_goes_on():
    with lab_of(1) as lab:
        run_on(lab, "gpu01", "echo kept >/etc/kept")
        before = lab.status()[0].pid
        assert lab.ensure(3) is True
        assert [status.host.name for status in lab.status() if status.up] == ["gpu01", "gpu02", "gpu03"]
        assert lab.status()[0].pid == before
        assert run_on(lab, "gpu01", "cat /etc/kept").stdout == "kept\n"
        lab.up(2)
        assert len(lab.status()) == 3


def test_two_labs_at_once_have_addresses_of_their_own(lab):
    with lab_of(1) as other:
        ours = {status.host.address for status in lab.status()}
        theirs = {status.host.address for status in other.status()}
        assert not ours & theirs
        assert run_on(other, "gpu01", "cat /etc/hosts").stdout.split()[-2] in theirs


def test_down_leaves_nothing_and_may_be_said_twice():
    with lab_of(2) as lab:
        state = Path(lab.layout.state)
        addresses = {(status.host.address, status.host.port) for status in lab.status()}
        assert len(remains_of(state)) >= 4  # so the search below would see something
        run_on(lab, "gpu01", "setsid sleep 1000 >/dev/null 2>&1 & mount -t tmpfs x /mnt")
        lab.down()
        assert remains_of(state) == []
        assert not addresses & listening_addresses()
        lab.down()


@pytest.mark.parametrize("delay_s", [0.02, 0.08, 0.1, 0.11, 0.12, 0.13, 0.14, 0.16, 0.2, 0.4])
def test_down_leaves_nothing_after_its_starter_was_killed(delay_s):
    with tempfile.TemporaryDirectory(prefix="gpuprov-lab-") as folder:
        state = Path(folder, "state")
        code = f"from gpuprov.lab import Lab; print(flush=True); Lab({str(state)!r}).up(8)"
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as starter:
            assert starter.stdout is not None
            starter.stdout.read(1)
            time.sleep(delay_s)
            starter.kill()
        Lab(state).down()
        until = time.monotonic() + 60
        while remains_of(state) and time.monotonic() < until:  # an ssh-keygen that its starter left ends by itself
            time.sleep(0.05)
        assert remains_of(state) == []


def test_hosts_end_with_their_supervisor_and_the_next_up_starts_afresh():
    with lab_of(2) as lab:
        run_on(lab, "gpu01", "touch /etc/old; touch /var/lib/gpuprov/old")
        known_hosts = Path(lab.layout.path("known_hosts")).read_text()
        supervisor = read_process(lab.layout.path("supervisor"))
        assert supervisor is not None
        hosts = processes_in(lab, "gpu01") + processes_in(lab, "gpu02")
        assert len(hosts) >= 4
        supervisor.kill(signal.SIGKILL)
        wait_for(lambda: not any(process.is_alive() for process in hosts))
        assert not any(status.up for status in lab.status())
        lab.up(2)
        assert run_on(lab, "gpu01", "ls /etc/old /var/lib/gpuprov/old").stdout == ""
        assert Path(lab.layout.path("known_hosts")).read_text() == known_hosts


def test_a_request_that_breaks_off_does_not_end_the_lab(lab):
    import socket

    with socket.socket(socket.AF_UNIX) as control:
        control.connect(lab.layout.path("control"))
        control.sendall(b'[{"name": "gpu')
    assert lab.ensure(2) is False
    lab.up(2)


def test_power_cut_loses_the_processes_and_keeps_the_disk():
    with lab_of(1) as lab:
        run_on(lab, "gpu01", "touch /etc/kept /tmp/lost; setsid sleep 1000 >/dev/null 2>&1 &")
        cut_power(lab, "gpu01")
        wait_for(lambda: not lab.status()[0].up)
        lab.up(1)
        assert run_on(lab, "gpu01", "ls /etc/kept /tmp/lost; pgrep sleep").stdout == "/etc/kept\n"


def test_a_frozen_host_accepts_and_never_answers():
    with lab_of(1) as lab:
        freeze(lab, "gpu01")
        with pytest.raises(subprocess.TimeoutExpired):
            run_on(lab, "gpu01", "true", timeout_s=1)
        thaw(lab, "gpu01")
        assert run_on(lab, "gpu01", "true").returncode == 0


def test_process_1_reaps_orphans(lab):
    run_on(lab, "gpu01", "for i in 1 2 3; do (sleep 0.1 &) ; done")
    time.sleep(0.3)
    assert run_on(lab, "gpu01", "ps -eo stat,comm | grep ^Z").stdout == ""


def test_sshd_comes_back_when_it_is_killed(lab):
    run_on(lab, "gpu02", "pkill -o sshd")
    wait_for(lambda: run_on(lab, "gpu02", "true").returncode == 0)


def test_a_hundred_hosts_cost_little_memory():
    with lab_of(100) as lab:
        assert sum(status.up for status in lab.status()) == 100
        assert run_on(lab, "gpu100", "hostname").stdout == "gpu100\n"
        pids = [process.pid for process in processes_in(lab, "gpu57")]
        private_kib = sum(int(line.split()[1]) for pid in pids for line in smaps(pid) if line.startswith("Private"))
        assert private_kib < 8 * 1024


def smaps(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return []


def test_who_started_it_with_sudo_uses_it_without(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("SUDO_UID", "65534")
    monkeypatch.setenv("SUDO_GID", "65534")
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    with lab_of(1) as lab:
        Path(lab.layout.state).parent.chmod(0o755)
        login = Path(lab.connection("gpu01")["ansible_ssh_private_key_file"])
        answer = as_nobody(lambda: f"{lab.ensure(1)} {login.read_text()}")
        assert answer.startswith("False -----BEGIN OPENSSH PRIVATE KEY")
        key = Path(lab.layout.host("gpu01", "key"))
        assert as_nobody(key.read_text) == f"[Errno 13] Permission denied: '{key}'"


def as_nobody(work) -> str:
    """Return what *work* returns, or the error that it raises, for a user without privileges."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            os.write(writer, work().encode())
        except OSError as error:
            os.write(writer, str(error).encode())
        except LabError as error:
            os.write(writer, f"{error}|{error.hint}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader) as f:
        return f.read()


def test_without_root_one_sentence_says_what_to_do(tmp_path):
    said = as_nobody(lambda: Lab(tmp_path / "state").up(1) or "started")
    assert said == "a lab needs root: it makes namespaces and mounts|sudo gpuprov lab up"


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    tmp_path.chmod(0o750)
    (tmp_path / "mine").write_text("precious")
    for action in (Lab(tmp_path).up, Lab(tmp_path).down):
        with pytest.raises(LabError, match="not a lab's"):
            action()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert tmp_path.stat().st_mode & 0o777 == 0o750


def test_down_leaves_files_that_are_not_the_labs():
    with lab_of(1) as lab:
        mine = Path(lab.layout.path("mine"))
        mine.write_text("precious")
        lab.down()
        assert os.listdir(lab.layout.state) == ["mine"]
        mine.unlink()


@pytest.mark.parametrize(("hosts", "port", "said"), [(0, 0, "1 to 1000 hosts"), (1, 80, "1024 to 65535")])
def test_impossible_wishes_are_refused(tmp_path, hosts, port, said):
    with pytest.raises(LabError, match=said):
        Lab(tmp_path / "state").up(hosts, port=port)
    assert not (tmp_path / "state").exists()


def test_a_missing_sshd_is_named_with_its_remedy(tmp_path, monkeypatch):
    import gpuprov.lab.checks as module

    monkeypatch.setattr(module.shutil, "which", lambda *_, **__: None)
    with pytest.raises(LabError, match="sshd is not installed") as caught:
        Lab(tmp_path / "state").up(1)
    assert "gpuprov lab prepare" in caught.value.hint
