"""The reasoning as text."""

from __future__ import annotations

from gpuprov.stack import explain
from tests.stack.conftest import refusal, stack


def test_every_part_has_its_reason() -> None:
    want = {"cuda": "12.8", "cudnn": "auto", "nccl": "latest", "dcgm": "4.5.2"}
    lines = explain(stack({"gpus": ["H100"], "os": "ubuntu 24.04", "nvswitches": 4}, want)).splitlines()
    for line in (
        "  driver         580.178.04: newest build of branch 580, which the tables recommend for these GPUs, "
        "supported until 2028-06 [default_choice]",
        "  flavour        open: what NVIDIA suggests from Turing on, and all that Blackwell has [open_required]",
        "  fabricmanager  580.178.04: equal to the driver, since there are NVSwitches [fm_exact]",
        "  torch          2.15.0 cu132: the newest that fits [torch_arch]",
        "  python         3.12: the host's own [torch_python]",
        "  cuda           12.8.1: 12.8 is wanted [want]",
        "  cudnn          9.28.0.42: the newest that fits [want]",
        "  nccl           2.32.3: the newest release [want]",
        "  dcgm           4.5.2: 4.5.2 is wanted [want]",
        "  with torch     torchvision 0.29.2, torchaudio 2.11.0",
        "  tables         2026-11-23",
    ):
        assert line in lines, line
    assert any("nvidia-fabricmanager 580.178.04-*" in line for line in lines)


def test_what_is_not_chosen_has_its_reason_too() -> None:
    lines = explain(stack({"gpus": [], "os": "debian 12"})).splitlines()
    assert "  driver         none: no NVIDIA GPU (PCI 10de) [want]" in lines
    assert "  cuda           none: not wanted; torch brings its own CUDA libraries [torch_bundles]" in lines
    assert any("the CPU build, since there is no NVIDIA GPU" in line for line in lines)
    nothing = explain(stack({"gpus": ["L4"]}, {"driver": "none", "torch": "none"})).splitlines()
    assert "  driver         none: none is wanted [want]" in nothing
    assert "  torch          none: none is wanted [want]" in nothing


def test_a_kept_driver_and_warnings() -> None:
    lines = explain(stack({"gpus": ["L4"], "os": "ubuntu 24.04", "driver": "570.211.01"})).splitlines()
    assert "  driver         570.211.01: it is installed and fits everything else [kept]" in lines
    assert "  warning        driver branch 570 gets no more updates (ended: 2026-02)" in lines


def test_another_branch_than_the_recommended_one_says_so() -> None:
    text = explain(stack({"gpus": ["L4"], "os": "ubuntu 26.04"}))
    assert "595.91.07: branch 580 does not fit; the newest supported branch that does" in text


def test_a_refusal_with_and_without_a_way_out() -> None:
    lines = explain(refusal({"gpus": ["V100"], "os": "debian 13"})).splitlines()
    assert lines[0] == "  refused        repository debian13 begins with branch 590, as far as is known; 580 is older"
    assert lines[1] == "  rule           os_driver (found 580, needed branch 590 or newer)"
    assert lines[3].startswith("  instead        gpuprov_stack: {repository: distribution} gives driver 550.163.01")
    none = explain(refusal({"gpus": ["L4"], "kind": "WSL"})).splitlines()
    assert none[-1] == "  instead        nothing that the resolver tried fits this host"
