"""Hosts against the table: what facts and evidence show, what they do not tell, and how a fleet is shown."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpuprov.doctor.host import SOURCES, examine
from gpuprov.doctor.host import _variables as host_variables
from gpuprov.report.ink import Ink
from gpuprov.report.sickness import Patient, render
from gpuprov.templating.problem import TemplateProblem
from gpuprov.templating.renderer import Renderer
from tests.doctor.test_table import TABLE

HOSTS: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "hosts.yaml").read_text())
CASES = [(row, number, changes) for row, cases in HOSTS["rows"].items() for number, changes in enumerate(cases)]


def host(changes: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return facts and evidence of the healthy host with *changes* (path -> value)."""
    made = copy.deepcopy(HOSTS["healthy"])
    made["survey"] = made["facts"]["gpuprov"]["survey"]
    for path, value in (changes or {}).items():
        *way, last = path.split(".")
        at = made
        for key in way:
            at = at[key]
        at[last] = value
    return made["facts"], made["evidence"]


def patient(name: str, changes: dict[str, Any] | None = None) -> Patient:
    facts, evidence = host(changes)
    return Patient(name, facts, examine(TABLE, facts, evidence))


def test_a_healthy_host_has_no_findings_and_tells_everything() -> None:
    found = examine(TABLE, *host())
    assert found.findings == ()
    assert found.untold == ()


def test_every_condition_has_its_case() -> None:
    assert {row.id: len(row.host) for row in TABLE if row.host} == {row: len(c) for row, c in HOSTS["rows"].items()}


@pytest.mark.parametrize(("row", "number", "changes"), CASES, ids=[f"{row}-{number}" for row, number, _ in CASES])
def test_a_condition_finds_its_row(row: str, number: int, changes: dict[str, Any]) -> None:
    found = examine(TABLE, *host(changes))
    assert [finding.row.id for finding in found.findings] == [row]
    (evidence,) = found.findings[0].evidence
    assert evidence.source == "facts"
    assert "{{" not in evidence.line
    assert evidence.line != TABLE[row].host[number].when, "what was seen could not be said"


@pytest.mark.parametrize(("row", "number", "changes"), CASES, ids=[f"{row}-{number}" for row, number, _ in CASES])
def test_a_condition_never_takes_unknown_for_well(row: str, number: int, changes: dict[str, Any]) -> None:
    """Each fact that a condition names is taken away in turn: it must fail to be told, not be false."""
    condition = TABLE[row].host[number].when
    for root, key in set(re.findall(r"\b(survey|evidence)\.(\w+)", condition)):
        variables = copy.deepcopy(host_variables(*host(changes)))
        assert Renderer({}, variables).test(condition)
        del variables[root][key]
        with pytest.raises(TemplateProblem):
            Renderer({}, variables).test(condition)


def test_without_a_survey_nothing_of_it_counts_as_well() -> None:
    facts, evidence = host()
    del facts["gpuprov"]["survey"]
    found = examine(TABLE, facts, evidence)
    assert found.findings == ()
    (untold,) = found.untold
    assert untold.what == "no survey of this host"
    assert {"secure-boot-rejects-module", "disk-full", "apt-lock"} <= set(untold.rows)


@pytest.mark.parametrize("key", ["secure_boot", "mok_enrolled"])
def test_null_that_means_unknown_is_unknown(key: str) -> None:
    found = examine(TABLE, *host({f"survey.{key}": None}))
    assert [(one.what, one.rows) for one in found.untold] == [
        (f"survey.{key} is not known", ("secure-boot-rejects-module",))
    ]


def test_an_absent_key_of_the_survey_is_unknown() -> None:
    facts, evidence = host()
    del facts["gpuprov"]["survey"]["dpkg_broken"]
    assert [(one.what, one.rows) for one in examine(TABLE, facts, evidence).untold] == [
        ("survey.dpkg_broken is not known", ("dpkg-half-configured",))
    ]


def test_the_hosts_own_reason_is_said() -> None:
    facts, evidence = host({"survey.kernel.next": None, "survey.untold": {"kernel.next": "no boot loader is known"}})
    assert [(one.what, one.rows) for one in examine(TABLE, facts, evidence).untold] == [
        ("survey.kernel.next is not known: no boot loader is known", ("headers-missing",))
    ]


def test_package_sources_that_nobody_asked_are_not_taken_for_reachable() -> None:
    sources = [{"url": "https://mirror.example.com/cuda", "reachable": None, "error": None}]
    (untold,) = examine(TABLE, *host({"survey.repositories": sources})).untold
    assert untold.what == "survey.repositories is not known"
    assert set(untold.rows) == {"proxy-refused", "network-timeout"}


def test_a_source_that_could_not_be_asked_is_said_with_the_rows_that_need_it() -> None:
    facts, evidence = host()
    evidence["services"] = {"error": "systemd is not running"}
    evidence["kernel"] = {"error": "dmesg: read kernel buffer failed: Operation not permitted"}
    del evidence["fabric"]
    found = examine(TABLE, facts, evidence)
    said = {one.what: one.rows for one in found.untold}
    assert said["the services: systemd is not running"] == ()
    assert said["the kernel's log: dmesg: read kernel buffer failed: Operation not permitted"] == ()
    assert said["InfiniBand devices: not asked"] == ()
    assert said["evidence.services is not known"] == ("persistence-off",)


def test_lines_of_evidence_are_matched_and_joined_with_facts() -> None:
    facts, evidence = host({"facts.gpuprov.driver_version": "580.65.06"})
    evidence["nvidia_smi"] = {"lines": ["Failed to initialize NVML: Driver/library version mismatch"], "rc": 18}
    evidence["torch"] = {**evidence["torch"], "available": False, "lines": ["Found no NVIDIA driver on your system."]}
    found = examine(TABLE, facts, evidence)
    shown = {finding.row.id: finding for finding in found.findings}
    assert [e.source for e in shown["driver-version-mismatch"].evidence] == ["nvidia_smi", "facts"]
    assert shown["torch-sees-no-gpu"].because == "driver-version-mismatch"


@pytest.mark.parametrize("odd", [None, 7, "x", [], {}, {"lines": 7}, {"lines": [7, None, {}]}, {"error": {"a": 1}}])
def test_nothing_that_a_host_sends_makes_it_raise(odd: Any) -> None:
    facts, _ = host()
    examine(TABLE, facts, dict.fromkeys(SOURCES, odd))
    for key in facts["gpuprov"]["survey"]:
        examine(TABLE, *host({f"survey.{key}": odd}))
    assert examine(TABLE, {"gpuprov": odd}, {}).untold


def test_a_fleet_is_shown_by_trouble() -> None:
    mismatch = {"facts.gpuprov.driver_version": "580.65.06"}
    fleet = [patient(f"gpu{n:02}", mismatch if n < 4 else None) for n in range(1, 8)]
    fleet.append(patient("gpu08", {"survey.dpkg_broken": ["x"], "survey.secure_boot": None}))
    text = "\n".join(render(fleet, Ink(False), 120))
    assert text.startswith("gpu[01-03]  (3 hosts)\n  fail  The loaded driver and its libraries are of two versions")
    assert "| facts: loaded 580.65.06, installed 580.95.05" in text
    assert text.count("driver-version-mismatch") == 1
    assert "could not be told\n  gpu08: survey.secure_boot is not known (secure-boot-rejects-module)" in text
    assert "nothing found: gpu[04-07]  (4 hosts)" in text
    assert text.endswith("8 hosts: 4 with findings, 4 without; of 1 not everything could be told")


def test_commands_are_those_of_the_hosts_system() -> None:
    changes = {
        "facts.distribution": "Rocky",
        "facts.os_family": "RedHat",
        "survey.kernel.headers": {"6.8.0-60-generic": False},
    }
    text = "\n".join(render([patient("gpu01", changes)], Ink(False), 120))
    assert "dnf install kernel-devel-" in text
    assert "apt-get" not in text
