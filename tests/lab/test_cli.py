from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from gpuprov.cli.main import main
from gpuprov.lab import Lab
from gpuprov.lab.faults import cut_power
from tests.support.lab import NEEDS_LAB

pytestmark = NEEDS_LAB


@pytest.fixture
def state(monkeypatch):
    with tempfile.TemporaryDirectory(prefix="gpuprov-lab-") as folder:
        monkeypatch.setenv("GPUPROV_LAB_STATE", f"{folder}/state")
        yield Path(folder, "state")
        main(["lab", "down"])


def test_up_status_down(state, capsys):
    assert main(["lab", "status"]) == 1
    assert capsys.readouterr().out == f"no lab in {state}; gpuprov lab up starts one\n"

    assert main(["lab", "up", "--hosts", "2"]) == 0
    assert capsys.readouterr().out == f"2 hosts up; ssh -F {state}/ssh_config gpu01\n"

    assert main(["lab", "status"]) == 0
    *hosts, summary = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in hosts] == ["gpu01", "gpu02"]
    assert all(line.split()[2] == "up" for line in hosts)
    assert summary == f"2 of 2 up in {state}"

    cut_power(Lab(state), "gpu01")
    assert main(["lab", "status", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [(host["name"], host["up"], host["pid"] > 0) for host in report["hosts"]] == [
        ("gpu01", False, False),
        ("gpu02", True, True),
    ]

    assert main(["lab", "down"]) == 0
    assert not state.exists()


def test_a_wrong_count_is_one_sentence(state, capsys):
    assert main(["lab", "up", "--hosts", "0"]) == 1
    assert capsys.readouterr().err == "error[lab]: a lab has 1 to 1000 hosts, not 0\n"
    with pytest.raises(SystemExit) as caught:
        main(["lab", "up", "--hosts", "many"])
    assert caught.value.code == 5
