import json
from pathlib import Path

import pytest

from gpuprov.cli.main import main
from gpuprov.report.html import render
from gpuprov.report.jsonout import to_json
from gpuprov.results import Check, HostReport, RunReport
from gpuprov.store.runs import RunFolder
from tests.report import rehearsal


@pytest.fixture
def finished(tmp_path: Path) -> RunFolder:
    document = to_json(rehearsal.report(24))
    folder = RunFolder.create(str(tmp_path), document=document)
    folder.finish({**document, "run": folder.run})
    return folder


def test_the_recap_again(finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--run-dir", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("gpuprov apply inventory/lab.yaml --diff\n")
    assert "failed      gpu[06-08,13]: Certificates are installed: apt lock held" in shown
    assert f"report  {finished.path}/report.html" in shown


def test_skipped_checks_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checks = tuple(Check(f"check{number}", "skip", reason="no GPU") for number in range(6))
    host = HostReport("gpu01", "ok", checks=checks, verdict="skip")
    document = to_json(RunReport("r", "gpuprov verify lab.yaml", "lab.yaml", "verify.yaml", (host,), 0.0, 0.0))
    folder = RunFolder.create(str(tmp_path), document=document)
    folder.finish({**document, "run": folder.run})
    assert main(["report", "--run-dir", str(tmp_path)]) == 0
    assert "6 checks (-v names them): no GPU" in capsys.readouterr().out
    assert main(["report", "-v", "--run-dir", str(tmp_path)]) == 0
    assert "check0, check1, check2, check3, check4, check5: no GPU" in capsys.readouterr().out


def test_the_json_again(finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", finished.run[:8], "--json", "--run-dir", str(tmp_path)]) == 0
    expected = to_json(rehearsal.report(24))
    assert json.loads(capsys.readouterr().out) == {**json.loads(json.dumps(expected)), "run": finished.run}


def test_the_page_is_made_when_it_is_missing(
    finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--html", "--run-dir", str(tmp_path)]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page.read_bytes() == render({**to_json(rehearsal.report(24)), "run": finished.run})


def test_a_run_without_an_end_is_told_from_its_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started = RunReport("r", "gpuprov apply lab.yaml", "lab.yaml", "site.yaml", (), 0.0, 0.0)
    folder = RunFolder.create(str(tmp_path), document=to_json(started))
    folder.append("gpu01", {"seq": 1, "kind": "TaskStarted", "id": "t1", "name": "Driver", "action": "apt"})
    folder.append("gpu01", {"seq": 2, "kind": "TaskFinished", "id": "t1", "outcome": "changed", "duration_s": 1.0})
    folder.flush()
    assert main(["report", folder.run, "--run-dir", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert f"warning: run {folder.run} has not ended here" in shown.err
    assert "gpuprov resume" in shown.err
    assert "lost        gpu01: the run did not reach its end on this host" in shown.out
    assert "changed=1" in shown.out
    assert main(["report", "--html", "--run-dir", str(tmp_path)]) == 0
    assert "has not ended here" in Path(capsys.readouterr().out.strip()).read_text()


def test_all_runs(finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--list", "--run-dir", str(tmp_path)]) == 0
    line = f"{finished.run}  exit 6      24 hosts  gpuprov apply inventory/lab.yaml --diff\n"
    assert capsys.readouterr().out == line


def test_no_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--run-dir", str(tmp_path)]) == 5
    shown = capsys.readouterr().err
    assert shown == f"error[usage]: there is no run in {tmp_path}\nhint: gpuprov apply INVENTORY makes one\n"
