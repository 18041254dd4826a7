"""The distribution's own driver and toolkit, installed by gpuprov on a booted host, and taken away again. Long.

`make prove-stack`. What the roles did is found out with the host's own tools, not with gpuprov's.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.booted.host import Host, differences
from tests.support.lab import NEEDS_BOOTED

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

pytestmark = [*NEEDS_BOOTED, pytest.mark.slow, pytest.mark.stack]
WANT = {"driver": "535", "cuda": "11.8", "torch": "none", "repository": "distribution"}
KERNEL = ["linux-image-cloud-amd64", "linux-headers-cloud-amd64"]
SITE = "playbooks/site.yaml"
NO_GPU = "driver 535.309.01 is installed, no GPU on the PCI bus: nothing was measured"
#: The open modules, as somebody would ask for them who knows names only.
OPEN = """
- hosts: all
  become: true
  tasks:
    - gpuprov_packages:
        packages: [nvidia-open-kernel-dkms, nvidia-smi, libcuda1]
        simulate_only: true
"""


def report(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the report of the one host."""
    (host,) = json.loads(done.stdout)["hosts"]
    found: dict[str, Any] = host
    return found


def skips(host: dict[str, Any]) -> dict[str, str]:
    return {task["name"]: task["skip"] for task in host["tasks"] if task["outcome"] == "skipped"}


def test_the_story_by_gpuprov(booted: Host, tmp_path: Path) -> None:
    host = booted
    before, files = host.packages(), host.files()
    settings = {"gpuprov_driver_kernel_packages": KERNEL}

    host.transcript.chapter("The open flavour is refused before any change, with a way out")
    inventory = str(host.inventory(tmp_path, gpuprov_stack={**WANT, "flavour": "open"}, **settings))
    refused = host.gpuprov("apply", inventory, SITE, folder=tmp_path)
    assert refused.returncode == 6
    assert "the archive of debian" in refused.stdout
    assert "flavour: auto" in refused.stdout
    assert differences(before, host.packages()) == []

    host.transcript.chapter("Plan, then kernel, driver and toolkit")
    inventory = str(host.inventory(tmp_path, gpuprov_stack=WANT, **settings))
    plan = host.gpuprov("plan", inventory, SITE, folder=tmp_path)
    assert plan.returncode == 0
    assert "driver 535.309.01 (proprietary kernel modules)" in plan.stdout
    assert differences(before, host.packages()) == []
    applied = host.gpuprov("apply", inventory, SITE, folder=tmp_path)
    assert applied.returncode == 3, "installed, and not healthy: there is no GPU"
    assert NO_GPU in " ".join(applied.stdout.split())

    kernel = host.kernel_to_boot()
    module = host.module(kernel, "nvidia", "nvidia-current")
    assert (module["version"], module["license"]) == ("535.309.01", "NVIDIA")
    assert "blacklist nouveau" in host.initramfs(kernel)
    held = set(host.ask("apt-mark showhold").split())
    assert {"nvidia-kernel-dkms", "libcuda1", "nvidia-smi", "nvidia-cuda-toolkit"} <= held
    assert "release 11.8" in host.do("bash -lc 'nvcc --version'")
    assert "nvidia" in host.ask("apt-config dump Unattended-Upgrade::Package-Blacklist")

    host.transcript.chapter("By names alone, a simulation finds that the open flavour cannot be installed")
    (tmp_path / "open.yaml").write_text(OPEN)
    simulated = host.gpuprov("apply", inventory, str(tmp_path / "open.yaml"), folder=tmp_path)
    assert simulated.returncode == 2
    assert "nothing was changed" in simulated.stdout

    host.transcript.chapter("A reboot, and a second run that changes nothing")
    host.reboot()
    installed = host.packages()
    again = host.gpuprov("apply", inventory, SITE, "--json", folder=tmp_path)
    assert again.returncode == 3
    found = report(again)
    assert found["totals"]["changed"] == 0, [t["name"] for t in found["tasks"] if t["outcome"] == "changed"]
    assert skips(found)["Loaded, installed and pinned are one"].startswith("lab kernel: ")
    assert found["verdict"] == "unknown"
    assert differences(installed, host.packages()) == []

    host.transcript.chapter("Drift")
    drift = host.gpuprov("drift", inventory, folder=tmp_path)
    assert drift.returncode == 2
    assert drift.stdout.splitlines()[1:] == ["  driver: kernel module: wanted 535.309.01, not loaded"]
    host.do("apt-mark unhold nvidia-smi")
    drifted = host.gpuprov("drift", inventory, folder=tmp_path)
    assert "driver: nvidia-smi: wanted on hold, not on hold" in drifted.stdout

    host.transcript.chapter("Removal leaves the package list as it was")
    removed = host.gpuprov("remove", inventory, "--yes", folder=tmp_path)
    assert removed.returncode == 0, removed.stdout + removed.stderr
    assert differences(before, host.packages()) == []
    left = host.files() - files
    host.transcript.note(f"left: {', '.join(sorted(left))}")
    assert left <= {"/var/lib/dkms", "/var/lib/dkms/mok.key", "/var/lib/dkms/mok.pub"}
    assert host.ask("apt-mark showhold") == ""
    assert "nvidia" not in host.ask("systemctl --failed --no-legend")
