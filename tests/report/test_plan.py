"""What `gpuprov plan` prints: hosts with the same plan together, what cannot be told apart from what would change."""

from __future__ import annotations

from gpuprov.report.plan import render_plan
from gpuprov.results import HostReport, RunReport, TaskResult


def task(name, outcome, **more):
    return TaskResult(id=name, name=name, action=more.pop("action", "copy"), outcome=outcome, **more)


def report(*hosts):
    return RunReport("r", "gpuprov plan", "i", "p", hosts, 0.0, 1.0, check=True)


def test_hosts_with_the_same_plan_are_shown_once():
    tasks = (task("one", "changed", role="base"), task("two", "skipped", skip="no GPU"), task("three", "ok"))
    hosts = [HostReport(f"gpu{n:02d}", "changed", tasks=tasks) for n in (1, 2, 3)]
    hosts.append(HostReport("gpu04", "ok", tasks=(task("one", "ok", role="base"), task("three", "ok"))))
    text = render_plan(report(*hosts))
    assert text.splitlines() == [
        "gpu[01-03]  (3 hosts)",
        "  would change: 1 task",
        "    base : one",
        "  would be skipped, or is not run in check mode: 1 task",
        "    no GPU: two",
        "  as it should be: 1 task",
        "",
        "gpu04  (1 host)",
        "  nothing would change",
        "  as it should be: 2 tasks",
    ]


def test_what_cannot_be_told_says_why():
    host = HostReport("gpu01", "changed", tasks=(task("x", "unknown", skip="the user does not exist yet"),))
    assert "    x: the user does not exist yet" in render_plan(report(host)).splitlines()


def test_differences_are_shown_on_request():
    change = {"before": "a\n", "after": "b\n", "before_header": "/f", "after_header": "/f"}
    host = HostReport("gpu01", "changed", tasks=(task("x", "changed", diff=(change,)),))
    assert "-a" not in render_plan(report(host))
    assert {"      -a", "      +b"} <= set(render_plan(report(host), diff=True).splitlines())


def test_unreachable_hosts_have_no_plan():
    assert render_plan(report(HostReport("gpu01", "unreachable", cause="x"))) == ""
