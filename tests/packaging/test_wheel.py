"""The wheel: what is in it, what it asks for, and that it works where there is no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from email.message import Message

ROOT = Path(__file__).resolve().parents[2]
#: Where the folders of the checkout are in the wheel.
PLACES = {"gpuprov": "gpuprov", "playbooks": "gpuprov/content/playbooks", "templates": "gpuprov/content/templates"}

INVENTORY = """\
all:
  hosts:
    here:
      ansible_connection: local
      ansible_python_interpreter: {python}
      gpuprov_state_dir: {state}
"""


def build(kind: str, source: Path, folder: Path) -> Path:
    """Build with the backend itself, which asks no index for anything."""
    argv = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(folder)]
    subprocess.run(argv, cwd=source, check=True, capture_output=True)
    [built] = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [one for one in archive.namelist() if one.endswith(".dist-info/METADATA")]
        return message_from_bytes(archive.read(name))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that has the wheel; what gpuprov needs comes from ours."""
    venv = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    argv = [sys.executable, "-m", "pip", "--python", str(venv / "bin/python"), "install", "--quiet"]
    subprocess.run([*argv, "--no-index", "--no-deps", str(wheel)], check=True)
    return venv


def gpuprov(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HOME": str(folder), "PYTHONPATH": sysconfig.get_path("platlib")}
    environment.pop("XDG_CACHE_HOME", None)
    argv = [str(installed / "bin/gpuprov"), *words]
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)


def files_below(folder: Path) -> set[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name for name in found if "__pycache__" not in name}


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_everything_of_the_checkout_that_is_used_is_in_it_and_nothing_else(wheel: Path) -> None:
    wanted = {f"{place}/{name}" for folder, place in PLACES.items() for name in files_below(ROOT / folder)}
    assert names(wheel) == wanted
    assert {"gpuprov/py.typed", "gpuprov/content/playbooks/site.yaml"} <= wanted
    assert any(name.startswith("gpuprov/report/page/") and not name.endswith(".py") for name in wanted)


def test_built_from_the_source_archive_it_is_the_same(wheel: Path, tmp_path: Path) -> None:
    archive = build("sdist", ROOT, tmp_path / "sdist")
    (tmp_path / "source").mkdir()
    subprocess.run(["tar", "-xf", str(archive), "-C", str(tmp_path / "source")], check=True)
    [source] = (tmp_path / "source").iterdir()
    assert names(build("wheel", source, tmp_path / "wheel")) == names(wheel)


def test_only_the_extra_asks_for_torch(metadata: Message) -> None:
    needs = metadata.get_all("Requires-Dist", [])
    plain = sorted(need for need in needs if "extra ==" not in need)
    assert [need.partition(">")[0] for need in plain] == ["jinja2", "paramiko", "pip", "pyyaml", "rich"]
    proof = sorted(need.partition(">")[0] for need in needs if "extra == 'proof'" in need)
    assert proof == ["nvidia-ml-py", "torch"]


def test_it_says_its_version(installed: Path, metadata: Message, tmp_path: Path) -> None:
    done = gpuprov(installed, tmp_path, "--version")
    assert (done.stdout, done.stderr, done.returncode) == (f"gpuprov {metadata['Version']}\n", "", 0)


def test_the_packaged_playbook_and_its_templates_are_found_from_an_empty_folder(
    installed: Path, tmp_path: Path
) -> None:
    inventory = tmp_path / "inventory.yaml"
    inventory.write_text(INVENTORY.format(python=sys.executable, state=tmp_path / "state"))
    done = gpuprov(installed, tmp_path, "plan", "inventory.yaml", "--skip-tags", "torch,verify", "--diff")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "packaged playbooks/site.yaml" in done.stdout
    assert "/usr/local/cuda/bin" in done.stdout  # a rendered template


def test_the_doctors_table_is_in_it(installed: Path, tmp_path: Path) -> None:
    done = gpuprov(installed, tmp_path, "doctor", "--text", "Torch not compiled with CUDA enabled")
    assert (done.returncode, done.stderr) == (3, "")
    assert "torch-cpu-build" in done.stdout
