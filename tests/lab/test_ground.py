"""Machines on which a lab is harder: overlays underneath, separate file systems, rivals for a port."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from gpuprov.errors import LabError
from gpuprov.lab import Lab
from gpuprov.lab.addresses import address_of
from gpuprov.lab.layout import LOCK
from tests.support.lab import NEEDS_LAB, lab_of, run_on

pytestmark = NEEDS_LAB


def in_own_mounts(script: str, tmp_path: Path) -> dict[str, object]:
    """Run Python *script* where mounts are its own; return the JSON that it prints last."""
    argv = ["unshare", "--mount", sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    repository = Path(__file__).parents[2]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=repository, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_on_an_overlay_the_layers_are_in_memory_and_last_as_long_as_the_lab(tmp_path):
    """As in a container, whose root is an overlay: it cannot carry another one's upper layer."""
    seen = in_own_mounts(
        """
        import json, os, subprocess, sys, time
        from gpuprov.lab import Lab
        from tests.support.lab import run_on
        os.chdir(sys.argv[1])
        for name in ("upper", "work", "view", "lower"):
            os.mkdir(name)
        argv = ["mount", "-t", "overlay", "x", "-o", "lowerdir=lower,upperdir=upper,workdir=work", "view"]
        subprocess.run(argv, check=True)
        lab = Lab("view/state")
        try:
            lab.up(2)
            in_memory = json.load(open(lab.layout.path("lab.json")))["in_memory"]
            before = run_on(lab, "gpu01", "echo kept >/etc/kept; cat /proc/sys/kernel/random/boot_id").stdout
            run_on(lab, "gpu01", "reboot")
            kept = ""
            while not kept or kept.startswith(before):
                time.sleep(0.1)
                kept = run_on(lab, "gpu01", "cat /proc/sys/kernel/random/boot_id /etc/kept").stdout
            layers = os.listdir("view/state/layers")
        finally:
            lab.down()
        print(json.dumps([in_memory, kept.split()[-1], layers, os.listdir("view"), len(os.listdir("upper"))]))
        """,
        tmp_path,
    )
    assert seen == [True, "kept", [], [], 0]


def test_folders_on_file_systems_of_their_own_are_part_of_the_view(tmp_path):
    seen = in_own_mounts(
        """
        import json, os, subprocess, sys
        from gpuprov.lab import Lab
        from tests.support.lab import run_on
        for folder in ("/opt", "/var/cache"):
            subprocess.run(["mount", "-t", "tmpfs", "x", folder], check=True)
            open(f"{folder}/theirs", "w").write("theirs")
        subprocess.run(["mount", "-t", "tmpfs", "x", "/mnt"], check=True)
        open("/mnt/other", "w").close()
        lab = Lab(sys.argv[1] + "/state")
        try:
            lab.up(1)
            command = "cat /opt/theirs /var/cache/theirs; ls /mnt/other; rm /opt/theirs; >/var/cache/theirs; ls /opt"
            inside = run_on(lab, "gpu01", command).stdout
        finally:
            lab.down()
        print(json.dumps([inside, [open(f"{folder}/theirs").read() for folder in ("/opt", "/var/cache")]]))
        """,
        tmp_path,
    )
    assert seen == ["theirstheirs", ["theirs", "theirs"]]


def test_a_port_that_something_holds_on_all_addresses_is_passed_over():
    with socket.socket() as rival:
        rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        rival.bind(("0.0.0.0", 0))
        rival.listen()
        port = rival.getsockname()[1]
        lab = Lab(f"/tmp/gpuprov-lab-rival-{port}")
        try:
            lab.up(1, port=port)
            assert lab.connection("gpu01")["ansible_port"] > port
            assert run_on(lab, "gpu01", "true").returncode == 0
        finally:
            lab.down()


def test_an_address_that_something_holds_is_named():
    with lab_of(1) as lab:
        first = lab.connection("gpu01")
        block = int(first["ansible_host"].split(".")[2]) // 4
        address, port = address_of(block, 2), first["ansible_port"]
        with socket.socket() as rival:
            rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # an earlier lab's connections linger
            rival.bind((address, port))
            rival.listen()
            with pytest.raises(LabError, match=f"gpu02: {address}:{port} is taken by a process that is not the lab's"):
                lab.up(3)
        assert [status.up for status in lab.status()] == [True, False, True]
        lab.up(3)
        assert all(status.up for status in lab.status())


def test_a_state_folder_may_have_any_name(tmp_path):
    folder = tmp_path / ("deep, odd: name " * 4) / ("x" * 100)
    lab = Lab(folder)
    try:
        lab.up(1)
        assert run_on(lab, "gpu01", "hostname").stdout == "gpu01\n"
    finally:
        lab.down()
    assert not folder.exists()


def test_a_lab_that_another_starts_meanwhile_is_a_lab(tmp_path, monkeypatch):
    state = tmp_path / "state"
    state.mkdir()
    listed = os.listdir

    def another_starts_then_listed(folder):
        for name in (LOCK, "lab.json"):
            (state / name).touch()
        return listed(folder)

    monkeypatch.setattr("gpuprov.lab.lab.os.listdir", another_starts_then_listed)
    with Lab(state)._lock(create=True):
        pass
    (state / LOCK).unlink()
    monkeypatch.setattr("gpuprov.lab.lab.os.listdir", listed)
    with pytest.raises(LabError, match="not a lab's"), Lab(state)._lock(create=True):
        pass


def test_two_who_start_the_same_lab_at_once_get_one(tmp_path):
    lab = Lab(tmp_path / "state")
    problems = []

    def start() -> None:
        try:
            Lab(tmp_path / "state").up(3)
        except LabError as error:
            problems.append(error)

    threads = [threading.Thread(target=start) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
        assert [status.up for status in lab.status()] == [True] * 3
    finally:
        lab.down()


def test_down_while_another_starts_leaves_a_lab_or_nothing(tmp_path):
    lab = Lab(tmp_path / "state")
    thread = threading.Thread(target=lab.up, args=(3,))
    thread.start()
    for _ in range(5):
        Lab(tmp_path / "state").down()
    thread.join()
    hosts = lab.status()
    assert not hosts or all(status.up for status in hosts)
    lab.down()
    assert not (tmp_path / "state").exists()
