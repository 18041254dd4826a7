"""A history or a record that cannot be written costs a warning, never the report."""

from __future__ import annotations

import argparse
import os
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from gpuprov.cli import verify
from gpuprov.cli.again import Again, parts_of
from gpuprov.cli.judging import judged
from gpuprov.cli.prepare import Voice
from gpuprov.errors import UsageError
from gpuprov.results import Check, HostReport, RunReport, TaskResult
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


def voted() -> list[HostReport]:
    """Four hosts, of which gpu2 has other bits."""
    versions = {"devices": [{"index": 0, "name": "NVIDIA H100 80GB HBM3", "uuid": "GPU-1"}]}
    task = TaskResult("t1", "Proof", "gpuprov_proof", "ok", result={"versions": versions})
    bits = [{"bits": str(i == 2), "bits_of": "x"} for i in range(4)]
    checks = [Check("gpt.deterministic", "pass", device="cuda:0", data=data) for data in bits]
    return [HostReport(f"gpu{i}", "ok", verdict="pass", tasks=(task,), checks=(c,)) for i, c in enumerate(checks)]


class Fake(Again):
    """Says what was asked for, and gives the report that it was made with."""

    def __init__(self, voice: Voice, *found: HostReport) -> None:
        super().__init__(argparse.Namespace(), None, voice, None)
        self.asked: list[list[str]] = []
        self._found = found

    def _run(self, hosts: list[str], parts: list[str]) -> tuple[HostReport, ...]:
        self.asked.append([*hosts, *parts])
        return self._found


def judged_again(hosts: list[HostReport], again: Again, folder: Path) -> tuple[HostReport, ...]:
    run = RunReport("r1", "verify", "i", "p", tuple(hosts), started_at=0.0, duration_s=0.0)
    return judged(run, str(folder / "h.sqlite"), lambda text: None, again)


def test_what_is_suspect_is_run_again_once_by_its_part(tmp_path: Path) -> None:
    hosts = voted()
    again = Fake(Voice(), hosts[2])
    found = judged_again(hosts, again, tmp_path)
    assert again.asked == [["gpu2", "gpt.deterministic"]]
    assert [one.verdict for one in found] == ["pass", "pass", "fail", "pass"]
    assert found[2].cause.endswith("confirmed when it was run again at once")


def test_a_host_that_is_gone_the_second_time_is_said_and_stays_suspect(tmp_path: Path) -> None:
    voice = Voice()
    gone = HostReport("gpu2", "unreachable", cause="no route to host")
    found = judged_again(voted(), Fake(voice, gone), tmp_path)
    assert voice.warnings == ["what is suspect on gpu2 was not run again: no route to host"]
    assert found[2].verdict == "warn"


def test_a_run_that_a_person_stopped_is_not_followed_by_another(tmp_path: Path) -> None:
    hosts = voted()
    hosts[3] = HostReport("gpu3", "interrupted")
    again = Fake(Voice(), hosts[2])
    assert judged_again(hosts, again, tmp_path)[2].verdict == "warn"
    assert again.asked == []


def test_a_check_belongs_to_the_part_with_the_longest_name() -> None:
    assert parts_of(["gpt.deterministic.bits", "gemm.bf16", "gpt.floor", "nothing.of.the.kind"]) == [
        "gemm.bf16",
        "gpt",
        "gpt.deterministic",
    ]


def test_a_second_look_that_is_refused_costs_a_warning() -> None:
    class Refused(Again):
        def _run(self, hosts: list[str], parts: list[str]) -> tuple[HostReport, ...]:
            raise UsageError("no way")

    voice = Voice()
    again = Refused(argparse.Namespace(), None, voice, None)
    assert again([("gpu1", "gemm.bf16", "cuda:0")]) == again([]) == ()
    assert voice.warnings == ["what is suspect was not run again: no way"]
