"""gpuprov bootstrap: real hosts whose Python is hidden, and real package managers that bring one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from gpuprov.cli.main import main
from gpuprov.errors import AgentError, RefusedError
from gpuprov.fleet import bootstrap as module
from gpuprov.fleet.bootstrap import Answer, Python, bootstrap, install_scripts
from gpuprov.fleet.session import Become
from gpuprov.lab import HostOptions, User
from gpuprov.transport.target import ConnectOptions
from gpuprov.transport.ways import Ways
from tests.support.fleet import run_plans, shell, target
from tests.support.lab import NEEDS_LAB, lab_of, run_on

SYSTEM_PYTHON = Path("/usr/bin/python3").resolve()
OLD = next(iter(sorted(Path.home().glob(".pyenv/versions/3.[67].*/bin/python3.[67]"))), None)
ADMINS = (
    User("free", sudo="free"),
    User("asked", sudo="password", password="correct horse"),
    User("nobodys"),
    User("csher", shell="/bin/tcsh"),
    User("fisher", shell="/usr/bin/fish"),
)
PLAIN = Become()


class TestChoice:
    def test_what_is_tried(self):
        def tried(manager, system, release):
            return [script.split()[-1] for script in install_scripts(Answer((), manager, system, release))]

        assert tried("apt-get", "debian", "12") == ["python3"]
        assert tried("dnf", "rocky", "8.10") == ["python3.12", "python3.11", "python39"]
        assert tried("yum", "rhel", "9.4") == ["python3"]
        assert tried("zypper", "sles", "15.6") == ["python312", "python311", "python310"]
        assert tried("zypper", "opensuse-leap", "16.0") == ["python3", "python313"]
        assert tried("", "arch", "") == []

    def test_the_first_that_is_new_enough(self):
        old, new, newer = Python("/a", (3, 6)), Python("/b", (3, 9)), Python("/c", (3, 12))
        assert Answer((old, new, newer)).usable() == new
        assert Answer((old, Python("/x", (0, 0)))).usable() is None

    def test_what_a_host_prints_is_only_believed_in_shape(self):
        text = "welcome\npython /usr/bin/python3 3 6\npython /x\npython /y a b\n"
        text += "manager rm\nmanager dnf\nsystem rocky 8.10\n"
        assert module._answer(text) == Answer((Python("/usr/bin/python3", (3, 6)),), "dnf", "rocky", "8.10")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    seed = tmp_path_factory.mktemp("seed")
    repository(seed)
    rpm_repository(seed, tmp_path_factory.mktemp("rpm"))
    hosts = {
        "gpu01": HostOptions(users=ADMINS, python="none", profile_noise="welcome", seed=str(seed)),
        "gpu02": HostOptions(users=ADMINS, python="none", seed=str(seed)),
        "gpu03": HostOptions(users=ADMINS),
        "gpu04": HostOptions(python="none", hidden=("/usr/bin/apt-get", "/usr/bin/dnf"), users=ADMINS),
    }
    if OLD:
        hosts["gpu05"] = HostOptions(python=str(OLD), seed=str(seed))
        hosts["gpu06"] = HostOptions(python=str(OLD), seed=str(seed), hidden=("/usr/bin/apt-get",), files=ENTERPRISE)
    with lab_of(len(hosts), hosts) as lab:
        for name in ("gpu01", "gpu02"):
            run_on(lab, name, FORGET_PYTHON)
        yield lab


class TestHosts:
    pytestmark = NEEDS_LAB

    def test_no_python_is_said_with_the_way_out(self, lab):
        hosts = {name: target(lab, name) for name in ("gpu01", "gpu03")}
        report = run_plans(hosts, [shell(1, "true")])["gpu01"]
        assert report.cause == "no Python on the host"
        assert "gpuprov bootstrap" in report.hint

    def test_check_changes_nothing(self, lab):
        outcome = on(lab, "gpu01", check=True)
        assert (outcome.python, outcome.changed) == (None, True)
        assert outcome.command.endswith("install --no-install-recommends python3")
        assert on(lab, "gpu01", check=True).python is None

    def test_a_host_that_has_one_is_left_alone(self, lab):
        for user in ("root", "csher", "fisher"):
            outcome = on(lab, "gpu03", user, Become(root=user != "root"))
            assert not outcome.changed
            assert outcome.python.path == "/usr/bin/python3"

    def test_a_named_one_that_is_not_there_while_another_is(self, lab):
        with pytest.raises(
            AgentError, match=r"names /opt/x/python3, which is not there; the host has /usr/bin/python3"
        ) as caught:
            on(lab, "gpu03", named="/opt/x/python3")
        assert "leave it out" in caught.value.hint

    def test_sudo(self, lab):
        with pytest.raises(AgentError, match="sudo wants a password"):
            on(lab, "gpu02", "asked", Become(root=True))
        with pytest.raises(AgentError, match="sudo refused the password"):
            on(lab, "gpu02", "asked", Become(root=True, password="wrong"))
        with pytest.raises(AgentError, match="sudo"):
            on(lab, "gpu02", "nobodys", Become(root=True))

    def test_no_package_manager(self, lab):
        with pytest.raises(RefusedError, match="no package manager that gpuprov knows is on the host \\(debian\\)"):
            on(lab, "gpu04")

    def test_apt_installs_one_with_a_password_and_an_agent_runs(self, lab):
        outcome = on(lab, "gpu02", "asked", Become(root=True, password="correct horse"))
        assert outcome.changed
        assert outcome.python.path == "/usr/bin/python3"
        report = run_plans({"gpu02": target(lab, "gpu02")}, [shell(1, "true")])["gpu02"]
        assert (report.outcome, report.cause) == ("changed", "")
        assert not on(lab, "gpu02").changed

    @pytest.mark.skipif(OLD is None, reason="no Python 3.6 or 3.7 on this machine")
    def test_an_old_one_is_not_enough_and_a_newer_one_beside_it_is_found(self, lab):
        report = run_plans({"gpu05": target(lab, "gpu05")}, [shell(1, "true")])["gpu05"]
        assert "older than 3.8" in report.cause
        assert "gpuprov bootstrap" in report.hint
        assert on(lab, "gpu05", check=True).changed
        run_on(lab, "gpu05", "cp /srv/python3.11 /usr/bin/python3.11")
        outcome = on(lab, "gpu05")
        assert (outcome.changed, str(outcome.python)) == (False, "/usr/bin/python3.11 (3.11)")
        report = run_plans({"gpu05": target(lab, "gpu05")}, [shell(1, "true")])["gpu05"]
        assert (report.outcome, report.cause) == ("changed", "")
        with pytest.raises(
            AgentError, match=r"names /usr/bin/python3, which is 3\.[67]; the host has /usr/bin/python3\.11"
        ):
            on(lab, "gpu05", named="/usr/bin/python3")

    @pytest.mark.skipif(OLD is None, reason="no Python 3.6 or 3.7 on this machine")
    def test_dnf_installs_what_its_repository_has(self, lab):
        """Its sources have no python3.12, as those of release 8.8."""
        outcome = on(lab, "gpu06")
        assert outcome.command == "dnf -y install python3.11"
        assert (outcome.changed, str(outcome.python)) == (True, "/usr/bin/python3.11 (3.11)")
        report = run_plans({"gpu06": target(lab, "gpu06")}, [shell(1, "true")])["gpu06"]
        assert (report.outcome, report.cause) == ("changed", "")

    def test_a_package_that_cannot_be_had(self, lab):
        run_on(lab, "gpu01", "mv /srv/repo /srv/away; rm -rf /var/lib/apt/lists/*")
        try:
            with pytest.raises(AgentError, match=r"no Python 3\.8 or newer could be installed: E: ") as caught:
                on(lab, "gpu01")
            assert caught.value.reference == "python-not-installed"
        finally:
            run_on(lab, "gpu01", "mv /srv/away /srv/repo")

    def test_the_command(self, lab, tmp_path, capsys):
        inventory = tmp_path / "hosts.yaml"
        hosts = "".join(
            f"    {name}: {lab.connection(name)!r}\n".replace("'", '"') for name in ("gpu01", "gpu03", "gpu04")
        )
        inventory.write_text(f"all:\n  hosts:\n{hosts}")
        assert main(["bootstrap", str(inventory), "--check", "--limit", "gpu01,gpu03"]) == 0
        out = capsys.readouterr().out.splitlines()
        assert out[0].startswith("gpu01  would run: DEBIAN_FRONTEND=noninteractive apt-get")
        assert out[1].startswith("gpu03  ok: has /usr/bin/python3 (3.")
        assert main(["bootstrap", str(inventory)]) == 6
        told = capsys.readouterr()
        assert told.out.startswith("gpu01  changed: has /usr/bin/python3 (3.")
        assert "gpu04  failed: no package manager" in told.err
        assert main(["bootstrap", str(inventory), "--limit", "gpu01"]) == 0
        assert capsys.readouterr().out.startswith("gpu01  ok: has /usr/bin/python3")


def on(lab, name, user="root", become=PLAIN, named=None, check=False):
    ways = Ways(ConnectOptions())
    try:
        connection = ways.connect(target(lab, name, ansible_user=user))
        return bootstrap(connection, become, named, check=check)
    finally:
        ways.close()


#: Enterprise Linux 8 as far as bootstrap sees it: a python3 that is 3.6, and a dnf with an interpreter of its own.
ENTERPRISE = {
    "/etc/os-release": 'ID="rocky"\nVERSION_ID="8.8"\n',
    "/etc/dnf/dnf.conf": "[main]\ngpgcheck=0\nplugins=0\n",
    "/etc/yum.repos.d/lab.repo": "[lab]\nname=lab\nbaseurl=file:///srv/rpms\n",
}
#: The machine's database says that python3 is installed, while the host does not see it: have one as of a bare host.
FORGET_PYTHON = """
awk 'BEGIN{RS="";ORS="\\n\\n"} /^Package: dpkg\\n/' /var/lib/dpkg/status | sed '/Depends: /d' > /tmp/status
cp /tmp/status /var/lib/dpkg/status
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /etc/apt/preferences.d/* /var/lib/apt/lists/*
echo 'deb [trusted=yes] file:/srv/repo ./' > /etc/apt/sources.list
"""


def repository(seed):
    """Make an apt repository with a real package python3, which has the machine's own interpreter."""
    top = seed / "build"
    (top / "DEBIAN").mkdir(parents=True)
    (top / "usr/bin").mkdir(parents=True)
    shutil.copy2(SYSTEM_PYTHON, top / "usr/bin/python3")
    fields = "Package: python3\nVersion: 3.11.2-1+lab1\nArchitecture: all\nReplaces: python3-minimal\n"
    (top / "DEBIAN/control").write_text(fields + "Maintainer: L <l@lab.test>\nDescription: Python\n")
    out = seed / "srv/repo"
    out.mkdir(parents=True)
    subprocess.run(
        ["dpkg-deb", "-Zgzip", "-z1", "--build", str(top), str(out / "python3.deb")], check=True, capture_output=True
    )
    done = subprocess.run(["apt-ftparchive", "packages", "."], cwd=out, check=True, capture_output=True)
    (out / "Packages").write_bytes(done.stdout)
    shutil.rmtree(top)


def rpm_repository(seed, work):
    """Make a dnf repository with a real package python3.11, and a dnf that does not need the host's python3."""
    shutil.copy2(SYSTEM_PYTHON, seed / "srv/python3.11")
    (seed / "usr/bin").mkdir(parents=True)
    (seed / "usr/bin/dnf").write_text('#!/bin/sh\nexec /srv/python3.11 /usr/bin/dnf-3 "$@"\n')
    (seed / "usr/bin/dnf").chmod(0o755)
    out = seed / "srv/rpms"
    out.mkdir()
    spec = work / "python.spec"
    spec.write_text(SPEC % {"binary": seed / "srv/python3.11"})
    words = ["rpmbuild", "-bb", "--quiet", "--define", f"_topdir {work}", "--define", f"_rpmdir {out}"]
    words += ["--define", "_binary_payload w1.gzdio", str(spec)]
    subprocess.run(words, check=True, capture_output=True)
    subprocess.run(["createrepo_c", "-q", str(out)], check=True, capture_output=True)


SPEC = """
%%global debug_package %%{nil}
%%global __os_install_post %%{nil}
Name: python3.11
Version: 3.11.2
Release: 1.el8
Summary: Python
License: PSF
AutoReqProv: no
%%description
Python.
%%install
mkdir -p %%{buildroot}/usr/bin
cp %(binary)s %%{buildroot}/usr/bin/python3.11
%%files
/usr/bin/python3.11
"""
