"""site.yaml on a real host: checked, applied, applied again, taken back; and asked through ssh what it did."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from gpuprov.lab import HostOptions
from gpuprov.lab.options import User
from tests.support.lab import NEEDS_LAB, lab_of, run_on
from tests.support.torch_env import torch_python

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuprov.lab import Lab

pytestmark = NEEDS_LAB

ROOT = Path(__file__).resolve().parents[2]
BIN, LIB = "/usr/local/cuda/bin", "/usr/local/cuda/lib64"
OWN = {"CUDA_HOME": "/usr/local/cuda", "NCCL_DEBUG": "WARN", "NOTE": 'it\'s 100% "$HOME"'}
SHELLS = [shell for shell in ("bash", "fish", "csh", "tcsh", "zsh") if shutil.which(shell)]
#: Everything that the playbook may change, but for the agent's own folder and what programs leave by running.
STATE = (
    "find /etc /opt /usr/local/bin /var/lib -xdev -path /var/lib/gpuprov -prune -o -name __pycache__ -prune -o"
    " \\( -type f -o -type l -o -type d \\) -printf '%p %y %m %s %l %T@\\n' | sort"
)


class Site:
    """One host, and gpuprov run on it as a person would."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.name = "gpu01"
        variables = {
            **lab.connection(self.name),
            "gpuprov_torch_source": "controller",
            "gpuprov_torch_version": "2.13.0",
        }
        variables["gpuprov_environment_variables"] = OWN
        variables["gpuprov_stack"] = {"torch": "2.13.0"}  # the CPU build that this machine can have
        self.inventory = folder / "inventory.yaml"
        self.inventory.write_text(yaml.safe_dump({"all": {"hosts": {self.name: json.loads(json.dumps(variables))}}}))

    def apply(self, *words: str) -> dict[str, Any]:
        argv = [sys.executable, "-m", "gpuprov", "apply", str(self.inventory), "playbooks/site.yaml", "--json", *words]
        env = {**os.environ, "XDG_STATE_HOME": str(self.folder / "state")}
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
        report: dict[str, Any] = json.loads(done.stdout)
        return dict(report["hosts"][0])

    def state(self) -> str:
        done = run_on(self.lab, self.name, STATE)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def environment(self, command: str = "env", user: str = "root") -> dict[str, str]:
        done = run_on(self.lab, self.name, command, user=user)
        assert done.returncode == 0, done.stderr
        return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    torch_python()  # skips where no CPU build of torch can be had
    users = tuple(User(f"u{shell}", shell=str(shutil.which(shell))) for shell in SHELLS)
    with lab_of(1, {"gpu01": HostOptions(users=users)}) as lab:
        run_on(lab, "gpu01", f"mkdir -p {LIB}")
        yield Site(lab, tmp_path_factory.mktemp("site"))


def changed(report: dict[str, Any]) -> list[str]:
    return [task["name"] for task in report["tasks"] if task["outcome"] == "changed"]


def has_everything_once(found: dict[str, str]) -> None:
    parts = found["PATH"].split(":")
    assert (parts[0], parts.count(BIN)) == (BIN, 1), found["PATH"]
    assert "" not in parts, found["PATH"]
    assert "LD_LIBRARY_PATH" not in found
    assert {name: found.get(name) for name in OWN} == OWN


def test_check_mode_changes_nothing(site: Site) -> None:
    before = site.state()
    report = site.apply("--check")
    assert {"Torch in a virtual environment", "For login shells", "For services"} <= set(changed(report))
    assert site.state() == before
    assert not [task["name"] for task in report["tasks"] if task["outcome"] == "failed"]


def test_apply_then_nothing_is_left_to_do(site: Site) -> None:
    report = site.apply()
    assert "Torch in a virtual environment" in changed(report)
    assert report["verdict"] in ("pass", "skip")
    skips = {task["name"]: task["skip"] for task in report["tasks"] if task["outcome"] == "skipped"}
    if not Path("/proc/driver/nvidia/version").exists():
        assert skips["The driver's packages, all at one version"] == "no NVIDIA GPU (PCI 10de)"
    assert skips["Ask a service for its environment"] == "systemd is not running"
    before = site.state()
    assert changed(site.apply()) == []
    assert site.state() == before
    assert not [line for line in before.splitlines() if "/.gpuprov-" in line], "something was left behind"
    blobs = run_on(site.lab, site.name, "ls -A /var/lib/gpuprov/blobs 2>/dev/null").stdout
    assert blobs == ""


def test_torch_is_the_cpu_build_from_this_machine(site: Site) -> None:
    command = "/opt/gpuprov/torch/bin/python -c 'import torch; print(torch.__version__, torch.cuda.is_available())'"
    done = run_on(site.lab, site.name, command)
    assert done.stdout.split() == ["2.13.0+cpu", "False"], done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_a_command_over_ssh_has_the_environment(site: Site, shell: str) -> None:
    has_everything_once(site.environment(user=f"u{shell}"))


@pytest.mark.parametrize("login", ["bash -lc env", "sh -lc env", "bash -lc 'bash -lc env'", "bash -lic env"])
def test_login_shells_have_the_environment(site: Site, login: str) -> None:
    has_everything_once(site.environment(login))


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "ksh", "zsh", "tcsh", "fish"])
def test_the_activated_torch_environment_has_it(site: Site, shell: str) -> None:
    """uv's own activate scripts, read by each kind of shell that they are for."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed here")
    kind = {"tcsh": ".csh", "fish": ".fish"}.get(shell, "")
    word = "source" if kind else "."
    script = f"{word} /opt/gpuprov/torch/bin/activate{kind}; env"
    command = f"env -i HOME=/root PATH=/usr/bin:/bin TERM=dumb {shell} -c {shlex.quote(script)}"
    found = site.environment(command)
    assert found["PATH"].split(":")[:2] == ["/opt/gpuprov/torch/bin", BIN]
    assert {name: found.get(name) for name in OWN} == OWN


def test_the_loader_knows_the_toolkits_libraries(site: Site) -> None:
    lines = run_on(site.lab, site.name, "cat /etc/ld.so.conf.d/gpuprov-cuda.conf").stdout.splitlines()
    assert [line for line in lines if not line.startswith("#")] == [LIB]


def test_everything_can_be_taken_away(site: Site) -> None:
    site.apply("-t", "environment", "-e", "gpuprov_environment_state=absent")
    for user in ("root", *(f"u{shell}" for shell in SHELLS)):
        found = site.environment(user=user)
        assert BIN not in found["PATH"]
        assert not set(OWN) & set(found)
    assert "gpuprov" not in run_on(site.lab, site.name, "cat /etc/bash.bashrc").stdout
    assert "gpuprov-cuda" not in "\n".join(
        line.split()[0] for line in site.state().splitlines() if line.startswith("/etc")
    )
    assert "gpuprov-cuda" not in run_on(site.lab, site.name, "cat /opt/gpuprov/torch/bin/activate*").stdout
