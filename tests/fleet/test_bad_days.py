"""Hosts that are odd, broken or hostile: one clear sentence each, and the rest of the fleet goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuprov.fleet.options import RunOptions
from gpuprov.fleet.session import Become, Timeouts
from gpuprov.lab import HostOptions, User
from gpuprov.store.names import new_run_id
from tests.support.fleet import Watcher, run_plans, shell, target, task
from tests.support.interpreters import interpreters
from tests.support.lab import NEEDS_LAB, lab_of, run_on

pytestmark = NEEDS_LAB

OLD = next(iter(sorted(Path.home().glob(".pyenv/versions/3.[67].*/bin/python3.[67]"))), None)
ADMINS = (
    User("free", sudo="free"),
    User("asked", sudo="password", password="correct horse"),
    User("nobodys"),
    User("csher", shell="/bin/tcsh", sudo="free"),
    User("fisher", shell="/usr/bin/fish", sudo="free"),
)
HOSTS = {
    "gpu01": HostOptions(users=ADMINS, banner="authorised use only\n", profile_noise="welcome to gpu01"),
    "gpu02": HostOptions(python="none"),
    "gpu03": HostOptions(python=str(OLD)) if OLD else HostOptions(),
    "gpu04": HostOptions(journal_kib=512),
    "gpu05": HostOptions(read_only=("/usr",)),
    "gpu06": HostOptions(force_command="echo this account is for backups"),
    "gpu07": HostOptions(noexec_tmp=True),
    "gpu09": HostOptions(force_command="exec sleep 60"),
    "gpu08": HostOptions(profile_noise="n" * 200 + "\n", force_command="yes noise"),
}


@pytest.fixture(scope="module")
def lab():
    with lab_of(len(HOSTS), HOSTS) as lab:
        yield lab


def on_gpu01(lab, command):
    """Run a command on the chatty host; return what it printed after the chatter."""
    return run_on(lab, "gpu01", f"{command}").stdout.removeprefix("welcome to gpu01\n")


def one(lab, name, nodes=None, **more):
    """Run *nodes* on one host, beside a good one that must not care."""
    hosts = {name: target(lab, name, **more.pop("variables", {})), "gpu07": target(lab, "gpu07")}
    reports = run_plans(hosts, nodes or [shell(1, "true")], **more)
    return reports[name], reports["gpu07"]


def test_no_python(lab):
    report, other = one(lab, "gpu02", options=options(skip_refused=True))
    assert report.outcome == "unreachable"
    assert report.cause == "no Python on the host"
    assert "ansible_python_interpreter" in report.hint
    assert other.outcome == "changed"


@pytest.mark.skipif(OLD is None, reason="no Python 3.6 or 3.7 on this machine")
def test_old_python(lab):
    report, other = one(lab, "gpu03")
    assert report.outcome == "unreachable"
    assert "older than 3.8" in report.cause
    assert other.outcome == "changed"


def test_a_named_interpreter_that_is_not_there(lab):
    report, _ = one(lab, "gpu01", prepared={"python": "/opt/python/bin/python3"})
    assert report.cause == "no Python on the host: /opt/python/bin/python3 is not there"


@pytest.mark.parametrize("version", sorted(interpreters())[:1])
def test_the_oldest_python_that_is_promised_runs_a_plan(lab, version):
    """The interpreters of the machine are visible on its lab hosts, unless they live in a home folder."""
    path = interpreters()[version]
    if path.startswith(str(Path.home())):
        pytest.skip(f"{path} lies in a home folder, which lab hosts do not see")
    report, _ = one(lab, "gpu01", prepared={"python": path})
    assert report.outcome == "changed"


def test_banners_and_chatty_profiles_are_noise(lab):
    for user in ("root", "free"):
        report, _ = one(lab, "gpu01", variables={"ansible_user": user}, become=Become(root=user != "root"))
        assert (report.outcome, report.cause) == ("changed", "")


@pytest.mark.parametrize("user", ["csher", "fisher"])
def test_csh_and_fish_as_login_shells(lab, user):
    report, _ = one(lab, "gpu01", variables={"ansible_user": user}, become=Become(root=True))
    assert (report.outcome, report.cause) == ("changed", "")


def test_without_root_the_agent_runs_as_the_login_user(lab):
    nodes = [shell(1, "id -un > /tmp/who-nobodys"), task(2, "stat", {"path": "/tmp/who-nobodys"}, register="s")]
    report, _ = one(lab, "gpu01", nodes, variables={"ansible_user": "nobodys"})
    assert (report.outcome, report.cause) == ("changed", "")
    assert on_gpu01(lab, "cat /tmp/who-nobodys") == "nobodys\n"


def test_become_false_and_become_user_give_up_every_right(lab):
    who = "id -un; id -Gn; cat /etc/shadow > /dev/null 2>&1 && echo reads-shadow"
    nodes = [
        shell(1, f"({who}) > /tmp/a 2>&1; true", become=True),
        shell(2, f"({who}) > /tmp/b 2>&1; true"),
        shell(3, f"({who}) > /tmp/c 2>&1; true", become=True, become_user="nobodys"),
    ]
    run_on(lab, "gpu01", "rm -f /tmp/a /tmp/b /tmp/c")
    hosts = {"gpu01": target(lab, "gpu01", ansible_user="free")}
    report = run_plans(hosts, nodes, become=Become(root=True), prepared={"login_user": "free"})["gpu01"]
    assert (report.outcome, report.cause) == ("changed", "")
    assert "reads-shadow" in on_gpu01(lab, "cat /tmp/a")
    assert on_gpu01(lab, "cat /tmp/b").split()[0] == "free"
    assert on_gpu01(lab, "cat /tmp/c").split()[0] == "nobodys"
    assert "reads-shadow" not in on_gpu01(lab, "cat /tmp/b /tmp/c")


def test_sudo_with_a_password(lab):
    become = Become(root=True, password="correct horse")
    report, _ = one(lab, "gpu01", variables={"ansible_user": "asked"}, become=become)
    assert (report.outcome, report.cause) == ("changed", "")


def test_the_sudo_password_is_nowhere(lab):
    """Not in a process's arguments, not in the journal, not in the state folder."""
    password = "correct horse"
    seen = []

    def look(host, event):
        if event["kind"] == "TaskStarted":
            seen.append(run_on(lab, "gpu01", "cat /proc/*/cmdline /proc/*/environ 2>/dev/null | tr '\\0' ' '").stdout)

    become = Become(root=True, password=password)
    hosts = {"gpu01": target(lab, "gpu01", ansible_user="asked")}
    nodes = [shell(1, f"echo '{password}'; sleep 1")]
    view = Watcher(look)
    report = run_plans(hosts, nodes, view, become=become, prepared={"secrets": (password,)})["gpu01"]
    assert report.outcome == "changed"
    # the task itself has the word in its arguments; sudo and the loader must not
    lines = [line for text in seen for line in text.split("sh -c") if "sudo" in line]
    assert seen
    assert not [line for line in lines if password in line]
    assert password not in str([event for _, event in view.events])
    assert on_gpu01(lab, f"grep -r '{password}' /var/lib/gpuprov") == ""


def test_a_wrong_sudo_password(lab):
    report, other = one(lab, "gpu01", variables={"ansible_user": "asked"}, become=Become(root=True, password="wrong"))
    assert report.cause == "sudo refused the password"
    assert "-K" in report.hint
    assert other.outcome == "changed"


def test_sudo_that_wants_a_password_and_gets_none(lab):
    report, _ = one(lab, "gpu01", variables={"ansible_user": "asked"}, become=Become(root=True))
    assert report.cause == "sudo wants a password"
    assert "-K" in report.hint


def test_a_user_without_sudo(lab):
    become = Become(root=True, password="x")
    report, _ = one(lab, "gpu01", variables={"ansible_user": "nobodys"}, become=become)
    assert report.outcome == "unreachable"
    assert "sudo" in report.cause


def test_a_full_disk_is_named_before_the_first_change(lab):
    report, other = one(lab, "gpu04")
    assert report.outcome == "refused"
    assert "full" in report.cause
    assert "free some space" in report.hint
    assert other.outcome == "refused"  # the gate: one refusal stops everybody


def test_skip_refused_lets_the_others_go_on(lab):
    report, other = one(lab, "gpu04", options=options(skip_refused=True))
    assert report.outcome == "refused"
    assert other.outcome == "changed"


def test_a_read_only_system_is_named_before_the_first_change(lab):
    report, _ = one(lab, "gpu05")
    assert report.outcome == "refused"
    assert report.cause == "/usr is mounted read-only"


def test_a_forced_command(lab):
    report, _ = one(lab, "gpu06")
    assert report.outcome == "unreachable"
    assert "this account is for backups" in report.cause
    assert "forced command" in report.hint


def test_a_flood_instead_of_an_agent(lab):
    report, _ = one(lab, "gpu08")
    assert report.outcome == "unreachable"
    assert "64 KiB" in report.cause


def test_a_noexec_tmp_does_not_matter(lab):
    report, _ = one(lab, "gpu07")
    assert report.outcome == "changed"


def test_a_task_killed_by_a_signal(lab):
    report, _ = one(lab, "gpu01", [shell(1, "kill -KILL $$")])
    assert report.outcome == "failed"
    assert "SIGKILL" in report.cause


def test_a_hundred_megabytes_and_invalid_utf_8(lab):
    report, _ = one(lab, "gpu01", [shell(1, "yes | head -c 100000000; printf '\\377\\376'")])
    assert report.outcome == "changed"
    assert len(str(report.tasks[0].result)) < 2_000_000


def test_a_host_that_takes_the_command_and_says_nothing(lab):
    quick = options(timeouts=Timeouts(first_byte_s=2, boot_s=3))
    report, _ = one(lab, "gpu09", options=quick)
    assert report.outcome == "unreachable"
    assert "said nothing" in report.cause


def options(**more):
    defaults = {"run": new_run_id(), "gate_timeout_s": 20, "reconnect_s": 10}
    return RunOptions(**{**defaults, **more})


def test_more_hosts_than_forks_run_in_turn(lab):
    """Sessions are closed after the facts and opened again, never more than forks at once."""
    hosts = {name: target(lab, name) for name in ("gpu01", "gpu07")}
    view = Watcher()
    reports = run_plans(hosts, [shell(1, "sleep 0.5")], view, options=options(forks=1))
    assert {report.outcome for report in reports.values()} == {"changed"}
    order = [(host, event["kind"]) for host, event in view.events if event["kind"] in ("RunStarted", "RunFinished")]
    assert [kind for _, kind in order] == ["RunStarted", "RunFinished"] * 2
