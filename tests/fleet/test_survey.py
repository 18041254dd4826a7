"""The survey on real hosts: asked for by the controller, in hello and by the setup module; never unasked."""

from __future__ import annotations

import json

import pytest

from gpuprov.fleet.hostrun import HostRun
from gpuprov.lab import HostOptions, User
from gpuprov.report.fold import HostFold
from gpuprov.store.names import new_run_id
from gpuprov.transport.target import ConnectOptions
from gpuprov.transport.ways import Ways
from tests.support.fleet import Become, Prepared, RunOptions, Watcher, run_plans, target, task
from tests.support.lab import NEEDS_LAB, lab_of, run_on

pytestmark = NEEDS_LAB

HOSTS = {
    "gpu01": HostOptions(
        users=(User("free", sudo="free"), User("nobodys")),
        files={
            "/etc/apt/sources.list.d/local.list": "deb file:/srv/none ./\ndeb http://127.0.0.1:9/debian sid main\n",
            "/etc/environment": "CONDA_PREFIX=/opt/conda\nhttp_proxy=http://u:secret@127.0.0.1:9\nno_proxy=127.0.0.1\n",
        },
        pam=True,
    )
}
HOLDER = """
import fcntl, os, time
lock = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
device = open("/dev/nvidia-survey-test", "w")
open("/run/holder", "w").write(str(os.getpid()))
time.sleep(120)
"""


@pytest.fixture(scope="module")
def lab():
    with lab_of(1, HOSTS) as lab:
        yield lab


def facts(lab, user="root", become=False, **wanted):
    """Return what the host says in its hello."""
    prepared = Prepared("gpu01", target(lab, "gpu01", ansible_user=user), Become(root=become), **wanted)
    ways = Ways(ConnectOptions())
    try:
        session = HostRun(prepared, HostFold("gpu01")).open(ways, RunOptions(run=new_run_id()))
        session.close()
    finally:
        ways.close()
    return session.hello["facts"]["gpuprov"]


def test_nobody_pays_unasked(lab):
    assert "survey" not in facts(lab)


def test_a_real_host(lab):
    found = facts(lab, survey=True)["survey"]
    assert found["kernel"]["running"] == run_on(lab, "gpu01", "uname -r").stdout.strip()
    assert run_on(lab, "gpu01", "dpkg --print-architecture").stdout.strip() in {"amd64", "arm64"}
    assert found["package_lock"] is None
    assert found["conda"] == "/opt/conda"
    assert found["proxy"]["etc_environment"]["http_proxy"] == "http://********@127.0.0.1:9"
    assert "secret" not in json.dumps(found)
    url = "http://127.0.0.1:9/debian/dists/sid/"
    (source,) = (one for one in found["repositories"] if one["url"] == url)
    assert source == {"url": url, "reachable": None, "error": None, "file": "/etc/apt/sources.list.d/local.list"}
    blocks, size = run_on(lab, "gpu01", "stat -f -c '%a %S' /").stdout.split()
    assert abs(found["disk_free"]["/"] - int(blocks) * int(size)) < 2**30
    path = found["pythons"][0]["path"]
    assert run_on(lab, "gpu01", f"{path} -V").stdout.split()[1] == found["pythons"][0]["version"]


def test_the_network_is_asked_only_then(lab):
    found = facts(lab, survey=True, survey_network=True)["survey"]["repositories"]
    by_file = [one for one in found if one["file"] == "/etc/apt/sources.list.d/local.list"]
    assert [one["reachable"] for one in by_file] == [False, False]
    assert by_file[0]["error"] == "there is no /srv/none/InRelease"
    assert by_file[1]["error"] == "connection refused"  # no_proxy: the host's proxy is not asked


def test_a_real_lock_and_a_real_user_of_the_device(lab):
    run_on(lab, "gpu01", "cat > /tmp/unattended-upgrade", stdin=HOLDER)
    start = (
        "nohup python3 /tmp/unattended-upgrade > /tmp/holder.log 2>&1 & until test -s /run/holder; do sleep 0.1; done"
    )
    run_on(lab, "gpu01", start)
    pid = int(run_on(lab, "gpu01", "cat /run/holder").stdout)
    try:
        found = facts(lab, user="free", become=True, survey=True)["survey"]
        path = "/var/lib/dpkg/lock-frontend"
        assert found["package_lock"] == {"path": path, "pid": pid, "program": "unattended-upgrade"}
        assert found["gpu_processes"] == [{"pid": pid, "name": "python3", "user": "root"}]
    finally:
        run_on(lab, "gpu01", f"kill {pid}; rm -f /dev/nvidia-survey-test /run/holder")
    assert facts(lab, survey=True)["survey"]["package_lock"] is None


def test_who_is_not_root_is_told_what_could_not_be_told(lab):
    run_on(lab, "gpu01", "touch /dev/nvidia-survey-test; chmod 600 /var/lib/dpkg/lock-frontend")
    try:
        found = facts(lab, user="nobodys", survey=True)["survey"]
    finally:
        run_on(lab, "gpu01", "rm -f /dev/nvidia-survey-test")
    for key in ("package_lock", "gpu_processes"):
        assert key not in found
        assert found["untold"][key]
    assert found["kernel"]["running"]


def test_setup_returns_it_when_asked(lab):
    view = Watcher()
    nodes = [
        task(1, "setup", {"gather_subset": ["gpuprov_survey"], "filter": ["gpuprov"]}, register="one"),
        task(2, "setup", {"gather_subset": ["gpuprov_survey_network"], "filter": ["gpuprov"]}, register="two"),
        task(3, "setup", {"gather_subset": ["all"], "filter": ["gpuprov"]}, register="three"),
    ]
    report = run_plans({"gpu01": target(lab, "gpu01")}, nodes, view)["gpu01"]
    assert report.outcome == "ok"
    told = [e["result"]["ansible_facts"]["gpuprov"] for _, e in view.events if e["kind"] == "TaskFinished"]
    assert [one.get("survey", {}).get("kernel", {}).get("running") for one in told][2] is None
    assert told[0]["survey"]["repositories"][0]["reachable"] is None
    local = [o for o in told[1]["survey"]["repositories"] if o["file"].endswith("local.list")]
    assert [one["reachable"] for one in local] == [False, False]
