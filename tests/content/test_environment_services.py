"""The role environment under a real systemd: services, shells and the virtual environment have it; then nothing has."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.content.test_environment import ODD, environment_of
from tests.support.systemd_host import SystemdHost

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="namespaces with a systemd need root")]

PREFIX = "/opt/cuda-99"
SETTINGS: dict[str, Any] = {
    "gpuprov_cuda_prefix": PREFIX,
    "gpuprov_environment_library_path": [f"{PREFIX}/lib64"],
    "gpuprov_environment_variables": ODD,
}
CHECKED = (
    "Shells have the environment",
    "Services have the environment",
    "The virtual environment has the environment",
    "The loader knows the toolkit's libraries",
)
INVENTORY = "/tmp/inventory.yaml"
PYTHON = "/tmp/repo/.venv/bin/python"
#: What the role may touch; the loader's cache is made anew, and folders of an overlay change their size.
STATE = "find /etc /opt -xdev ! -name ld.so.cache \\( -type d -printf '%p %m\\n' -o -printf '%p %y %m %s\\n' \\) | sort"


class Host:
    """A host with systemd, and gpuprov run on it over its local connection."""

    def __init__(self, host: SystemdHost) -> None:
        self._host = host
        hosts = {"here": {"ansible_connection": "local", "ansible_python_interpreter": PYTHON}}
        self.sh('printf %s "$1" > "$2"', json.dumps({"all": {"hosts": hosts}}), INVENTORY)

    def sh(self, script: str, *words: str) -> str:
        done = self._host.run("sh", "-c", script, "sh", *words)
        assert done.returncode == 0, done.stdout.decode()
        return done.stdout.decode()

    def state(self) -> str:
        """Return what is in the folders that the role may touch."""
        return self.sh(STATE)

    def apply(self, code: int = 0, tags: str = "environment,verify_environment", **settings: Any) -> dict[str, str]:
        """Return task name -> outcome, and the host's cause."""
        argv = [PYTHON, "-m", "gpuprov", "apply", INVENTORY, "playbooks/site.yaml", "--json"]
        argv += ["-t", tags, "-e", json.dumps(settings)]
        done = self._host.run("env", "-C", "/tmp/repo", "HOME=/root", "PYTHONDONTWRITEBYTECODE=1", *argv)
        said = done.stdout.decode()
        assert done.returncode == code, said[-3000:]
        (host,) = json.loads(said)["hosts"]
        return {task["name"]: task["outcome"] for task in host["tasks"]} | {"cause": host["cause"]}


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with SystemdHost() as booted:
        found = Host(booted)
        found.sh(f"{PYTHON} -m venv --without-pip /opt/gpuprov/torch")
        yield found


def test_everybody_is_asked_and_has_it_until_it_is_taken_away(host: Host) -> None:
    host.sh(f"mkdir -p {PREFIX}/lib64 && cp $(ls /usr/lib/*/libz.so.1) {PREFIX}/lib64/libz.so.1")
    before = host.state()

    outcomes = host.apply(**SETTINGS)
    for name in CHECKED:
        assert outcomes[name] == "ok", (name, outcomes)
    assert outcomes["The loader reads its settings again"] == "changed"
    assert f"=> {PREFIX}/lib64/" in host.sh("/sbin/ldconfig -p")
    service = environment_of(host.sh("systemd-run --wait --pipe --quiet --collect /usr/bin/env").splitlines())
    assert {name: service.get(name) for name in ODD} == {name: str(value) for name, value in ODD.items()}
    assert service["PATH"].split(":")[0] == f"{PREFIX}/bin"
    assert service["LD_LIBRARY_PATH"] == f"{PREFIX}/lib64"
    assert "changed" not in host.apply(**SETTINGS).values()

    host.sh("echo 'export SPACES=other' >> ~root/.profile")
    cause = host.apply(2, **SETTINGS)["cause"]
    assert cause.startswith("Shells have the environment: login shell, ")
    assert "without SPACES=  a  b" in cause
    host.sh("sed -i /SPACES=other/d ~root/.profile")

    host.apply(**{**SETTINGS, "gpuprov_environment_state": "absent"})
    assert host.state() == before
    left = host.sh("/sbin/ldconfig -p; systemctl show-environment; bash -lc env; cat /opt/gpuprov/torch/bin/activate*")
    assert PREFIX not in left
    assert "gpuprov-cuda" not in left


def test_a_service_that_lacks_a_variable_is_named(host: Host) -> None:
    host.apply(**SETTINGS)
    host.sh("sed -i /PERCENT/d /etc/systemd/system.conf.d/50-gpuprov-cuda.conf; systemctl daemon-reexec")
    cause = host.apply(2, tags="verify_environment", **SETTINGS)["cause"]
    assert cause == "Services have the environment: services: without PERCENT=100% %h %%n %i"
    host.apply(**{**SETTINGS, "gpuprov_environment_state": "absent"})
