"""A history or a record that cannot be written costs a warning, never the report."""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from gpuprov.cli import verify
from gpuprov.cli.judging import judged
from gpuprov.results import Check, HostReport, RunReport
from gpuprov.store import history

if TYPE_CHECKING:
    from pathlib import Path

FAIL = Check("ecc.uncorrected", "fail", device="gpu:3", reason="7 errors")


def report() -> RunReport:
    host = HostReport("gpu01", "ok", checks=(FAIL,), verdict="fail")
    return RunReport("r1", "verify", "i", "p", (host,), started_at=0.0, duration_s=0.0)


def a_file_in_the_way(folder: Path) -> str:
    (folder / "file").write_text("")
    return str(folder / "file" / "history.sqlite")


def a_folder(folder: Path) -> str:
    (folder / "history.sqlite").mkdir()
    return str(folder / "history.sqlite")


def not_a_database(folder: Path) -> str:
    (folder / "history.sqlite").write_text("some text that is no database at all " * 9)
    return str(folder / "history.sqlite")


@pytest.mark.parametrize("broken", [a_file_in_the_way, a_folder, not_a_database])
def test_without_a_history_it_is_judged_and_said(broken: Any, tmp_path: Path) -> None:
    warnings: list[str] = []
    run = report()
    path = broken(tmp_path)
    assert judged(run, path, warnings.append) == run.hosts
    (warning,) = warnings
    assert warning.startswith(f"judged without the history: {path} ")


def test_a_history_that_breaks_while_it_is_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(history.History):
        def record(self, *_: Any) -> None:
            with self._changing():
                raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(history, "History", Full)
    warnings: list[str] = []
    path = str(tmp_path / "h.sqlite")
    judged(report(), path, warnings.append)
    (warning,) = warnings
    assert warning.startswith(f"this run is not remembered: {path} cannot be used: database or disk is full")
    assert history.History(path).strikes("gpu01") == set()


def test_a_history_that_breaks_while_it_is_read_is_said(tmp_path: Path) -> None:
    path = str(tmp_path / "h.sqlite")
    history.History(path).close()
    with sqlite3.connect(path) as other:
        other.execute("DROP TABLE strikes")
    warnings: list[str] = []
    assert judged(report(), path, warnings.append)[0].verdict == "fail"
    assert warnings[0].startswith("judged without the history: ")


def test_a_record_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    class Folder:
        def all_events(self) -> list[tuple[str, dict[str, Any]]]:
            return [("gpu01", {"kind": "TaskFinished", "result": {"reading": {"gpus": []}}})]

    recorder = verify._Recorder(str(tmp_path / "readings"))
    os.mkdir(tmp_path / "readings" / "gpu01.json")
    warnings: list[str] = []
    recorder(Folder(), warnings.append)
    assert warnings == [f"--record: {tmp_path / 'readings' / 'gpu01.json'} was not written: Is a directory"]
