"""Stacks and refusals as `gpuprov plan` shows them."""

from __future__ import annotations

from typing import Any

from gpuprov.report.fold import HostFold
from gpuprov.report.jsonout import host_from_json, host_to_json
from gpuprov.report.plan import render_plan
from gpuprov.report.stack import render_stacks, summary
from gpuprov.results import HostReport, RunReport


def stack(**changed: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "driver": {"version": "580.178.04", "branch": 580, "flavour": "open", "packages": []},
        "cuda": None,
        "fabricmanager": {"version": "580.178.04", "packages": []},
        "torch": {"version": "2.14.1", "variant": "cu130"},
        "repository": {"name": "ubuntu2404", "kind": "nvidia"},
        "reasons": [{"part": "driver", "choice": "580", "because": "x", "rule": "y"}],
        "warnings": [],
        "host": {"gpus": ["H100"]},
    }
    return {**found, **changed}


REFUSAL = {
    "rule": "torch_python",
    "message": "torch 2.15.0 needs Python 3.11 to 3.15, and the host has 3.10",
    "tables": "2026-11-23",
    "alternatives": [{"want": {"torch": "2.14.1"}, "say": "torch 2.14.1 (cu130)"}],
}


def test_hosts_with_the_same_stack_are_one_group_whatever_led_to_it() -> None:
    hosts = [HostReport(f"gpu{n:02}", "ok", stack=stack(host={"n": n}, reasons=[])) for n in range(1, 5)]
    hosts.append(HostReport("old", "ok", stack=stack(fabricmanager=None, warnings=["branch 580 ends in 2028-06"])))
    hosts.append(HostReport("gpu09", "refused", cause="x", refusal=REFUSAL))
    hosts.append(HostReport("plain", "ok"))
    lines = render_stacks(hosts).splitlines()
    assert lines == [
        "gpu[01-04]  (4 hosts)",
        "  driver 580.178.04 (open kernel modules), packages of ubuntu2404; fabric manager 580.178.04; "
        "torch 2.14.1 (cu130)",
        "old  (1 host)",
        "  driver 580.178.04 (open kernel modules), packages of ubuntu2404; torch 2.14.1 (cu130)",
        "  warning: branch 580 ends in 2028-06",
        "gpu09  (1 host)  refused",
        "  torch 2.15.0 needs Python 3.11 to 3.15, and the host has 3.10",
        "  rule torch_python, tables of 2026-11-23",
        "  instead: torch 2.14.1 (cu130)",
    ]


def test_a_stack_without_a_driver_and_an_empty_one() -> None:
    assert summary(stack(driver=None, fabricmanager=None)) == "torch 2.14.1 (cu130)"
    assert summary({"driver": None, "torch": None}) == "nothing"


def test_the_plan_begins_with_it_and_nothing_is_said_where_nobody_asked() -> None:
    report = RunReport("r", "gpuprov plan", "i", "p", (HostReport("a", "ok", stack=stack()),), 0.0, 0.0)
    assert render_plan(report).startswith("a  (1 host)\n  driver 580.178.04")
    assert render_stacks([HostReport("a", "ok")]) == ""


def test_a_report_keeps_both_and_nothing_in_them_reaches_the_terminal_raw() -> None:
    fold = HostFold("a")
    fold.stack({"driver": {"version": "1\x1b[31m"}})
    fold.refused("no", "", {"message": "bad\x1b]0;x\x07", "alternatives": []})
    report = fold.report()
    assert "\x1b" not in str(report.stack) + str(report.refusal)
    again = host_from_json(host_to_json(report))
    assert (again.stack, again.refusal) == (report.stack, report.refusal)
