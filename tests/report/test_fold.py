import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuprov.report.fold import HostFold
from gpuprov.report.totals import totals
from gpuprov.results import HostReport

PLAN = {
    "host": "gpu01",
    "secrets": ["hunter2"],
    "vars": {"password": "hunter2"},
    "plays": [
        {
            "id": "p1",
            "name": "GPU host",
            "nodes": [
                {"kind": "task", "id": "p1.t1", "name": "GPU folder", "action": "file", "position": "site.yaml:4:7"},
                {
                    "kind": "block",
                    "id": "p1.b1",
                    "block": [{"kind": "task", "id": "p1.t2", "name": "Packages", "action": "apt", "role": "driver"}],
                    "rescue": [{"kind": "task", "id": "p1.t3", "name": "Say so", "action": "debug"}],
                },
                {"kind": "task", "id": "p1.t4", "name": "Secret", "action": "command", "no_log": True},
                {"kind": "task", "id": "p1.t5", "name": "Proof", "action": "gpuprov_proof"},
            ],
            "handlers": [{"kind": "task", "id": "p1.h1", "name": "Restart", "action": "service"}],
        }
    ],
}


def fold_of(*events: dict, plan: dict | None = PLAN, host: str = "gpu01") -> HostFold:
    fold = HostFold(host, "10.0.0.1")
    if plan is not None:
        fold.plan(plan)
    for seq, event in enumerate(events, start=1):
        fold.event({"seq": seq, "at": 1000.0 + seq, **event})
    return fold


def finished(task: str, outcome: str = "ok", **more: object) -> dict:
    return {"kind": "TaskFinished", "id": task, "outcome": outcome, "duration_s": 0.5, **more}


END = {"kind": "RunFinished", "outcome": "ok", "duration_s": 7.5}


def proof(*checks: dict, outcome: str = "ok") -> dict:
    return finished("p1.t5", outcome, result={"checks": list(checks), "versions": {"torch": "2.13.0"}})


def test_tasks_carry_what_the_plan_knows() -> None:
    report = fold_of(finished("p1.t1"), finished("p1.t2", "changed"), finished("p1.h1"), END).report()
    assert [(t.name, t.play, t.action, t.role, t.handler) for t in report.tasks] == [
        ("GPU folder", "GPU host", "file", "", False),
        ("Packages", "GPU host", "apt", "driver", False),
        ("Restart", "GPU host", "service", "", True),
    ]
    assert (report.outcome, report.duration_s, report.address) == ("changed", 7.5, "10.0.0.1")
    assert report.tasks[0].position == "site.yaml:4:7"


def test_an_event_seen_twice_changes_nothing() -> None:
    events = [{"seq": n + 1, **e} for n, e in enumerate([finished("p1.t1"), finished("p1.t2", item="a"), END])]
    once, twice = HostFold("h"), HostFold("h")
    for event in events:
        assert once.event(event)
    for event in [*events[:2], *events[:2], *events]:
        twice.event(event)
    assert once.report() == twice.report()
    assert not twice.event(events[0])


def test_items_belong_to_their_task() -> None:
    fold = fold_of(
        finished("p1.t2", "ok", item="nginx"),
        finished("p1.t2", "failed", item="curl", fault={"message": "no such package", "hint": "apt update"}),
        finished("p1.t2", "failed", msg="1 of 2 items failed"),
        END,
    )
    (task,) = fold.report().tasks
    assert [(i.item, i.outcome) for i in task.items] == [("nginx", "ok"), ("curl", "failed")]
    assert fold.report().cause == "Packages: no such package"
    assert fold.report().hint == "apt update"


def test_the_cause_does_not_name_the_host() -> None:
    causes = set()
    for name in ("gpu01", "gpu02"):
        fold = fold_of(
            finished("p1.t1", "failed", fault={"message": f"{name}: no space on {name}.lan"}), END, host=name
        )
        causes.add(fold.report().cause)
    assert causes == {"GPU folder: this host: no space on this host.lan"}


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        (lambda f: f.unreachable("timed out", "is it on?"), ("unreachable", "timed out", "is it on?", 4)),
        (lambda f: f.refused("no root"), ("refused", "no root", "", 6)),
        (lambda f: f.lost("silent for 60 s"), ("lost", "silent for 60 s", "", 4)),
        (lambda f: f.interrupted(), ("interrupted", "stopped on request", "", 99)),
        (lambda f: None, ("lost", "the run did not reach its end on this host", "", 4)),
    ],
)
def test_endings(ending, expected) -> None:
    fold = fold_of(finished("p1.t1"))
    ending(fold)
    report = fold.report()
    assert (report.outcome, report.cause, report.hint, report.exit_code) == expected


def test_a_host_that_finished_is_not_lost_by_a_late_disconnect() -> None:
    fold = fold_of(finished("p1.t1"), END)
    fold.lost("the cable was cut after the end")
    assert fold.report().outcome == "ok"
    assert fold.report().cause == ""


def test_a_task_that_ran_when_the_host_was_lost_is_named() -> None:
    fold = fold_of(finished("p1.t1"), {"kind": "TaskStarted", "id": "p1.t2", "name": "Packages", "action": "apt"})
    fold.lost("no answer for 60 s")
    assert [(t.name, t.outcome) for t in fold.report().tasks] == [("GPU folder", "ok"), ("Packages", "lost")]
    assert fold.report().cause == "no answer for 60 s"


def test_a_rescued_failure_is_no_failure() -> None:
    fold = fold_of(finished("p1.t2", "failed", msg="no"), finished("p1.t3"), {"kind": "Rescued", "id": "p1.t2"}, END)
    report = fold.report()
    assert (report.outcome, report.cause) == ("ok", "")
    assert (totals(report)["rescued"], totals(report)["failed"], totals(report)["ok"]) == (1, 0, 1)


def test_a_stopped_host_is_interrupted_until_it_is_resumed() -> None:
    fold = fold_of(finished("p1.t1"), {"kind": "RunStopped", "why": "asked to stop"})
    assert (fold.report().outcome, fold.report().cause) == ("interrupted", "stopped before the end: asked to stop")
    fold.event({"seq": 3, "kind": "Resumed"})
    fold.event({"seq": 4, **finished("p1.t2", "changed")})
    fold.event({"seq": 5, **END})
    assert (fold.report().outcome, fold.report().cause) == ("changed", "")


def test_no_log_hides_everything_a_host_might_send() -> None:
    result = {"stdout": "hunter2", "cmd": "x hunter2"}
    diff = [{"before": "", "after": "hunter2"}]
    fold = fold_of(finished("p1.t4", "failed", msg="hunter2", result=result, diff=diff), END)
    assert "hunter2" not in repr(fold.report())


def test_output_is_cut_in_the_middle() -> None:
    fold = fold_of(finished("p1.t1", result={"stdout": "a" * 50_000 + "the end", "stdout_lines": ["a"]}), END)
    (task,) = fold.report().tasks
    assert len(task.result["stdout"]) < 4200
    assert task.result["stdout"].endswith("the end")
    assert "characters left out" in task.result["stdout"]
    assert "stdout_lines" not in task.result


def test_a_command_that_failed_without_a_message_shows_its_last_line() -> None:
    fold = fold_of(finished("p1.t1", "failed", result={"rc": 2, "stderr": "usage\nE: broken\n"}), END)
    assert fold.report().cause == "GPU folder: E: broken"


CHECKS = (
    {"name": "torch", "verdict": "pass"},
    {"name": "cuda available", "verdict": "skip", "reason": "no NVIDIA GPU"},
)


def test_a_skip_makes_nobody_unhealthy() -> None:
    report = fold_of(proof(*CHECKS), END).report()
    assert (report.verdict, report.cause, report.exit_code) == ("skip", "", 0)


def test_expected_gpus_that_were_not_measured_fail() -> None:
    fold = fold_of(proof(*CHECKS), END)
    fold.expect(8, 0)
    assert (fold.report().verdict, fold.report().cause, fold.report().exit_code) == (
        "fail",
        "8 GPUs expected, 0 found on the PCI bus",
        3,
    )


def test_a_proof_that_never_ran_fails_only_where_gpus_are_expected() -> None:
    fold = fold_of(finished("p1.t1"), finished("p1.t5", "skipped", skip="when"), END)
    assert fold.report().verdict == ""
    fold.expect(1, 1)
    assert (fold.report().verdict, fold.report().cause) == ("fail", "1 GPU expected, none measured")


def test_a_driver_without_a_gpu_is_not_green_whatever_the_cpu_proved() -> None:
    fold = fold_of(proof({"name": "linear.replay", "verdict": "pass", "device": "cpu"}), END)
    fold.stack({"driver": {"version": "535.309.01"}})
    fold.expect(None, 0)
    report = fold.report()
    assert (report.verdict, report.exit_code) == ("unknown", 3)
    assert report.cause == "driver 535.309.01 is installed, no GPU on the PCI bus: nothing was measured"
    fold.stack({"driver": None})
    assert fold.report().verdict == "pass"


def test_fewer_gpus_than_expected_fail() -> None:
    fold = fold_of(proof({"name": "matmul", "device": "cuda:0", "verdict": "pass"}), END)
    fold.expect(8, 7)
    assert fold.report().cause == "8 GPUs expected, 7 found on the PCI bus"
    fold.expect(8, 8)
    assert fold.report().cause == "8 GPUs expected, 1 measured"
    fold.expect(1, 1)
    assert fold.report().verdict == "pass"


def test_a_skip_that_has_nothing_to_do_with_missing_gpus_is_fine() -> None:
    passed = {"name": "matmul", "device": "cuda:0", "verdict": "pass"}
    fold = fold_of(proof(passed, {"name": "nccl", "verdict": "skip", "reason": "one GPU has nobody to talk to"}), END)
    fold.expect(1, 1)
    assert fold.report().exit_code == 0
    fold = fold_of(proof(passed, {"name": "nccl", "verdict": "skip", "reason": "no NVIDIA GPU (PCI 10de)"}), END)
    fold.expect(1, 1)
    assert fold.report().cause == "1 GPU expected, but not measured: nccl"


def test_pretended_gpus_make_a_host_simulated() -> None:
    fold = fold_of(finished("p1.t1"), END)
    fold.facts({"gpuprov": {"simulated": True}})
    fold.expect(None, 0)
    assert not fold.report().simulated
    fold.expect(None, 8)
    assert fold.report().simulated


def test_a_failed_check_explains_itself() -> None:
    check = {"name": "linear", "verdict": "fail", "measured": 0.25, "expected": 0.01, "unit": "MSE", "device": "cpu"}
    report = fold_of(proof({"name": "torch", "verdict": "pass"}, check), END).report()
    assert (report.verdict, report.cause) == ("fail", "linear on cpu: measured 0.25 MSE, expected 0.01")
    more = [{"name": name, "verdict": "fail", "reason": "bad"} for name in ("xid", "xid", "ecc", "links", "power")]
    assert fold_of(proof(*more[:2]), END).report().cause == "xid: bad"
    assert fold_of(proof(*more), END).report().cause == "xid: bad (and ecc, links, power)"
    more.append({"name": "clock", "verdict": "fail"})
    assert fold_of(proof(*more), END).report().cause == "xid: bad (and ecc, links, power ...)"
    assert report.exit_code == 3


def test_measured_checks_survive_a_host_lost_in_the_proof() -> None:
    fold = fold_of({"kind": "Measured", "id": "p1.t5", "measurement": {"name": "torch", "verdict": "pass"}})
    fold.lost("silent")
    assert [c.name for c in fold.report().checks] == ["torch"]
    fold = fold_of({"kind": "Measured", "id": "p1.t5", "measurement": CHECKS[0]}, proof(*CHECKS), END)
    assert [c.name for c in fold.report().checks] == ["torch", "cuda available"]


def test_an_unknown_outcome_is_a_failure_and_an_unknown_kind_is_nothing() -> None:
    report = fold_of(finished("p1.t1", "splendid"), {"kind": "Danced", "id": "x"}, END).report()
    assert report.outcome == "failed"
    assert "splendid" in report.tasks[0].msg


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KINDS = [
    "RunStarted",
    "TaskStarted",
    "TaskOutput",
    "TaskFinished",
    "Measured",
    "RebootStarted",
    "RunStopped",
    "RunFinished",
]
FIELDS = [
    "seq",
    "at",
    "id",
    "name",
    "action",
    "item",
    "outcome",
    "duration_s",
    "result",
    "msg",
    "skip",
    "diff",
    "fault",
]
EVENTS = st.builds(
    lambda kind, fields, seq: {"seq": seq, **fields, "kind": kind},
    st.sampled_from(KINDS) | JSON,
    st.dictionaries(st.sampled_from([*FIELDS, "measurement", "why", "reason"]), JSON),
    st.integers(1, 50),
)


def assert_clean(report: HostReport) -> None:
    from gpuprov.report.jsonout import host_to_json

    text = json.dumps(host_to_json(report), allow_nan=False, ensure_ascii=False)
    text.encode()
    assert not set(text) & {"\x1b", "\x9b", "\x07", "\u202e", "\u2066"}


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, max_size=12))
def test_whatever_a_host_sends_becomes_a_clean_report(events: list) -> None:
    fold = HostFold("gpu01")
    fold.plan(PLAN)
    for event in events:
        fold.event(event)
    assert_clean(fold.report())


def test_escapes_are_gone() -> None:
    evil = "\x1b]0;owned\x07\x1b[31mred\x1b[0m\x9b2J\u202egnp.exe\r\n\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\"
    fold = fold_of(finished("p1.t1", "failed", msg=evil, result={evil: evil}, diff=[{"after": evil}]), END)
    assert fold.report().tasks[0].msg == "redgnp.exe link"
    assert_clean(fold.report())


def test_a_flood_stays_below_one_mebibyte() -> None:
    fold = HostFold("gpu01")
    fold.plan(PLAN)
    tracemalloc.start()
    try:
        for n in range(1, 6000):
            big = {f"k{i}": chr(0x1F600) * 5000 for i in range(20)} if n < 200 else {"stdout": "x" * 6000}
            fold.event({"seq": 3 * n, **finished(f"t{n}", "ok", result=big, diff=[{"after": "d" * 99999}])})
            fold.event({"seq": 3 * n + 1, **finished("p1.t2", "ok", item=f"i{n}", result=big)})
            fold.event({"seq": 3 * n + 2, "kind": "Measured", "id": f"m{n}", "measurement": CHECKS[0]})
        report = fold.report()
        del big
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert size < 1024 * 1024, f"{size / 1024:.0f} KiB"
    assert any("the journal has all of it" in w for w in report.warnings)
