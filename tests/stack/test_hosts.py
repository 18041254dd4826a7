"""A host as the resolver sees it: from the agent's facts, and from what a person writes."""

from __future__ import annotations

from typing import Any

import pytest

from gpuprov.stack import HostFacts, Refusal, Stack, Want, host_from_facts, host_from_short, load, resolve
from gpuprov.stack.hosts import short_form

TABLES = load()


def survey(**more: Any) -> dict[str, Any]:
    """Return the survey of a plain machine, as docs/facts.md describes it."""
    plain: dict[str, Any] = {
        "pci": [],
        "nvswitches": [],
        "nvlink5_bridges": [],
        "kernel": {"running": "6.8.0-45-generic", "next": "6.8.0-47-generic", "headers": {"6.8.0-47-generic": True}},
        "gcc": {"version": "13.3.0"},
        "glibc": "2.39",
        "arch": "x86_64",
        "secure_boot": False,
        "mok_enrolled": None,
        "modules": {"nouveau": {"loaded": False, "users": 0}},
        "driver": {"installed_by": None, "packages": {}},
        "toolkits": [],
        "holds": [],
        "virtualization": {"kind": None, "container": None, "wsl": False, "jetson": False, "image_based": None},
        "pythons": [{"path": "/usr/bin/python3.12", "version": "3.12.3"}],
    }
    return {**plain, **more}


def facts(devices: list[str], found: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    gpus = [{"address": f"0000:{n:02x}:00.0", "device": d, "class": "0302"} for n, d in enumerate(devices, 1)]
    own = {"gpus": gpus, "driver_version": "", "glibc": "2.39", "secure_boot": None, "simulated": False}
    own.update(more.pop("own", {}))
    if found is not None:
        own["survey"] = found
    return {
        "system": "Linux",
        "distribution": "Ubuntu",
        "distribution_version": "24.04",
        "architecture": "x86_64",
        "kernel": "6.8.0-45-generic",
        "python_version": "3.12.3",
        "python": {"executable": "/usr/bin/python3.12"},
        "gpuprov": own,
        **more,
    }


def read(devices: list[str], found: dict[str, Any] | None = None, **more: Any) -> HostFacts:
    return host_from_facts(facts(devices, found, **more), TABLES)


def resolved(host: HostFacts, **want: str) -> Stack:
    found = resolve(Want(**want), host, TABLES)
    assert isinstance(found, Stack), found
    return found


def refused(host: HostFacts, **want: str) -> Refusal:
    found = resolve(Want(**want), host, TABLES)
    assert isinstance(found, Refusal), found
    return found


def test_a_plain_machine() -> None:
    host = read(["27b8"], survey())
    assert [gpu.name for gpu in host.gpus] == ["L4"]
    assert (host.os_id, host.os_version, host.arch) == ("ubuntu", "24.04", "x86_64")
    assert host.kernel == "6.8.0-47-generic", "the kernel that boots next"
    assert (host.gcc, host.glibc, host.pythons) == ("13.3.0", "2.39", (("3.12.3", "/usr/bin/python3.12"),))
    assert (host.secure_boot, host.key_enrolled, host.driver, host.driver_by) == (False, None, None, None)
    assert (host.nvswitches, host.nvlink5, host.container, host.refused_as, host.imagined) == (0, 0, False, "", False)
    found = resolved(host)
    assert found.python is not None
    assert found.python.path == "/usr/bin/python3.12"
    assert short_form(host) == {
        "gpus": ["L4"],
        "os": "ubuntu 24.04",
        "arch": "x86_64",
        "kernel": "6.8.0-47-generic",
        "gcc": "13.3.0",
        "glibc": "2.39",
        "secure_boot": False,
        "python": ["3.12.3"],
    }


def test_an_hgx_h100_with_a_driver_from_packages() -> None:
    found = survey(
        nvswitches=[f"0000:{n:02x}:00.0" for n in range(0x86, 0x8A)],
        modules={"nvidia": {"loaded": True, "version": "580.95.05", "on_disk": "580.95.05", "flavour": "open"}},
        driver={
            "installed_by": "package",
            "packages": {"libnvidia-compute-580": "580.95.05-0ubuntu1"},
            "version": "580.95.05",
            "flavour": "open",
            "repository_origin": "nvidia",
        },
    )
    host = read(["2330"] * 8, found)
    assert (len(host.gpus), host.nvswitches, host.driver, host.driver_flavour) == (8, 4, "580.95.05", "open")
    kept = resolved(host)
    assert kept.fabricmanager is not None
    assert kept.fabricmanager.version == "580.95.05"
    assert kept.driver is not None
    assert "libnvidia-compute-580" in [package.name for package in kept.driver.packages]
    assert kept.host["gpus"] == ["8 x H100 80GB HBM3"]
    assert kept.host["fabric"] == "4 NVSwitches"


def test_a_b200_board_has_bridges_instead_of_switches() -> None:
    host = read(["2901"] * 8, survey(nvlink5_bridges=["0000:05:00.0", "0000:06:00.0"]))
    found = resolved(host)
    assert found.driver is not None
    assert found.driver.flavour == "open"
    assert found.fabricmanager is not None
    assert {"nvlsm", "libnvsdm"} <= {package.name for package in found.fabricmanager.packages}
    assert found.host["fabric"] == "NVLink 5 switches"


def test_bridges_that_only_root_can_see_are_not_absent() -> None:
    found = survey()
    del found["nvlink5_bridges"]
    assert refused(read(["2901"] * 8, found)).rule == "fm_needed"
    assert resolved(read(["27b8"], found)).fabricmanager is None, "no GPU that sits on such a board"
    assert resolved(read(["2330"] * 4, found)).fabricmanager is None, "its switches are on the bus, for everybody"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ({"wsl": True}, "WSL"),
        ({"jetson": True}, "Jetson"),
        ({"vgpu_guest": True}, "a vGPU guest"),
        ({"image_based": "ostree"}, "an image-based system"),
        ({"dgx_os": "7.1"}, "DGX OS"),
    ],
)
def test_systems_that_are_not_provisioned(kind: dict[str, Any], name: str) -> None:
    found = refused(read(["27b8"], survey(virtualization={"kind": "kvm", "container": None, **kind})))
    assert (found.rule, found.found) == ("os_kind", name)


@pytest.mark.parametrize("system", ["Win32NT", "Darwin", "FreeBSD"])
def test_other_systems(system: str) -> None:
    assert refused(read(["27b8"], system=system)).found == system


def test_a_virtual_machine_is_a_host_like_another() -> None:
    assert resolved(read(["27b8"], survey(virtualization={"kind": "kvm", "container": None}))).driver is not None


def test_a_container_has_the_driver_of_its_machine() -> None:
    found = survey(virtualization={"kind": None, "container": "docker"})
    refusal = refused(read(["27b8"], found))
    assert (refusal.rule, refusal.found) == ("os_kind", "container")
    assert refusal.alternatives
    assert resolved(read(["27b8"], found), driver="none").torch is not None
    with_driver = read(["27b8"], found, own={"driver_version": "580.95.05"})
    assert resolved(with_driver).driver is not None
    assert refused(with_driver, driver="auto").rule == "os_kind"


def test_a_rehearsal_host_is_made_of_a_container_and_is_none() -> None:
    found = survey(virtualization={"kind": None, "container": "systemd-nspawn"})
    host = read([], found, own={"simulated": True}, distribution="Debian", distribution_version="12")
    assert not host.container
    assert resolved(host, driver="535", repository="distribution").driver is not None


def test_a_driver_from_a_runfile() -> None:
    found = survey(
        modules={"nvidia": {"loaded": True, "version": "570.86.15", "on_disk": "570.86.15", "flavour": "proprietary"}},
        driver={"installed_by": "runfile", "packages": {}, "version": "570.86.15", "flavour": "proprietary"},
    )
    host = read(["27b8"], found)
    kept = resolved(host)
    assert kept.driver is not None
    assert (kept.driver.version, kept.driver.flavour, kept.driver.packages) == ("570.86.15", "proprietary", ())
    assert refused(host, driver="580").rule == "runfile_conflict"


@pytest.mark.parametrize("origin", ["distribution", "mixed"])
def test_a_driver_from_elsewhere_is_not_mixed_with(origin: str) -> None:
    found = survey(driver={"installed_by": "package", "version": "580.95.05", "repository_origin": origin})
    assert refused(read(["27b8"], found), driver="595").rule == "repo_mix"


def test_a_driver_whose_version_could_not_be_told() -> None:
    host = read(["27b8"], survey(driver={"installed_by": "package", "packages": {"nvidia-utils-580": "?"}}))
    found = refused(host)
    assert (found.rule, found.found) == ("driver_unknown", "unknown")
    assert found.alternatives[0].want == Want(driver="auto")
    on_disk = survey(driver={"installed_by": "package"}, modules={"nvidia": {"on_disk": "580.95.05"}})
    assert read(["27b8"], on_disk).driver == "580.95.05"


def test_nvidia_devices_that_are_no_gpus_are_left_out() -> None:
    assert read(["2f95", "27b8"], survey()).gpus == read(["27b8"], survey()).gpus
    pci = [
        {"address": "0000:86:00.0", "vendor": "10de", "device": "22a3", "class": "0680"},
        {"address": "0000:01:00.0", "vendor": "10de", "device": "2330", "class": "0302"},
    ]
    without = facts([], survey(pci=pci))
    del without["gpuprov"]["gpus"]
    host = host_from_facts(without, TABLES)
    assert ([gpu.device for gpu in host.gpus], host.unknown_gpus) == (["2330"], ())


def test_what_could_not_be_told_is_not_taken_for_absent() -> None:
    nothing = host_from_facts({}, TABLES)
    assert (nothing.gpus, nothing.unknown_gpus) == ((), ("",))
    assert (nothing.os_id, nothing.kernel, nothing.gcc, nothing.pythons, nothing.secure_boot) == (None,) * 5
    assert (nothing.nvswitches, nothing.nvlink5) == (None, None)
    found = refused(nothing)
    assert (found.rule, found.message) == ("gpu_unknown", "which GPUs the host has could not be told")
    no_system = host_from_facts({**facts(["27b8"], survey()), "distribution": None}, TABLES)
    assert refused(no_system).rule == "os_unknown"
    secure = survey()
    secure["secure_boot"] = None
    warned = resolved(read(["27b8"], secure))
    assert any("whether secure boot is on could not be told" in text for text in warned.warnings)


def test_facts_without_a_survey() -> None:
    host = read(["27b8"], own={"driver_version": "580.95.05", "secure_boot": False})
    assert (host.driver, host.kernel, host.secure_boot) == ("580.95.05", "6.8.0-45-generic", False)
    assert host.pythons == (("3.12.3", "/usr/bin/python3.12"),)


def test_odd_spellings() -> None:
    found = survey(
        glibc="2.39-0ubuntu8.3",
        gcc=None,
        pythons=[{"path": "/usr/bin/python3", "version": "3.13.0rc1"}, {"path": "/x", "version": ""}, {"path": "/y"}],
    )
    host = read(["0x27B8"], found)
    assert [gpu.device for gpu in host.gpus] == ["27b8"]
    assert (host.glibc, host.gcc, host.pythons) == ("2.39", None, (("3.13.0", "/usr/bin/python3"),))
    with_toolkit = resolved(host, cuda="12.8")
    assert any("whether the host has a gcc is not known" in text for text in with_toolkit.warnings)


def short(**value: Any) -> tuple[HostFacts, list[str]]:
    problems: list[Any] = []
    host = host_from_short(TABLES, value, problems)
    return host, [problem.message for problem in problems]


def test_the_short_form_takes_the_surveys_words() -> None:
    one, wrong = short(gpus=["B200"], os="ubuntu 24.04", mok_enrolled=True, nvlink5_bridges=2, secure_boot=True)
    other, also_wrong = short(gpus="B200", os="Ubuntu-24.04", key_enrolled=True, nvlink5=["a", "b"], secure_boot=True)
    assert wrong == also_wrong == []
    assert one == other
    assert (one.key_enrolled, one.nvlink5) == (True, 2)


def test_what_the_short_form_leaves_out_is_that_of_the_system() -> None:
    host, _ = short(gpus=["L4"], os="rocky 9.6")
    assert (host.os_id, host.gcc, host.glibc, host.pythons) == ("rocky", "11.5.0", "2.34", (("3.9", ""),))
    assert (host.arch, host.secure_boot, host.driver, host.nvswitches) == ("x86_64", None, None, 0)
    bare, _ = short(gpus=["L4"])
    assert (bare.os_id, bare.gcc, bare.pythons) == (None, None, None)


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("T4", "1eb8"),
        ("Tesla T4", "1eb8"),
        ("NVIDIA L40S", "26b9"),
        ("10de:27b8", "27b8"),
        ("27b8", "27b8"),
        ("RTX PRO 6000 Server (2bb5)", "2bb5"),
        ("rtx 4090", "2684"),
    ],
)
def test_names_of_gpus(name: str, device: str) -> None:
    assert [gpu.device for gpu in short(gpus=[name])[0].gpus] == [device]


@pytest.mark.parametrize("name", ["H900", "ffff", "GeForce", "(ffff)"])
def test_a_name_that_nothing_has_is_not_taken_for_another(name: str) -> None:
    host, _ = short(gpus=[name])
    assert (host.gpus, host.unknown_gpus) == ((), (name,))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("python", 3.1, "python: 3.1 is not a version in quotes"),
        ("python", "3", "python: '3' is not a version of dotted numbers"),
        ("gcc", "new", "gcc: 'new' is not a version of dotted numbers"),
        ("driver", ["580", "x"], "driver: ['580', 'x'] is not a version"),
        ("nvswitches", "four", "nvswitches: 'four' is not how many there are"),
        ("key_enrolled", "yes", "key_enrolled: 'yes' is not true or false"),
        ("flavour", "closed", "flavour: 'closed' is not open or proprietary"),
        ("driver_origin", "ppa", "driver_origin: 'ppa' is not nvidia or distribution or mixed"),
        ("gpu", "T4", "there is no key 'gpu'; did you mean 'gpus'?"),
        ("os", "ubuntu", "os 'ubuntu' is no name and version"),
    ],
)
def test_wrong_words(key: str, value: Any, said: str) -> None:
    _, wrong = short(**{key: value})
    assert len(wrong) == 1
    assert wrong[0].startswith(said)


def test_a_host_is_a_mapping() -> None:
    problems: list[Any] = []
    assert host_from_short(TABLES, ["T4"], problems) == HostFacts()
    assert "a host is a mapping" in problems[0].message
