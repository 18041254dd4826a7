"""What the controller makes of a proof over several hosts: who takes part, the plans, the merged reports. No hosts."""

from __future__ import annotations

from typing import Any

import pytest

from gpuprov.fleet.fabric import Limits, Partner, Plans, address_of, candidates, interpreter, merged, plans, without_hub
from gpuprov.fleet.hostrun import HostRun, Prepared
from gpuprov.fleet.session import Become
from gpuprov.proof.fabric.plan import Plan
from gpuprov.report.fold import HostFold
from gpuprov.results import Check, HostReport, TaskResult
from gpuprov.transport.target import ConnectOptions, target_of


def proved(host: str, **more: Any) -> HostReport:
    result = {"versions": {"torch": "2.13.0", "executable": "/opt/gpuprov/torch/bin/python"}}
    return HostReport(host, "ok", tasks=(TaskResult("t", "Proof", "gpuprov_proof", "ok", result=result),), **more)


def test_who_takes_part() -> None:
    reports = [proved("a"), proved("b"), proved("c", simulated=True), HostReport("d", "failed"), proved("e")]
    partners, left_out = candidates(reports, {"a": "10.0.0.1", "b": "10.0.0.2", "c": "10.0.0.3"})
    assert [(p.host, p.address, p.python) for p in partners] == [
        ("a", "10.0.0.1", "/opt/gpuprov/torch/bin/python"),
        ("b", "10.0.0.2", "/opt/gpuprov/torch/bin/python"),
    ]
    assert left_out == {
        "c": "simulated GPU",
        "d": "the host is failed",
        "e": "nothing says how others reach it: set gpuprov_fabric_address",
    }


@pytest.mark.parametrize(
    ("settings", "host", "facts", "found"),
    [
        ({"gpuprov_fabric_address": "10.9.9.9"}, "192.0.2.5", "10.0.0.5", "10.9.9.9"),
        ({}, "192.0.2.5", "10.0.0.5", "192.0.2.5"),
        ({}, "127.0.4.2", "10.0.0.5", "127.0.4.2"),
        ({}, "gpu05.example.com", "10.0.0.5", "10.0.0.5"),  # which the host itself may resolve to 127.0.1.1
        ({}, "127.0.0.1", "10.0.0.5", "10.0.0.5"),  # a forwarded port
        ({}, "gpu05", None, "gpu05"),
    ],
)
def test_the_address_that_others_reach(settings: dict, host: str, facts: str | None, found: str) -> None:
    target = target_of("gpu05", {"ansible_host": host}, ConnectOptions())
    run = HostRun(Prepared("gpu05", target, Become()), HostFold("gpu05"))
    run.facts = {"default_ipv4": {"address": facts}} if facts else {}
    assert address_of(run, settings) == found


def test_one_host_alone_has_no_fabric() -> None:
    partners, left_out = candidates([proved("a")], {"a": "10.0.0.1"})
    assert (partners, left_out) == ([], {"a": "no other host takes part, and one alone has no fabric"})


def test_a_proof_without_torch_names_no_interpreter() -> None:
    assert interpreter(HostReport("a", "ok")) == ""


def test_when_the_hub_is_lost_the_others_go_on_without_it() -> None:
    partners = [Partner(name, "10.0.0.1", "/p") for name in "abc"]
    found = {name: HostReport(name, "ok") for name in "abc"}
    assert without_hub(partners, found) == []
    found["a"] = HostReport("a", "lost")
    assert without_hub(partners, found) == partners[1:]
    found["b"] = HostReport("b", "lost")
    assert without_hub(partners, found) == []
    assert without_hub(partners, {**found, "a": HostReport("a", "interrupted")}) == []


def test_a_plan_is_one_that_hosts_understand() -> None:
    args = plans([Partner("a", "10.0.0.1", "/p"), Partner("b", "10.0.0.2", "/q")], ("pairs",), Limits(join_s=9))
    found = {host: Plan(one["plan"]) for host, one in args.items()}
    assert [(p.host, p.address, p.hub, p.hub_address, p.parts, p.join_s) for p in found.values()] == [
        ("a", "10.0.0.1", "a", "10.0.0.1", ["pairs"], 9.0),
        ("b", "10.0.0.2", "a", "10.0.0.1", ["pairs"], 9.0),
    ]
    assert found["a"].token == found["b"].token
    assert found["a"].ports == found["b"].ports
    again = plans([Partner("a", "10.0.0.1", "/p"), Partner("b", "10.0.0.2", "/q")], ("pairs",), Limits())
    assert again["a"]["plan"]["token"] != found["a"].token
    compiled = Plans("run", args, 100.0, frozenset(["a"])).plan("a", {})
    assert compiled.plan["secrets"] == [found["a"].token]
    assert compiled.plan["plays"][0]["nodes"][0]["become"] is True


def test_a_bad_link_makes_a_healthy_host_unhealthy() -> None:
    first = proved("a", checks=(Check("linear.replay", "pass"),), verdict="pass")
    second = HostReport("a", "ok", checks=(Check("fabric.links", "fail", reason="link a - b: 30%"),))
    both = merged(first, second, "")
    assert [check.name for check in both.checks] == ["linear.replay", "fabric.links"]
    assert (both.verdict, both.cause, both.exit_code) == ("fail", "fabric.links: link a - b: 30%", 3)


def test_a_host_that_is_lost_meanwhile_is_not_green() -> None:
    both = merged(proved("a", verdict="pass"), HostReport("a", "lost", cause="no answer"), "")
    assert (both.outcome, both.verdict, both.exit_code) == ("ok", "unknown", 3)
    assert both.checks[-1].reason == "the host was lost in the proof over several hosts: no answer"
    silent = merged(proved("a", verdict="pass"), HostReport("a", "ok"), "")
    assert silent.checks[-1].verdict == "unknown"


def test_it_makes_nothing_better() -> None:
    cause = "driver 580.1 is installed, no GPU on the PCI bus: nothing was measured"
    both = merged(proved("a", verdict="unknown", cause=cause), HostReport("a", "ok", checks=(Check("f", "pass"),)), "")
    assert (both.verdict, both.cause) == ("unknown", cause)


def test_a_host_that_is_left_out_keeps_its_verdict() -> None:
    both = merged(proved("a", verdict="pass"), None, "simulated GPU")
    assert (both.verdict, both.exit_code) == ("pass", 0)
    assert (both.checks[-1].verdict, both.checks[-1].reason) == ("skip", "simulated GPU")
    gone = merged(HostReport("b", "unreachable"), None, "the host is unreachable")
    assert (gone.checks[-1].verdict, gone.exit_code) == ("unknown", 4)


def test_what_cpus_did_between_hosts_is_no_proof_of_gpus() -> None:
    first = proved("gpu01", checks=(Check("linear.replay", "pass", device="cpu"),), expected_gpus=8)
    pair = Check("fabric.pair", "pass", reason="all-reduce with gpu02: 1 GB/s", device="link to gpu02")
    both = merged(first, HostReport("gpu01", "ok", checks=(pair,)), "")
    assert (both.verdict, both.cause) == ("fail", "8 GPUs expected, none measured")
