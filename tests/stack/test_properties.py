"""What holds for every host and wish that the tables have words for. The rules are said here again, on purpose."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuprov.stack import HostFacts, Refusal, Stack, Want, explain, host_from_facts, load, resolve
from gpuprov.stack.gpus import by_id

TABLES = load()
GPUS = TABLES.rows("gpus")
BRANCHES = {row["branch"]: row for row in TABLES.rows("driver_branches")}
ARCHS = {row["cc"]: row for row in TABLES.rows("archs")}
TORCH = TABLES.rows("torch")
TOOLKITS = TABLES.rows("toolkits")
#: GPUs of every kind, and some of each architecture.
DEVICES = sorted(
    {
        (row["arch"], row["cc"], row.get("fabric"), row.get("min_branch")): device for device, row in GPUS.items()
    }.values()
)
SERVED = [device for device in DEVICES if GPUS[device]["arch"] in ("volta", "turing", "ampere", "ada", "hopper")]
NAMES = {"Ubuntu": ("22.04", "24.04", "26.04", "20.04"), "Debian": ("11", "12", "13", "13.1"), "Fedora": ("42", "44")}
NAMES |= dict.fromkeys(("RedHat", "Rocky", "AlmaLinux", "OracleLinux"), ("8.10", "9.6", "10.0"))
NAMES |= {"SLES": ("15.7",), "Amazon": ("2023",), "Mint": ("22",)}
DRIVERS = sorted({str(row["last_seen"]) for row in BRANCHES.values() if row.get("last_seen")})
DRIVERS += ["535.183.01", "550.163.01", "575.57.08", "580.95.05", "999.1.2"]
KERNELS = ("3.10.0-1160", "4.18.0-553", "5.14.0-570", "6.1.0-37-amd64", "6.8.0-45-generic", "7.0.0-31", "7.1.2", "odd")


PLAIN = {
    "arch": "x86_64",
    "kernel": {"running": "6.8.0-45-generic"},
    "gcc": {"version": "12.3.0"},
    "glibc": "2.35",
    "secure_boot": False,
    "nvswitches": [],
    "nvlink5_bridges": [],
}


def maybe(strategy: Any) -> Any:
    """An absent key: it could not be told."""
    return st.none() | strategy


@st.composite
def hosts(draw: Any) -> HostFacts:
    name = draw(st.sampled_from(sorted(NAMES)))
    devices = draw(st.lists(st.sampled_from([*DEVICES, *SERVED * 3, "ffff"]), max_size=2))
    driver = draw(st.sampled_from([None] * len(DRIVERS) + DRIVERS))
    survey = {
        "arch": draw(maybe(st.sampled_from(["x86_64", "aarch64", "ppc64le"]))),
        "kernel": {"running": draw(st.sampled_from(KERNELS)), "next": draw(maybe(st.sampled_from(KERNELS)))},
        "gcc": draw(maybe(st.fixed_dictionaries({"version": st.sampled_from(["8.5.0", "12.2.0", "15.2.0", "17.1"])}))),
        "glibc": draw(maybe(st.sampled_from(["2.17", "2.28", "2.31", "2.43"]))),
        "secure_boot": draw(maybe(st.booleans())),
        "mok_enrolled": draw(maybe(st.booleans())),
        "nvswitches": draw(maybe(st.lists(st.just("0000:86:00.0"), max_size=2))),
        "nvlink5_bridges": draw(maybe(st.lists(st.just("0000:05:00.0"), max_size=1))),
        "pythons": [
            {"path": f"/usr/bin/python{version}", "version": f"{version}.1"}
            for version in draw(
                st.lists(st.sampled_from(["3.6", "3.9", "3.10", "3.12", "3.14"]), max_size=3, unique=True)
            )
        ],
        "driver": {
            "installed_by": draw(maybe(st.sampled_from(["package", "runfile"]))),
            "version": driver,
            "flavour": draw(maybe(st.sampled_from(["open", "proprietary"]))),
            "repository_origin": draw(maybe(st.sampled_from(["nvidia", "distribution", "mixed"]))),
        },
        "virtualization": {key: draw(st.sampled_from([None] * 9 + [True])) for key in ("wsl", "container")},
    }
    known = {key: value for key, value in survey.items() if value is not None}
    facts = {
        "distribution": draw(st.sampled_from([name, name, name, None])),
        "distribution_version": draw(st.sampled_from(NAMES[name])),
        "gpuprov": {"gpus": [{"device": device, "class": "0302"} for device in devices], "survey": known},
    }
    return host_from_facts(facts, TABLES)


def wish(*words: str) -> Any:
    return st.sampled_from([""] * 2 * len(words) + list(words))


WANTS = st.builds(
    Want,
    driver=wish("auto", "latest", "none", "580", "595", "615", "570", "600", *DRIVERS),
    flavour=wish("auto", "open", "proprietary"),
    cuda=wish("auto", "latest", "none", "11.8", "12.6", "12.8", "13", "13.1", "13.5", "12.7"),
    torch=wish("auto", "latest", "none", "2.2", "2.6", "2.7.0", "2.9", "2.14", "9.9"),
    torch_variant=wish("auto", "cpu", "cu118", "cu126", "cu128", "cu130", "cu134", "cu999"),
    python=wish("auto", "3.9", "3.12", "3.14", "2.7"),
    cudnn=wish("auto", "latest", "none", "9.10.2", "9.28"),
    nccl=wish("auto", "latest", "none", "2.21.5"),
    fabricmanager=wish("auto", "none", "580.178.04", "570.1"),
    dcgm=wish("auto", "none", "4.5.2"),
    container_toolkit=wish("auto", "none", "1.20.0"),
    repository=wish("auto", "nvidia", "distribution", "debian12", "ubuntu2404"),
)


def numbers(text: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", text)
    assert found, text
    return tuple(map(int, found.group().split(".")))


def at_least(version: str, floor: str) -> bool:
    one, other = numbers(version), numbers(floor)
    width = max(len(one), len(other))
    return one + (0,) * (width - len(one)) >= other + (0,) * (width - len(other))


@settings(max_examples=300, deadline=None)
@given(want=WANTS, host=hosts())
def test_for_every_host_and_wish(want: Want, host: HostFacts) -> None:
    found = resolve(want, host, TABLES)
    assert resolve(want, host, TABLES) == found, "the same input, the same output"
    assert explain(found)
    found.to_json()
    if isinstance(found, Stack):
        keeps_every_rule(found, want, host)
        return
    assert found.rule in {row["id"] for row in TABLES.blocks["rules"]["list"]}
    assert found.message
    assert found.found
    assert found.needed
    for other in found.alternatives:
        assert resolve(other.want, host, TABLES) == other.stack
        keeps_every_rule(other.stack, other.want, host)
    if not host.refused_as:
        assert found.alternatives or want.torch == "none", explain(found)


@pytest.mark.parametrize("device", DEVICES)
def test_every_kind_of_gpu_with_every_driver(device: str) -> None:
    facts = {
        "distribution": "Ubuntu",
        "distribution_version": "22.04",
        "gpuprov": {
            "gpus": [{"device": device}],
            "survey": {**PLAIN, "pythons": [{"path": "/usr/bin/python3.12", "version": "3.12.1"}]},
        },
    }
    host = host_from_facts(facts, TABLES)
    accepted = 0
    for driver in ("auto", *DRIVERS):
        for more in ({}, {"flavour": "proprietary"}, {"flavour": "open"}, {"cuda": "auto"}, {"cuda": "12.8"}):
            want = Want(driver=driver, **more)
            found = resolve(want, host, TABLES)
            if isinstance(found, Stack):
                accepted += 1
                keeps_every_rule(found, want, host)
    served = ARCHS.get(host.gpus[0].cc or "", {"supported": False}).get("supported") is not False
    unknown = {"8.7", "10.7", "11.0"}  # Jetson, no verified torch, no torch with code
    assert bool(accepted) == (served and host.gpus[0].cc not in unknown)


def keeps_every_rule(stack: Stack, want: Want, host: HostFacts) -> None:
    assert not host.refused_as
    driver = stack.driver.version if stack.driver else host.driver
    uses_gpu = stack.driver or stack.cuda or stack.cudnn or (stack.torch and stack.torch.variant != "cpu")
    if uses_gpu:
        assert not host.unknown_gpus
    for gpu in {gpu.device: gpu for gpu in host.gpus}.values():
        row = ARCHS.get(gpu.cc or "")
        if uses_gpu:
            assert row is not None
            assert row.get("supported") is not False
        if row is not None and stack.driver:
            driver_knows(stack, gpu, row)
        if stack.torch and stack.torch.variant != "cpu":
            has_code(stack, gpu, host)
    wishes_are_kept(stack, want, host)
    system_is_right(stack, host)
    parts_fit(stack, driver, host)


def driver_knows(stack: Stack, gpu: Any, row: Any) -> None:
    assert stack.driver is not None
    version, branch, flavour = stack.driver.version, stack.driver.branch, stack.driver.flavour
    assert branch in BRANCHES
    assert branch == numbers(version)[0]
    if row.get("driver_last"):
        assert branch <= row["driver_last"]
    if "driver_first" in row:
        assert at_least(version, row["driver_first"])
    if gpu.arch in ("hopper", "blackwell", "rubin"):
        if gpu.min_branch:
            assert branch >= gpu.min_branch
        if branch in gpu.open_first:
            assert at_least(version, gpu.open_first[branch])
    needs = "open" if row["open_modules"] == "required" or gpu.fabric == "grace_coherent" else ""
    needs = "proprietary" if row["open_modules"] == "impossible" else needs
    assert needs in ("", flavour)
    assert not (flavour == "proprietary" and BRANCHES[branch].get("proprietary") is False)
    assert not (flavour == "open" and BRANCHES[branch]["open"] is False)


def has_code(stack: Stack, gpu: Any, host: HostFacts) -> None:
    assert stack.torch is not None
    variant = TORCH[stack.torch.version]["variants"][stack.torch.variant]
    codes = variant["arch_aarch64" if host.arch == "aarch64" else "arch"]
    major, minor = numbers(gpu.cc)
    assert any(numbers(code)[0] == major and numbers(code)[1] <= minor for code in codes)
    assert ARCHS[gpu.cc].get("torch_first", "") is not None


def wishes_are_kept(stack: Stack, want: Want, host: HostFacts) -> None:
    if "." in want.driver:
        assert stack.driver
        assert stack.driver.version == want.driver
    elif want.driver.isdigit():
        assert stack.driver
        assert stack.driver.branch == int(want.driver)
    elif want.driver == "none":
        assert stack.driver is None
    elif want.driver == "" and host.driver and host.gpus:
        assert stack.driver
        assert stack.driver.version == host.driver
    if stack.driver and want.flavour not in ("", "auto") and want.driver not in ("",):
        assert stack.driver.flavour == want.flavour
    for part in ("cuda", "torch", "cudnn", "nccl"):
        wanted, got = getattr(want, part), getattr(stack, part)
        if wanted == "none" or (wanted == "" and part != "torch"):
            assert got is None
        else:
            assert got is not None
            if wanted[:1].isdigit():
                assert numbers(got.version)[: len(numbers(wanted))] == numbers(wanted)
    if stack.torch and want.torch_variant not in ("", "auto"):
        assert stack.torch.variant == want.torch_variant
    if stack.python and want.python not in ("", "auto"):
        assert numbers(stack.python.version)[: len(numbers(want.python))] == numbers(want.python)


def system_is_right(stack: Stack, host: HostFacts) -> None:
    installs = [
        part for part in (stack.driver, stack.cuda, stack.cudnn, stack.nccl, stack.dcgm) if part and part.packages
    ]
    if not installs:
        return
    assert stack.repository
    row = TABLES.system(host.os_id, host.os_version)
    assert row
    assert row["supported"]
    assert row["family"] == stack.repository.family
    if stack.repository.kind == "nvidia":
        assert stack.repository.name == row["repo"]
        assert host.arch in row.get("arches", ["x86_64", "aarch64"])
    if stack.driver and stack.driver.packages and stack.driver.version != host.driver:
        assert not host.container
        assert host.driver_by != "runfile"
        assert host.driver_origin in (None, stack.repository.kind)
        assert not (host.secure_boot and not host.key_enrolled) or (
            host.os_id == "ubuntu" and stack.repository.kind == "distribution"
        )
        builds(stack.driver.version, host.kernel)
        if stack.repository.kind == "nvidia":
            assert row.get("driver_first", 0) <= stack.driver.branch <= row.get("driver_max_known", 9999)


def builds(driver: str, kernel: str | None) -> None:
    """Say the floors of DKMS builds once more, by hand."""
    if kernel is None or not kernel[:1].isdigit():
        return
    assert at_least(kernel, "4.15")
    if numbers(driver)[0] == 580 and at_least(kernel, "7.0"):
        assert at_least(driver, "580.159.04" if at_least(kernel, "7.1") else "580.142")
    assert not (numbers(driver)[0] == 575 and at_least(kernel, "6.17"))


def parts_fit(stack: Stack, driver: str | None, host: HostFacts) -> None:
    if stack.torch:
        row = TORCH[stack.torch.version]
        assert stack.python
        assert ".".join(stack.python.version.split(".")[:2]) in row["py"]
        if stack.torch.variant != "cpu":
            assert host.gpus
            floor = TABLES.blocks["torch"]["cu_tags"][stack.torch.variant]["driver_floor"]
            assert (driver is None and host.container) or at_least(str(driver), floor)
        if host.glibc and numbers(stack.torch.version) >= (2, 7):
            assert at_least(host.glibc, "2.28")
    for part in (stack.cudnn, stack.nccl):
        assert part is None or "?" not in part.version
    if stack.cudnn and any(gpu.cc and numbers(gpu.cc) < (7, 5) for gpu in host.gpus):
        assert not at_least(stack.cudnn.version, "9.11")
    if stack.cuda:
        row = TOOLKITS[stack.cuda.version]
        assert row["gcc_max"] is not None
        if host.gcc and stack.repository and stack.repository.kind == "nvidia":
            assert numbers(host.gcc)[0] <= row["gcc_max"]
        if stack.driver:
            assert at_least(stack.driver.version, row["driver_min_run"])
    if stack.driver:
        switches = bool(host.nvswitches or host.nvlink5)
        assert not switches or (stack.fabricmanager is not None and stack.fabricmanager.version == stack.driver.version)
    if stack.fabricmanager:
        assert stack.fabricmanager.version != "?"
        if stack.driver:
            assert stack.fabricmanager.version == stack.driver.version


def test_devices_cover_every_compute_capability() -> None:
    assert {by_id(TABLES, device).cc for device in DEVICES} == {row["cc"] for row in GPUS.values()}  # type: ignore[union-attr]
    assert isinstance(resolve(Want(), HostFacts(unknown_gpus=("ffff",)), TABLES), Refusal)
