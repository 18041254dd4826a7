"""The stack on a real host, real apt, from a repository with NVIDIA's names: install, switch, go back, remove."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support import nvidia_packages as nvidia
from tests.support.deb_repository import DebRepository
from tests.support.lab import NEEDS_LAB, lab_of, run_on
from tests.support.signing_key import SigningKey
from tests.support.web import serve

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = NEEDS_LAB
ROOT = Path(__file__).resolve().parents[2]
LTS, NEWER = "580.178.04", "595.91.07"
PARTS = "stack,driver,fabric,cuda,extras"


class Site:
    """An admin with one host and a mirror of NVIDIA's repository for Debian 12."""

    def __init__(self, lab: Any, folder: Path, key: SigningKey) -> None:
        self.lab = lab
        self.folder = folder
        self.key = key
        self.repo = DebRepository(str(folder / "mirror/debian12/x86_64"), key)
        for version in (LTS, NEWER):
            nvidia.add(self.repo, nvidia.DEBIAN, version + "-1")
            nvidia.add(self.repo, nvidia.LOCKSTEP, version + "-1")
            nvidia.add_pinning(self.repo, version.split(".")[0], version + "-1")
        nvidia.add_cuda(self.repo)
        compiler = "/usr/local/cuda-12.8/bin/nvcc"  # a double of it, which only tells its version
        self.repo.add(
            "cuda-nvcc-12-8",
            "12.8.1-1",
            files={compiler: b"#!/bin/sh\necho Cuda compilation tools, release 12.8\n"},
            scripts={"postinst": f"#!/bin/sh\nchmod 755 {compiler}\n"},
        )
        self.repo.publish()
        Path(self.repo.folder, "key.pub").write_bytes(key.armoured())
        self.mirror = f"http://127.0.0.1:{serve(str(folder / 'mirror'))}"

    def inventory(self, **want: str) -> str:
        url = f"{self.mirror}/debian12/x86_64/key.pub"
        values = {
            **self.lab.connection("gpu01"),
            "gpuprov_stack": {"torch": "none", **want},
            "gpuprov_repository_mirror": self.mirror,
            "gpuprov_repository_fingerprint": self.key.fingerprint,
            "gpuprov_repository_key_url": url,
        }
        path = self.folder / "inventory.yaml"
        path.write_text(yaml.safe_dump({"all": {"hosts": {"gpu01": json.loads(json.dumps(values))}}}))
        return str(path)

    def gpuprov(self, *words: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "XDG_STATE_HOME": str(self.folder / "state")}
        argv = [sys.executable, "-m", "gpuprov", *words]
        return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)

    def apply(self, inventory: str, command: str = "apply", *more: str) -> dict[str, Any]:
        """Run it; return the host's report. A driver without a GPU is installed, and never healthy."""
        done = self.gpuprov(command, inventory, *(("-t", PARTS) if command == "apply" else ()), *more, "--json")
        assert done.returncode == 3, done.stdout[-3000:] + done.stderr
        (host,) = json.loads(done.stdout)["hosts"]
        assert host["verdict"] == "unknown"
        found: dict[str, Any] = host
        return found

    def ask(self, command: str) -> str:
        done = run_on(self.lab, "gpu01", command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def packages(self) -> dict[str, str]:
        said = self.ask("dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\\n'")
        lines = (line.split() for line in said.splitlines() if line.startswith("installed "))
        return {name: version for _, name, version in lines}

    def drift(self, inventory: str) -> list[str]:
        done = self.gpuprov("drift", inventory)
        assert done.returncode in (0, 2), done.stderr
        return [line.strip() for line in done.stdout.splitlines()[1:]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with lab_of(1) as lab, SigningKey() as key:
        yield Site(lab, tmp_path_factory.mktemp("site"), key)


NOT_LOADED = "driver: kernel module: wanted {}, not loaded"


def test_install_switch_go_back_and_remove(site: Site) -> None:
    before = site.packages()
    open_580 = site.inventory(driver="580", cuda="12.8")
    first = site.apply(open_580)
    assert first["stack"]["driver"]["version"] == LTS
    there = site.packages()
    assert there["nvidia-kernel-open-dkms"] == LTS + "-1"
    assert there["cuda-toolkit-12-8"] == "12.8.1-1"
    assert {"nvidia-kernel-open-dkms", "nvidia-driver-cuda", "libcuda1"} <= set(site.ask("apt-mark showhold").split())
    again = site.apply(open_580)
    assert again["totals"]["changed"] == 0, [t["name"] for t in again["tasks"] if t["outcome"] == "changed"]
    assert site.packages() == there
    assert site.drift(open_580) == [NOT_LOADED.format(LTS)]

    proprietary = site.inventory(driver="580", flavour="proprietary", cuda="12.8")
    assert "driver: nvidia-kernel-dkms: wanted 580.178.04-*, not installed" in site.drift(proprietary)
    site.apply(proprietary)
    there = site.packages()
    assert there["nvidia-kernel-dkms"] == LTS + "-1"
    assert "nvidia-kernel-open-dkms" not in there

    newer = site.inventory(driver="595", flavour="open", cuda="12.8")
    site.apply(newer)
    there = site.packages()
    assert {there[name] for name in ("nvidia-kernel-open-dkms", "nvidia-driver-cuda", "libcuda1")} == {NEWER + "-1"}
    assert "nvidia-kernel-dkms" not in there

    back = site.apply(newer, "rollback", "-t", PARTS)
    assert (back["stack"]["driver"]["version"], back["stack"]["driver"]["flavour"]) == (LTS, "proprietary")
    there = site.packages()
    assert there["nvidia-kernel-dkms"] == LTS + "-1"
    assert site.drift(site.inventory(driver="580", flavour="proprietary", cuda="12.8")) == [NOT_LOADED.format(LTS)]

    removed = site.gpuprov("remove", newer, "--yes")
    assert removed.returncode == 0, removed.stdout + removed.stderr
    assert site.packages() == before
    assert (
        site.ask("ls /etc/apt/sources.list.d /etc/apt/keyrings /etc/modprobe.d | grep -iE 'cuda|gpuprov' || true") == ""
    )
    assert site.ask("apt-mark showhold") == ""


def test_a_version_that_vanished_is_refused_before_any_change(site: Site) -> None:
    before = site.packages()
    done = site.gpuprov("apply", site.inventory(driver="580.95.05"), "-t", PARTS)
    assert done.returncode == 2
    said = " ".join(done.stdout.split())
    assert "580.95.05" in said
    assert LTS in said
    assert site.packages() == before


def test_a_key_that_is_another_is_refused_with_both_fingerprints(site: Site) -> None:
    inventory = yaml.safe_load(Path(site.inventory(driver="580")).read_text())
    inventory["all"]["hosts"]["gpu01"]["gpuprov_repository_fingerprint"] = "EB693B3035CD5710E231E123A4B469963BF863CC"
    path = site.folder / "other.yaml"
    path.write_text(yaml.safe_dump(inventory))
    site.ask("rm -f /etc/apt/sources.list.d/cuda-debian12.sources")
    done = site.gpuprov("apply", str(path), "-t", PARTS)
    assert done.returncode == 2
    assert "EB693B3035CD5710E231E123A4B469963BF863CC" in done.stdout
    assert site.key.fingerprint in done.stdout
