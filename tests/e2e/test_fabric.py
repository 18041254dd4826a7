"""Several lab hosts at once, over real SSH: collectives and data-parallel training with gloo, and what goes wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gpuprov.fleet.fabric import Limits, prove
from gpuprov.fleet.hostrun import HostRun, Prepared
from gpuprov.fleet.options import RunOptions
from gpuprov.fleet.session import Become
from gpuprov.lab import faults
from gpuprov.report.fold import HostFold
from gpuprov.results import HostReport, TaskResult
from gpuprov.store.names import new_run_id
from gpuprov.transport.target import ConnectOptions
from gpuprov.transport.ways import Ways
from tests.support.fleet import Watcher, target
from tests.support.lab import NEEDS_LAB, lab_of, run_on
from tests.support.torch_env import torch_on_hosts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuprov.lab import Lab
    from gpuprov.results import Check

pytestmark = NEEDS_LAB
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def python() -> Iterator[str]:
    with torch_on_hosts() as python:
        yield python


@pytest.fixture(scope="module")
def lab(python: str) -> Iterator[Lab]:
    with lab_of(4) as lab:
        yield lab


def proved(host: str, python: str, **more: Any) -> HostReport:
    """Return the report of a host whose own proof went well."""
    result = {"versions": {"torch": "2.13.0+cpu", "executable": python}}
    return HostReport(host, "ok", tasks=(TaskResult("p1.t1", "Proof", "gpuprov_proof", "ok", result=result),), **more)


def run(
    lab: Lab,
    python: str,
    count: int,
    watcher: Watcher | None = None,
    reports: dict[str, HostReport] | None = None,
    **more: Any,
) -> dict[str, HostReport]:
    names = [f"gpu{number:02}" for number in range(1, count + 1)]
    hosts = [HostRun(Prepared(name, target(lab, name), Become()), HostFold(name)) for name in names]
    before = [(reports or {}).get(name) or proved(name, python) for name in names]
    ways, watcher = Ways(ConnectOptions()), watcher or Watcher()
    options = RunOptions(run=new_run_id(), gate_timeout_s=20, reconnect_s=5)
    try:
        found = prove(hosts, before, lambda _: {}, ways, watcher, watcher, options, **more)
    finally:
        ways.close()
    return {report.host: report for report in found}


def checks(report: HostReport) -> dict[str, Check]:
    """Return the checks by name and device."""
    return {f"{check.name} {check.device}".strip(): check for check in report.checks}


def test_two_hosts_together(lab: Lab, python: str) -> None:
    watcher = Watcher()
    found = run(lab, python, 2, watcher)
    for name, peer in (("gpu01", "gpu02"), ("gpu02", "gpu01")):
        own = checks(found[name])
        assert {check.verdict for check in own.values()} == {"pass"}, own
        assert found[name].verdict == "pass"
        assert set(own) == {
            "fabric.join",
            f"fabric.pair link to {peer}",
            "fabric.allreduce 2 hosts",
            "fabric.allgather 2 hosts",
            "fabric.alltoall 2 hosts",
            "fabric.ddp 2 hosts",
            "fabric.links",
        }
        assert own["fabric.allreduce 2 hosts"].data["kind"] == "measurement"
        assert own["fabric.allreduce 2 hosts"].data["backend"] == "gloo"
        assert own["fabric.allreduce 2 hosts"].data["interface"] == "lo"
        assert own["fabric.allreduce 2 hosts"].measured > 0
    said = " ".join(str(event.get("text", "")) for _, event in watcher.events)
    assert re.search(rf"hub: waiting for 2 hosts at {lab.connection('gpu01')['ansible_host']} port \d+", said), said
    assert "sha" not in said


@pytest.mark.slow
def test_four_hosts_together(lab: Lab, python: str) -> None:
    found = run(lab, python, 4)
    assert {report.verdict for report in found.values()} == {"pass"}, found
    own = checks(found["gpu03"])
    assert {name for name in own if name.startswith("fabric.pair")} == {
        f"fabric.pair link to {peer}" for peer in ("gpu01", "gpu02", "gpu04")
    }
    assert own["fabric.ddp 4 hosts"].data["world"] == 4
    assert "like those of the others" in own["fabric.links"].reason


def wait_for_rank(lab: Lab, host: str, rank: int) -> None:
    until = time.monotonic() + 60
    while run_on(lab, host, f"pgrep -x fabric-rank-{rank}").returncode:
        assert time.monotonic() < until, "the rank never came"
        time.sleep(0.2)


def signal_rank(lab: Lab, host: str, rank: int, signal: str) -> None:
    """Send a rank a signal once it is there and has had a second to begin."""
    wait_for_rank(lab, host, rank)
    run_on(lab, host, f"sleep 1; pkill -{signal} -x fabric-rank-{rank}")


@pytest.mark.slow
def test_one_rank_killed_in_the_middle_releases_all_others_and_is_named(lab: Lab, python: str) -> None:
    killer = threading.Thread(target=signal_rank, args=(lab, "gpu03", 2, "KILL"))
    killer.start()
    more = {"bytes_of": {"cpu": 256 << 20}}  # all-reduces that are still going on then
    found = run(lab, python, 4, parts=("collectives", "ddp"), more=more, limits=Limits(round_s=300))
    killer.join()
    guilty = checks(found["gpu03"])["fabric.allreduce 4 hosts"]
    assert (guilty.verdict, guilty.action) == ("fail", "isolate"), guilty
    assert "its process of cpu was killed by SIGKILL" in guilty.reason
    assert found["gpu03"].exit_code == 3
    for name in ("gpu01", "gpu02", "gpu04"):
        own = checks(found[name])
        assert own["fabric.allreduce 4 hosts"].verdict == "unknown", own
        assert "since gpu03 failed: gpu03: its process" in own["fabric.allreduce 4 hosts"].reason
        assert own["fabric.ddp 3 hosts"].verdict == "pass"  # and the others go on without it
    left = run_on(lab, "gpu01", "pgrep -f gpuprov.proof.fabric")
    assert left.stdout == ""


@pytest.mark.slow
def test_a_host_that_hangs_ends_at_the_deadline(lab: Lab, python: str) -> None:
    stopper = threading.Thread(target=signal_rank, args=(lab, "gpu02", 1, "STOP"))
    stopper.start()
    more = {"bytes_of": {"cpu": 64 << 20}}
    found = run(lab, python, 2, parts=("collectives",), more=more, limits=Limits(round_s=12))
    stopper.join()
    name = "fabric.allreduce 2 hosts"
    guilty, other = checks(found["gpu02"])[name], checks(found["gpu01"])[name]
    assert (guilty.verdict, other.verdict) == ("fail", "unknown")
    assert "gpu02: its process of cpu is stopped (allreduce of 65536 KiB over 2 ranks" in guilty.reason
    assert "not measured, since gpu02 failed" in other.reason
    assert run_on(lab, "gpu02", "pgrep -f gpuprov.proof.fabric").stdout == ""


@pytest.mark.slow
def test_a_host_that_never_comes_is_named_and_the_others_go_on(lab: Lab, python: str) -> None:
    asleep = "/usr/local/bin/asleep"
    run_on(lab, "gpu02", f"printf '#!/bin/sh\\nexec sleep 8\\n' > {asleep}; chmod +x {asleep}")
    found = run(lab, python, 3, reports={"gpu02": proved("gpu02", asleep)}, parts=("pairs",), limits=Limits(join_s=20))
    for name in ("gpu01", "gpu03"):
        own = checks(found[name])
        assert own["fabric.join"].verdict == "warn"
        assert own["fabric.join"].reason == "2 of 3 hosts came; without gpu02"
        assert own["fabric.pair link to gpu03" if name == "gpu01" else "fabric.pair link to gpu01"].verdict == "pass"
    missing = checks(found["gpu02"])["fabric.join"]
    assert missing.verdict == "unknown"
    assert "failed in the proof over several hosts" in missing.reason
    assert found["gpu02"].exit_code == 3


def test_who_does_not_take_part_says_why(lab: Lab, python: str) -> None:
    reports = {
        "gpu01": proved("gpu01", python, simulated=True),
        "gpu02": HostReport("gpu02", "unreachable"),
        "gpu03": proved("gpu03", python, verdict="fail", cause="gemm.bf16: 100 of 800 TFLOPS"),
        "gpu04": HostReport("gpu04", "ok"),
    }
    found = {name: checks(report)["fabric.join"] for name, report in run(lab, python, 4, reports=reports).items()}
    assert (found["gpu01"].verdict, found["gpu01"].reason) == ("skip", "simulated GPU")
    assert (found["gpu02"].verdict, found["gpu02"].reason) == ("unknown", "the host is unreachable")
    assert found["gpu03"].reason == "its own proof failed: gemm.bf16: 100 of 800 TFLOPS"
    assert found["gpu04"].reason == "no environment with torch has been proved on it"


@pytest.mark.slow
def test_it_follows_a_run_of_the_program(lab: Lab, python: str, tmp_path: Path) -> None:
    """As `gpuprov verify` does it: each host's own proof, then all of them together, in one report."""
    hosts = {name: {k: str(v) for k, v in lab.connection(name).items()} for name in ("gpu01", "gpu02")}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    play = {
        "hosts": "all",
        "tasks": [{"name": "Own proof", "gpuprov_proof": {"python": python, "tests": ["versions"]}}],
    }
    (tmp_path / "play.yaml").write_text(json.dumps([play]))
    program = (
        "import argparse, sys; from gpuprov.cli import apply; parser = argparse.ArgumentParser(); "
        "apply.register(parser); options = parser.parse_args(sys.argv[1:]); "
        "sys.exit(apply.perform(options, 'verify', check=False, diff=False, together=['pairs']))"
    )
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, str(tmp_path / "hosts.json"), str(tmp_path / "play.yaml")]
    done = subprocess.run(
        [*command, "--json"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    for host in document["hosts"]:
        names = [check["name"] for check in host["checks"]]
        assert {"gpu.count", "fabric.join", "fabric.pair", "fabric.links"} <= set(names)
        assert [task["name"] for task in host["tasks"]][-2:] == ["Own proof", "The fabric between hosts"]
        assert host["outcome"] == "ok"
    seen = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert seen.returncode == 0, seen.stderr
    assert "the fabric between 2 hosts: pairs" in seen.stdout


@pytest.mark.slow
def test_a_hub_that_loses_its_power_releases_everybody_and_the_others_are_proved(lab: Lab, python: str) -> None:
    def cut() -> None:
        wait_for_rank(lab, "gpu02", 1)
        faults.cut_power(lab, "gpu01")

    cutter = threading.Thread(target=cut)
    cutter.start()
    more = {"bytes_of": {"cpu": 256 << 20}}
    watcher = Watcher()
    found = run(lab, python, 3, watcher, parts=("collectives",), more=more, limits=Limits(round_s=300))
    cutter.join()
    for name in ("gpu02", "gpu03"):
        own = checks(found[name])
        assert own["fabric.allreduce 2 hosts"].verdict == "pass"  # of the run without the lost one
        assert own["fabric.join"].reason == "all 2 hosts met"
    assert "gpu01, which had the hub, was lost: once more with the other 2 hosts" in watcher.messages
    lost = checks(found["gpu01"])["fabric.join"]
    assert (lost.verdict, found["gpu01"].exit_code) == ("unknown", 3)
    said = [check["reason"] for check in first_checks(watcher, "gpu02")]
    assert any("the hub on gpu01 was lost in the middle of 3 hosts" in reason for reason in said), said
    assert run_on(lab, "gpu02", "pgrep -f gpuprov.proof.fabric").stdout == ""


def first_checks(watcher: Watcher, host: str) -> list[dict[str, Any]]:
    """Return the checks of the first task that *host* ended."""
    ended = [event for name, event in watcher.events if name == host and event["kind"] == "TaskFinished"]
    return list(ended[0]["result"]["checks"])
