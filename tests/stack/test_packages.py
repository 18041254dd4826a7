"""Exact names and versions of packages, by package manager and origin."""

from __future__ import annotations

from typing import Any

import pytest

from tests.stack.conftest import refusal, stack, with_overlay

EVERYTHING = dict.fromkeys(("cudnn", "nccl", "dcgm", "container_toolkit"), "auto")


def named(part: Any) -> list[str]:
    return [f"{package.name} {package.version}".strip() for package in part.packages]


DRIVERS = {
    "ubuntu, suffixed names": (
        {"gpus": ["L4"], "os": "ubuntu 24.04"},
        {"driver": "580.95.05"},
        [
            "nvidia-driver-pinning-580",
            "libnvidia-compute-580 580.95.05-*",
            "nvidia-utils-580 580.95.05-*",
            "nvidia-dkms-580-open 580.95.05-*",
            "nvidia-kernel-common-580 580.95.05-*",
            "nvidia-persistenced 580.95.05-*",
        ],
        ["nvidia-dkms-580"],
        "",
    ),
    "ubuntu, proprietary": (
        {"gpus": ["V100"], "os": "ubuntu 22.04"},
        {"driver": "580.95.05"},
        [
            "nvidia-driver-pinning-580",
            "libnvidia-compute-580 580.95.05-*",
            "nvidia-utils-580 580.95.05-*",
            "nvidia-dkms-580 580.95.05-*",
            "nvidia-kernel-common-580 580.95.05-*",
            "nvidia-persistenced 580.95.05-*",
        ],
        ["nvidia-dkms-580-open"],
        "",
    ),
    "ubuntu, names without a branch": (
        {"gpus": ["L4"], "os": "ubuntu 26.04"},
        {"driver": "595"},
        [
            "nvidia-driver-pinning-595",
            "libnvidia-compute 595.91.07-*",
            "nvidia-utils 595.91.07-*",
            "nvidia-dkms-open 595.91.07-*",
            "nvidia-kernel-common 595.91.07-*",
            "nvidia-persistenced 595.91.07-*",
        ],
        ["nvidia-dkms"],
        "",
    ),
    "debian": (
        {"gpus": ["L4"], "os": "debian 12"},
        {"driver": "580"},
        [
            "nvidia-driver-pinning-580",
            "nvidia-driver-cuda 580.178.04-*",
            "nvidia-kernel-open-dkms 580.178.04-*",
            "nvidia-persistenced 580.178.04-*",
        ],
        ["nvidia-kernel-dkms"],
        "",
    ),
    "el 8 has module streams": (
        {"gpus": ["V100"], "os": "almalinux 8", "python": "3.11"},
        {"driver": "580"},
        [
            "nvidia-driver-cuda 580.178.04-*",
            "kmod-nvidia-latest-dkms 580.178.04-*",
            "nvidia-persistenced 580.178.04-*",
        ],
        ["kmod-nvidia-open-dkms"],
        "nvidia-driver:580-dkms",
    ),
    "el 10 has none": (
        {"gpus": ["L4"], "os": "rocky 10"},
        {"driver": "595"},
        [
            "nvidia-driver-cuda 595.91.07-*",
            "kmod-nvidia-open-dkms 595.91.07-*",
            "nvidia-persistenced 595.91.07-*",
        ],
        ["kmod-nvidia-latest-dkms"],
        "",
    ),
    "ubuntu's own archive": (
        {"gpus": ["L4"], "os": "ubuntu 24.04", "secure_boot": True},
        {"driver": "580.95.05", "repository": "distribution"},
        [
            "nvidia-headless-no-dkms-580-server-open 580.95.05-*",
            "linux-modules-nvidia-580-server-open-generic 580.95.05-*",
            "nvidia-utils-580-server 580.95.05-*",
            "libnvidia-compute-580-server 580.95.05-*",
        ],
        [],
        "",
    ),
    "debian's own archive": (
        {"gpus": [], "os": "debian 12"},
        {"driver": "535", "repository": "distribution"},
        [
            "nvidia-kernel-dkms 535.309.01-*",
            "nvidia-kernel-support 535.309.01-*",
            "nvidia-smi 535.309.01-*",
            "libcuda1 535.309.01-*",
            "libnvidia-ml1 535.309.01-*",
            "libnvidia-cfg1 535.309.01-*",
            "nvidia-alternative 535.309.01-*",
            "libnvidia-ptxjitcompiler1 535.309.01-*",
            "firmware-nvidia-gsp 535.309.01-*",
            "nvidia-persistenced",
        ],
        ["nvidia-open-kernel-dkms", "nvidia-open-kernel-support"],
        "",
    ),
}


@pytest.mark.parametrize("name", DRIVERS)
def test_drivers(name: str) -> None:
    host, want, packages, conflicts, stream = DRIVERS[name]
    driver = stack(host, {"flavour": "open", **want} if "ubuntu's own" in name else want).driver
    assert driver is not None
    assert named(driver) == packages
    assert list(driver.conflicts) == conflicts
    assert driver.module_stream == stream
    assert [package for package in driver.packages if package.version] == list(driver.pin), (
        "every sub-package is pinned"
    )


PARTS = {
    "ubuntu": (
        {"gpus": ["L4"], "os": "ubuntu 24.04"},
        ["cuda-toolkit-13-0 13.0.3-*"],
        ["libcudnn9-cuda-13 9.28.1.4-*", "libcudnn9-dev-cuda-13 9.28.1.4-*", "libcudnn9-headers-cuda-13 9.28.1.4-*"],
        ["libnccl2 2.32.3-1+cuda13.*", "libnccl-dev 2.32.3-1+cuda13.*"],
        ["datacenter-gpu-manager-4-cuda13 1:4.*", "datacenter-gpu-manager-4-core 1:4.*"],
    ),
    "el": (
        {"gpus": ["L4"], "os": "rocky 9", "python": "3.12"},
        ["cuda-toolkit-13-0 13.0.3-*"],
        ["libcudnn9-cuda-13 9.28.1.4-*", "libcudnn9-devel-cuda-13 9.28.1.4-*", "libcudnn9-headers-cuda-13 9.28.1.4-*"],
        ["libnccl 2.32.3-1+cuda13.*", "libnccl-devel 2.32.3-1+cuda13.*"],
        ["datacenter-gpu-manager-4-cuda13 1:4.*", "datacenter-gpu-manager-4-core 1:4.*"],
    ),
    "older than Turing": (
        {"gpus": ["V100"], "os": "ubuntu 22.04"},
        ["cuda-toolkit-12-9 12.9.1-*"],
        ["libcudnn9-cuda-12 9.10.2.*", "libcudnn9-dev-cuda-12 9.10.2.*", "libcudnn9-headers-cuda-12 9.10.2.*"],
        ["libnccl2 2.32.3-1+cuda12.*", "libnccl-dev 2.32.3-1+cuda12.*"],
        ["datacenter-gpu-manager-4-cuda12 1:4.*", "datacenter-gpu-manager-4-core 1:4.*"],
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_toolkit_libraries_and_additions(name: str) -> None:
    host, *parts = PARTS[name]
    found = stack(host, {**EVERYTHING, "cuda": "12.9" if "Turing" in name else "13.0"})
    assert [named(part) for part in (found.cuda, found.cudnn, found.nccl, found.dcgm)] == parts
    assert found.dcgm is not None
    assert found.dcgm.services == ("nvidia-dcgm",)
    assert named(found.container_toolkit) == [
        "nvidia-container-toolkit 1.20.0-*",
        "nvidia-container-toolkit-base 1.20.0-*",
        "libnvidia-container-tools 1.20.0-*",
        "libnvidia-container1 1.20.0-*",
    ]


def test_versions_that_were_named() -> None:
    want = {"cudnn": "9.19.0.56", "nccl": "2.21.5", "dcgm": "4.5.2", "cuda": "12.8.0", "container_toolkit": "1.19.0"}
    found = stack({"gpus": ["L4"], "os": "ubuntu 24.04"}, want)
    parts = (found.cuda, found.cudnn, found.nccl, found.dcgm, found.container_toolkit)
    assert [named(part)[0] for part in parts] == [
        "cuda-toolkit-12-8 12.8.0-*",
        "libcudnn9-cuda-12 9.19.0.56-*",
        "libnccl2 2.21.5-1+cuda12.*",
        "datacenter-gpu-manager-4-cuda13 1:4.5.2-*",
        "nvidia-container-toolkit 1.19.0-*",
    ]


FABRIC = {
    "570 has its number in the name": (
        "ubuntu 24.04",
        "570",
        "nvswitches",
        ["nvidia-fabricmanager-570", "libnvidia-nscq-570"],
    ),
    "580 has not": ("ubuntu 24.04", "580", "nvswitches", ["nvidia-fabricmanager", "libnvidia-nscq"]),
    "el before 580": ("rocky 9", "570", "nvswitches", ["nvidia-fabric-manager", "libnvidia-nscq"]),
    "el": ("rocky 9", "580", "nvswitches", ["nvidia-fabricmanager", "libnvidia-nscq"]),
    "debian": ("debian 12", "580", "nvswitches", ["nvidia-fabricmanager", "libnvidia-nscq"]),
    "NVLink 5": (
        "ubuntu 24.04",
        "580",
        "nvlink5_bridges",
        ["nvidia-fabricmanager", "libnvidia-nscq", "libnvsdm", "nvlsm", "infiniband-diags", "libibumad3"],
    ),
    "NVLink 5, el": (
        "rocky 9",
        "580",
        "nvlink5_bridges",
        ["nvidia-fabricmanager", "libnvidia-nscq", "libnvsdm", "nvlsm", "infiniband-diags", "libibumad"],
    ),
}


@pytest.mark.parametrize("name", FABRIC)
def test_fabric_manager(name: str) -> None:
    system, driver, switches, packages = FABRIC[name]
    gpus = ["B200"] if switches == "nvlink5_bridges" else ["H100"]
    found = stack({"gpus": gpus, "os": system, "python": "3.12", switches: 2}, {"driver": driver})
    assert found.driver is not None
    assert found.fabricmanager is not None
    assert [package.name for package in found.fabricmanager.packages] == packages
    own = [package for package in found.fabricmanager.packages if package.name not in ("nvlsm", *packages[4:])]
    assert {package.version for package in own} == {found.driver.version + "-*"}
    assert found.fabricmanager.services == ("nvidia-fabricmanager",)


@pytest.mark.parametrize(
    ("system", "arch", "place", "key"),
    [
        ("ubuntu 24.04", "x86_64", "ubuntu2404/x86_64/", "EB693B3035CD5710E231E123A4B469963BF863CC"),
        ("ubuntu 24.04", "aarch64", "ubuntu2404/sbsa/", "EB693B3035CD5710E231E123A4B469963BF863CC"),
        ("debian 13", "x86_64", "debian13/x86_64/", "02182E60104FCDC26EAE1B8597A5D4CB8793F200"),
        ("ol 9", "x86_64", "rhel9/x86_64/", "610C7B14E068A878070DA4E99CD0A493D42D0685"),
        ("ubuntu 26.04", "x86_64", "ubuntu2604/x86_64/", ""),
    ],
)
def test_repositories(system: str, arch: str, place: str, key: str) -> None:
    found = stack({"gpus": ["L4"], "os": system, "arch": arch}, {"torch": "none"}).repository
    assert found is not None
    assert found.url.endswith("/" + place)
    assert found.key_fingerprint == key
    assert bool(found.key_url) == bool(key), "a key that is not known is not fetched"
    assert found.family == ("dnf" if system.startswith("ol") else "apt")


def test_nothing_to_install_has_no_repository() -> None:
    assert stack({"gpus": [], "os": "debian 12"}).repository is None


def test_a_kept_driver_names_its_packages_only_where_they_are_ours_to_name() -> None:
    host = {"gpus": ["L4"], "os": "ubuntu 24.04", "driver": "580.95.05"}
    theirs = stack(host)
    ours = stack({**host, "driver_origin": "nvidia"})
    assert theirs.driver is not None
    assert ours.driver is not None
    assert named(theirs.driver) == []
    assert named(ours.driver)[1] == "libnvidia-compute-580 580.95.05-*"


def test_the_open_modules_of_debian_12_do_not_install_with_the_rest() -> None:
    found = refusal({"gpus": ["L4"], "os": "debian 12"}, {"repository": "distribution", "flavour": "open"})
    assert found.rule == "os_driver"
    assert found.alternatives[0].want.flavour == "auto"
    old, problems = with_overlay(
        "distribution_drivers: {list: [{os: debian, ver: '12', driver: {newest: '535.309.01', open: '535.261.03'}}]}"
    )
    assert problems == []
    said = stack({"gpus": ["L4"], "os": "debian 12"}, {"repository": "distribution", "flavour": "open"}, old)
    assert said.driver is not None
    assert said.driver.version == "535.261.03"
    assert any("the host's simulation decides" in text for text in said.warnings)
