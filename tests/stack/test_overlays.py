"""An admin's rows over those of the tables."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from gpuprov.stack import load
from gpuprov.stack.reading import Rows, _parsed, _text
from tests.stack.conftest import refusal, stack, with_overlay

UBUNTU = {"gpus": ["L4"], "os": "ubuntu 24.04"}


def test_a_gpu_is_added() -> None:
    said, problems = with_overlay(
        "gpus: {ids: {'ffff': {name: NVIDIA X1, arch: hopper, cc: '9.0', seg: datacenter, min_branch: 580}}}"
    )
    assert problems == []
    host = {"gpus": ["ffff"], "os": "ubuntu 24.04"}
    assert refusal(host).rule == "gpu_unknown"
    assert stack(host, tables=said).driver.branch == 580  # type: ignore[union-attr]
    assert refusal(host, {"driver": "570"}, said).rule == "driver_new_gpu"
    assert stack({"gpus": ["X1"], "os": "ubuntu 24.04"}, tables=said).host["gpus"] == ["X1"]
    assert refusal(host).rule == "gpu_unknown", "gpuprov's own tables stay as they are"


def test_a_branch_is_changed_and_the_date_says_so() -> None:
    said, problems = with_overlay("driver_branches: {list: [{branch: 580, last_seen: '580.200.01'}]}")
    assert problems == []
    found = stack(UBUNTU, tables=said)
    assert found.driver is not None
    assert (found.driver.version, found.driver.branch) == ("580.200.01", 580)
    assert found.tables == "2026-11-23 with mine.yaml"
    assert load().branch(580)["last_seen"] == "580.178.04"  # type: ignore[index]


def test_a_system_and_a_release_of_torch_are_added() -> None:
    said, problems = with_overlay(
        """
        as_of: "2026-12-01"
        os: {list: [{id: mint, ver: "22", repo: ubuntu2404, family: apt, supported: true, toolkit_first: "12.5"}]}
        torch:
          releases:
            "2.16.0":
              py: ["3.12"]
              variants: {cu130: {status: default, arch: ["8.0", "9.0"]}}
        """
    )
    assert problems == []
    found = stack({"gpus": ["L4"], "os": "mint 22", "python": "3.12"}, tables=said)
    assert found.torch is not None
    assert (found.torch.version, found.torch.variant, found.torch.torchvision) == ("2.16.0", "cu130", None)
    assert found.repository is not None
    assert found.repository.name == "ubuntu2404"


WRONG = {
    "gpu: {}": ("there is no block 'gpu' to overlay; did you mean 'gpus'?", "1:1"),
    "gpus: [x]": ("gpus needs a mapping under 'ids'", "1:7"),
    "os:\n  list: {a: b}": ("os needs a list under 'list'", "2:3"),
    "os:\n  list:\n    - {id: debian}": ("a row of os needs ver", "3:7"),
    "os:\n  list:\n    - {id: mint, ver: '22'}": ("a row of os needs repo", "3:7"),
    "os: {list: [{id: debian, ver: 13}]}": ("ver: 13 is not a text in quotes", "1:26"),
    "os: {list: [{id: debian, ver: '13', drivr_first: 580}]}": (
        "rows of os have no 'drivr_first'; did you mean 'driver_first'?",
        "1:37",
    ),
    "os: {list: [{id: debian, ver: '13', driver_first: '580'}]}": ("driver_first: '580' is not a whole number", "1:51"),
    "os: {list: [{id: debian, ver: '13', supported: 1}]}": ("supported: 1 is not true or false", "1:37"),
    "toolkits: {releases: {'13.5.0': {gcc_max: true}}}": ("gcc_max: True is not a whole number", "1:34"),
    "gpus: {ids: {'ffff': {name: X1}}}": ("a row of gpus needs arch and cc", "1:22"),
    "gpus: {ids: {'ffff': {name: X1, arch: ada, cc: 8.9}}}": ("cc: 8.9 is not a text in quotes", "1:44"),
    "driver_branches: {list: [{branch: 580, last_seen: newest}]}": (
        "last_seen: 'newest' is not a version of dotted numbers",
        "1:51",
    ),
    "gpus: {ids: {'ffff': 3}}": ("a row of gpus is a mapping", "1:14"),
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_told_with_its_place(text: str) -> None:
    _, problems = with_overlay(text)
    said, place = WRONG[text]
    assert [problem.message for problem in problems] == [said]
    assert str(problems[0].position) == f"mine.yaml:{place}"


def test_an_overlay_is_a_mapping() -> None:
    _, problems = with_overlay("[a]")
    assert problems[0].message == "mine.yaml: an overlay is a mapping of blocks, not SourceList"


def test_gpus_are_read_one_by_one_as_the_file_has_them() -> None:
    whole = _parsed(_text("pci_ids.yaml"))["gpus"]["ids"]
    rows = load().rows("gpus")
    assert isinstance(rows, Rows)
    assert len(rows) == len(whole)
    fresh = Rows(_text("pci_ids.yaml"))
    assert {device: fresh[device] for device in list(whole)[::50]} == {d: whole[d] for d in list(whole)[::50]}
    assert dict(rows) == whole
    assert "zzzz" not in rows


def test_the_example_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "stack.md").read_text()
    text = page.partition("name files with rows over those of the tables")[2].partition("A row changes")[0]
    said, problems = with_overlay(textwrap.dedent(text.partition("\n\n")[2]))
    assert problems == []
    assert stack({"gpus": ["X1"], "os": "debian 13"}, {"driver": "595", "torch": "none"}, said).driver is not None
    assert stack({"gpus": ["V100"], "os": "debian 13"}, tables=said).driver.branch == 580  # type: ignore[union-attr]
