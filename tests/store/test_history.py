"""The history file: values, strikes, acknowledgements, two writers at once."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest

from gpuprov.errors import GpuprovError
from gpuprov.store import history
from gpuprov.store.history import Acknowledgement, History, Value

if TYPE_CHECKING:
    from pathlib import Path


def test_values_come_back_by_gpu_metric_and_software_and_never_mixed_with_simulated_ones(tmp_path: Path) -> None:
    kept = History(str(tmp_path / "h.sqlite"))
    kept.record("r1", 1.0, [Value("a", "GPU-1", "h2d", "s", 50.0), Value("a", "GPU-1", "h2d", "s", 9.0, True)], [], [])
    kept.record("r2", 2.0, [Value("a", "GPU-1", "h2d", "s", 51.0)], [], [])
    assert kept.past("GPU-1", "h2d", "s") == [51.0, 50.0]
    assert kept.past("GPU-1", "h2d", "s", True) == [9.0]
    assert kept.past("GPU-2", "h2d", "s") == kept.past("GPU-1", "h2d", "t") == []


def test_values_are_kept_for_200_days(tmp_path: Path) -> None:
    kept = History(str(tmp_path / "h.sqlite"))
    day = 86400.0
    for when in (0.0, 100.0, 199.0, 201.0):
        kept.record(f"r{when}", when * day, [Value("a", "GPU-1", "h2d", "s", when)], [], [])
    assert kept.past("GPU-1", "h2d", "s") == [201.0, 199.0, 100.0]
    kept.record("later", 500 * day, [], [], [])
    assert kept.past("GPU-1", "h2d", "s") == []


def test_a_strike_goes_when_the_check_was_judged_and_is_well(tmp_path: Path) -> None:
    kept = History(str(tmp_path / "h.sqlite"))
    one, other = ("a", "h2d", "cuda:0"), ("a", "d2h", "cuda:0")
    kept.record("r1", 1.0, [], [one, other], [one, other])
    kept.record("r2", 2.0, [], [], [one])
    assert kept.strikes("a") == {("d2h", "cuda:0")}
    assert kept.strikes("b") == set()


def test_acknowledgements(tmp_path: Path) -> None:
    kept = History(str(tmp_path / "h.sqlite"))
    one = Acknowledgement("a", "xid", "", "anna", "RMA", "2026-12-01")
    kept.acknowledge(one, 1.0)
    assert list(History(kept.path).acknowledgements()) == [one]
    assert kept.withdraw("a", "xid", "")
    assert not kept.withdraw("a", "xid", "")


def test_several_runs_at_once_lose_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "h.sqlite")

    def write(number: int) -> None:
        kept = History(path)
        for turn in range(10):
            kept.record(f"r{number}", turn, [Value("a", "GPU-1", f"m{number}", "s", turn)], [], [])
        kept.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(History(path).past("GPU-1", f"m{n}", "s")) for n in range(4)] == [10] * 4


def test_opening_waits_for_another_run_that_is_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "h.sqlite")
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(history, "WAIT_S", 0.05)
    with pytest.raises(GpuprovError, match="cannot be used: database is locked"):
        History(path)
    monkeypatch.setattr(history, "WAIT_S", 30.0)
    release = threading.Timer(0.2, lambda: other.execute("COMMIT"))
    release.start()
    History(path).close()
    release.join()
    other.close()


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "h.sqlite").write_text("not a database at all, only text that is long enough to be looked at")
    with pytest.raises(GpuprovError, match="no history of gpuprov"):
        History(str(tmp_path / "h.sqlite"))
