"""The resolver against the tables' own cases, and what they do not say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gpuprov.stack import Refusal, Stack, explain, host_from_short, load, resolve, want_from

if TYPE_CHECKING:
    from gpuprov.errors import Problem

CASES = load().blocks["cases"]["list"]
#: What a case's refusal has to be about, in the order of the cases; None for an accepted one.
RULES = [
    "torch_python",
    "os_driver",
    None,
    "torch_driver",
    "driver_new_gpu",
    "driver_new_gpu",
    "torch_arch",
    "driver_new_gpu",
    "driver_old_gpu",
    "secure_boot",
    "repo_system",
    "ubuntu_570_stub",
    "os_toolkit",
    "torch_arch",
    "gpu_unknown",
]


def answer(host: dict[str, Any], want: dict[str, Any] | None = None) -> Stack | Refusal:
    problems: list[Problem] = []
    found = resolve(want_from(want or {}, problems), host_from_short(load(), host, problems), load())
    assert problems == []
    return found


def stack(host: dict[str, Any], want: dict[str, Any] | None = None) -> Stack:
    found = answer(host, want)
    assert isinstance(found, Stack), explain(found)
    return found


@pytest.mark.parametrize(("case", "rule"), list(zip(CASES, RULES, strict=True)), ids=[c["expect"][:60] for c in CASES])
def test_the_tables_cases(case: dict[str, Any], rule: str | None) -> None:
    found = answer(case["host"], case["want"])
    assert isinstance(found, Stack) == (case["verdict"] == "accept")
    if isinstance(found, Refusal):
        assert found.rule == rule
        assert found.tables == "2026-11-23"
        assert found.message
        for other in found.alternatives:
            again = resolve(other.want, host_from_short(load(), case["host"], []), load())
            assert again == other.stack


def test_refusals_have_the_way_out_that_the_cases_name() -> None:
    found = answer(CASES[0]["host"], CASES[0]["want"])
    assert isinstance(found, Refusal)
    ways = [(o.stack.torch.version, o.stack.torch.variant, o.stack.python.managed) for o in found.alternatives]  # type: ignore[union-attr]
    assert ways[:2] == [("2.14.1", "cu130", False), ("2.15.0", "cu132", True)]


def test_an_old_and_a_newer_gpu_share_proprietary_modules_and_one_wheel() -> None:
    found = stack({"gpus": ["V100", "A100"]})
    assert found.driver is not None
    assert (found.driver.branch, found.driver.flavour) == (580, "proprietary")
    assert found.torch is not None
    assert found.torch.variant == "cu126"


def test_old_and_blackwell_cannot_share_a_host() -> None:
    found = answer({"gpus": ["V100", "B200"]})
    assert isinstance(found, Refusal)
    assert found.rule == "mixed_impossible"


def test_fabric_manager_where_there_are_switches_and_nowhere_else() -> None:
    host = {"gpus": ["H100"], "os": "ubuntu 24.04"}
    found = stack({**host, "nvswitches": 4})
    assert found.driver is not None
    assert found.fabricmanager is not None
    assert found.fabricmanager.version == found.driver.version
    assert {p.version for p in found.fabricmanager.packages} == {found.driver.version + "-*"}
    assert stack(host).fabricmanager is None
    for wish, rule in (("none", "fm_needed"), ("580.95.05", "fm_exact")):
        refused = answer({**host, "nvswitches": 4}, {"fabricmanager": wish})
        assert isinstance(refused, Refusal)
        assert refused.rule == rule
        assert refused.alternatives


def test_a_driver_that_is_installed_and_fits_stays() -> None:
    host = {"gpus": ["L40S"], "os": "ubuntu 24.04", "driver": "580.95.05"}
    kept = stack(host)
    assert kept.driver is not None
    assert (kept.driver.version, kept.driver.packages) == ("580.95.05", ())
    chosen = stack(host, {"driver": "auto"})
    assert chosen.driver is not None
    assert chosen.driver.version == "580.178.04"
    assert {p.version for p in chosen.driver.packages if p.name != "nvidia-driver-pinning-580"} == {"580.178.04-*"}


def test_a_host_without_gpu_gets_the_cpu_build_and_no_driver_unless_it_is_asked_for() -> None:
    found = stack({"gpus": [], "os": "debian 12"})
    assert found.driver is None
    assert found.torch is not None
    assert found.torch.variant == "cpu"
    asked = stack({"gpus": [], "os": "debian 12"}, {"driver": "535", "repository": "distribution", "cuda": "11.8"})
    assert asked.driver is not None
    assert asked.driver.version == "535.309.01"
    assert asked.cuda is not None
    assert [p.name for p in asked.cuda.packages] == ["nvidia-cuda-toolkit"]
    refused = answer({"gpus": [], "os": "debian 12"}, {"torch_variant": "cu130"})
    assert isinstance(refused, Refusal)
    assert refused.rule == "torch_no_gpu"


def test_el_has_a_module_stream_where_there_are_modules() -> None:
    streams = {}
    for system in ("rocky 8", "almalinux 9", "rhel 10"):
        found = stack({"gpus": ["L4"], "os": system, "python": "3.11"})
        assert found.driver is not None
        streams[system] = found.driver.module_stream
        assert [p.name for p in found.driver.packages][:2] == ["nvidia-driver-cuda", "kmod-nvidia-open-dkms"]
    assert streams == {
        "rocky 8": "nvidia-driver:580-open",
        "almalinux 9": "nvidia-driver:580-open",
        "rhel 10": "",
    }


@pytest.mark.parametrize(
    ("kernel", "fits"), [("6.8.0-45-generic", True), ("7.0.0-31-generic", True), ("7.1.2", True), ("3.10.0", False)]
)
def test_the_kernel_that_boots_next_decides(kernel: str, fits: bool) -> None:
    found = answer({"gpus": ["L4"], "os": "ubuntu 24.04", "kernel": kernel})
    assert isinstance(found, Stack) is fits
    old = answer({"gpus": ["L4"], "os": "ubuntu 24.04", "kernel": "7.0.0-31"}, {"driver": "580.126.16"})
    assert isinstance(old, Refusal)
    assert old.rule == "kernel_driver"


def test_systems_that_are_not_ours_are_refused_by_name() -> None:
    found = answer({"gpus": ["T4"], "os": "ubuntu 24.04", "kind": "WSL"})
    assert isinstance(found, Refusal)
    assert (found.rule, found.alternatives) == ("os_kind", ())
    assert "WSL" in found.message


def test_a_container_has_no_driver_of_its_own() -> None:
    host = {"gpus": ["T4"], "os": "ubuntu 24.04", "kind": "container"}
    found = answer(host)
    assert isinstance(found, Refusal)
    assert found.rule == "os_kind"
    assert stack(host, {"driver": "none"}).driver is None
    assert stack({**host, "driver": "580.95.05"}).driver is not None


def test_a_runfile_driver_is_not_mixed_with_packages() -> None:
    host = {"gpus": ["L4"], "os": "ubuntu 24.04", "driver": "580.95.05", "driver_by": "runfile"}
    assert stack(host).driver is not None
    refused = answer(host, {"driver": "auto"})
    assert isinstance(refused, Refusal)
    assert refused.rule == "runfile_conflict"


def test_wrong_wishes_are_told_all_at_once() -> None:
    problems: list[Problem] = []
    want_from({"torc": "2.9", "flavour": "closed", "driver": "newest", "cuda": None}, problems)
    assert [p.message.split(";")[0] for p in problems] == [
        "there is no key 'torc'",
        "gpuprov_stack: flavour: 'closed' is not auto, open or proprietary",
        "gpuprov_stack: driver: 'newest' is not auto, latest, none, a branch such as 580, or a version",
    ]
    want_from(["x"], problems)
    assert "is a mapping" in problems[-1].message
