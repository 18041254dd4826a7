"""The history file: values, strikes, acknowledgements, two writers at once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from gpuprov.errors import GpuprovError
from gpuprov.store.history import Acknowledgement, History, Value

if TYPE_CHECKING:
    from pathlib import Path


def test_values_come_back_by_gpu_metric_and_software_and_never_mixed_with_simulated_ones(tmp_path: Path) -> None:
    history = History(str(tmp_path / "h.sqlite"))
    history.record(
        "r1", 1.0, [Value("a", "GPU-1", "h2d", "s", 50.0), Value("a", "GPU-1", "h2d", "s", 9.0, True)], [], []
    )
    history.record("r2", 2.0, [Value("a", "GPU-1", "h2d", "s", 51.0)], [], [])
    assert history.past("GPU-1", "h2d", "s") == [51.0, 50.0]
    assert history.past("GPU-1", "h2d", "s", True) == [9.0]
    assert history.past("GPU-2", "h2d", "s") == history.past("GPU-1", "h2d", "t") == []


def test_a_strike_goes_when_the_check_was_judged_and_is_well(tmp_path: Path) -> None:
    history = History(str(tmp_path / "h.sqlite"))
    one, other = ("a", "h2d", "cuda:0"), ("a", "d2h", "cuda:0")
    history.record("r1", 1.0, [], [one, other], [one, other])
    history.record("r2", 2.0, [], [], [one])
    assert history.strikes("a") == {("d2h", "cuda:0")}
    assert history.strikes("b") == set()


def test_acknowledgements(tmp_path: Path) -> None:
    history = History(str(tmp_path / "h.sqlite"))
    one = Acknowledgement("a", "xid", "", "anna", "RMA", "2026-12-01")
    history.acknowledge(one, 1.0)
    assert list(History(history.path).acknowledgements()) == [one]
    assert history.withdraw("a", "xid", "")
    assert not history.withdraw("a", "xid", "")


def test_several_runs_at_once_lose_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "h.sqlite")

    def write(number: int) -> None:
        history = History(path)
        for turn in range(10):
            history.record(f"r{number}", turn, [Value("a", "GPU-1", f"m{number}", "s", turn)], [], [])
        history.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(History(path).past("GPU-1", f"m{n}", "s")) for n in range(4)] == [10] * 4


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "h.sqlite").write_text("not a database at all, only text that is long enough to be looked at")
    with pytest.raises(GpuprovError, match="no history of gpuprov"):
        History(str(tmp_path / "h.sqlite"))
