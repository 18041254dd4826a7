"""The runner does not care who watches: cut cables, killed fronts, killed runners, reboots, on real hosts."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from gpuprov.fleet.options import RunOptions
from gpuprov.fleet.session import Timeouts
from gpuprov.store.names import new_run_id
from tests.support.fleet import Watcher, run_plans, shell, target, task
from tests.support.lab import NEEDS_LAB, lab_of, run_on
from tests.support.proxy import Proxy

pytestmark = NEEDS_LAB


@pytest.fixture(scope="module")
def lab():
    with lab_of(3) as lab:
        yield lab


@pytest.fixture
def log(lab):
    """A file on gpu01 that tasks append to, and its text."""
    run_on(lab, "gpu01", "rm -f /opt/log")

    def text():
        return run_on(lab, "gpu01", "cat /opt/log 2>/dev/null").stdout

    return text


def runner_pid(view):
    """The process id that the runner had when it started, in its host's namespace."""
    return next(event["pid"] for _, event in view.events if event["kind"] == "RunStarted")


def through(lab, proxy):
    """gpu01 by way of a proxy, under the host key of its real address."""
    there = lab.connection("gpu01")
    alias = f"[{there['ansible_host']}]:{there['ansible_port']}"
    return target(
        lab,
        "gpu01",
        ansible_host="127.0.0.1",
        ansible_port=proxy.port,
        ansible_ssh_common_args=f"-o HostKeyAlias='{alias}'",
    )


def proxied(lab, **options):
    there = lab.connection("gpu01")
    return Proxy((there["ansible_host"], int(there["ansible_port"])), **options)


STEPS = [
    shell(1, "echo one >> /opt/log"),
    shell(2, "echo two-begins >> /opt/log; sleep 6; echo two-ends >> /opt/log"),
    shell(3, "echo three >> /opt/log"),
]
ALL_ONCE = "one\ntwo-begins\ntwo-ends\nthree\n"


def test_dropped_packets_in_the_middle_of_a_task_lose_nothing(lab, log):
    with proxied(lab) as proxy:

        def pull(host, event):
            if event["kind"] == "TaskStarted" and event["id"] == "p1.t2":
                assert proxy.cut() == 1

        view = Watcher(pull)
        report = run_plans({"gpu01": through(lab, proxy)}, STEPS, view)["gpu01"]
        assert proxy.accepted == 2
    assert (report.outcome, report.cause) == ("changed", "")
    assert log() == ALL_ONCE
    assert [e["seq"] for _, e in view.events] == list(range(1, len(view.events) + 1))
    assert any("nothing heard for" in message for message in view.messages)


def test_an_unlucky_cable_can_break_twice(lab, log):
    with proxied(lab) as proxy:
        cuts = []

        def pull(host, event):
            if event["kind"] in ("TaskStarted", "TaskFinished") and event["id"] == "p1.t2":
                cuts.append(proxy.cut())

        report = run_plans({"gpu01": through(lab, proxy)}, STEPS, Watcher(pull))["gpu01"]
    assert cuts == [1, 1]
    assert (report.outcome, report.cause) == ("changed", "")
    assert log() == ALL_ONCE


def test_a_host_that_stays_away_is_lost_with_a_way_to_collect_it(lab, log):
    run = new_run_id()
    options = RunOptions(run=run, reconnect_s=2, timeouts=Timeouts(silence_s=3))
    with proxied(lab) as proxy:

        def pull(host, event):
            if event["kind"] == "TaskStarted" and event["id"] == "p1.t2":
                proxy.cut()
                proxy.refuse()

        report = run_plans({"gpu01": through(lab, proxy)}, STEPS, Watcher(pull), options=options)["gpu01"]
    assert report.outcome == "lost"
    assert report.exit_code == 4
    assert run in report.hint
    deadline = time.monotonic() + 60  # it goes on by itself
    while log() != ALL_ONCE and time.monotonic() < deadline:
        time.sleep(0.3)
    assert log() == ALL_ONCE


def test_a_killed_front_is_replaced(lab, log):
    def kill(host, event):
        if event["kind"] == "TaskStarted" and event["id"] == "p1.t2":
            # the front is the python3 whose child (or grandchild by setsid) is the runner: the oldest one
            run_on(lab, "gpu01", "kill -9 $(pgrep -o -f 'python3 -I -S -B')")

    report = run_plans({"gpu01": target(lab, "gpu01")}, STEPS, Watcher(kill))["gpu01"]
    assert (report.outcome, report.cause) == ("changed", "")
    assert log() == ALL_ONCE


def test_a_killed_runner_loses_the_action_it_was_in_and_says_so(lab, log):
    def kill(host, event):
        if event["kind"] == "TaskStarted" and event["id"] == "p1.t2":
            # the command outlives its runner, as it may in reality; here it would write into the next test
            run_on(lab, "gpu01", f"kill -9 {runner_pid(view)}; pkill -9 -f two-ends")

    view = Watcher(kill)
    report = run_plans({"gpu01": target(lab, "gpu01")}, STEPS, view)["gpu01"]
    lost = next(t for t in report.tasks if t.id == "p1.t2")
    assert lost.outcome == "lost"
    assert "never run unasked" in lost.hint or "not known" in lost.msg
    assert report.outcome in ("lost", "failed")
    assert log().startswith("one\ntwo-begins\n")
    assert "three" not in log()
    assert log().count("two-begins") == 1


def test_a_killed_runner_goes_on_with_a_state_task(lab, log):
    """The copy is killed while its `validate` command runs; the next runner probes again and finishes it."""
    run_on(lab, "gpu01", "rm -f /opt/state")
    slow = "sh -c 'echo validating >> /opt/log; sleep 2' %s"
    nodes = [
        shell(1, "echo one >> /opt/log"),
        task(2, "copy", {"content": "x\n", "dest": "/opt/state", "mode": "0644", "validate": slow}),
        shell(3, "echo three >> /opt/log"),
    ]

    def end(host, event):
        if event["kind"] == "TaskStarted" and event["id"] == "p1.t2" and "Resumed" not in view.kinds("gpu01"):
            run_on(lab, "gpu01", f"kill -9 {runner_pid(view)}")

    view = Watcher(end)
    report = run_plans({"gpu01": target(lab, "gpu01")}, nodes, view)["gpu01"]
    assert "Resumed" in view.kinds("gpu01")
    assert (report.outcome, report.cause) == ("changed", "")
    assert run_on(lab, "gpu01", "cat /opt/state").stdout == "x\n"
    assert log() == "one\nvalidating\nvalidating\nthree\n"


def test_a_reboot_is_survived_and_proved_by_a_new_boot(lab, log):
    nodes = [
        shell(1, "echo before >> /opt/log; cat /proc/sys/kernel/random/boot_id >> /opt/boots", notify=["h"]),
        task(2, "reboot", {"msg": "new kernel"}),
        shell(3, "echo after >> /opt/log; cat /proc/sys/kernel/random/boot_id >> /opt/boots"),
    ]
    handler = dict(shell(9, "echo handler >> /opt/log"), name="h")
    run_on(lab, "gpu01", "rm -f /opt/boots")
    view = Watcher()
    report = run_plans({"gpu01": target(lab, "gpu01")}, nodes, view, handlers=[handler])["gpu01"]
    assert (report.outcome, report.cause) == ("changed", "")
    assert log() == "before\nafter\nhandler\n"
    assert len(set(run_on(lab, "gpu01", "cat /opt/boots").stdout.split())) == 2
    assert ("gpu01", "rebooting", "new kernel") in view.states


def test_a_host_is_locked_while_its_runner_lives(lab, log):
    seen = {}

    def second(host, event):
        if event["kind"] == "TaskStarted" and event["id"] == "p1.t2" and not seen:
            seen["other"] = run_plans({"gpu01": target(lab, "gpu01")}, [shell(1, "echo other >> /opt/log")])["gpu01"]

    report = run_plans({"gpu01": target(lab, "gpu01")}, STEPS, Watcher(second))["gpu01"]
    assert (report.outcome, report.cause) == ("changed", "")
    assert seen["other"].outcome == "refused"
    assert "the host is busy with run" in seen["other"].cause
    assert log() == ALL_ONCE


def test_files_travel_once(lab):
    data = os.urandom(3_000_000)
    sha = hashlib.sha256(data).hexdigest()
    args = {"_blob": {"sha256": sha, "size": len(data)}, "dest": "/opt/big", "mode": "0600"}
    nodes = [task(1, "copy", args, files=[sha])]
    view = Watcher()
    first = run_plans({"gpu02": target(lab, "gpu02")}, nodes, view, files={sha: data})["gpu02"]
    assert first.outcome == "changed"
    assert "sending" in [state for _, state, _ in view.states]
    assert run_on(lab, "gpu02", "sha256sum < /opt/big").stdout.split()[0] == sha
    view = Watcher()
    again = run_plans({"gpu02": target(lab, "gpu02")}, nodes, view, files={sha: data})["gpu02"]
    assert again.outcome == "ok"
    assert "sending" not in [state for _, state, _ in view.states]


def test_one_connection_one_session_per_host(lab):
    log = Path(lab.layout.host("gpu03", "log"))
    before = len(log.read_text())
    run_plans({"gpu03": target(lab, "gpu03")}, [shell(n, "true") for n in range(5)])
    after = log.read_text()[before:]
    assert after.count("Accepted publickey") == 1
    assert after.count("Starting session") == 1


def test_one_bad_host_does_not_stop_the_others(lab):
    wrong = target(lab, "gpu02", ansible_port=1)
    reports = run_plans({"gpu02": wrong, "gpu03": target(lab, "gpu03")}, [shell(1, "true")])
    assert reports["gpu02"].outcome == "unreachable"
    assert reports["gpu02"].hint
    assert reports["gpu03"].outcome == "changed"


def test_a_secret_of_the_plan_is_given_again_after_a_reboot(lab):
    """What lies on the host has placeholders; the controller sends the secret again, and it reaches its place."""
    secret = "s3cret-of-the-plan"
    nodes = [
        task(1, "reboot", {"msg": "first"}),
        task(2, "copy", {"content": f"password={secret}\n", "dest": "/opt/secret", "mode": "0600"}, no_log=True),
    ]
    report = run_plans({"gpu02": target(lab, "gpu02")}, nodes, secrets=[secret])["gpu02"]
    assert (report.outcome, report.cause) == ("changed", "")
    assert run_on(lab, "gpu02", "cat /opt/secret").stdout == f"password={secret}\n"
    assert run_on(lab, "gpu02", f"grep -rl {secret} /var/lib/gpuprov").stdout == ""
