"""A made-up fleet: plans and events as hosts send them, for tests and for looking at views.

python -m tests.report.rehearsal html 200 > /tmp/report.html
python -m tests.report.rehearsal live 400 [seconds]
"""

from __future__ import annotations

import math
import random
import sys
import time
from typing import TYPE_CHECKING, Any

from gpuprov.report.fold import HostFold
from gpuprov.results import RunReport

if TYPE_CHECKING:
    from collections.abc import Iterator

ROLES = {
    "base": [("Certificates are installed", "package"), ("Operations user", "user"), ("GPU folders", "file")],
    "driver": [("Look for NVIDIA GPUs", "command"), ("Driver packages", "apt"), ("Nouveau blacklist", "template")],
    "cuda": [("Toolkit", "apt"), ("Linker paths", "template"), ("Compiler answers", "command")],
    "torch": [("Virtual environment", "command"), ("PyTorch", "pip"), ("Compiler for kernels", "package")],
    "environment": [
        ("CUDA paths", "template"),
        ("Limits", "template"),
        ("Kernel settings", "sysctl"),
        ("Topology", "copy"),
    ],
    "verify": [("Training proof", "gpuprov_proof")],
}
PROVES = "Proves that torch trains on this CPU; says nothing about a GPU."
SKIPPED = {"driver", "cuda"}


def plan(host: str) -> dict[str, Any]:
    nodes = []
    for role, tasks in ROLES.items():
        for name, action in tasks:
            number = len(nodes) + 1
            position = f"playbooks/roles/{role}/tasks/main.yaml:{number * 3}:3"
            node = {"kind": "task", "id": f"p1.t{number}", "name": name, "action": action, "role": role}
            nodes.append({**node, "position": position})
    handlers = [
        {"kind": "task", "id": "p1.h1", "name": "Load kernel settings", "action": "command", "role": "environment"}
    ]
    return {"host": host, "plays": [{"id": "p1", "name": "GPU hosts", "nodes": nodes, "handlers": handlers}]}


def losses(dice: random.Random, diverges: bool = False) -> list[float]:
    start, floor = dice.uniform(0.2, 1.2), dice.uniform(0.078, 0.089)
    rate = -0.02 if diverges else dice.uniform(0.3, 0.5)
    return [round(floor + start * math.exp(-rate * e) + dice.uniform(0, 0.002), 5) for e in range(100)]


def checks(dice: random.Random, bad: str, simulated: bool) -> list[dict[str, Any]]:
    curve = losses(dice, bad == "diverged")
    linear = {"name": "linear.replay", "verdict": "pass", "measured": curve[-1], "unit": "MSE", "device": "cpu"}
    mlp = {"name": "mlp.replay", "verdict": "pass", "measured": 0.0871, "unit": "MSE", "device": "cpu"}
    same = {"reason": "the same as the replay in float64"}
    found: list[dict[str, Any]] = [
        {"name": "torch version", "verdict": "pass", "measured": "2.13.0+cpu", "reason": "as provisioned"},
        {**linear, **same, "expected": "0.076 to 0.09", "data": {"losses": curve, "epochs": 100, "proves": PROVES}},
        {**mlp, **same, "data": {"losses": losses(dice), "epochs": 100}},
        {
            "name": "gradients",
            "verdict": "pass",
            "measured": 3.1e-9,
            "expected": "<= 1e-6",
            "reason": "as derived by hand",
        },
    ]
    if bad == "diverged":
        found[1].update(verdict="fail", reason="the loss did not fall: this machine computes wrongly", action="isolate")
    for name in ("cuda available", "devices", "cudnn version", "nccl version"):
        gpu = {"name": name, "verdict": "skip", "reason": "no NVIDIA GPU (PCI 10de)"}
        found.append({**gpu, "verdict": "pass", "reason": "simulated", "simulated": True} if simulated else gpu)
    return found


def events(
    host: str, trouble: str = "", simulated: bool = False, first_run: bool = True
) -> Iterator[tuple[float, dict[str, Any]]]:
    """Yield (seconds since the one before, event) of one host. trouble: apt, diverged, lost or nothing."""
    dice = random.Random(host)
    at, seq = 1_795_000_000.0, 0

    def event(after: float, kind: str, **more: Any) -> tuple[float, dict[str, Any]]:
        nonlocal at, seq
        at, seq = at + after, seq + 1
        return after, {"seq": seq, "at": at, "kind": kind, **more}

    yield event(0, "RunStarted", run="r", boot_id="b", pid=7, check=False)
    for node in plan(host)["plays"][0]["nodes"]:
        task, role, name = node["id"], node["role"], node["name"]
        if role in SKIPPED and not simulated:
            skip = "no NVIDIA GPU (PCI 10de)"
            yield event(0.001, "TaskFinished", id=task, outcome="skipped", duration_s=0.0, skip=skip)
            continue
        took = dice.uniform(0.5, 1.5) * {"PyTorch": 5, "Virtual environment": 0.8}.get(name, 0.05)
        yield event(0.001, "TaskStarted", id=task, name=name, action=node["action"])
        if name == "Certificates are installed" and trouble == "apt":
            fault = {"code": "apt-lock", "message": "apt lock held by unattended-upgrades", "hint": "wait, or stop it"}
            yield event(
                took, "TaskFinished", id=task, outcome="failed", duration_s=took, fault=fault, result={"rc": 100}
            )
            yield event(0, "RunFinished", outcome="failed", counts={}, duration_s=took)
            return
        result: dict[str, Any] = {"changed": first_run}
        diff = []
        if name == "PyTorch":
            for part in range(4):
                text = f"Installing torch: {25 * (part + 1)} %"
                yield event(took / 5, "TaskOutput", id=task, text=text, stream="stdout")
            took /= 5
            if trouble == "lost":
                return
            result["stdout"] = "Resolved 12 packages\nInstalled 12 packages\n + torch==2.13.0+cpu\n"
        elif node["action"] == "template":
            after = "export PATH=/usr/local/cuda/bin:$PATH\nexport CUDA_HOME=/usr/local/cuda\n"
            diff = [
                {
                    "before": "# nothing yet\nexport CUDA_HOME=/usr/local/cuda\n",
                    "after": after,
                    "after_header": "/etc/profile.d/cuda.sh",
                }
            ]
        elif node["action"] == "gpuprov_proof":
            result = {
                "changed": False,
                "checks": checks(dice, trouble, simulated),
                "versions": {"python": "3.11.9", "torch": "2.13.0+cpu"},
            }
            for epoch in range(1, 101):
                text = f"Epoch {epoch}/100, Loss: {result['checks'][1]['data']['losses'][epoch - 1]:.4f}"
                yield event(0.012, "TaskOutput", id=task, text=text, stream="stdout")
        outcome = "changed" if result["changed"] else "ok"
        more = {"diff": diff} if diff and first_run else {}
        yield event(took, "TaskFinished", id=task, outcome=outcome, duration_s=took, result=result, **more)
    if first_run:
        done = {"changed": True, "rc": 0, "stdout": "", "cmd": ["sysctl", "--system"]}
        yield event(0.05, "TaskFinished", id="p1.h1", outcome="changed", duration_s=0.05, result=done)
    yield event(0, "RunFinished", outcome="ok", counts={}, duration_s=at - 1_795_000_000.0)


def trouble_of(number: int, count: int) -> str:
    """Return what goes wrong on host *number* of *count*; from 20 hosts on some of everything does."""
    wrong = {5: "apt", 6: "apt", 7: "apt", 12: "apt", 3: "diverged", 16: "lost", 18: "unreachable", 19: "refused"}
    return wrong.get(number % 200, "") if count >= 20 else ""


def names(count: int) -> list[str]:
    return [f"gpu{n:0{max(2, len(str(count)))}}" for n in range(1, count + 1)]


def fold(number: int, count: int, simulated: bool = False, first_run: bool = True) -> HostFold:
    host, trouble = names(count)[number], trouble_of(number, count)
    one = HostFold(host, f"127.1.{number // 250}.{number % 250 + 1}")
    one.plan(plan(host))
    one.facts(
        {
            "ansible_distribution": "Debian",
            "ansible_processor_vcpus": 64,
            "ansible_kernel": "6.1.0",
            "gpuprov": {"gpus": []},
        }
    )
    one.expect(None, 8 if simulated else 0)
    if trouble == "unreachable":
        one.unreachable("connection timed out after 10 s", "is the machine on, and port 22 open?")
    elif trouble == "refused":
        one.refused("/ is mounted read-only", "gpuprov cannot provision a read-only system")
    else:
        for _, event in events(host, trouble, simulated, first_run):
            one.event(event)
    if trouble == "lost":
        one.lost("no answer for 60 s", "gpuprov resume collects what the host finished")
    return one


def report(count: int, simulated: bool = False, first_run: bool = True) -> RunReport:
    hosts = tuple(fold(n, count, simulated, first_run).report() for n in range(count))
    longest = max(h.duration_s for h in hosts)
    command = "gpuprov apply inventory/lab.yaml --diff"
    where = ("inventory/lab.yaml", "playbooks/site.yaml")
    return RunReport("20261123-154501-a1b2c3", command, *where, hosts, 1_795_000_000.0, longest + 0.8, version="0.1.0")


def live(count: int, seconds: float, verbosity: int = 0) -> None:
    """Play the fleet's events to the view that a terminal gets, about *seconds* long."""
    from gpuprov.report.view import make_view

    view = make_view(hosts=count, verbosity=verbosity)
    view.message(f"apply {count} hosts of inventory/lab.yaml with playbooks/site.yaml")
    script: list[tuple[float, int, dict[str, Any]]] = []
    play = plan("")["plays"][0]
    nodes = {n["id"]: n for n in [*play["nodes"], *play["handlers"]]}
    folds = []
    for number, host in enumerate(names(count)):
        trouble = trouble_of(number, count)
        folds.append(fold(number, count))
        at = random.Random(host).uniform(0.5, 1.5) + number * 0.02
        script.append((at * 0.1, number, {"state": "connecting"}))
        if trouble in ("unreachable", "refused"):
            script.append((at + 1, number, {"state": "done", "detail": trouble}))
            continue
        script.append((at * 0.6, number, {"state": "preparing"}))
        script.append((at * 0.9, number, {"state": "sending"}))
        script.append((at, number, {"state": "running"}))
        for after, event in events(host, trouble):
            at += after
            script.append((at, number, event))
        at += 3 if trouble == "lost" else 0
        script.append((at, number, {"state": "done", "detail": folds[-1].report().outcome}))
    script.sort(key=lambda step: step[0])
    speed = max(step[0] for step in script) / seconds
    began = ticked = time.monotonic()
    for at, number, what in script:
        late = True  # a busy machine leaves no time to wait, and a view is drawn all the same
        while late or time.monotonic() - began < at / speed:
            late = False
            if time.monotonic() - ticked > 0.25:
                ticked = time.monotonic()
                view.tick(ticked)
            if time.monotonic() - began < at / speed:
                time.sleep(0.02)
        host = names(count)[number]
        if "state" in what:
            view.host_state(host, what["state"], what.get("detail", ""))
        else:
            view.event(host, what, nodes.get(what.get("id", "")))
    view.finish(report(count), "/home/admin/.local/state/gpuprov/runs/20261123-154501-a1b2c3")


if __name__ == "__main__":
    what, count = sys.argv[1], int(sys.argv[2])
    if what == "html":
        from gpuprov.report.html import render
        from gpuprov.report.jsonout import to_json

        sys.stdout.buffer.write(render(to_json(report(count, simulated="simulated" in sys.argv))))
    else:
        live(count, float(sys.argv[3]) if len(sys.argv) > 3 else 10.0, int(sys.argv[4]) if len(sys.argv) > 4 else 0)
