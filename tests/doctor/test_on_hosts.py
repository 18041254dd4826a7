"""`gpuprov doctor INVENTORY` over real sshd hosts with trouble planted on them; the GPUs' own words are doubles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.lab import NEEDS_LAB, lab_of, run_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuprov.lab import Lab

pytestmark = NEEDS_LAB

ROOT = Path(__file__).resolve().parents[2]
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch"
TROUBLE = f"""
printf '#!/bin/sh\\necho "{MISMATCH}"\\nexit 18\\n' > /usr/local/bin/nvidia-smi && chmod 755 /usr/local/bin/nvidia-smi
mkdir -p /opt/gpuprov/torch/bin
printf '#!/bin/sh\\necho "Torch not compiled with CUDA enabled" >&2\\nexit 1\\n' > /opt/gpuprov/torch/bin/python
chmod 755 /opt/gpuprov/torch/bin/python
"""


class Fleet:
    """Lab hosts, and gpuprov asked about them as a person would."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        hosts = {name: json.loads(json.dumps({**lab.connection(name)})) for name in ("gpu01", "gpu02", "gpu03")}
        hosts["gone"] = {**hosts["gpu01"], "ansible_port": 1}
        self.inventory = folder / "inventory.yaml"
        self.inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts}}))

    def doctor(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "gpuprov", "doctor", str(self.inventory), *words]
        env = {**os.environ, "XDG_STATE_HOME": str(self.folder / "state")}
        return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with lab_of(3) as lab:
        for name in ("gpu01", "gpu02"):
            done = run_on(lab, name, "sh", stdin=TROUBLE)
            assert done.returncode == 0, done.stderr
        yield Fleet(lab, tmp_path_factory.mktemp("fleet"))


def test_hosts_with_the_same_trouble_are_shown_once(fleet: Fleet) -> None:
    done = fleet.doctor("gpu[01:03]")
    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith("gpu[01-02]  (2 hosts)\n")
    assert done.stdout.count(f"| nvidia_smi: {MISMATCH}") == 1
    assert "torch: Torch not compiled with CUDA enabled" in done.stdout
    assert "could not be told" in done.stdout
    assert "systemd is not running" in done.stdout
    assert "nothing found: gpu03  (1 host)" in done.stdout


def test_json_says_the_same(fleet: Fleet) -> None:
    done = fleet.doctor("-l", "gpu01,gpu03", "--json")
    assert done.returncode == 3, done.stderr
    hosts: dict[str, Any] = json.loads(done.stdout)["hosts"]
    assert set(hosts) == {"gpu01", "gpu03"}
    assert {f["id"] for f in hosts["gpu01"]["findings"]} == {"driver-version-mismatch", "torch-cpu-build"}
    assert all(isinstance(f["fix"], list) and f["fix"] for f in hosts["gpu01"]["findings"])
    assert hosts["gpu03"]["findings"] == []
    assert hosts["gpu03"]["could_not_be_told"]


def test_a_host_that_cannot_be_asked_is_not_well(fleet: Fleet) -> None:
    done = fleet.doctor("gone", "gpu03")
    assert done.returncode == 4
    assert "gone  unreachable" in done.stderr
    assert "nothing found: gpu03" in done.stdout
    assert "error" in json.loads(fleet.doctor("gone", "--json").stdout)["hosts"]["gone"]


def test_a_host_is_asked_although_a_run_holds_it_and_nothing_is_changed(fleet: Fleet) -> None:
    lock = "/var/lib/gpuprov/lock"
    held = json.dumps({"run": "r9", "owner": "somebody@else", "begun": True, "pid": 1})
    run_on(fleet.lab, "gpu03", f"mkdir -p /var/lib/gpuprov && cat > {lock}", stdin=held)
    state = (
        "find /etc /opt /usr/local /var/lib -xdev -path /var/lib/gpuprov -prune -o -printf '%p %y %m %s %T@\\n' | sort"
    )
    before = run_on(fleet.lab, "gpu03", state).stdout
    done = fleet.doctor("gpu03")
    assert done.returncode == 0, done.stdout + done.stderr
    assert run_on(fleet.lab, "gpu03", state).stdout == before
    assert json.loads(run_on(fleet.lab, "gpu03", f"cat {lock}").stdout)["run"] == "r9"
