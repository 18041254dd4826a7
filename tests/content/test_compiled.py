"""site.yaml compiled for hosts with and without GPUs: what runs, what is skipped and why."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from gpuprov.cli.stacks import Chooser
from gpuprov.compile import Compiler
from gpuprov.errors import SourceErrors
from gpuprov.load.inventory import load_inventory
from gpuprov.load.patterns import select
from gpuprov.load.playbook import load_playbook

ROOT = Path(__file__).resolve().parents[2]
NO_GPU = "no NVIDIA GPU (PCI 10de)"


class NoWheels:
    """Notes what was asked of the wheelhouse, and gives nothing."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def resolve(self, args: Any, facts: Any) -> tuple[dict[str, Any], dict[str, str]]:
        self.asked.append(dict(args))
        return {"_wheels": []}, {}


def facts(gpus: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "python": {"version": {"major": sys.version_info[0], "minor": sys.version_info[1]}},
        "architecture": os.uname().machine,
        "os_family": "Debian",
        "distribution": "Debian",
        "distribution_major_version": "12",
        "distribution_version": "12.15",
        "kernel": "6.1.0-56-amd64",
        "python_version": "3.11.2",
        "service_mgr": "systemd",
        "gpuprov": {
            "gpus": [{"address": f"0000:0{n}:00.0", "device": "0x2330"} for n in range(gpus)],
            "modules": {"nouveau": False},
            "survey": {
                "kernel": {"running": "6.1.0-56-amd64", "next": "6.1.0-57-amd64"},
                "secure_boot": False,
                "nvswitches": [],
                "nvlink5_bridges": [],
            },
        },
        **more,
    }


def compiled(
    found: dict[str, Any], check: bool = False, **extra: Any
) -> tuple[dict[str, dict[str, Any]], NoWheels, Any]:
    problems: list[Any] = []
    inventory = load_inventory(str(ROOT / "inventory/lab.yaml"), problems)
    playbook = load_playbook(str(ROOT / "playbooks/site.yaml"), problems)
    assert problems == []
    wheels = NoWheels()
    compiler = Compiler(
        playbook, inventory, select=select, run="r", extra_vars=extra, check=check, wheels=wheels, stacks=Chooser()
    )
    plan = compiler.plan("gpu01", found).plan
    nodes: dict[str, dict[str, Any]] = {}

    def walk(parts: list[dict[str, Any]]) -> None:
        for node in parts:
            if node["kind"] == "block":
                for part in ("block", "rescue", "always"):
                    walk(node.get(part, []))
            else:
                nodes[node["name"]] = node

    for play in plan["plays"]:
        walk(play["nodes"])
        walk([{**handler, "handler": True} for handler in play["handlers"]])
    return nodes, wheels, plan


def skipped(nodes: dict[str, dict[str, Any]], role: str) -> set[str | None]:
    tasks = [node for node in nodes.values() if node.get("role") == role and not node.get("handler")]
    return {node.get("skip") for node in tasks if node["action"] != "meta"}


def test_without_gpu_the_whole_role_says_why() -> None:
    nodes, _, _ = compiled(facts())
    assert skipped(nodes, "driver") == {NO_GPU}
    assert skipped(nodes, "fabric") == {"no NVSwitch on this host"}


def test_with_gpus_the_driver_role_runs_and_the_toolkit_waits_to_be_wanted() -> None:
    nodes, _, _ = compiled(facts(gpus=8))
    ran = {node["name"] for node in nodes.values() if node.get("role") == "driver" and not node.get("skip")}
    assert {"The driver's packages, all at one version", "Reboot, since nothing else loads the driver"} <= ran
    packages = nodes["The driver's packages, all at one version"]["args"]["packages"]
    assert {"name": "nvidia-kernel-open-dkms", "version": "580.178.04-*"} in packages
    assert "no toolkit is wanted (gpuprov_stack.cuda), and torch brings its own CUDA libraries" in skipped(
        nodes, "cuda"
    )
    nodes, _, _ = compiled(facts(gpus=8), gpuprov_stack={"cuda": "12.8", "cudnn": "auto", "torch": "2.13.0"})
    names = [package["name"] for package in nodes["Packages of toolkit, cuDNN and NCCL"]["args"]["packages"]]
    assert names[:2] == ["cuda-toolkit-12-8", "libcudnn9-cuda-12"]


def test_the_repository_is_pinned_and_a_mirror_takes_its_place() -> None:
    nodes, _, _ = compiled(facts(gpus=1))
    args = nodes["NVIDIA's repository, trusted by its key's fingerprint"]["args"]
    assert args["fingerprints"] == ["EB693B3035CD5710E231E123A4B469963BF863CC"]
    assert args["url"].endswith("/repos/debian12/x86_64/")
    nodes, _, _ = compiled(facts(gpus=1), gpuprov_repository_mirror="https://mirror.example/cuda")
    args = nodes["NVIDIA's repository, trusted by its key's fingerprint"]["args"]
    assert (args["url"], args["key_url"]) == (
        "https://mirror.example/cuda/debian12/x86_64/",
        "https://mirror.example/cuda/debian12/x86_64/3bf863cc.pub",
    )


def test_headers_are_for_the_kernel_that_runs_and_the_one_that_boots_next() -> None:
    nodes, _, _ = compiled(facts(gpus=1))
    asked = [item["args"]["argv"][-1] for item in nodes["Which kernels have headers to install"]["items"]]
    assert asked == ["linux-headers-6.1.0-56-amd64", "linux-headers-6.1.0-57-amd64"]


def test_other_conditions_keep_their_own_words() -> None:
    nodes, _, _ = compiled(facts(gpus=1), gpuprov_driver_blacklist_nouveau=False)
    assert nodes["Nouveau stays away"]["skip"] == "when: gpuprov_driver_blacklist_nouveau | bool is false"


def test_services_are_left_out_where_systemd_is_not_running() -> None:
    nodes, _, _ = compiled(facts(service_mgr="sshd"))
    assert nodes["Ask a service for its environment"]["skip"] == "systemd is not running"
    assert nodes["For services"].get("skip") is None  # it counts after the next boot


def test_torch_is_asked_for_exactly_and_from_here() -> None:
    nodes, wheels, _ = compiled(facts())
    (asked,) = wheels.asked
    assert asked["name"] == ["torch==2.13.0", "nvidia-ml-py"]
    assert (asked["source"], asked["virtualenv"]) == ("controller", "/opt/gpuprov/torch")
    assert nodes["Torch in a virtual environment"]["args"]["_wheels"] == []


def test_check_mode_asks_nothing_of_what_is_not_there_yet() -> None:
    nodes, _, _ = compiled(facts(), check=True)
    why = "check mode: the environment may not be there yet"
    assert nodes["Ask shells for their environment"]["skip"] == why
    assert nodes["Ask a service for its environment"]["skip"] == why


def test_everything_can_be_taken_away_again() -> None:
    nodes, _, _ = compiled(facts(), gpuprov_environment_state="absent")
    assert nodes["For login shells"]["skip"]
    assert nodes["For services"]["skip"]
    assert "skip" not in nodes["Files away"]
    assert "skip" not in nodes["Services' settings away"]
    assert "skip" not in nodes["Not for the loader"]
    assert nodes["For commands over ssh, bash"]["args"]["state"] == "absent"
    assert nodes["Ask shells for their environment"]["skip"] == "no environment is wanted"


def test_only_what_depends_on_results_waits_for_the_host() -> None:
    nodes, _, _ = compiled(facts(service_mgr="sshd"))
    waiting = {name for name, node in nodes.items() if not node.get("skip") and (node.get("defer") or node.get("when"))}
    assert waiting == {
        "For csh",
        "For fish",
        "For commands over ssh, zsh",
        "For the virtual environment",
        "For the loader",
        "Not for the loader",
        "Ask shells for their environment",
        "Shells have the environment",
        "Ask Python in the virtual environment",
        "The virtual environment has the environment",
        "GPUs answer through the driver",  # the driver role may have rebooted, and the bus is looked at anew
        "Checks and training prove it",
    }


def test_variables_of_a_loops_pass_are_rendered_on_the_host() -> None:
    nodes, _, _ = compiled(facts())
    variables = nodes["Shells have the environment"]["vars"]
    assert "item.stdout_lines" in variables["lines"]
    assert "lines" in variables["programs"]
    assert variables["gpuprov_verify_variables"] == ["CUDA_HOME=/usr/local/cuda"]
    assert variables["gpuprov_environment_path"] == ["/usr/local/cuda/bin"]


def test_other_systems_have_other_files() -> None:
    nodes, _, _ = compiled(facts(os_family="RedHat", distribution="Rocky"))
    assert nodes["For csh"]["args"]["dest"] == "/etc/profile.d/gpuprov-cuda.csh"
    assert nodes["For commands over ssh, bash"]["skip"]
    assert "/etc/zshenv" in str(nodes["Which shells are here"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"gpuprov_environment_variables": {"NOTE": "a\nb"}}, "NOTE has a line break"),
        ({"gpuprov_environment_variables": {"PATH": "/x"}}, "PATH is a list of folders"),
        ({"gpuprov_environment_variables": {"NCCL_DEBUG": True}}, "NCCL_DEBUG is true, not text"),
        ({"gpuprov_environment_variables": {"NOTHING": None}}, "NOTHING is nothing, not text"),
        ({"gpuprov_environment_variables": {"LIST": ["a"]}}, "LIST is a list, not text"),
        ({"gpuprov_environment_variables": {"A B": "x"}}, "'A B' cannot be the name"),
        ({"gpuprov_environment_variables": ["A=b"]}, "a mapping of names to values, not list"),
        ({"gpuprov_environment_path": ["/a:/b"]}, "'/a:/b' cannot be an element of a search path"),
        ({"gpuprov_environment_library_path": ["lib"]}, "'lib' cannot be an element"),
        ({"gpuprov_environment_ld_so_conf": [""]}, "'' cannot be an element"),
    ],
)
def test_what_no_environment_can_hold_is_refused_before_any_change(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SourceErrors) as caught:
        compiled(facts(), **settings)
    assert any(said in problem.message for problem in caught.value.problems), caught.value.problems
    assert all(problem.position is not None for problem in caught.value.problems)
