"""The controller's store of wheels, with the real pip and small real wheels."""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from gpuprov.errors import RefusedError
from gpuprov.fleet.pip_python import Target
from gpuprov.fleet.pip_tool import platforms
from gpuprov.fleet.wheel_request import target_of
from gpuprov.fleet.wheelhouse import Wheelhouse, cache_folder
from tests.support.wheels import make_index, make_wheel

if TYPE_CHECKING:
    from pathlib import Path

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
OTHER = "3.9" if HERE != "3.9" else "3.10"


def facts(python: str = HERE, gpus: int = 0, **more: Any) -> dict[str, Any]:
    major, minor = python.split(".")
    found = {"python": {"version": {"major": int(major), "minor": int(minor)}}, "architecture": platform.machine()}
    return {**found, "gpuprov": {"gpus": [{"address": "0000:01:00.0"}] * gpus, **more}}


def task(*names: str, **more: Any) -> dict[str, Any]:
    return {"name": list(names), "virtualenv": "/opt/env", "state": "present", "source": "controller", **more}


class House:
    """A wheelhouse, the folder of wheels that pip finds, and what was said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wheels = folder / "wheels"
        self.wheels.mkdir()
        self.said: list[str] = []
        make_wheel(self.wheels, "uv", "0.9.9", files={"uv-0.9.9.data/scripts/uv": "#!/bin/sh\n"})

    def fresh(self) -> Wheelhouse:
        return Wheelhouse(str(self.folder / "cache"), self.said.append)

    def make(self, name: str, version: str, *requires: str) -> str:
        return str(make_wheel(self.wheels, name, version, requires))


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    made = House(tmp_path)
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made.wheels))
    return made


def versions(update: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["version"] for one in update["_wheels"]}


def test_resolves_once_and_keeps_files_by_content(house: House) -> None:
    house.make("alpha", "1.0", "beta_b>=1; python_version >= '3.8'", "never; sys_platform == 'win32'")
    house.make("beta-b", "2.0+cpu")
    update, files = house.fresh().resolve(task("alpha"), facts())
    assert versions(update) == {"alpha": "1.0", "beta-b": "2.0+cpu"}
    everything = [*update["_wheels"], update["_uv"]]
    assert {one["sha256"]: one["size"] for one in everything} == {k: os.path.getsize(v) for k, v in files.items()}
    assert all(os.path.basename(files[one["sha256"]]) == one["filename"] for one in everything)
    asked = len(house.said)
    assert house.fresh().resolve(task("alpha"), facts()) == (update, files)
    assert len(house.said) == asked, "a second run asked pip again"


def test_a_set_stays_as_it_is_until_latest_is_asked_for(house: House) -> None:
    house.make("alpha", "1.0")
    house.fresh().resolve(task("alpha"), facts())
    house.make("alpha", "1.1")
    assert versions(house.fresh().resolve(task("alpha"), facts())[0]) == {"alpha": "1.0"}
    assert versions(house.fresh().resolve(task("alpha", state="latest"), facts())[0]) == {"alpha": "1.1"}
    assert versions(house.fresh().resolve(task("alpha"), facts())[0]) == {"alpha": "1.1"}


def test_a_lost_file_is_fetched_again(house: House) -> None:
    house.make("alpha", "1.0")
    update, files = house.fresh().resolve(task("alpha"), facts())
    path = files[update["_wheels"][0]["sha256"]]
    os.unlink(path)
    house.fresh().resolve(task("alpha"), facts())
    assert os.path.getsize(path) == update["_wheels"][0]["size"]


def test_many_hosts_at_once_ask_pip_once(house: House) -> None:
    house.make("alpha", "1.0")
    wheels = house.fresh()
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(wheels.resolve(task("alpha"), facts()))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(one == results[0] for one in results)
    assert sum("resolving alpha" in line for line in house.said) == 1


def test_conditions_hold_for_the_hosts_python_not_for_ours(house: House) -> None:
    house.make("alpha", "1.0", f"old; python_version < '{HERE}'", f"here; python_version >= '{HERE}'")
    house.make("old", "1.0", f"older; python_version < '{HERE}'")
    house.make("older", "3.0")
    house.make("here", "1.0")
    update, _ = house.fresh().resolve(task("alpha"), facts(OTHER if OTHER < HERE else "3.8"))
    assert {"alpha", "old", "older"} <= set(versions(update))


def test_cuda_is_refused_without_gpu_and_not_even_fetched(house: House) -> None:
    house.make("torch", "1.0", "nvidia-cublas-cu12", "nvidia-ml-py")
    house.make("nvidia-cublas-cu12", "12.0")
    house.make("nvidia-ml-py", "13.0")
    with pytest.raises(RefusedError) as error:
        house.fresh().resolve(task("torch==1.0"), facts())
    assert error.value.message == (
        "torch==1.0 needs CUDA packages (nvidia-cublas-cu12==12.0), and the host has no NVIDIA GPU"
    )
    assert "gpuprov_torch_index" in error.value.hint
    assert not (house.folder / "cache/files").exists()
    update, _ = house.fresh().resolve(task("torch==1.0"), facts(gpus=8))
    assert set(versions(update)) == {"torch", "nvidia-cublas-cu12", "nvidia-ml-py"}
    with pytest.raises(RefusedError, match="no NVIDIA GPU"):
        house.fresh().resolve(task("torch==1.0"), facts())


def test_a_cuda_build_is_known_by_its_version_too(house: House) -> None:
    house.make("torch", "1.0+cu130")
    with pytest.raises(RefusedError, match=r"torch==1\.0\+cu130"):
        house.fresh().resolve(task("torch"), facts())


def test_the_cpu_index_is_asked_for_hosts_without_gpu_only(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cuda = [house.make("torch", "1.0", "nvidia-cublas-cu12"), house.make("nvidia-cublas-cu12", "12.0")]
    index = make_index(tmp_path / "index", cuda)
    cpu = make_index(tmp_path / "cpu", [make_wheel(tmp_path, "torch", "1.0+cpu")])
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", index)
    asked = task("torch==1.0", cpu_index_url=cpu)
    assert versions(house.fresh().resolve(asked, facts())[0]) == {"torch": "1.0+cpu"}
    assert versions(house.fresh().resolve(asked, facts(gpus=1))[0]) == {"torch": "1.0", "nvidia-cublas-cu12": "12.0"}


def test_a_cpu_index_that_does_not_answer_is_named_and_asked_again_next_time(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cuda = [house.make("torch", "1.0", "nvidia-cublas-cu12"), house.make("nvidia-cublas-cu12", "12.0")]
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", make_index(tmp_path / "index", cuda))
    asked = task("torch==1.0", cpu_index_url=f"file://{tmp_path}/cpu")
    silent = house.fresh()
    for _ in range(2):
        with pytest.raises(RefusedError, match=f"file://{tmp_path}/cpu offered no CPU build for Python {HERE}"):
            silent.resolve(asked, facts())
    assert sum(f"asking file://{tmp_path}/cpu" in line for line in house.said) == 1
    make_index(tmp_path / "cpu", [make_wheel(tmp_path, "torch", "1.0+cpu")])
    assert versions(house.fresh().resolve(asked, facts())[0]) == {"torch": "1.0+cpu"}


def test_find_links_of_the_task_counts(house: House, tmp_path: Path) -> None:
    make_wheel(tmp_path, "alpha", "5.0")
    assert versions(house.fresh().resolve(task("alpha", find_links=str(tmp_path)), facts())[0]) == {"alpha": "5.0"}


def test_source_host_brings_uv_only(house: House) -> None:
    update, files = house.fresh().resolve(task("alpha", source="host"), facts())
    assert list(update) == ["_uv"]
    assert list(files) == [update["_uv"]["sha256"]]


def test_source_host_without_uv_goes_on_and_says_so(house: House) -> None:
    for path in house.wheels.glob("uv-*"):
        path.unlink()
    assert house.fresh().resolve(task("alpha", source="host"), facts()) == ({}, {})
    assert any("uv could not be fetched" in line for line in house.said)


@pytest.mark.parametrize("args", [{"name": ["alpha"], "virtualenv": "/x"}, task("alpha", state="absent")])
def test_other_tasks_gain_nothing(house: House, args: dict[str, Any]) -> None:
    assert house.fresh().resolve(args, facts()) == ({}, {})
    assert house.said == []


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (task("alpha==9"), "wheels-unresolvable", f"no wheel of alpha==9 for Python {HERE}"),
        (task("./folder"), "bad-requirement", "not a package"),
        (task(requirements="/x.txt"), "wheels-need-names", "not a requirements file"),
        (task("alpha", virtualenv=None), "wheels-need-virtualenv", "needs virtualenv"),
        (task("alpha", virtualenv_python="python3"), "python-unknown", "python3"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(house: House, args: dict[str, Any], code: str, words: str) -> None:
    house.make("alpha", "1.0")
    with pytest.raises(RefusedError) as error:
        house.fresh().resolve(args, facts())
    assert error.value.reference == code
    assert words in error.value.message
    assert error.value.hint


def test_a_file_that_is_not_what_the_index_states_is_refused(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = make_wheel(tmp_path, "alpha", "1.0")
    make_index(tmp_path / "index", [path])
    page = tmp_path / "index/alpha/index.html"
    page.write_text(page.read_text().replace('.whl"', f'.whl#sha256={"0" * 64}"'))
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", f"file://{tmp_path}/index")
    with pytest.raises(RefusedError):
        house.fresh().resolve(task("alpha"), facts())
    assert not (house.folder / "cache/files").exists()


def test_what_a_host_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert target_of({}, facts("3.11", glibc="2.36")) == Target("3.11", platform.machine(), "2.36")
    assert target_of({"virtualenv_python": "/usr/bin/python3.12"}, facts("3.11")).python == "3.12"
    tags = platforms(Target("3.11", "x86_64", "2.31"))
    assert tags[0] == "manylinux_2_31_x86_64"
    assert "manylinux_2_28_x86_64" in tags
    assert "manylinux_2_34_x86_64" not in tags
    assert tags[-1] == "linux_x86_64"
    assert not any("2010" in tag for tag in platforms(Target("3.11", "aarch64")))
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == "/somewhere/gpuprov/wheels"


def test_the_cache_can_be_read_by_a_person(house: House) -> None:
    house.make("alpha", "1.0")
    house.fresh().resolve(task("alpha"), facts())
    sets = [json.loads(path.read_text()) for path in (house.folder / "cache/sets").glob("*.json")]
    assert {"alpha", "uv>=0.9,<1"} == {name for one in sets for name in one["names"]}
    left = [path.name for path in (house.folder / "cache").iterdir() if path.name.startswith(".")]
    assert left == []
