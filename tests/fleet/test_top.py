"""`gpuprov top` on lab hosts over real SSH, with a libnvidia-ml.so.1 that is a double."""

from __future__ import annotations

import functools
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpuprov.lab import HostOptions
from tests.support.lab import NEEDS_LAB, lab_of, run_on

pytestmark = [*NEEDS_LAB, pytest.mark.skipif(shutil.which("cc") is None, reason="the double is built by cc")]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    seed = tmp_path_factory.mktemp("seed")
    library = seed / "usr/lib/libnvidia-ml.so.1"
    library.parent.mkdir(parents=True)
    source = ROOT / "tests/support/watched_nvml.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    with_gpus = HostOptions(seed=str(seed), files={"/etc/watched-gpus": "2\n"})
    with lab_of(3, {"gpu01": with_gpus, "gpu02": with_gpus}) as lab:
        yield lab


@pytest.fixture
def inventory(lab, tmp_path):
    hosts = {name: {k: str(v) for k, v in lab.connection(name).items()} for name in ("gpu01", "gpu02", "gpu03")}
    path = tmp_path / "hosts.json"
    path.write_text(json.dumps({"all": {"hosts": hosts}}))
    return str(path)


def top(inventory, *words):
    command = [sys.executable, "-m", "gpuprov", "top", inventory, *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_one_table_when_nobody_watches(lab, inventory):
    done = top(inventory)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert (
        lines[0] == "SIMULATED GPUs on 2 hosts   3 hosts, 4 GPUs, 90 % used on average, 1.2 kW, 1 host without values"
    )
    assert lines[2].split()[0] == "gpu03"
    assert "no NVIDIA driver: there is no libnvidia-ml.so.1" in lines[2]
    assert lines[3].split()[:6] == ["gpu01", "0", "90", "10.0", "/", "80"]
    assert "H100 80GB HBM3  " in lines[3]
    assert "(1)" in lines[3]  # the process of that GPU, by the host's own number
    assert len(lines) == 7
    nothing_is_left(lab)


@pytest.mark.slow
def test_sick_ones_are_first_and_named(lab, inventory):
    run_on(lab, "gpu01", "touch /etc/watched-lost")
    run_on(lab, "gpu02", "touch /etc/watched-brake")
    try:
        found = {host["name"]: host for host in json.loads(top(inventory, "--json").stdout)["hosts"]}
        lines = top(inventory).stdout.splitlines()
    finally:
        run_on(lab, "gpu01", "rm /etc/watched-lost")
        run_on(lab, "gpu02", "rm /etc/watched-brake")
    assert [gpu["sick"] for gpu in found["gpu01"]["gpus"]] == ["", "lost: GpuIsLost"]
    assert found["gpu01"]["gpus"][1]["utilization"] is None
    assert [gpu["sick"] for gpu in found["gpu02"]["gpus"]] == ["power brake", ""]
    assert "lost: GpuIsLost" in lines[3]


@pytest.mark.slow
def test_a_driver_that_differs_from_its_library(lab, inventory):
    run_on(lab, "gpu01", "touch /etc/watched-old")
    try:
        text = top(inventory, "--limit", "gpu01").stdout
    finally:
        run_on(lab, "gpu01", "rm /etc/watched-old")
    assert "driver and library differ in version" in text


@pytest.mark.slow
def test_a_call_that_never_returns_is_named(lab, inventory):
    run_on(lab, "gpu01", "touch /etc/watched-hang")
    try:
        text = top(inventory, "--limit", "gpu01").stdout
    finally:
        run_on(lab, "gpu01", "rm /etc/watched-hang")
    assert "nvmlDeviceGetTemperature does not return: NVML hangs" in text
    nothing_is_left(lab)  # although a thread of it hangs


def test_a_host_that_cannot_be_reached_is_shown_and_the_code_is_4(lab, inventory):
    document = json.loads(Path(inventory).read_text())
    document["all"]["hosts"]["gpu09"] = {**document["all"]["hosts"]["gpu01"], "ansible_port": "1"}
    Path(inventory).write_text(json.dumps(document))
    done = top(inventory, "--limit", "gpu01,gpu09")
    assert done.returncode == 4
    assert "gpu09" in done.stdout.splitlines()[2]
    assert "refused" in done.stdout.splitlines()[2]
    assert "H100" in done.stdout


def test_a_terminal_is_refreshed_until_ctrl_c(lab, inventory):
    run_on(lab, "gpu01", "echo 2 > /etc/watched-gpus")
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "gpuprov", "top", inventory, "--limit", "gpu01", "--interval", "0.3"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120", "LINES": "24"}
    # whoever runs the tests in the background ignores SIGINT, and children inherit that
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    watching = subprocess.Popen(command, env=env, preexec_fn=heed, **pipes)
    os.close(terminal)
    seen = b""
    try:
        seen = until(main, seen, b"2 GPUs")
        run_on(lab, "gpu01", "echo 3 > /etc/watched-gpus")
        seen = until(main, seen, b"3 GPUs")
        watching.send_signal(2)
        seen = until(main, seen, b"\x1b[?1049l")
        assert watching.wait(20) == 0
    finally:
        watching.kill()
        watching.wait()
        os.close(main)
        run_on(lab, "gpu01", "echo 2 > /etc/watched-gpus")
    assert seen.startswith(b"\x1b[?1049h")


def nothing_is_left(lab):
    deadline = time.monotonic() + 60
    while run_on(lab, "gpu01", "pgrep -f 'exec.sys.stdin.buffer'").returncode == 0:
        assert time.monotonic() < deadline, "the watch goes on although nobody watches"
        time.sleep(0.1)


def until(descriptor, seen, wanted):
    deadline = time.monotonic() + 30
    while wanted not in seen:
        assert time.monotonic() < deadline, seen[-500:]
        if select.select([descriptor], [], [], 0.5)[0]:
            seen += os.read(descriptor, 65536)
    return seen
