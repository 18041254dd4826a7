"""The table of symptoms: complete rows, and for each of them what people paste."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from gpuprov.doctor.match import commands_for, diagnose, systems
from gpuprov.doctor.table import FILES, FOLDER, SYSTEMS, Table, table_of
from gpuprov.load.marks import load_text, load_yaml
from gpuprov.templating.names import condition_names, text_names

if TYPE_CHECKING:
    from gpuprov.errors import Problem

HERE = Path(__file__).parent
SAMPLES: dict[str, list[str]] = yaml.safe_load((HERE / "samples.yaml").read_text())
HEALTHY = (HERE / "healthy.txt").read_text().splitlines()
#: What templates and conditions of a row may name, besides the groups of its patterns.
HOST_NAMES = {"facts", "gpuprov", "survey", "evidence"}


def loaded() -> Table:
    problems: list[Problem] = []
    table = table_of((load_yaml(os.path.join(FOLDER, f"{name}.yaml"), problems) for name in FILES), problems)
    assert problems == []
    return table


TABLE = loaded()


def test_every_file_of_the_folder_is_read() -> None:
    assert sorted(FILES) == sorted(path.stem for path in Path(FOLDER).glob("*.yaml"))
    assert len(TABLE) >= 50


def test_every_row_has_a_sample_and_every_sample_a_row() -> None:
    assert set(SAMPLES) == {row.id for row in TABLE}


@pytest.mark.parametrize(("row", "text"), [(row, text) for row, texts in SAMPLES.items() for text in texts])
def test_a_sample_is_given_to_its_row_first(row: str, text: str) -> None:
    found = diagnose(TABLE, text.splitlines())
    assert [finding.row.id for finding in found] == [row]
    assert all(finding.evidence for finding in found)


@pytest.mark.parametrize("line", HEALTHY)
def test_healthy_lines_mean_nothing(line: str) -> None:
    assert [finding.row.id for finding in diagnose(TABLE, [line])] == []


def test_healthy_lines_mean_nothing_together() -> None:
    assert diagnose(TABLE, HEALTHY) == []


@pytest.mark.parametrize("row", TABLE.rows, ids=lambda row: row.id)
def test_a_row_is_complete(row: Any) -> None:
    assert not row.title.endswith(".")
    assert row.cause.endswith((".", "}")), row.cause
    assert "any" in row.fix or set(row.fix) >= {"debian", "redhat"}, "somebody is left without a command"
    groups = {name for pattern in row.patterns for name in pattern.groupindex}
    for template in (row.cause, *row.check, *(text for texts in row.fix.values() for text in texts)):
        assert text_names(template).all <= groups, template
        assert not text_names(template).needed, f"{template}: what a pattern may not have found needs a default"
    for condition in row.host:
        assert condition_names(condition.when).all <= HOST_NAMES, condition.when
        assert text_names(condition.seen).all <= HOST_NAMES, condition.seen


@pytest.mark.parametrize("row", TABLE.rows, ids=lambda row: row.id)
def test_what_a_log_says_cannot_become_a_command(row: Any) -> None:
    """A named group takes plain words at most, whatever its pattern lets through."""
    for text in SAMPLES[row.id]:
        for line in text.splitlines():
            evil = re.sub(r"\d", "$(id)", line)
            for finding in diagnose(TABLE, [evil]):
                own = {c.replace("$(uname -r)", "") for texts in finding.row.fix.values() for c in texts}
                made = {c.replace("$(uname -r)", "") for texts in finding.fix.values() for c in texts}
                assert not {c for c in made if "$(id)" in c} - own


def test_commands_are_for_the_hosts_own_system() -> None:
    row = TABLE["open-modules-required"]
    ubuntu = systems({"distribution": "Ubuntu", "os_family": "Debian"})
    assert commands_for(row.fix, ubuntu) == row.fix["ubuntu"]
    assert commands_for(row.fix, systems({"distribution": "Debian", "os_family": "Debian"})) == row.fix["debian"]
    assert commands_for(row.fix, systems({"distribution": "Rocky", "os_family": "RedHat"})) == row.fix["redhat"]
    assert commands_for(row.fix, systems({"distribution": "Alpine"})) == row.fix["any"]
    assert {system for row in TABLE for system in row.fix} <= set(SYSTEMS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 7", "a row is a mapping"),
        ("{a: 1}", "a file of symptoms is a list of rows"),
        ("- {id: a}", "the row lacks title"),
        ("- {id: a, colour: red}", "colour is no key of a row"),
    ],
)
def test_a_broken_row_is_named_with_its_place(text: str, said: str) -> None:
    problems: list[Problem] = []
    table_of([load_text(text, "x.yaml", problems)], problems)
    assert any(said in problem.message for problem in problems), problems
    assert all(problem.position is not None and problem.position.path == "x.yaml" for problem in problems)


GOOD = "id: a, title: T, severity: fail, cause: C., check: [c], fix: [f], sources: [s]"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (f"{{{GOOD}, patterns: ['(']}}", "not a regular expression"),
        (f"{{{GOOD}, patterns: ['x*']}}", "matches everything"),
        (f"{{{GOOD}}}", "needs patterns or host"),
        (f"{{{GOOD}, patterns: [x], explains: [b]}}", "which is no other row"),
        (f"{{{GOOD.replace('fail', 'bad')}, patterns: [x]}}", "severity is fail or warn"),
        (f"{{{GOOD.replace('[f]', '{mars: [f]}')}, patterns: [x]}}", "fix is a list of commands"),
        (f"{{{GOOD.replace('[c]', 'c')}, patterns: [x]}}", "check is a list of texts"),
    ],
)
def test_mistakes_in_rows(row: str, said: str) -> None:
    problems: list[Problem] = []
    table_of([load_text(f"- {row}", "x.yaml", problems)], problems)
    assert [said in problem.message for problem in problems] == [True], problems


def test_a_cause_explains_its_consequences() -> None:
    log = [
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
        "Error! Your kernel headers for kernel 6.1.0-28-amd64 cannot be found at /lib/modules/6.1.0-28-amd64/build",
        "dpkg: error processing package nvidia-kernel-dkms (--configure):",
        "RuntimeError: CUDA out of memory. Tried to allocate 2 GiB",
    ]
    found = diagnose(TABLE, log)
    assert [(f.row.id, f.because) for f in found] == [
        ("headers-missing", ""),
        ("cuda-out-of-memory", ""),
        ("smi-cannot-communicate", "headers-missing"),
        ("dpkg-half-configured", "headers-missing"),
    ]
    assert "apt-get install linux-headers-6.1.0-28-amd64" in found[0].fix["debian"]


def test_the_same_line_a_thousand_times_is_one_line_of_evidence() -> None:
    line = "NVRM: Xid (PCI:0000:41:00): 79, pid=1, GPU has fallen off the bus."
    found = diagnose(TABLE, [f"[{n}.000] {line}" for n in range(1000)])
    assert [(e.line, e.times) for e in found[0].evidence] == [(f"[0.000] {line}", 1000)]
    many = diagnose(TABLE, [f"NVRM: Xid (PCI:0000:{n:02x}:00): 79, x" for n in range(40)])
    assert (len(many[0].evidence), many[0].more) == (5, 35)


def test_commands_of_gpuprov_exist_with_their_tags_and_settings() -> None:
    from gpuprov.cli.main import COMMANDS

    root = Path(FOLDER).parents[2]
    site = yaml.safe_load((root / "playbooks/site.yaml").read_text())
    tags = {tag for play in site for role in play["roles"] for tag in role["tags"]}
    settings = "\n".join(path.read_text() for path in (root / "playbooks/roles").glob("*/*/main.yaml"))
    for row in TABLE:
        for command in (*row.check, *(text for texts in row.fix.values() for text in texts)):
            for found in re.finditer(r"\bgpuprov ([a-z]+) (?:INVENTORY|<|--)", command):
                assert found[1] in COMMANDS, command
            for found in re.finditer(r"\bgpuprov apply INVENTORY -t ([a-z]+)", command):
                assert found[1] in tags, command
            for found in re.finditer(r"\bgpuprov_[a-z_]+", command):
                assert found[0] in settings or found[0] == "gpuprov_stack", command
