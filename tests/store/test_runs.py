import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuprov.errors import GpuprovError, UsageError
from gpuprov.store import runs
from gpuprov.store.names import default_root, file_name, is_run_id, new_run_id
from gpuprov.store.runs import RunFolder


def document(*hosts: str, state: str = "finished") -> dict:
    return {
        "schema": 1,
        "state": state,
        "hosts": [{"host": h, "outcome": "ok", "tasks": [{"id": "p1.t1", "name": "x"}], "facts": {}} for h in hosts],
    }


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(str(tmp_path), document=document(state="running"), options={"inventory": "lab.yaml"})


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_new_run_is_on_disk_at_once(folder: RunFolder) -> None:
    found = json.loads(Path(folder.path, "run.json").read_text())
    assert (found["state"], found["run"], found["hosts"]) == ("running", folder.run, [])
    assert is_run_id(folder.run)
    assert folder.options() == {"inventory": "lab.yaml"}


def test_nobody_else_may_read_it(folder: RunFolder) -> None:
    folder.append("gpu01", b'{"seq":1}')
    folder.finish(document("gpu01"))
    for name, _, files in os.walk(folder.path):
        assert mode(name) == 0o700
        assert {mode(os.path.join(name, f)) for f in files} <= {0o600}


def test_documents_come_back_whole(folder: RunFolder) -> None:
    folder.finish(document("gpu01", "../../etc/passwd", "gpu 02"))
    again = RunFolder.open(folder.path)
    assert again.document()["hosts"] == document("gpu01", "../../etc/passwd", "gpu 02")["hosts"]
    assert sorted(os.listdir(os.path.join(folder.path, "hosts")))[-1] == "gpu_02-" + file_name("gpu 02")[-10:] + ".json"
    summary = json.loads(Path(folder.path, "run.json").read_text())["hosts"]
    assert summary[0] == {"host": "gpu01", "outcome": "ok"}
    assert not [f for _, _, files in os.walk(folder.path) for f in files if f.endswith(".new")]


def test_events_come_back_in_order_and_by_host(folder: RunFolder) -> None:
    for seq in range(1, 4):
        folder.append("a", b'{"seq":%d,\n"kind":"X"}' % seq)
        folder.append('b"\n', {"seq": 10 * seq, "kind": "Y"})
    assert [e["seq"] for e in folder.events("a")] == [1, 2, 3]
    assert [e["seq"] for e in folder.events('b"\n')] == [10, 20, 30]
    assert (folder.last_seq("a"), folder.last_seq('b"\n'), folder.last_seq("c")) == (3, 30, 0)
    assert len(list(folder.all_events())) == 6


def test_the_journal_is_written_every_second(folder: RunFolder) -> None:
    path = Path(folder.path, "journal.jsonl")
    now = time.monotonic()
    folder.append("a", b'{"seq":1}')
    folder.tick(now + 0.5)
    assert not path.exists()
    folder.tick(now + 1.5)
    assert path.read_text() == '{"host":"a","event":{"seq":1}}\n'


def test_a_run_that_began_is_running_whatever_its_document_says(tmp_path: Path) -> None:
    found = RunFolder.create(str(tmp_path), document={**document(), "exit_code": 0}).document()
    assert (found["state"], found["exit_code"]) == ("running", None)


def test_a_flood_does_not_wait_for_the_second(folder: RunFolder) -> None:
    for seq in range(300):
        folder.append("a", b'{"seq":%d,"text":"%s"}' % (seq, b"x" * 1000))
    assert Path(folder.path, "journal.jsonl").stat().st_size > 200_000


def test_a_killed_controller_leaves_a_journal_that_can_be_continued(tmp_path: Path) -> None:
    script = f"""
import os, signal
from gpuprov.store.runs import RunFolder
folder = RunFolder.create({str(tmp_path)!r}, document={{"hosts": []}})
for seq in range(1, 6):
    folder.append("gpu01", b'{{"seq":%d,"kind":"TaskFinished"}}' % seq)
folder.flush()
os.write(folder._journal._descriptor, b'{{"host":"gpu01","event":{{"seq":6,"ki')
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    folder = runs.latest(str(tmp_path))
    assert folder is not None
    assert folder.last_seq("gpu01") == 5
    folder.append("gpu01", b'{"seq":6,"kind":"TaskFinished"}')
    assert [e["seq"] for e in folder.events("gpu01")] == [1, 2, 3, 4, 5, 6]


def test_runs_are_found_by_name_start_and_path(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert runs.runs(root) == []
    assert runs.latest(root) is None
    with pytest.raises(UsageError, match="there is no run"):
        runs.find("", root)
    old = RunFolder.create(root, run="20250101-000000-aaaaaa", document=document())
    new = RunFolder.create(root, run="20260101-000000-bbbbbb", document=document())
    (tmp_path / "notes").mkdir()
    assert runs.runs(root) == [old.path, new.path]
    assert runs.find("", root).run == new.run
    assert runs.find("2025", root).run == old.run
    assert runs.find(old.path, root).run == old.run
    with pytest.raises(UsageError, match="2 runs called 202"):
        runs.find("202", root)
    with pytest.raises(UsageError, match="no run called x"):
        runs.find("x", root)
    with pytest.raises(UsageError, match="not a run folder"):
        runs.find(str(tmp_path / "notes"), root)


def test_a_damaged_report_is_one_sentence(folder: RunFolder) -> None:
    folder.finish(document("gpu01"))
    Path(folder.path, "hosts", "gpu01.json").write_text("{")
    with pytest.raises(UsageError, match=r"gpu01\.json is damaged"):
        folder.document()


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GpuprovError, match="cannot make the run folder") as caught:
        RunFolder.create(str(tmp_path / "file" / "runs"))
    assert "--run-dir" in caught.value.hint


def test_options_never_hold_secrets(tmp_path: Path) -> None:
    options = {
        "extra_vars": {
            "db_password": "hunter2",
            "region": "eu",
            "hf_token": "hunter2",
            "nested": [{"api_key": "hunter2"}],
        },
        "argv": ["-e", "db_password=hunter2 region=eu"],
        "become_password_file": "/etc/pw",
    }
    folder = RunFolder.create(str(tmp_path), options=options)
    assert "hunter2" not in Path(folder.path, "options.json").read_text()
    assert folder.options()["extra_vars"]["region"] == "eu"
    assert folder.options()["argv"][1] == "db_password=*** region=eu"
    assert folder.options()["become_password_file"] == "/etc/pw"
    assert folder.options()["left_out"] == [
        "extra_vars.db_password",
        "extra_vars.hf_token",
        "extra_vars.nested[0].api_key",
        "argv[1]",
    ]
    assert "left_out" not in RunFolder.create(str(tmp_path), options={"ask_become_pass": True}).options()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("db_password=hunter2", "db_password=***"),
        ("a=1 db_password='hunter 2' b=2", "a=1 db_password=*** b=2"),
        ('{"hf_token": "hunter2", "n": 1}', '{"hf_token": ***, "n": 1}'),
        ("become_password_file=/etc/pw", "become_password_file=/etc/pw"),
        ("--vault-password-file=/etc/pw", "--vault-password-file=/etc/pw"),
        ("region=eu", "region=eu"),
    ],
)
def test_secrets_in_text(text: str, kept: str) -> None:
    assert runs.without_secrets([text])[0] == [kept]


def test_run_ids_sort_by_time() -> None:
    assert new_run_id(1_000_000_000) < new_run_id(1_000_000_001) < new_run_id()
    assert all(is_run_id(new_run_id()) for _ in range(20))


def test_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_root() == "/state/gpuprov/runs"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/admin")
    assert default_root() == "/home/admin/.local/state/gpuprov/runs"


@given(st.text(max_size=200), st.text(max_size=200))
def test_no_host_name_is_a_path(one: str, other: str) -> None:
    name = file_name(one)
    assert name == os.path.basename(name)
    assert not name.startswith((".", "-"))
    assert 0 < len(name.encode()) <= 100
    assert name.isascii()
    assert one == other or name != file_name(other)
