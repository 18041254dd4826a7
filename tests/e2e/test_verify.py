"""`gpuprov verify` over lab hosts: it looks, says what it could not measure, changes nothing, and remembers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gpuprov.cli.main import main
from tests.support.lab import NEEDS_LAB, lab_of, run_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuprov.lab import Lab

pytestmark = NEEDS_LAB
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with lab_of(2) as lab:
        yield lab


@pytest.fixture
def inventory(lab: Lab, tmp_path: Path) -> Path:
    path = tmp_path / "inventory.json"
    path.write_text(json.dumps({"all": {"hosts": {name: lab.connection(name) for name in ("gpu01", "gpu02")}}}))
    return path


def gpuprov(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "gpuprov", *words]
    return subprocess.run(argv, env=env, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def checks(document: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    return {host["host"]: {check["name"]: check for check in host["checks"]} for host in document["hosts"]}


def test_it_looks_says_what_it_could_not_measure_and_changes_nothing(lab: Lab, inventory: Path, tmp_path: Path) -> None:
    list_files = "find /etc /usr /opt /root -newer /etc/hostname -type f | sort | xargs -r sha256sum"
    before = run_on(lab, "gpu01", list_files).stdout
    done = gpuprov(tmp_path, "verify", str(inventory), "--tier", "quick", "--json", "--record", "readings")
    assert run_on(lab, "gpu01", list_files).stdout == before
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    found = checks(document)
    assert set(found) == {"gpu01", "gpu02"}
    for one in found.values():
        assert one["versions"]["verdict"] == "unknown"  # there is no torch, and that is no pass
        assert one["nvml.count"]["verdict"] == "skip"
        assert one["memory.available"]["tier"] == "quick"
        assert not [check for check in one.values() if check["verdict"] == "fail"]
    assert [host["totals"]["changed"] for host in document["hosts"]] == [0, 0]
    reading = json.loads((tmp_path / "readings" / "gpu01.json").read_text())
    assert reading["gpus"] == []
    assert (tmp_path / "state" / "gpuprov" / "history.sqlite").exists()


def test_single_checks_and_an_acknowledgement(inventory: Path, tmp_path: Path) -> None:
    done = gpuprov(tmp_path, "verify", str(inventory), "--only", "disk.space", "--only", "kernel", "--json")
    assert set(checks(json.loads(done.stdout))["gpu01"]) >= {"disk.space", "kernel.taint"}
    added = gpuprov(
        tmp_path, "ack", "add", "gpu01", "xid", "--until", "2999-12-31", "--reason", "RMA", "--owner", "anna"
    )
    assert (added.returncode, added.stdout) == (0, "xid of gpu01 counts as a warning until 2999-12-31\n")
    assert "gpu01 xid: until 2999-12-31, anna: RMA" in gpuprov(tmp_path, "ack", "list").stdout
    wrong = gpuprov(tmp_path, "ack", "add", "gpu01", "xid", "--until", "tomorrow", "--reason", "x")
    assert wrong.returncode == 5
    assert "is not a day" in wrong.stderr
    unknown = gpuprov(tmp_path, "verify", str(inventory), "--only", "nonsense", "--json")
    assert unknown.returncode == 5
    assert "nonsense: there is no such check" in unknown.stderr


def test_a_suspect_is_run_again_in_the_same_run(
    inventory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bits are of GPUs, and there is none: the ballots are made up, what follows from them is real."""
    ballots = [(("disk.space",), (f"gpu0{i}", "disk.space", ""), "bad" if i == 1 else "good") for i in range(1, 5)]
    monkeypatch.setattr("gpuprov.judge.run._ballots", lambda reports: ballots)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    asked: list[Any] = []
    monkeypatch.setattr("gpuprov.cli.options.become_password", lambda options: asked.append(options) or "secret")
    assert main(["verify", str(inventory), "--only", "disk.space", "--only", "kernel.taint", "--json"]) == 3
    assert len(asked) == 1, "a person is asked for the password of sudo once"
    document = json.loads(capsys.readouterr().out)
    found = checks(document)
    assert found["gpu01"]["disk.space"]["verdict"] == "fail"
    assert found["gpu01"]["disk.space"]["reason"].startswith("other bits than 3 of 4 computed alike")
    assert found["gpu01"]["disk.space"]["reason"].endswith("; confirmed when it was run again at once")
    assert found["gpu02"]["disk.space"]["verdict"] == "pass"
    (again,) = (tmp_path / "state" / "gpuprov" / "runs" / document["run"]).glob("*/run.json")
    assert [host["host"] for host in json.loads(again.read_text())["hosts"]] == ["gpu01"]
    names = {check["name"] for check in json.loads((again.parent / "hosts" / "gpu01.json").read_text())["checks"]}
    assert "disk.space" in names
    assert "kernel.taint" not in names
