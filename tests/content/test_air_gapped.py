"""The role torch on real hosts that reach no index: what travels, when, and that it imports. The real CPU build."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.lab import NEEDS_LAB, lab_of, run_on
from tests.support.torch_env import torch_python

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuprov.lab import Lab

pytestmark = [*NEEDS_LAB, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
VENV = "/opt/gpuprov/torch"
PLAY = """\
- hosts: all
  become: true
  roles:
    - role: torch
"""


class AirGapped:
    """One lab host, a wheelhouse that was built beforehand, and gpuprov without a way to any index."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.wheels = folder / "wheels"
        self.inventory = folder / "inventory.yaml"
        variables = {**json.loads(json.dumps(lab.connection("gpu01"))), "gpuprov_torch_version": "2.13.0"}
        self.inventory.write_text(yaml.safe_dump({"all": {"hosts": {"gpu01": variables}}}))
        (folder / "roles").symlink_to(ROOT / "playbooks/roles")
        (folder / "play.yaml").write_text(PLAY)

    def gpuprov(self, *words: str, offline: bool = True) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "XDG_STATE_HOME": str(self.folder / "state"), "PYTHONPATH": str(ROOT)}
        if offline:
            env.update(PIP_NO_INDEX="1", PIP_FIND_LINKS="", PIP_CONFIG_FILE=os.devnull)
            env.update(XDG_CACHE_HOME=str(self.folder / "cache"))
        argv = [sys.executable, "-m", "gpuprov", *words]
        return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False)

    def apply(self, *words: str, wheels: Path | None = None) -> dict[str, Any]:
        more = ["-e", f"gpuprov_wheelhouse={wheels or self.wheels}", "--json", *words]
        done = self.gpuprov("apply", str(self.inventory), str(self.folder / "play.yaml"), *more)
        assert done.stdout, done.stderr[-3000:]
        host: dict[str, Any] = json.loads(done.stdout)["hosts"][0]
        return host

    def on_host(self, command: str) -> str:
        done = run_on(self.lab, "gpu01", command, timeout_s=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def arrivals(self) -> str:
        """Return when a file last came to, or left, the place where files arrive."""
        return self.on_host("stat -c %y /var/lib/gpuprov/blobs")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirGapped]:
    torch_python()  # skips where no CPU build of torch can be had
    with lab_of(1) as lab:
        made = AirGapped(lab, tmp_path_factory.mktemp("air-gapped"))
        made.on_host(
            "rm -rf /var/cache/gpuprov/wheels"
        )  # a lab host begins as a view of this machine, which may have wheels
        words = [str(made.inventory), "--playbook", str(made.folder / "play.yaml"), "--out", str(made.wheels)]
        done = made.gpuprov("wheelhouse", "build", *words, offline=False)
        assert done.returncode == 0, done.stderr
        yield made


def test_a_folder_is_built_from_what_the_hosts_would_ask_for(site: AirGapped) -> None:
    done = site.gpuprov("wheelhouse", "verify", str(site.wheels))
    assert done.returncode == 0, done.stdout
    assert "1 locks" in done.stdout
    lock = next((site.wheels / "locks").iterdir())
    assert lock.name.startswith("torch-2.13.0-cpu-py")
    assert run_on(site.lab, "gpu01", f"test -e {VENV}").returncode != 0, "building changed the host"


def test_a_folder_without_the_wheels_is_refused_at_the_gate(site: AirGapped, tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    host = site.apply(wheels=tmp_path)
    assert host["outcome"] == "refused"
    said = json.dumps(host)
    assert "has nothing for nvidia-ml-py, torch==2.13.0" in said
    assert "gpuprov wheelhouse build --stack" in said
    assert run_on(site.lab, "gpu01", f"test -e {VENV}").returncode != 0


def test_wheels_travel_once_and_never_again(site: AirGapped) -> None:
    assert site.apply()["outcome"] == "changed"
    version = f"{VENV}/bin/python -c 'import torch; print(torch.__version__)'"
    assert site.on_host(version) == "2.13.0+cpu"
    before = site.arrivals()
    assert site.apply()["outcome"] == "ok"
    site.on_host(f"mv {VENV} {VENV}-gone")  # removing a gigabyte takes its time
    assert site.apply()["outcome"] == "changed"
    assert site.on_host(version) == "2.13.0+cpu"
    assert site.arrivals() == before, "something was sent although the host had everything"


# What a CUDA build has and the CPU build has not: a library that needs cuDNN, and says by RUNPATH where its own is.
FAKE_CUDNN = r"""
set -e
site=$(echo /opt/gpuprov/torch/lib/python3.*/site-packages)
library() { mkdir -p $(dirname $1); gcc -shared -nostdlib -x c /dev/null -o $1 -Wl,-soname,$(basename $1) "${@:2}"; }
library $site/nvidia/cudnn/lib/libcudnn.so.9
library /opt/old/libcudnn.so.9
library $site/torchvision/_C.so -Wl,--no-as-needed -L$site/nvidia/cudnn/lib -l:libcudnn.so.9 \
  -Wl,--enable-new-dtags,-rpath,'$ORIGIN/../nvidia/cudnn/lib'
cat > $site/torchvision/__init__.py <<'END'
import ctypes, os
__version__ = "0.28.0"
ctypes.CDLL(os.path.dirname(__file__) + "/_C.so")
END
echo 'export LD_LIBRARY_PATH=/opt/old' > /etc/profile.d/zz-old.sh
"""
LOOK = """\
- hosts: all
  become: true
  tasks:
    - gpuprov_torch:
        virtualenv: /opt/gpuprov/torch
        imports: [torch, torchvision]
        versions: {torch: 2.13.0}
        variant: cpu
        places: [clean, login, ssh, service]
        foreign: "{{ foreign | default('warn') }}"
"""


def test_other_cuda_libraries_on_the_path_of_login_shells_are_named(site: AirGapped) -> None:
    """The real torch beside a test torchvision, the real loader and the real shells of a host."""
    site.on_host("bash -c " + shlex.quote(FAKE_CUDNN))
    play = site.folder / "look.yaml"
    play.write_text(LOOK)
    said = "/opt/old/libcudnn.so.9 is loaded instead of the wheel's own (login): LD_LIBRARY_PATH has /opt/old"
    done = site.gpuprov("apply", str(site.inventory), str(play), "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    assert said in done.stdout
    done = site.gpuprov("apply", str(site.inventory), str(play), "--json", "-e", "foreign=fail")
    assert done.returncode == 2
    assert said in done.stdout
