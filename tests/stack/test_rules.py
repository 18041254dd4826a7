"""Every rule of the tables: a host that breaks it and nothing else, or why nothing can."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from gpuprov.stack import Refusal, load
from tests.stack.conftest import answer, refusal, stack, with_overlay

RULES = {row["id"]: row for row in load().blocks["rules"]["list"]}

UBUNTU: dict[str, Any] = {"gpus": ["L4"], "os": "ubuntu 24.04"}
ROCKY: dict[str, Any] = {"gpus": ["A100"], "os": "rocky 9", "python": "3.12"}
HGX: dict[str, Any] = {"gpus": ["H100"], "os": "ubuntu 24.04", "nvswitches": 4}


class Breaks(NamedTuple):
    """A host and a wish that break one rule; with `mended` over them, they break none."""

    host: dict[str, Any]
    want: dict[str, Any]
    mended: dict[str, Any]
    mends: str = "want"


REFUSED = {
    "minor_compat": Breaks(
        {"gpus": ["L4"], "driver": "535.183.01", "os": "ubuntu 24.04"},
        {"cuda": "13.0", "torch_variant": "cu126", "torch": "2.9"},
        {"cuda": "12.8"},
    ),
    "toolkit_arch": Breaks({"gpus": ["B200"], "os": "ubuntu 24.04"}, {"cuda": "12.6"}, {"cuda": "12.8"}),
    "cuda13_old_gpu": Breaks({"gpus": ["V100"], "os": "ubuntu 24.04"}, {"cuda": "13.0"}, {"cuda": "12.9"}),
    "driver_old_gpu": Breaks({"gpus": ["V100"], "os": "ubuntu 24.04"}, {"driver": "595"}, {"driver": "580"}),
    "driver_new_gpu": Breaks({"gpus": ["B300"]}, {"driver": "570.211.01"}, {"driver": "580"}),
    "open_required": Breaks({"gpus": ["B200"]}, {"flavour": "proprietary"}, {"flavour": "auto"}),
    "open_impossible": Breaks({"gpus": ["V100"]}, {"flavour": "open"}, {"flavour": "auto"}),
    "mixed_impossible": Breaks({"gpus": ["V100", "B200"]}, {}, {"gpus": ["V100", "A100"]}, "host"),
    "r615_no_proprietary": Breaks(UBUNTU, {"driver": "615", "flavour": "proprietary"}, {"flavour": "open"}),
    "torch_arch": Breaks({"gpus": ["RTX 5090"]}, {"torch": "2.6.0 cu124"}, {"torch": "2.7.0 cu128"}),
    "torch_driver": Breaks(
        {"gpus": ["RTX 4090"], "driver": "535.183.01"}, {"torch_variant": "cu130"}, {"torch_variant": "cu126"}
    ),
    "torch_python": Breaks({"gpus": ["T4"], "python": "3.10"}, {"torch": "2.15"}, {"torch": "2.14"}),
    "torch_glibc": Breaks({"gpus": ["T4"], "glibc": "2.27", "python": "3.10"}, {"torch": "2.7"}, {"torch": "2.5"}),
    "fm_exact": Breaks(HGX, {"fabricmanager": "580.95.05"}, {"driver": "580.95.05"}),
    "fm_needed": Breaks(HGX, {"fabricmanager": "none"}, {"fabricmanager": "auto"}),
    "fm_absent": Breaks(UBUNTU, {"fabricmanager": "580.178.04"}, {"fabricmanager": "auto"}),
    "secure_boot": Breaks({**UBUNTU, "secure_boot": True}, {}, {"mok_enrolled": True}, "host"),
    "kernel_driver": Breaks({**UBUNTU, "kernel": "7.0.0-31-generic"}, {"driver": "580.126.16"}, {"driver": "580.142"}),
    "os_toolkit": Breaks({"gpus": ["L4"], "os": "debian 13"}, {"cuda": "13.0"}, {"cuda": "13.1"}),
    "repo_mix": Breaks(
        {**UBUNTU, "driver": "580.95.05", "driver_origin": "distribution"},
        {"driver": "580.178.04"},
        {"repository": "distribution"},
    ),
    "ubuntu_570_stub": Breaks(
        UBUNTU,
        {"driver": "570.211.01", "repository": "distribution", "torch_variant": "cu128"},
        {"driver": "580.95.05"},
    ),
    "runfile_conflict": Breaks(
        {**UBUNTU, "driver": "580.95.05", "driver_by": "runfile"}, {"driver": "auto"}, {"driver": "none"}
    ),
    "os_driver": Breaks({"gpus": ["L4"], "os": "ubuntu 26.04"}, {"driver": "580"}, {"driver": "595"}),
    "os_unknown": Breaks({**UBUNTU, "os": "mint 22"}, {}, {"os": "ubuntu 24.04"}, "host"),
    "os_unsupported": Breaks({**UBUNTU, "os": "fedora 42", "python": "3.12"}, {}, {"os": "rocky 9"}, "host"),
    "os_arch": Breaks({**UBUNTU, "os": "debian 13", "arch": "aarch64"}, {}, {"arch": "x86_64"}, "host"),
    "os_kind": Breaks({**UBUNTU, "kind": "WSL"}, {}, {"kind": None}, "host"),
    "repo_system": Breaks({"gpus": ["A100"], "os": "debian 13"}, {"repository": "debian12"}, {"repository": "auto"}),
    "gpu_unknown": Breaks({**UBUNTU, "gpus": ["ffff"]}, {}, {"gpus": ["27b8"]}, "host"),
    "gpu_unsupported": Breaks({**UBUNTU, "gpus": ["Tesla K80"]}, {}, {"gpus": ["P100"]}, "host"),
    "driver_unknown": Breaks(UBUNTU, {"driver": "600"}, {"driver": "595"}),
    "torch_unknown": Breaks(UBUNTU, {"torch": "2.99"}, {"torch": "2.9"}),
    "torch_no_gpu": Breaks({"gpus": [], "os": "debian 12"}, {"torch_variant": "cu130"}, {"torch_variant": "cpu"}),
    "toolkit_unknown": Breaks(UBUNTU, {"cuda": "12.7"}, {"cuda": "12.8"}),
    "toolkit_gcc": Breaks({**UBUNTU, "gcc": "15.2.0"}, {"cuda": "12.9"}, {"cuda": "13.1"}),
    "library_unknown": Breaks(
        {"gpus": ["L4"], "os": "ubuntu 22.04", "gcc": "11.4"}, {"nccl": "auto", "cuda": "11.8"}, {"nccl": "2.21.5"}
    ),
}
WARNED = {
    "ptx_jit": (UBUNTU, {"cuda": "13.2", "driver": "580"}),
    "eol_branch": ({**UBUNTU, "driver": "570.211.01"}, {}),
}
#: Rules that no input breaks.
HOLDS = {
    "backward_compat": "it allows something",
    "mixed_old_mid": "it says what to choose, and drivers are chosen so: test_an_old_and_a_newer_gpu_share...",
    "torch_arm_pypi": "the index of the variant is always named, PyPI's wheels are never meant",
    "torch_bundles": "a reason for having no toolkit",
    "peermem_dmabuf": "RDMA is no wish of a stack",
    "dcgm_major": "nobody can wish for the CUDA that DCGM is for; it is chosen by the oldest GPU",
    "forward_compat": "cuda-compat packages are never chosen",
}


def test_every_rule_is_here_once() -> None:
    assert sorted([*REFUSED, *WARNED, *HOLDS]) == sorted(RULES)


@pytest.mark.parametrize("rule", REFUSED)
def test_a_rule_refuses(rule: str) -> None:
    assert RULES[rule]["sev"] == "refuse"
    host, want, mended, mends = REFUSED[rule]
    found = refusal(host, want)
    assert found.rule == rule
    assert found.found
    assert found.needed
    assert found.source == RULES[rule]["src"]
    stack({**host, **mended} if mends == "host" else host, {**want, **mended} if mends == "want" else want)


@pytest.mark.parametrize("rule", [rule for rule in REFUSED if rule != "os_kind"])
def test_a_refusal_has_a_way_out_that_fits(rule: str) -> None:
    host, want, *_ = REFUSED[rule]
    found = refusal(host, want)
    assert found.alternatives
    for other in found.alternatives:
        assert answer(host, other.want.to_json()) == other.stack


@pytest.mark.parametrize("rule", WARNED)
def test_a_rule_warns(rule: str) -> None:
    assert RULES[rule]["sev"] == "warn"
    words = {"ptx_jit": "PTX of CUDA 13.2", "eol_branch": "gets no more updates"}
    assert any(words[rule] in text for text in stack(*WARNED[rule]).warnings)


def test_a_toolkit_whose_gcc_limit_is_not_known_is_not_taken() -> None:
    found = refusal(UBUNTU, {"cuda": "13.5"})
    assert found.rule == "toolkit_gcc"
    assert "not known" in found.message
    assert stack(UBUNTU, {"cuda": "auto"}).cuda.version == "13.4.3"  # type: ignore[union-attr]
    said, problems = with_overlay("toolkits: {releases: {'13.5.0': {gcc_max: 16}}}")
    assert problems == []
    assert stack(UBUNTU, {"cuda": "13.5"}, said).cuda.version == "13.5.0"  # type: ignore[union-attr]
    assert refusal({**UBUNTU, "gcc": "17.1"}, {"cuda": "13.5"}, said).rule == "toolkit_gcc"


def test_a_compiler_that_is_too_new_is_told_with_the_way_out() -> None:
    found = refusal({**UBUNTU, "gcc": "15.2.0"}, {"cuda": "12.9"})
    assert found.message.startswith("nvcc of CUDA 12.9.1 takes gcc 14 or older, and the host has 15.2.0; NVCC_CCBIN=")
    assert [one.stack.cuda.version for one in found.alternatives][:1] == ["13.4.3"]  # type: ignore[union-attr]


def test_the_distributions_toolkit_has_its_compiler_in_the_same_archive() -> None:
    found = stack({"gpus": [], "os": "debian 12"}, {"driver": "535", "repository": "distribution", "cuda": "11.8"})
    assert any("g++-11" in text for text in found.warnings)


def test_debian_13_is_not_known_to_carry_580() -> None:
    host = {"gpus": ["V100"], "os": "debian 13"}
    found = refusal(host)
    assert (found.rule, found.needed) == ("os_driver", "branch 590 or newer")
    assert found.alternatives[0].want.repository == "distribution"
    assert stack({**host, "gpus": ["A100"]}).driver.branch == 595  # type: ignore[union-attr]
    said, _ = with_overlay("os: {list: [{id: debian, ver: '13', driver_first: 580}]}")
    assert stack(host, tables=said).driver.branch == 580  # type: ignore[union-attr]


@pytest.mark.parametrize("system", ["sles 15", "opensuse-leap 16", "amzn 2023", "azurelinux 3", "fedora 42"])
def test_systems_without_a_procedure_are_refused_before_anything_else(system: str) -> None:
    host = {"gpus": ["L4"], "os": system, "python": "3.6"}
    for want in ({}, {"driver": "none", "cuda": "12.8"}, {"torch": "2.99"}, {"torch": "none", "nccl": "auto"}):
        assert refusal(host, want).rule == "os_unsupported"
    kept = stack({**host, "driver": "580.95.05", "python": "3.11"})
    assert kept.driver is not None
    assert kept.driver.packages == ()


@pytest.mark.parametrize("system", ["ubuntu 20.04", "debian 11"])
def test_systems_past_their_support(system: str) -> None:
    assert "past its support" in refusal({"gpus": ["L4"], "os": system}).message


@pytest.mark.parametrize("gpus", [["ffff"], ["Tesla K80"], ["V100", "B200"], ["L4", "ffff"]])
def test_a_gpu_that_cannot_be_served_is_left_alone(gpus: list[str]) -> None:
    for want in ({}, {"cuda": "12.8", "nccl": "auto"}, {"torch": "2.99", "python": "3.6"}):
        found = refusal({"gpus": gpus, "os": "ubuntu 24.04"}, want)
        other = found.alternatives[-1]
        assert other.want.torch_variant == "cpu"
        assert other.want.driver == "none"
        assert other.stack.driver is None
        assert other.stack.torch is not None
        assert other.stack.torch.variant == "cpu"
    assert isinstance(answer({"gpus": gpus}, {"driver": "none"}), Refusal)


def test_a_cuda_build_needs_a_driver() -> None:
    found = refusal(UBUNTU, {"driver": "none"})
    assert (found.rule, found.found) == ("torch_driver", "none")
    assert found.alternatives[0].want.driver == "auto"


def test_a_fabric_manager_of_which_nobody_knows_whether_it_is_needed() -> None:
    from dataclasses import replace

    from gpuprov.stack import Stack, host_from_short, resolve, want_from

    host = replace(host_from_short(load(), {"gpus": ["B200"], "os": "ubuntu 24.04"}, []), nvlink5=None)
    found = resolve(want_from({}, []), host, load())
    assert isinstance(found, Refusal)
    assert found.rule == "fm_needed"
    assert "could not be told" in found.message
    without = resolve(want_from({"fabricmanager": "none"}, []), host, load())
    assert isinstance(without, Stack)
    assert any("could not be told" in text for text in without.warnings)
    h100 = replace(host_from_short(load(), {"gpus": ["2330"], "os": "ubuntu 24.04"}, []), nvlink5=None)
    assert isinstance(resolve(want_from({}, []), h100, load()), Stack)
