"""Real events of real hosts through everything in this room: view, fold, run folder, recap, page."""

import io
import json
import time
from pathlib import Path

import pytest

from gpuprov.report.html import render
from gpuprov.report.jsonout import from_json, to_json
from gpuprov.report.view import PlainView
from gpuprov.results import RunReport
from gpuprov.store.runs import RunFolder
from tests.support.fleet import run_plans, shell, target, task
from tests.support.lab import NEEDS_LAB, lab_of

pytestmark = NEEDS_LAB


class Recorder(PlainView):
    """A view that is the run folder too, as the fleet's tests have it."""

    def __init__(self, folder: RunFolder) -> None:
        self.text = io.StringIO()
        super().__init__(self.text, 0, 2)
        self._folder = folder

    def append(self, host: str, text: bytes) -> None:
        self._folder.append(host, text)


@pytest.fixture(scope="module")
def lab():
    with lab_of(2) as lab:
        yield lab


def test_what_hosts_say_is_what_is_shown(lab, tmp_path: Path) -> None:
    folder = RunFolder.create(str(tmp_path))
    view = Recorder(folder)
    rescue = {
        "kind": "block",
        "id": "p1.b1",
        "block": [shell(4, "exit 7")],
        "rescue": [shell(5, "true", changed_when=False)],
    }
    nodes = [
        task(1, "file", {"path": "/opt/made", "state": "directory", "mode": "0755"}),
        shell(2, "printf 'Epoch 1/2, Loss: 0.5\\n'; printf '\\033[31mred\\033[0m \\377\\n'", changed_when=False),
        task(3, "copy", {"content": "new\n", "dest": "/opt/made/x", "mode": "0644"}, diff=True),
        rescue,
        shell(6, "echo $HOSTNAME >/dev/null; echo broken >&2; exit 3", role="last"),
    ]
    began = time.time()
    hosts = {name: target(lab, name) for name in ("gpu01", "gpu02")}
    reports = run_plans(hosts, nodes, view)
    run = RunReport(folder.run, "gpuprov apply", "lab", "plan", tuple(reports.values()), began, time.time() - began)
    folder.finish(to_json(run))
    view.finish(run, folder.path)
    shown = view.text.getvalue()
    assert "gpu01: changed  task 1" in shown
    assert "    +new\n" in shown
    assert "gpu01: rescued  task 4\n" in shown
    assert "    stderr | broken\n" in shown
    assert "failed      gpu[01-02]: task 6: " in shown
    assert shown.rstrip().endswith("exit 2  a task failed on a host")
    assert "\x1b" not in shown
    again = RunFolder.open(folder.path)
    assert from_json(again.document()) == from_json(json.loads(json.dumps(to_json(run))))
    for name, report in reports.items():
        seen = [event["seq"] for event in again.events(name)]
        assert seen == list(range(1, len(seen) + 1))
        assert again.last_seq(name) == seen[-1]
        by_id = {t.id: t for t in report.tasks}
        assert by_id["p1.t2"].result["stdout"].startswith("Epoch 1/2, Loss: 0.5\nred ")
        assert (by_id["p1.t4"].outcome, by_id["p1.t4"].result["rescued"]) == ("ignored", True)
        assert by_id["p1.t3"].diff
    assert b"task 6" in render(again.document())
