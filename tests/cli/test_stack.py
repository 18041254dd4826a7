"""`gpuprov stack`, and the resolver as other commands use it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from gpuprov.cli.main import main
from gpuprov.cli.stacks import Chooser, chooser_for
from gpuprov.errors import EXIT_INPUT, EXIT_OK, EXIT_REFUSED, RefusedError, SourceErrors
from gpuprov.load.inventory import load_inventory

if TYPE_CHECKING:
    from pathlib import Path

    from gpuprov.errors import Problem

FACTS: dict[str, Any] = {
    "distribution": "Ubuntu",
    "distribution_version": "24.04",
    "gpuprov": {
        "gpus": [{"address": "0000:01:00.0", "device": "27b8", "class": "0302"}],
        "survey": {
            "arch": "x86_64",
            "glibc": "2.39",
            "gcc": {"version": "13.3.0"},
            "secure_boot": False,
            "nvswitches": [],
            "nvlink5_bridges": [],
            "pythons": [{"path": "/usr/bin/python3.12", "version": "3.12.3"}],
            "virtualization": {"kind": None, "container": None},
        },
    },
}
T4 = "{gpus: [T4], os: 'ubuntu 22.04', python: '3.10'}"


def test_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stack", "resolve", "--host", T4]) == EXIT_OK
    shown = capsys.readouterr().out
    assert shown.startswith("fits:\n  host       gpus Tesla T4; os ubuntu 22.04;")
    assert "  driver         580.178.04: newest build of branch 580, which the tables recommend" in shown
    assert "  torch          2.14.1 cu130: the newest that fits; 2.15.0 does not [torch_arch]" in shown
    assert "nvidia-dkms-580-open 580.178.04-*" in shown
    assert shown.endswith("  tables         2026-11-23\n")


def test_what_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stack", "resolve", "--host", T4, "--want", "{torch: latest}"]) == EXIT_REFUSED
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "nothing fits:",
        "  refused        torch 2.15.0 needs Python 3.11 to 3.15, and the host has 3.10",
        "  rule           torch_python (found 3.10, needed 3.11 to 3.15)",
    ]
    assert lines[4].startswith(
        "  instead        gpuprov_stack: {torch: auto} gives driver 580.178.04 (open kernel modules)"
    )


@pytest.mark.parametrize(("want", "verdict", "code"), [("{}", "accept", 0), ("{driver: '999'}", "refuse", 6)])
def test_json(want: str, verdict: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stack", "resolve", "--host", T4, "--want", want, "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == verdict
    if verdict == "accept":
        assert found["driver"]["branch"] == 580
        assert found["tables"] == "2026-11-23"
        assert {"part", "choice", "because", "rule"} == set(found["reasons"][0])
    else:
        assert set(found) == {
            *("verdict", "rule", "found", "needed", "message", "tables", "source", "alternatives"),
        }
        assert found["alternatives"][0]["stack"]["driver"]["branch"] == 580


def test_everything_that_is_wrong_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    host = "{gpu: [T4], os: ubuntu, python: 3.10, secure_boot: maybe, nvswitches: -1, driver_by: hand}"
    assert main(["stack", "resolve", "--host", host, "--want", "{torch: newest, flavor: open}"]) == EXIT_INPUT
    shown = capsys.readouterr().err
    for text in (
        "there is no key 'gpu'; did you mean 'gpus'?",
        "os 'ubuntu' is no name and version",
        "python: 3.1 is not a version in quotes",
        "secure_boot: 'maybe' is not true or false",
        "nvswitches: -1 is not how many there are",
        "driver_by: 'hand' is not package or runfile",
        "torch: 'newest' is not auto, latest, none or a version",
        "there is no key 'flavor'; did you mean 'flavour'?",
        "--host:1:",
    ):
        assert text in shown, text


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stack", "tables"]) == EXIT_OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tables of 2026-11-23;")
    dates = [line.split()[0] for line in lines[1:]]
    assert dates == sorted(dates, reverse=True)
    assert main(["stack", "tables", "--json"]) == EXIT_OK
    found = json.loads(capsys.readouterr().out)
    assert {"torch", "gpus", "os", "rules"} <= set(found["blocks"])
    assert all(block["as_of"] and block["source"] for block in found["blocks"].values())


def test_an_overlay_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("gpus:\n  ids:\n    'ffff': {name: NVIDIA X1, arch: ada, cc: '8.9', seg: datacenter}\n")
    asked = ["stack", "resolve", "--host", "{gpus: [ffff], os: 'ubuntu 24.04'}"]
    assert main(asked) == EXIT_REFUSED
    assert main([*asked, "--tables", str(mine)]) == EXIT_OK
    shown = capsys.readouterr().out
    assert "gpus X1;" in shown
    assert "2026-11-23 with " in shown
    mine.write_text("gpu:\n  ids: {}\nos:\n  list:\n    - {id: debian}\n")
    assert main([*asked, "--tables", str(mine)]) == EXIT_INPUT
    shown = capsys.readouterr().err
    assert "mine.yaml:1:1" in shown
    assert "there is no block 'gpu' to overlay; did you mean 'gpus'?" in shown
    assert "mine.yaml:5:7" in shown


def inventory(folder: Path, variables: str) -> tuple[Any, list[str]]:
    problems: list[Problem] = []
    path = folder / "hosts.yaml"
    path.write_text(f"all:\n  hosts: {{a: , b: }}\n  vars:\n{variables}")
    found = load_inventory(str(path), problems)
    assert problems == []
    return found, list(found.hosts)


def test_overlays_of_an_inventory_are_beside_it(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("os: {list: [{id: debian, ver: '13', driver_first: 580}]}")
    (tmp_path / "two.yaml").write_text("driver_branches: {list: [{branch: 580, last_seen: '580.200.01'}]}")
    loaded, names = inventory(tmp_path, "    gpuprov_stack_tables: [one.yaml, two.yaml]\n")
    chooser = chooser_for(loaded, names, {}, None)
    assert chooser.resolve("a", None, FACTS)["driver"]["version"] == "580.200.01"
    assert chooser.tables("a") is chooser.tables("b")
    assert "two.yaml" in chooser.tables("a").as_of
    loaded, names = inventory(tmp_path, "    gpuprov_stack_tables: one.yaml\n")
    over = chooser_for(loaded, names, {}, [str(tmp_path / "two.yaml")])
    assert over.resolve("a", None, FACTS)["driver"]["version"] == "580.200.01"


def test_what_is_wrong_is_told_before_any_connection(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("nonsense: 1\n")
    loaded, names = inventory(
        tmp_path,
        "    gpuprov_stack_tables: [one.yaml, gone.yaml]\n    gpuprov_stack: {torch: newest, cuda: '{{ x }}'}\n",
    )
    with pytest.raises(SourceErrors) as raised:
        chooser_for(loaded, names, {}, None)
    said = [problem.message for problem in raised.value.problems]
    assert len(said) == 2  # a wish with a template in it is looked at when it is known
    assert "there is no block 'nonsense' to overlay" in said[0]
    assert "gone.yaml cannot be read" in said[1]
    with pytest.raises(SourceErrors) as raised:
        chooser_for(loaded, names, {"gpuprov_stack_tables": "", "gpuprov_stack": {"torch": "newest"}}, None)
    assert [problem.message for problem in raised.value.problems] == [
        "gpuprov_stack: torch: 'newest' is not auto, latest, none or a version"
    ]
    loaded, names = inventory(tmp_path, "    gpuprov_stack_tables: {a: b}\n    gpuprov_stack: {drivr: auto}\n")
    with pytest.raises(SourceErrors) as raised:
        chooser_for(loaded, names, {}, None)
    places = [str(problem.position).rpartition("/")[2] for problem in raised.value.problems]
    assert places == ["hosts.yaml:4:27", "hosts.yaml:5:21"]


def test_a_refusal_is_the_hosts_own_and_has_the_way_out() -> None:
    chooser = Chooser()
    assert chooser.resolve("a", {"torch": "auto"}, FACTS)["torch"]["version"] == "2.15.0"
    with pytest.raises(RefusedError) as raised:
        chooser.resolve("b", {"driver": "999"}, FACTS)
    assert raised.value.exit_code == EXIT_REFUSED
    assert raised.value.message.endswith("(rule driver_unknown, tables of 2026-11-23)")
    assert raised.value.hint.startswith("instead: gpuprov_stack: {driver: auto} gives driver 580.178.04")


def test_hosts_that_are_alike_are_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import gpuprov.stack

    asked = []

    def counting(*given: Any) -> Any:
        asked.append(given)
        return resolve(*given)

    resolve = gpuprov.stack.resolve
    monkeypatch.setattr(gpuprov.stack, "resolve", counting)
    chooser = Chooser()
    answers = [chooser.answer(host, {"torch": "2.9"}, FACTS) for host in ("a", "b")]
    assert answers[0] is answers[1]
    chooser.answer("c", {}, FACTS)
    assert len(asked) == 2


def test_a_stack_that_was_given_by_hand() -> None:
    given = Chooser(given={"a": {"driver": None}})
    assert given.resolve("a", {"driver": "999"}, {}) == {"driver": None}
