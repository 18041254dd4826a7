"""A wheelhouse is locked, filled, checked and served from: the real pip and uv, small test wheels over HTTP."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gpuprov.cli.main import main
from gpuprov.errors import GpuprovError, RefusedError
from gpuprov.fleet import locks
from gpuprov.fleet.locks import request
from gpuprov.fleet.managed_python import PythonSources
from gpuprov.fleet.pip_python import Target
from gpuprov.fleet.pip_tool import Sources
from gpuprov.fleet.wheel_builder import Builder
from gpuprov.fleet.wheel_folder import WheelFolder
from gpuprov.fleet.wheelhouse import Wheelhouse
from tests.support.folder_server import served
from tests.support.wheel_site import Index, make_pythons
from tests.support.wheels import uv_wheel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.folder_server import Web

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
GLIBC = platform.libc_ver()[1]
TARGET = Target(HERE, platform.machine(), GLIBC)
BUILT = ("torch==2.13.0", "numpy==2.3")
UV_FILES = {"uv-0.9.9.data/scripts/uv": "#!/bin/sh\n"}
ROOT = Path(__file__).resolve().parents[2]


class Site:
    """A connected machine in a folder of its own: `packages` and `cu130` are its indexes."""

    def __init__(self, folder: Path, web: Web) -> None:
        self.web = web
        self.packages = Index(folder / "www", "packages")
        self.cu130 = Index(folder / "www", "cu130")
        self.out = folder / "out"
        self.said: list[str] = []
        self.packages.add("uv", "0.9.9", files=UV_FILES)
        self.packages.add("nvidia-ml-py", "13.0")
        self.packages.add("torch", "2.14.0")  # what pip would take if both indexes were asked together
        self.packages.add("nvidia-cudnn-cu13", "9.9")
        self.packages.add("lightning", "1.0", "torch>=2", "numpy")
        self.packages.add("numpy", "2.3")
        self.cu130.add("torch", "2.13.0+cu130", "nvidia-cudnn-cu13", "filelock")
        self.cu130.add("nvidia-cudnn-cu13", "9.1")
        self.cu130.add("filelock", "3.0")
        self.cu130.add("numpy", "2.1")
        self.cu130.add("torchvision", "0.28.0+cu130", "torch==2.13.0", "numpy")
        self.cu130.add("torchaudio", "2.11.0+cu130")

    @property
    def sources(self) -> Sources:
        return Sources(f"{self.web.url}/packages", "", f"{self.web.url}/cu130")

    def builder(self) -> Builder:
        return Builder(str(self.out), self.said.append)

    def build(self, *names: str, variant: str = "cu130", managed: bool = False) -> locks.Lock:
        builder = self.builder()
        lock = builder.lock(request(names, TARGET, variant, managed), self.sources)
        builder.fetch(lock, self.sources)
        return lock


@contextmanager
def connected(folder: Path) -> Iterator[Site]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("PIP_", "UV_")) or name.lower().endswith("_proxy"):
                patch.delenv(name)
        (folder / "www").mkdir()
        with served(folder / "www") as web:
            # a person's own configuration, with a second index as many have it
            patch.setenv("PIP_CONFIG_FILE", os.devnull)
            patch.setenv("PIP_INDEX_URL", f"{web.url}/packages")
            patch.setenv("PIP_EXTRA_INDEX_URL", f"{web.url}/packages")
            patch.setenv("PIP_NO_CACHE_DIR", "1")
            patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
            yield Site(folder, web)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with connected(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that was built once: torch with its CUDA packages, and NumPy."""
    with connected(tmp_path_factory.mktemp("connected")) as site:
        site.build(*BUILT)
        return site.out.rename(tmp_path_factory.mktemp("carried") / "out")


@pytest.fixture
def folder(carried: Path, tmp_path: Path) -> Path:
    """A copy of it, on a machine that reaches nothing."""
    return Path(shutil.copytree(carried, tmp_path / "out"))


def task(folder: Path, *names: str, **more: Any) -> dict[str, Any]:
    given = {"name": list(names), "virtualenv": "/opt/env", "state": "present", "source": "controller"}
    return {**given, "wheelhouse": str(folder), **more}


def versions(lock: locks.Lock) -> dict[str, str]:
    return {pin.name: pin.version for pin in lock.pins}


def facts(gpus: int = 1, glibc: str = GLIBC, python: str = HERE) -> dict[str, Any]:
    major, minor = (int(part) for part in python.split("."))
    found = {"python": {"version": {"major": major, "minor": minor}}, "architecture": platform.machine()}
    return {**found, "gpuprov": {"gpus": [{"address": "0000:01:00.0"}] * gpus, "glibc": glibc}}


def test_torch_and_its_companions_come_from_their_index_alone(site: Site) -> None:
    """What needs torch gets the one that was chosen; a wanted version of another package counts for torch, too."""
    site.cu130.add("numpy", "2.0", stated=False)
    lock = site.build("torch==2.13.0", "torchvision", "torchaudio", "nvidia-ml-py", "lightning", "numpy<2.1")
    assert versions(lock) == {
        "torch": "2.13.0+cu130",
        "torchvision": "0.28.0+cu130",
        "torchaudio": "2.11.0+cu130",
        "nvidia-cudnn-cu13": "9.1",
        "filelock": "3.0",
        "numpy": "2.0",
        "nvidia-ml-py": "13.0",
        "lightning": "1.0",
    }
    assert {pin.name for pin in lock.pins if not pin.of_torch} == {"nvidia-ml-py", "lightning"}
    assert lock.request.variant == "cu130"
    assert list(WheelFolder(str(site.out)).verify()) == []


def test_another_build_than_the_wanted_one_is_refused(site: Site) -> None:
    with pytest.raises(RefusedError, match=r"torch 2\.13\.0\+cu130 is the build cu130, and cu132 is wanted"):
        site.build("torch==2.13.0", variant="cu132")
    assert locks.read_all(str(site.out / "locks")) == []


def test_a_lock_stays_until_it_is_made_anew_and_files_leave_with_it(site: Site) -> None:
    first = site.build("nvidia-ml-py")
    asked = len(site.web.asked)
    site.packages.add("nvidia-ml-py", "14.0")
    assert site.build("nvidia-ml-py") == first
    assert len(site.web.asked) == asked
    builder = site.builder()
    again = builder.lock(first.request, site.sources, anew=True)
    assert versions(again) == {"nvidia-ml-py": "14.0"}
    assert builder.fetch(again, site.sources) == 1
    assert len(list((site.out / "locks").iterdir())) == 1
    assert {one["version"] for one in WheelFolder(str(site.out)).files().values()} == {"0.9.9", "14.0"}
    assert len(list((site.out / "files").iterdir())) == 2


def test_a_replaced_wheel_is_not_taken(site: Site) -> None:
    builder = site.builder()
    lock = builder.lock(request(["numpy==2.3"], TARGET), site.sources)
    page = next((site.out.parent / "www/packages/numpy").iterdir())
    page.write_text(page.read_text().partition("#sha256")[0] + '">numpy-2.3-py3-none-any.whl</a>')
    with (site.out.parent / "www/files/packages/numpy-2.3-py3-none-any.whl").open("ab") as wheel:
        wheel.write(b"evil")
    with pytest.raises(RefusedError, match=r"HASHES|hash"):
        builder.fetch(lock, site.sources)


def test_damage_and_loss_are_named(folder: Path) -> None:
    found = WheelFolder(str(folder))
    paths = {one["name"]: Path(found.path_of(one)) for one in found.files().values()}
    paths["numpy"].unlink()
    data = paths["torch"].read_bytes()
    paths["torch"].write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    paths["filelock"].write_bytes(b"short")
    (folder / "files/stranger").mkdir()
    assert {(one.kind, one.message.split()[0]) for one in found.verify()} == {
        ("missing", "numpy-2.3-py3-none-any.whl"),
        ("damaged", "torch-2.13.0+cu130-py3-none-any.whl"),
        ("damaged", "filelock-3.0-py3-none-any.whl"),
        ("unknown", "files/stranger"),
    }
    with pytest.raises(RefusedError) as error:
        Wheelhouse().resolve(task(folder, *BUILT), facts())
    assert error.value.reference == "wheelhouse-incomplete"
    assert "lacks 2 of 5 wheels of its lock" in error.value.message
    assert error.value.hint == f"on a connected machine: {found.locks()[0].request.command(str(folder))}"


def test_hosts_are_served_from_the_folder(folder: Path) -> None:
    lock = WheelFolder(str(folder)).locks()[0]
    update, files = Wheelhouse().resolve(task(folder, *reversed(BUILT)), facts())
    assert {one["sha256"] for one in update["_wheels"]} == {pin.sha256 for pin in lock.pins}
    assert update["_uv"]["sha256"] == lock.uv.sha256
    assert {sha: os.path.getsize(path) for sha, path in files.items()} == {
        one["sha256"]: one["size"] for one in [*update["_wheels"], update["_uv"]]
    }


def test_what_is_missing_is_refused_with_the_command_that_brings_it(site: Site) -> None:
    (site.out / "locks").mkdir(parents=True)
    wanted = task(site.out, "torch==2.13.0", "nvidia-ml-py", variant="cu130")
    with pytest.raises(RefusedError) as error:
        Wheelhouse().resolve(wanted, facts())
    assert error.value.message == (
        f"the wheelhouse {site.out} has nothing for nvidia-ml-py, torch==2.13.0 (cu130) for Python {HERE} on"
        f" {platform.machine()}, glibc {GLIBC}; it has: nothing"
    )
    words = shlex.split(error.value.hint.removeprefix("on a connected machine: "))
    where = ["--index", f"{site.web.url}/packages", "--pytorch-index", site.web.url]
    done = subprocess.run(
        [sys.executable, "-m", *words, *where], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    update, _ = Wheelhouse().resolve(wanted, facts())
    assert {one["name"] for one in update["_wheels"]} >= {"torch", "nvidia-ml-py"}


@pytest.mark.parametrize(
    ("gpus", "more", "code"),
    [
        (1, {"source": "host"}, "wheelhouse-needs-controller"),
        (1, {"state": "latest"}, "wheelhouse-latest"),
        (1, {"managed_python": HERE}, "wheelhouse-lacks"),
        (1, {"name": ["numpy"]}, "wheelhouse-lacks"),
        (0, {}, "wheelhouse-lacks"),
    ],
)
def test_other_refusals(folder: Path, gpus: int, more: dict[str, Any], code: str) -> None:
    with pytest.raises(RefusedError) as error:
        Wheelhouse().resolve(task(folder, *BUILT, **more), facts(gpus))
    assert error.value.reference == code
    assert error.value.hint


def test_a_folder_that_is_not_there_and_a_manifest_that_is_none(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(GpuprovError, match="there is no wheelhouse"):
        Wheelhouse().resolve(task(tmp_path / "nowhere", *BUILT), facts())
    manifest = json.loads((folder / "wheelhouse.json").read_text())
    manifest["files"][0]["filename"] = "../../../etc/passwd"
    (folder / "wheelhouse.json").write_text(json.dumps(manifest))
    with pytest.raises(GpuprovError, match="is no manifest"):
        Wheelhouse().resolve(task(folder, *BUILT), facts())


def test_a_persons_shell_does_not_change_what_is_resolved(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = site.out.parent / "evil"
    evil.mkdir()
    (evil / "sitecustomize.py").write_text("raise SystemExit('PYTHONPATH got through')\n")
    monkeypatch.setenv("PYTHONPATH", str(evil))
    monkeypatch.setenv("PIP_TARGET", str(evil))
    monkeypatch.setenv("PIP_NO_DEPS", "1")
    update, _ = Wheelhouse(say=site.said.append).resolve(
        {**task(site.out, "lightning==1.0"), "wheelhouse": None, "index_url": f"{site.web.url}/packages"}, facts()
    )
    assert {one["name"] for one in update["_wheels"]} >= {"lightning", "numpy", "torch"}
    assert "not heeded on this machine while wheels are fetched: PYTHONPATH, PIP_TARGET, PIP_NO_DEPS" in site.said


@pytest.fixture
def real_uv() -> Path:
    return Path(uv_wheel())


def test_a_managed_python_comes_from_a_mirror(real_uv: Path, site: Site) -> None:
    wheels = site.out.parent / "www/files/packages"
    page = site.out.parent / "www/packages/uv/index.html"
    (wheels / real_uv.name).symlink_to(real_uv)
    page.write_text(f'<a href="/files/packages/{real_uv.name}">{real_uv.name}</a>\n')
    version, listing = make_pythons(site.out.parent / "www/pythons")
    site.build("numpy==2.3", managed=True)
    one = site.builder().fetch_python(HERE, platform.machine(), PythonSources(f"{site.web.url}/pythons", listing))
    assert (one["version"], one["machine"]) == (version, platform.machine())
    assert any(f"/pythons/20261110/cpython-{version}%2B20261110-" in path for path in site.web.asked)
    assert list(WheelFolder(str(site.out)).verify()) == []
    update, files = Wheelhouse().resolve(task(site.out, "numpy==2.3", managed_python=HERE), facts())
    assert update["_python"] == one
    assert one["sha256"] in files
    kept = json.loads((site.out / "wheelhouse.json").read_text())["files"]
    assert sorted(entry["kind"] for entry in kept) == ["python", "wheel", "wheel"]


def test_a_lock_from_version_control_is_fetched_unchanged_and_damage_is_an_exit_code(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--index", f"{site.web.url}/packages", "--pytorch-index", site.web.url]
    stack = json.dumps({"torch": "2.13.0", "variant": "cu130", "python": HERE, "glibc": GLIBC})
    kept = site.out.parent / "kept"
    assert main(["wheelhouse", "lock", "--stack", stack, "--out", str(kept), *where]) == 0
    assert not (kept / "files").exists(), "a lock needs metadata only"
    site.cu130.add("filelock", "4.0")
    lock = next((kept / "locks").iterdir())
    assert main(["wheelhouse", "build", "--lock", str(lock), "--out", str(site.out), *where]) == 0
    assert (site.out / "locks" / lock.name).read_bytes() == lock.read_bytes()
    assert main(["wheelhouse", "verify", str(site.out)]) == 0
    assert "complete and undamaged" in capsys.readouterr().out
    next((site.out / "files").rglob("filelock*.whl")).write_bytes(b"")
    assert main(["wheelhouse", "verify", str(site.out), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["troubles"][0]["kind"] == "damaged"


@pytest.mark.parametrize(
    ("stack", "words"),
    [
        ("{python: 3.10, torch: 2.13.0}", "python 3.1 is not a version as text"),
        ("{torch: 2.13.0}", "--stack needs python"),
        ('{python: "3.11"}', "--stack names no package"),
        ('{python: "3.11", troch: 1, variant: rocm, glibc: old}', "troch is not known"),
        ('{python: "3.11", troch: 1, variant: rocm, glibc: old}', "variant rocm is none of auto, cpu, cu130"),
        ('{python: "3.11", packages: ["./x"]}', "not a package"),
    ],
)
def test_mistakes_in_a_stack(stack: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wheelhouse", "lock", "--stack", stack, "--out", str(tmp_path)]) == 5
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
