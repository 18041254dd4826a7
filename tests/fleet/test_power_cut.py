"""The power goes in the middle of a task: what was done is known, what was interrupted is never run unasked."""

from __future__ import annotations

import pytest

from gpuprov.lab.faults import cut_power
from tests.support.fleet import Watcher, run_plans, shell, target, task
from tests.support.lab import NEEDS_LAB, lab_of, run_on

pytestmark = NEEDS_LAB


@pytest.fixture(scope="module")
def lab():
    with lab_of(1) as lab:
        yield lab


def test_a_host_that_comes_back_goes_on_where_it_can(lab):
    nodes = [
        shell(1, "echo one >> /opt/log", notify=["h"]),
        task(2, "copy", {"content": "x\n", "dest": "/opt/state", "mode": "0644"}),
        shell(3, "echo three >> /opt/log; sleep 20; echo never >> /opt/log", ignore_errors=True),
        shell(4, "echo four >> /opt/log"),
    ]
    handler = dict(shell(9, "echo handler >> /opt/log"), name="h")
    cuts = []

    def cut(host, event):
        if event["kind"] == "TaskStarted" and event["id"] == "p1.t3":
            cuts.append(event["seq"])
            cut_power(lab, "gpu01")
            lab.up(1)

    view = Watcher(cut)
    report = run_plans({"gpu01": target(lab, "gpu01")}, nodes, view, handlers=[handler])["gpu01"]
    assert len(cuts) == 1
    outcomes = {t.id: t.outcome for t in report.tasks}
    assert outcomes == {"p1.t1": "changed", "p1.t2": "changed", "p1.t3": "lost"}
    assert report.outcome == "lost"
    log = run_on(lab, "gpu01", "cat /opt/log").stdout
    assert log in ("one\n", "one\nthree\n")  # the command had started, whether it wrote or not
    assert run_on(lab, "gpu01", "cat /opt/state").stdout == "x\n"
    seqs = [event["seq"] for _, event in view.events]
    assert seqs == sorted(set(seqs))
    again = run_plans({"gpu01": target(lab, "gpu01")}, [shell(1, "true")])["gpu01"]
    assert again.outcome == "changed"  # it ended, and holds the host no more
