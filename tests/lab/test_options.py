"""Odd hosts: users, shells, disks, interpreters."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from gpuprov.errors import LabError
from gpuprov.lab import HostOptions, Lab, User
from tests.support.lab import NEEDS_LAB, lab_of, run_on

pytestmark = NEEDS_LAB

HAVE_SUDO = shutil.which("sudo") is not None
needs_sudo = pytest.mark.skipif(not HAVE_SUDO, reason="sudo is not installed: apt-get install sudo")
SHELLS = {"fishy": "fish", "seashell": "csh", "plain": "dash"}
PYTHON_36 = next(iter(sorted(Path.home().glob(".pyenv/versions/3.6.*/bin/python3.6"))), None)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    seed = tmp_path_factory.mktemp("seed")
    (seed / "etc").mkdir()
    (seed / "etc/seeded").write_text("seed\n")
    (seed / "etc/hostname").symlink_to("/etc/debian_version")  # followed, it would lead into the machine
    (seed / "etc/linked").symlink_to("seeded.d")
    (seed / "usr/bin").mkdir(parents=True)
    (seed / "usr/bin/nvidia-smi").write_text("#!/bin/sh\necho NVIDIA\n")
    (seed / "usr/bin/nvidia-smi").chmod(0o755)
    users = [User(name, shell=found) for name, shell in SHELLS.items() if (found := shutil.which(shell))]
    if HAVE_SUDO:
        users += [User("ops", sudo="free"), User("admin", sudo="password", password="it's $ecret")]
    options = {
        "gpu01": HostOptions(
            users=tuple(users),
            banner="Authorized use only\n",
            profile_noise="Welcome!\nLast login: never",
            noexec_tmp=True,
            read_only=("/usr", "/etc"),
            journal_kib=64,
            seed=str(seed),
            files={"/etc/hostname": "mine\n"},
        ),
        "gpu02": HostOptions(
            python="none",
            hidden=("/usr/bin/dpkg", "/var/lib/dpkg"),
            pam=True,
            files={"/etc/environment": "BY_PAM=yes\n"},
        ),
        "gpu03": HostOptions(force_command="echo forced", files={"/etc/ssh/extra": "text\n"}),
        "gpu04": HostOptions(python=str(PYTHON_36) if PYTHON_36 else "", sshd_config=("MaxSessions 1",)),
    }
    with lab_of(4, options) as lab:
        yield lab


@needs_sudo
def test_sudo_with_and_without_a_password(odd):
    assert run_on(odd, "gpu01", "sudo -n id -u", user="ops").stdout.splitlines()[-1] == "0"
    refused = run_on(odd, "gpu01", "sudo -n id -u", user="admin")
    assert "a password is required" in refused.stderr
    given = run_on(odd, "gpu01", "sudo -S -p '' id -u", user="admin", stdin="it's $ecret\n")
    assert given.stdout.splitlines()[-1] == "0"
    wrong = run_on(odd, "gpu01", "sudo -S -p '' id -u", user="admin", stdin="wrong\n")
    assert wrong.returncode != 0


@pytest.mark.parametrize("user", SHELLS)
def test_login_shells(odd, user):
    if shutil.which(SHELLS[user]) is None:
        pytest.skip(f"{SHELLS[user]} is not installed: apt-get install fish csh dash")
    done = run_on(odd, "gpu01", "id -un; echo $SHELL; pwd", user=user)
    assert done.stdout.splitlines()[-3:] == [user, shutil.which(SHELLS[user]), f"/home/{user}"]


def test_banner_comes_before_and_noise_with_every_command(odd):
    argv = ["ssh", "-F", odd.layout.path("ssh_config"), "gpu01", "true"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "Authorized use only" in done.stderr
    assert done.stdout == "Welcome!\nLast login: never\n"


def test_disks_that_refuse(odd):
    done = run_on(odd, "gpu01", "touch /usr/x /etc/x; cp /bin/true /tmp; /tmp/true; mount -o remount,rw /usr")
    assert done.stderr.count("Read-only file system") == 2
    assert "/tmp/true: Permission denied" in done.stderr
    assert "/usr" in done.stderr.splitlines()[-2] + done.stderr.splitlines()[-1]
    full = run_on(odd, "gpu01", "head -c 100000 /dev/zero >/var/lib/gpuprov/big")
    assert "No space left on device" in full.stderr


def test_a_seed_and_files_are_there_from_the_start(odd):
    before = Path("/etc/debian_version").read_text()
    seen = run_on(odd, "gpu01", "cat /etc/seeded; nvidia-smi; stat -c %U:%G /etc/seeded; cat /etc/hostname")
    assert seen.stdout.splitlines()[-4:] == ["seed", "NVIDIA", "root:root", "mine"]
    assert run_on(odd, "gpu01", "readlink /etc/linked").stdout.splitlines()[-1] == "seeded.d"
    assert before != "mine\n"


def test_hidden_files_and_no_python(odd):
    seen = run_on(odd, "gpu02", "command -v python3 python python3.11; dpkg --version; ls -A /var/lib/dpkg; echo end")
    assert seen.stdout == "end\n"


def test_pam_reads_the_environment_file_and_a_plain_host_does_not(odd):
    assert run_on(odd, "gpu02", "echo $BY_PAM").stdout == "yes\n"
    assert run_on(odd, "gpu04", "echo $BY_PAM; env | grep -c PAM").stdout == "\n0\n"


def test_a_forced_command_wins(odd):
    assert run_on(odd, "gpu03", "hostname").stdout == "forced\n"


@pytest.mark.skipif(PYTHON_36 is None, reason="no Python 3.6 on this machine (pyenv install 3.6)")
def test_another_python_is_the_only_one(odd):
    seen = run_on(
        odd, "gpu04", "python3 -c 'import sys, ssl; print(sys.version_info[:2])'; command -v python3.11 python"
    )
    assert seen.stdout == "(3, 6)\n"


def test_what_the_machine_lacks_is_named(tmp_path):
    options = {"gpu01": HostOptions(users=(User("a", shell="/usr/bin/no-such-shell"),))}
    with pytest.raises(LabError, match=r"need /usr/bin/no-such-shell") as caught:
        Lab(tmp_path / "state").up(1, options=options)
    assert caught.value.hint == "apt-get install no-such-shell"
    with pytest.raises(LabError, match="options for gpu02"):
        Lab(tmp_path / "state").up(1, options={"gpu02": HostOptions()})


def test_a_host_whose_users_cannot_be_added_says_why(tmp_path):
    lab = Lab(tmp_path / "state")
    try:
        with pytest.raises(LabError, match=r"gpu01: its first start failed: useradd: user 'daemon' already exists"):
            lab.up(2, options={"gpu01": HostOptions(users=(User("daemon"),))})
        assert [status.up for status in lab.status()] == [False, True]
        with pytest.raises(LabError, match="user 'daemon' already exists"):  # not "lost its users half-way"
            lab.up(2)
    finally:
        lab.down()
