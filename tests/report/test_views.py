import io
import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest

from gpuprov.report.lines import unified
from gpuprov.report.progress import Progress
from gpuprov.report.view import PlainView, SilentView, make_view
from tests.report import rehearsal

NODE = {"id": "p1.t1", "name": "CUDA paths", "role": "environment", "action": "template"}


def finished(outcome: str = "changed", **more: object) -> dict:
    return {"seq": 1, "kind": "TaskFinished", "id": "p1.t1", "outcome": outcome, "duration_s": 0.1, **more}


def lines_of(*events: dict, verbosity: int = 0, hosts: int = 1, node: dict | None = NODE) -> list[str]:
    stream = io.StringIO()
    view = PlainView(stream, verbosity, hosts)
    for event in events:
        view.event("gpu01", event, node)
    view.tick(time.monotonic() + 5)
    return stream.getvalue().splitlines()


def output(text: str) -> dict:
    return {"kind": "TaskOutput", "id": "p1.t1", "text": text, "stream": "stdout"}


def test_one_line_per_change() -> None:
    assert lines_of(finished()) == ["gpu01: changed  environment : CUDA paths (0.1 s)"]


def test_what_is_as_wanted_is_said_with_v_only() -> None:
    quiet = [finished("ok"), finished("skipped", skip="no NVIDIA GPU")]
    assert lines_of(*quiet) == []
    assert lines_of(*quiet, verbosity=1) == [
        "gpu01: ok       environment : CUDA paths (0.1 s)",
        "gpu01: skipped  environment : CUDA paths: no NVIDIA GPU (0.1 s)",
    ]


@pytest.mark.parametrize("outcome", ["failed", "unknown", "ignored", "lost"])
def test_what_matters_is_always_said(outcome: str) -> None:
    (line,) = lines_of(finished(outcome, msg="because"), hosts=400)
    assert line == f"gpu01: {outcome:<8} environment : CUDA paths: because (0.1 s)"


def test_a_failure_shows_its_last_output_and_what_to_do() -> None:
    result = {"rc": 1, "stderr": "\n".join(f"line {n}" for n in range(20))}
    fault = {"message": "return code 1", "hint": "look at it"}
    found = lines_of(finished("failed", fault=fault, result=result))
    assert found[0] == "gpu01: failed   environment : CUDA paths: return code 1 (0.1 s)"
    assert found[1:] == [*(f"    stderr | line {n}" for n in range(15, 20)), "    hint: look at it"]


def test_epochs_are_told_now_and_then() -> None:
    text = "\n".join(f"Epoch {n}/100, Loss: 0.1" for n in range(1, 101))
    shown = [int(x.split()[2].split("/")[0]) for x in lines_of(output(text))]
    assert shown == [1, *range(10, 101, 10)]
    assert len(lines_of(output(text), verbosity=1)) == 100
    assert lines_of(output(text), hosts=400) == []


def test_output_is_shown_with_vv() -> None:
    assert lines_of(output("hello\nworld"), verbosity=1) == []
    assert lines_of(output("hello\nworld"), verbosity=2) == ["gpu01: hello", "gpu01: world"]


def test_diffs_are_unified() -> None:
    diff = [{"before": "a\nb\nc\n", "after": "a\nx\nc\n", "before_header": "/etc/x", "after_header": "/etc/x"}]
    found = lines_of(finished(diff=diff))
    assert found[1:] == [f"    {x}" for x in ("--- /etc/x", "+++ /etc/x", "@@ -1,3 +1,3 @@", " a", "-b", "+x", " c")]
    assert unified({"prepared": "+ready\n-made\n"}) == ["+ready", "-made"]
    assert unified({"before": None, "after": 7}) == []


def test_the_same_line_of_many_hosts_is_one_line() -> None:
    stream = io.StringIO()
    view = PlainView(stream, 0, 20)
    for n in range(1, 21):
        view.event(f"gpu{n:02}", finished("failed", msg="no space") if n > 18 else finished(), NODE)
    assert stream.getvalue() == ""
    view.tick(time.monotonic() + 2)
    assert stream.getvalue().splitlines() == [
        "gpu[01-18]: changed  environment : CUDA paths (18 hosts)",
        "gpu[19-20]: failed   environment : CUDA paths: no space (2 hosts)",
    ]


def test_many_names_are_cut_only_where_all_is_well() -> None:
    stream = io.StringIO()
    view = PlainView(stream, 0, 100)
    for n in range(0, 100, 2):
        view.event(f"gpu{n:02}", finished(), NODE)
        view.event(f"gpu{n:02}", finished("failed"), NODE)
    view.tick(time.monotonic() + 2)
    changed, failed = stream.getvalue().splitlines()
    assert changed.startswith("gpu[00,02,04,06,08,10,12,14,16,18,20,22,...]: changed")
    assert "96,98]: failed" in failed


def test_hosts_that_cannot_go_on_are_named() -> None:
    stream = io.StringIO()
    view = PlainView(stream, 0, 4)
    for state, detail in (("ready", ""), ("sending", "3 files"), ("done", "ok"), ("done", "unreachable")):
        view.host_state("gpu01", state, detail)
    view.host_state("gpu02", "reconnecting", "silent for 20 s")
    assert stream.getvalue().splitlines() == ["gpu01: unreachable", "gpu02: reconnecting silent for 20 s"]


def test_from_time_to_time_it_says_how_far_it_is() -> None:
    stream = io.StringIO()
    view = PlainView(stream, 0, 3)
    now = time.monotonic()
    view.tick(now)
    view.host_state("gpu01", "done", "ok")
    view.host_state("gpu02", "running")
    view.event("gpu02", {"kind": "TaskStarted", "id": "p1.t1"}, NODE)
    view.tick(now + 9)
    assert stream.getvalue() == ""
    view.tick(now + 11)
    told = r"1 of 3 hosts done, 1 connecting, 1 running; longest: gpu02 environment : CUDA paths"
    assert re.fullmatch(rf"\.\.\. \d+\.\d s: {told} \(.*\)\n", stream.getvalue())


def test_no_log_is_not_shown_by_any_verbosity() -> None:
    secret = finished("failed", msg="hunter2", result={"stdout": "hunter2"}, diff=[{"before": "", "after": "hunter2"}])
    found = lines_of(secret, verbosity=2, node={**NODE, "no_log": True})
    assert len(found) == 1
    assert "hunter2" not in found[0]


def test_what_hosts_send_cannot_drive_the_terminal() -> None:
    evil = "\x1b]0;x\x07\x1b[2J\u202e\x9b31mboo\r"
    events = [
        finished(
            "failed", name=evil, msg=evil, item=evil, result={"stdout": evil}, diff=[{"before": evil, "after": ""}]
        ),
        output(evil),
        {"kind": "RebootStarted", "reason": evil},
        {"kind": "RunStopped", "why": evil},
        {"kind": "TaskStarted", "id": [], "name": {}, "action": 7},
        {"kind": [1]},
        {
            "kind": "TaskFinished",
            "id": None,
            "outcome": ["x"],
            "duration_s": "long",
            "result": 3,
            "diff": [1],
            "fault": "?",
        },
    ]
    for verbosity in (0, 1, 2):
        for node in (None, NODE):
            text = "\n".join(lines_of(*events, verbosity=verbosity, node=node))
            assert "boo" in text
            assert not set(text) & {"\x1b", "\x9b", "\x07", "\u202e", "\r"}


def test_json_leaves_stdout_alone(capsys: pytest.CaptureFixture[str]) -> None:
    view = make_view(json=True)
    assert isinstance(view, SilentView)
    view.event("gpu01", finished("failed"), NODE)
    view.host_state("gpu01", "done", "failed")
    view.message("hello")
    view.message("careful", "warning")
    view.tick(1.0)
    view.finish(rehearsal.report(1), None)
    assert capsys.readouterr() == ("", "warning: careful\n")


def test_an_ascii_stream_gets_ascii() -> None:
    raw = io.BytesIO()
    view = PlainView(io.TextIOWrapper(raw, encoding="ascii"))
    view.message("Grüße")
    assert raw.getvalue() == b"Gr??e\n"


def test_progress_knows_the_last_line_of_output() -> None:
    progress = Progress(1)
    progress.event("a", output("one\ntwo\n"), NODE, 5.0)
    (slow,) = progress.slowest(3)
    assert (slow.task, slow.output, slow.at_it_since()) == ("environment : CUDA paths", "two", 5.0)
    progress.event("a", finished(), NODE, 6.0)
    assert (slow.task, slow.output, slow.done, slow.changed) == ("", "", 1, 1)


def on_terminal(hosts: int, columns: int = 110, *, script: str = "", fails: bool = False, **environment: str) -> str:
    """Return what a terminal of that width gets while a made-up fleet runs for two seconds."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "tests.report.rehearsal", "live", str(hosts), "2"]
    command = [sys.executable, "-c", script] if script else command
    plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")}
    env = {**plain, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "40", **environment}
    process = subprocess.Popen(command, stdout=slave, stderr=subprocess.PIPE, env=env)
    os.close(slave)
    got = b""
    while True:
        ready, _, _ = select.select([master], [], [], 30)
        try:
            part = os.read(master, 65536) if ready else b""
        except OSError:  # the other end is closed
            part = b""
        if not part:
            break
        got += part
    assert (process.wait(timeout=30) != 0) == fails, process.stderr and process.stderr.read()
    assert process.stderr is not None
    process.stderr.close()
    os.close(master)
    return got.decode()


def test_live_view_of_few_hosts_has_a_row_for_each() -> None:
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", on_terminal(4))
    for host in rehearsal.names(4):
        assert re.search(rf"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] {host} +\d+ done.*torch : PyTorch", text)
    assert re.search(r"Installing torch: \d+ %", text)
    assert text.index("PLAY RECAP") > text.rindex("━━━")


def test_live_view_of_many_hosts_counts_them() -> None:
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", on_terminal(100))
    assert re.search(r"━━  \d+/100 .* \d+ running", text)
    assert re.search(r"\d+ hosts  torch : PyTorch", text)
    assert "longest at what they do" in text
    assert "apt lock held" in text[: text.index("PLAY RECAP")]
    assert "changed  base : GPU folders" not in text  # without a diff it is only counted
    widest = max(len(x) for x in text[: text.index("PLAY RECAP")].splitlines() if "running" in x)
    assert widest <= 110


def test_live_view_without_colours() -> None:
    assert not re.search(r"\x1b\[[\d;]*3[0-7]m", on_terminal(4, NO_COLOR="1"))


def test_a_dumb_terminal_gets_lines() -> None:
    text = on_terminal(2, TERM="dumb")
    assert "\x1b" not in text
    assert "gpu01: changed  base : GPU folders" in text


def test_a_run_that_ends_in_an_error_leaves_the_terminal_as_it_was() -> None:
    script = """
from gpuprov.report.view import make_view
import time
view = make_view(hosts=2)
view.host_state("gpu01", "running")
view.tick(time.monotonic() + 1)
raise SystemExit("error: problems in the input")
"""
    text = on_terminal(2, script=script, fails=True)
    assert "gpu01" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
