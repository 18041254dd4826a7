"""Differences between a stack and a host: each kind by itself, and none on a host that is as wanted."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gpuprov.stack.drift import Difference, differences, fits, last_applied, previous_applied

STACK: dict[str, Any] = {
    "driver": {
        "version": "580.178.04",
        "branch": 580,
        "flavour": "open",
        "packages": [
            {"name": "libnvidia-compute-580", "version": "580.178.04-*"},
            {"name": "nvidia-dkms-580-open", "version": "580.178.04-*"},
        ],
    },
    "cuda": {"version": "12.8.1", "packages": [{"name": "cuda-toolkit-12-8", "version": "12.8.1-1"}]},
    "fabricmanager": None,
    "torch": {"version": "2.14.1", "variant": "cu130"},
    "python": {"version": "3.12"},
}
SURVEY: dict[str, Any] = {
    "packages": {
        "libnvidia-compute-580": "580.178.04-1ubuntu1",
        "nvidia-dkms-580-open": "580.178.04-1ubuntu1",
        "cuda-toolkit-12-8": "12.8.1-1",
    },
    "modules": {"nvidia": {"loaded": True, "version": "580.178.04"}},
    "driver": {"version": "580.178.04"},
    "holds": ["libnvidia-compute-580", "nvidia-dkms-580-open"],
    "environments": {"/opt/gpuprov/torch": {"torch": "2.14.1+cu130"}},
    "applied": {"applied": [{"stack": {"driver": None}}, {"stack": STACK}]},
    "untold": {},
}


def changed(**more: Any) -> list[Difference]:
    survey = copy.deepcopy(SURVEY)
    for path, value in more.items():
        *way, last = path.split("__")
        place = survey
        for key in way:
            place = place[key]
        if value is KeyError:
            del place[last]
        else:
            place[last] = value
    return differences(STACK, survey)


def test_a_host_as_wanted_has_no_difference() -> None:
    assert changed() == []


def one(kind: str, **more: Any) -> Difference:
    found = changed(**more)
    assert [d.kind for d in found] == [kind], found
    return found[0]


def test_every_kind_names_both_values() -> None:
    packages = {**SURVEY["packages"], "libnvidia-compute-580": "580.126.20-1ubuntu1"}
    assert str(one("version", packages=packages)) == (
        "driver: libnvidia-compute-580: wanted 580.178.04-*, 580.126.20-1ubuntu1 is installed"
    )
    packages = {k: v for k, v in SURVEY["packages"].items() if k != "cuda-toolkit-12-8"}
    assert str(one("missing", packages=packages)).endswith("cuda-toolkit-12-8: wanted 12.8.1-1, not installed")
    assert "580.126.20 is loaded" in str(one("loaded", modules={"nvidia": {"loaded": True, "version": "580.126.20"}}))
    assert one("loaded", modules={"nvidia": {"loaded": False}}).found == "not loaded"
    assert one("version", driver={"version": "580.126.20"}).what == "libraries"
    assert "libnvidia-compute-580" in one("hold", holds=["nvidia-dkms-580-open"]).what
    assert one("version", environments={"/opt/x": {"torch": "2.13.0"}}).found == "2.13.0 is installed"
    assert one("missing", environments={"/opt/x": {}}).part == "torch"


def test_what_was_applied_last_is_compared_part_by_part() -> None:
    before = {**STACK, "driver": {**STACK["driver"], "flavour": "proprietary"}, "cuda": None}
    found = changed(applied={"applied": [{"stack": before}]})
    assert [(d.part, d.wanted, d.found) for d in found] == [
        ("driver", "580.178.04 open", "580.178.04 proprietary was applied last"),
        ("CUDA toolkit", "12.8.1", "none was applied last"),
    ]
    assert one("applied", applied=None).found == "gpuprov applied nothing here yet"


@pytest.mark.parametrize("key", ["packages", "modules", "holds", "environments", "applied"])
def test_what_could_not_be_told_is_never_as_wanted(key: str) -> None:
    found = changed(**{key: KeyError, "untold": {key: "rpm ended with status 1"}})
    assert found
    assert {d.kind for d in found} == {"unknown"}
    assert "could not be told: rpm ended with status 1" in found[0].found


def test_a_stack_without_a_driver_minds_a_loaded_one() -> None:
    found = differences({"driver": None, "torch": None}, SURVEY)
    assert [d.kind for d in found if d.part == "driver" and d.what == "kernel module"] == ["extra"]


def test_versionlock_counts_as_a_hold() -> None:
    locks = ["libnvidia-compute-580-3:580.178.04-1.el9.*", "nvidia-dkms*"]
    assert changed(holds=locks) == []


@pytest.mark.parametrize(
    ("version", "pattern", "fit"),
    [
        ("3:580.178.04-1.el9", "580.178.04-*", True),
        ("580.178.04-1", "3:580.178.04-*", False),
        ("580.178.041-1", "580.178.04-*", False),
        ("1.0", "", True),
        ("", "", False),
    ],
)
def test_patterns(version: str, pattern: str, fit: bool) -> None:
    assert fits(version, pattern) is fit


def test_records_of_odd_shape_are_no_record() -> None:
    assert [last_applied(x) for x in (None, {}, [], {"applied": [3]}, {"applied": [{"stack": 1}]})] == [None] * 5
    assert previous_applied({"applied": [{"stack": {"a": 1}}, {"stack": {}}]}) == {"a": 1}
    assert previous_applied({"applied": [{"stack": {}}]}) is None
