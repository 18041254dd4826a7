import io
import os
import re

import pytest

from gpuprov.report.ink import Ink, plural, seconds, wants_color
from gpuprov.report.proof import proof_verdict
from gpuprov.report.terminal import recap
from gpuprov.report.totals import groups, label, slowest, totals
from gpuprov.results import Check, HostReport, RunReport, TaskResult
from tests.report import rehearsal


def run_of(*hosts: HostReport, **more: object) -> RunReport:
    return RunReport("r", "gpuprov apply", "lab.yaml", "site.yaml", hosts, 0.0, 12.3, **more)


def task(outcome: str, **more: object) -> TaskResult:
    return TaskResult("p1.t1", "CUDA paths", "template", outcome, role="environment", **more)


def test_the_same_trouble_is_said_once_with_all_its_hosts() -> None:
    text = recap(rehearsal.report(24))
    assert text.count("apt lock held by unattended-upgrades") == 1
    assert "failed      gpu[06-08,13]: Certificates are installed: apt lock held by unattended-upgrades\n" in text
    assert "            hint: wait, or stop it\n" in text
    assert "unhealthy   gpu04: linear.replay on cpu: the loss did not fall" in text
    assert text.rstrip().endswith("exit 6  a host was refused by the preflight")


def test_totals_are_those_of_ansible() -> None:
    text = recap(rehearsal.report(4))
    line = next(x for x in text.splitlines() if x.startswith("gpu[01-04] : "))
    numbers = dict(re.findall(r"(\w+)=(\d+)", line))
    assert list(numbers) == ["ok", "changed", "unreachable", "failed", "skipped", "rescued", "ignored", "unknown"]
    assert (numbers["ok"], numbers["changed"], numbers["skipped"]) == ("12", "11", "6")
    assert line.endswith("4 hosts")


def test_a_second_run_shows_changed_0_for_every_host() -> None:
    text = recap(rehearsal.report(4, first_run=False))
    assert re.findall(r"changed=(\d+)", text) == ["0"]


def test_coverage_is_stated() -> None:
    text = recap(rehearsal.report(4))
    assert "Proof  4 hosts, checks: 16 of 32 ran, 16 skipped: no NVIDIA GPU (PCI 10de)" in text
    assert "skip 4  cuda available, devices, cudnn version, nccl version: no NVIDIA GPU (PCI 10de)" in text
    assert rehearsal.PROVES in text


def test_simulated_hardware_is_said_loudly() -> None:
    assert "SIMULATED" not in recap(rehearsal.report(4))
    text = recap(rehearsal.report(4, simulated=True))
    assert "SIMULATED hardware on 4 hosts" in text
    assert text.endswith(" (SIMULATED hardware)\n")


def test_the_gravest_check_is_told_first_with_what_to_do() -> None:
    checks = (
        Check("process", "fail", reason="did not end", device="gpu:0"),
        Check("xid", "fail", reason="XID 48", action="reset GPU"),
        Check("gpu.hung", "fail", reason="gpu:0 hangs", action="reboot", device="gpu:0"),
        Check("gpu.power", "warn", reason="low", action="isolate"),
    )
    text = recap(run_of(HostReport("gpu01", "ok", checks=checks, verdict="fail", cause=proof_verdict(checks)[1])))
    assert "unhealthy   gpu01: gpu.hung on gpu:0: gpu:0 hangs (and process, xid)\n" in text
    assert "            action: reboot (gpu.hung)\n" in text
    only_warned = HostReport("gpu01", "ok", checks=checks[3:], verdict="warn", cause="gpu.power: low")
    assert "action:" not in recap(run_of(only_warned))


def test_gpus_that_jobs_use_are_no_silent_green() -> None:
    def one(name: str, *busy: int) -> HostReport:
        checks = [Check("xid", "pass")]
        for i in range(2):
            verdict, data = ("skip", {"busy": "process 7"}) if i in busy else ("pass", {})
            checks += [Check(what, verdict, device=f"cuda:{i}", data=data) for what in ("gemm.bf16", "hbm.copy")]
        return HostReport(name, "ok", checks=tuple(checks), verdict="skip" if busy else "pass")

    text = recap(run_of(one("gpu01", 0, 1), one("gpu02", 1), one("gpu03")))
    assert "not measured  gpu[01-02]: 3 GPUs in use and not put under load (--load-busy measures beside jobs)\n" in text
    assert text.endswith("exit 0  every host is as wanted, as far as it was measured\n")
    idle = recap(run_of(one("gpu03")))
    assert "not measured" not in idle
    assert idle.endswith("exit 0  every host is as wanted\n")


def test_incidental_numbers_do_not_split_a_cause() -> None:
    hosts = [
        HostReport(f"gpu{n}", "failed", cause=f"apt: lock held by process {1000 + n} (/tmp/x{n})") for n in range(3)
    ]
    (group,) = groups(hosts)
    assert group.hosts == ("gpu0", "gpu1", "gpu2")
    times = [HostReport(f"gpu{n}", "ok", cause=f"xid: XID 79, last {n}.5 h ago: lost", verdict="fail") for n in (2, 3)]
    assert len(groups(times)) == 1
    counts = [HostReport(f"gpu{n}", "failed", cause=f"{n} GPUs found, 8 expected") for n in range(3)]
    assert len(groups(counts)) == 3


def test_groups_put_the_worst_first() -> None:
    hosts = [HostReport("a", "ok"), HostReport("b", "unreachable"), HostReport("c", "ok", verdict="fail")]
    assert [g.outcome for g in groups([*hosts, HostReport("d", "refused")])] == [
        "refused",
        "unreachable",
        "unhealthy",
        "ok",
    ]
    assert label(HostReport("x", "changed", verdict="unknown")) == "unhealthy"
    assert label(HostReport("x", "changed", verdict="warn")) == "changed"


def test_every_outcome_is_counted() -> None:
    names = ("ok", "changed", "failed", "skipped", "unknown", "ignored", "lost")
    host = HostReport("a", "lost", tasks=(*map(task, names), task("ignored", result={"rescued": True})))
    once = dict.fromkeys(("changed", "failed", "skipped", "unknown", "ignored", "rescued", "lost"), 1)
    assert totals(host) == {**once, "ok": 2, "unreachable": 0}


def test_slowest_tasks_name_the_host() -> None:
    hosts = [HostReport(f"gpu{n}", "ok", tasks=(task("ok", duration_s=float(n)),)) for n in range(5)]
    (found,) = slowest(run_of(*hosts))
    assert (found.name, found.hosts, found.median_s, found.longest_s, found.longest_host) == (
        "environment : CUDA paths",
        5,
        2.0,
        4.0,
        "gpu4",
    )


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("count", [1, 24, 400])
def test_nothing_but_totals_and_paths_is_wider_than_the_terminal(width: int, count: int) -> None:
    text = recap(rehearsal.report(count), "/runs/x", width=width)
    wide = [x for x in text.splitlines() if len(x) > width and "ok=" not in x and not x.startswith(("report", "gpu["))]
    assert not wide
    if width >= 120:
        assert max(len(x) for x in text.splitlines() if "ok=" in x and "lost=" not in x) <= width


def test_colours_are_only_added() -> None:
    report = rehearsal.report(24)
    painted = recap(report, ink=Ink(True))
    assert "\x1b[31m" in painted
    assert re.sub(r"\x1b\[[\d;]*m", "", painted) == recap(report)


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as terminal:
        assert wants_color(terminal)
        monkeypatch.setenv("NO_COLOR", "1")
        assert not wants_color(terminal)
    os.close(master)
    assert not wants_color(io.StringIO())


def test_warnings_of_hosts_are_grouped() -> None:
    hosts = [HostReport(f"gpu{n}", "ok", warnings=("the clock is off",)) for n in range(1, 4)]
    assert "warning: gpu[1-3]: the clock is off\n" in recap(run_of(*hosts, warnings=("old file",)))


def test_check_mode_is_said() -> None:
    assert "check mode: nothing was changed" in recap(run_of(HostReport("a", "ok"), check=True))


def test_the_worst_check_comes_first() -> None:
    checks = (Check("a", "pass"), Check("b", "fail", reason="broken"), Check("c", "warn", reason="hot"))
    lines = recap(run_of(HostReport("h", "ok", checks=checks, verdict="fail"))).splitlines()
    shown = [x.split()[0] for x in lines if x.startswith(("  fail", "  warn", "  pass"))]
    assert shown == ["fail", "warn", "pass"]


def test_many_checks_skipped_for_one_reason_are_one_line() -> None:
    skipped = [Check(f"ecc.{n}", "skip", reason="no NVIDIA GPU on the PCI bus") for n in range(40)]
    report = run_of(HostReport("h", "ok", checks=(Check("disk", "skip", reason="no RAID"), *skipped), verdict="skip"))
    lines = recap(report).splitlines()
    assert "  skip 1  40 checks (-v names them): no NVIDIA GPU on the PCI bus" in lines
    assert "  skip 1  disk: no RAID" in lines
    assert "ecc.39" in recap(report, names=True)


def test_durations_and_plurals() -> None:
    assert [seconds(s) for s in (0.0004, 0.05, 0.26, 59.9, 61, 3725)] == [
        "0 ms", "50 ms", "0.3 s", "59.9 s", "1 min 1 s", "1 h 2 min",
    ]  # fmt: skip
    assert (plural(1, "host"), plural(0, "host")) == ("1 host", "0 hosts")
