"""`gpuprov doctor` over text, as a person calls it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpuprov.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch"


def call(*words: str, stdin: str | bytes = "") -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "gpuprov", "doctor", *words]
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(argv, input=data, capture_output=True, cwd=ROOT, timeout=60, check=False)
    return subprocess.CompletedProcess(argv, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_a_pasted_error_has_cause_check_and_fix(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--text", MISMATCH]) == 3
    shown = capsys.readouterr().out
    assert shown.startswith("fail  The loaded driver and its libraries are of two versions  driver-version-mismatch\n")
    for part in (f"| {MISMATCH}", "unattended-upgrades", "check:", "modinfo -F version nvidia", "fix:", "1 finding\n"):
        assert part in shown


def test_a_log_on_standard_input() -> None:
    log = f"\x1b[31m{MISMATCH}\x1b[0m\r\nsomething else\n" + "E: Unable to locate package nvidia-driver-580\n" * 7
    done = call(stdin=log)
    assert (done.returncode, done.stderr) == (3, "")
    assert f"| {MISMATCH}\n" in done.stdout
    assert "| E: Unable to locate package nvidia-driver-580 (7 times)\n" in done.stdout
    assert "fix, Debian, Ubuntu:" in done.stdout
    assert done.stdout.endswith("\n2 findings\n")
    assert "\x1b" not in done.stdout


def test_nothing_found_says_how_to_go_on() -> None:
    done = call("--text", "the printer is on fire")
    assert done.returncode == 0
    assert "rows" not in done.stderr
    assert "fits this line" in done.stdout
    assert "gpuprov doctor INVENTORY HOST" in done.stdout


@pytest.mark.parametrize("text", [MISMATCH, "nothing of interest"])
def test_json(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "--json", "--text", text])
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    assert (code == 3) == bool(document["findings"])
    for finding in document["findings"]:
        assert finding["id"] == "driver-version-mismatch"
        assert finding["evidence"] == [{"source": "text", "line": MISMATCH, "times": 1}]
        assert finding["fix"]["any"]
        assert finding["check"]
        assert finding["sources"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "there is no text to look at"),
        (("--text", "  "), "there is no text to look at"),
        (("/does/not/exist.yaml",), "there is no inventory /does/not/exist.yaml"),
        (("inventory/lab.yaml", "--text", "x"), "--text looks at no host"),
        (("--text", "x", "-l", "gpu01"), "hosts were named, and no inventory"),
    ],
)
def test_bad_input(words: tuple[str, ...], said: str) -> None:
    done = call(*words)
    assert done.returncode == 5
    assert said in done.stderr
    assert "hint: " in done.stderr
    assert done.stdout == ""


def test_of_a_long_log_the_end_is_read() -> None:
    filler = b"nothing to see on this line, it is only here to be long\n" * 200_000
    done = call(stdin=MISMATCH.encode() + b"\n" + filler + b"nvcc: command not found\n\xff\xfe\n")
    assert done.returncode == 3
    assert "only the last 4 MiB" in done.stderr
    assert "nvcc-missing" in done.stdout
    assert "driver-version-mismatch" not in done.stdout


def test_a_terminal_without_anything_to_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    assert main(["doctor"]) == 5
    assert "nothing on standard input" in capsys.readouterr().err
