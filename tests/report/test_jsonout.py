import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuprov.errors import UsageError
from gpuprov.report.jsonout import from_json, host_from_json, to_json
from gpuprov.results import Check, HostReport, RunReport, TaskResult
from tests.report import rehearsal

LINES = st.text(st.characters(codec="utf-8"), max_size=12)
NUMBERS = st.floats(0, 1e6).map(lambda x: round(x, 3))
VALUES = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | LINES | st.lists(st.integers(0, 9), max_size=3)
OBJECTS = st.dictionaries(LINES, VALUES, max_size=3)
DIFFS = st.lists(OBJECTS.filter(bool), max_size=2).map(tuple)
PLAIN_TASKS = st.builds(
    TaskResult, id=LINES, name=LINES, action=LINES, outcome=st.sampled_from(["ok", "changed", "failed", "lost"]),
    duration_s=NUMBERS, play=LINES, role=LINES, position=LINES, item=LINES, msg=LINES, skip=LINES, hint=LINES,
    result=OBJECTS, diff=DIFFS, handler=st.booleans(),
)  # fmt: skip
TASKS = st.builds(TaskResult, LINES, LINES, LINES, st.just("ok"), items=st.lists(PLAIN_TASKS, max_size=2).map(tuple))
CHECKS = st.builds(
    Check, name=LINES, verdict=st.sampled_from(["pass", "fail", "skip"]), measured=VALUES, expected=VALUES, unit=LINES,
    reason=LINES, device=LINES, action=st.sampled_from(["none", "reboot"]), duration_s=NUMBERS,
    simulated=st.booleans(), data=OBJECTS,
)  # fmt: skip
HOSTS = st.builds(
    HostReport, host=LINES, outcome=st.sampled_from(["ok", "failed", "unreachable"]), address=LINES, cause=LINES,
    hint=LINES, tasks=st.lists(PLAIN_TASKS | TASKS, max_size=2).map(tuple),
    checks=st.lists(CHECKS, max_size=2).map(tuple),
    verdict=st.sampled_from(["", "pass", "fail"]), facts=OBJECTS, expected_gpus=st.none() | st.integers(0, 8),
    found_gpus=st.none() | st.integers(0, 8), started_at=NUMBERS, duration_s=NUMBERS, simulated=st.booleans(),
    warnings=st.lists(LINES, max_size=2).map(tuple),
)  # fmt: skip
RUNS = st.builds(
    RunReport, run=LINES, command=LINES, inventory=LINES, playbook=LINES, hosts=st.lists(HOSTS, max_size=2).map(tuple),
    started_at=NUMBERS, duration_s=NUMBERS, check=st.booleans(), options=OBJECTS, version=LINES,
    warnings=st.lists(LINES, max_size=2).map(tuple),
)  # fmt: skip


@given(RUNS)
def test_a_report_survives_json(report: RunReport) -> None:
    assert from_json(json.loads(json.dumps(to_json(report)))) == report


def test_what_other_programs_need_is_spelled_out() -> None:
    document = to_json(rehearsal.report(24))
    assert (document["schema"], document["state"], document["exit_code"]) == (1, "finished", 6)
    by_name = {h["host"]: h for h in document["hosts"]}
    assert by_name["gpu06"]["outcome"] == "failed"
    assert by_name["gpu06"]["exit_code"] == 2
    assert by_name["gpu04"]["verdict"] == "fail"
    assert by_name["gpu01"]["totals"]["changed"] == 11
    assert by_name["gpu01"]["coverage"] == "checks: 4 of 8 ran, 4 skipped: no NVIDIA GPU (PCI 10de)"


def test_fields_of_newer_versions_are_ignored() -> None:
    document = {"host": "a", "outcome": "ok", "colour": "blue", "checks": [{"name": "x", "verdict": "pass", "new": 1}]}
    assert host_from_json(document).checks == (Check("x", "pass"),)


@pytest.mark.parametrize("schema", [None, 2, "1"])
def test_another_schema_is_refused(schema: object) -> None:
    with pytest.raises(UsageError, match=r"reads schema 1"):
        from_json({**to_json(rehearsal.report(1)), "schema": schema})


@pytest.mark.parametrize("damage", [{"hosts": [{"outcome": "ok"}]}, {"hosts": None}, {"hosts": [7]}])
def test_a_damaged_report_is_one_sentence(damage: dict) -> None:
    with pytest.raises(UsageError, match="the report is damaged"):
        from_json({**to_json(rehearsal.report(1)), **damage})
