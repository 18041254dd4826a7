"""`gpuprov_stack`: what is understood, and what is told of the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gpuprov.load.marks import load_text
from gpuprov.stack import Want, want_from

if TYPE_CHECKING:
    from gpuprov.errors import Problem


def read(text: str) -> tuple[Want, list[Problem]]:
    problems: list[Problem] = []
    return want_from(load_text(text, "all.yaml", problems), problems), problems


WISHES = {
    "": Want(),
    "{}": Want(),
    "{driver: 580}": Want(driver="580"),
    "{driver: 580.178.04}": Want(driver="580.178.04"),
    "{driver: any, torch: latest}": Want(driver="auto", torch="latest"),
    "{driver: 580 dkms}": Want(driver="580", flavour="auto"),
    "{driver: 580 open}": Want(driver="580", flavour="open"),
    "{driver: cuda-drivers 615}": Want(driver="615", flavour="proprietary"),
    "{driver: nvidia-open-595}": Want(driver="595", flavour="open"),
    "{driver: 570 from the Ubuntu archive}": Want(driver="570", repository="distribution"),
    "{torch: 2.12.1 cu130}": Want(torch="2.12.1", torch_variant="cu130"),
    "{torch: 2.12.1+cpu}": Want(torch="2.12.1", torch_variant="cpu"),
    "{toolkit: 12.9 with nvcc, repo: debian12}": Want(cuda="12.9", repository="debian12"),
    "{cuda: none, cudnn: None}": Want(cuda="none", cudnn="none"),
    "{cuda: no, nccl: yes}": Want(cuda="none", nccl="auto"),
    "{cuda: , python: '3.10'}": Want(python="3.10"),
    "{fabricmanager: 580.95.05, dcgm: auto, container_toolkit: none}": Want(
        fabricmanager="580.95.05", dcgm="auto", container_toolkit="none"
    ),
}


@pytest.mark.parametrize("text", WISHES)
def test_words(text: str) -> None:
    assert read(text) == (WISHES[text], [])


WRONG = {
    "{drivr: 580}": ("there is no key 'drivr'; did you mean 'driver'?", "all.yaml:1:2"),
    "{driver: newest}": (
        "gpuprov_stack: driver: 'newest' is not auto, latest, none, a branch such as 580, or a version",
        "all.yaml:1:10",
    ),
    "{flavour: closed}": ("gpuprov_stack: flavour: 'closed' is not auto, open or proprietary", "all.yaml:1:11"),
    "{cuda: 12.x}": ("gpuprov_stack: cuda: '12.x' is not auto, latest, none or a version", "all.yaml:1:8"),
    "{torch_variant: rocm6}": (
        "gpuprov_stack: torch_variant: 'rocm6' is not auto, cpu, or a CUDA variant such as cu130",
        "all.yaml:1:17",
    ),
    "{python: none}": ("gpuprov_stack: python: 'none' is not auto, or a version such as 3.12", "all.yaml:1:10"),
    "{dcgm: latest}": ("gpuprov_stack: dcgm: 'latest' is not auto, none or a version", "all.yaml:1:8"),
    "{repository: ppa/x}": (
        "gpuprov_stack: repository: 'ppa/x' is not auto, nvidia, distribution, "
        "or a repository of NVIDIA's such as debian12",
        "all.yaml:1:14",
    ),
    "{torch: 2.10}": (
        "gpuprov_stack: torch: 2.1 may have been written 2.10, which YAML reads as the same number: put it in quotes",
        "all.yaml:1:2",
    ),
    "{python: 3.10}": (
        "gpuprov_stack: python: 3.1 may have been written 3.10, which YAML reads as the same number: put it in quotes",
        "all.yaml:1:2",
    ),
    "{nccl: [1]}": ("gpuprov_stack: nccl: '[1]' is not auto, latest, none or a version", "all.yaml:1:8"),
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_told_with_its_place(text: str) -> None:
    problems = read(text)[1]
    said, place = WRONG[text]
    assert [problem.message for problem in problems] == [said]
    assert str(problems[0].position) == place


@pytest.mark.parametrize("value", [["x"], "580", 7])
def test_wishes_are_a_mapping(value: Any) -> None:
    problems: list[Problem] = []
    assert want_from(value, problems) == Want()
    assert "is a mapping such as" in problems[0].message


def test_everything_at_once() -> None:
    assert len(read("{torc: '2.9', flavour: closed, driver: newest, python: 3.9}")[1]) == 3
