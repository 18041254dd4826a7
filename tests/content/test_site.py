"""site.yaml, its roles and the inventories: everything loads, says what it means, and agrees with itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from gpuprov.cli.prepare import _simulated_gpus
from gpuprov.load.inventory import load_inventory
from gpuprov.load.playbook import load_playbook
from gpuprov.model import Block, Task
from gpuprov.templating.renderer import Renderer

if TYPE_CHECKING:
    from gpuprov.errors import Problem

ROOT = Path(__file__).resolve().parents[2]
ROLES = ("base", "stack", "driver", "fabric", "cuda", "extras", "torch", "environment", "record", "verify")
GPU = {"address": "0000:01:00.0"}


def site() -> Any:
    problems: list[Problem] = []
    playbook = load_playbook(str(ROOT / "playbooks/site.yaml"), problems)
    assert problems == []
    return playbook.plays[0]


def flat(nodes: tuple[Task | Block, ...]) -> list[Task | Block]:
    found: list[Task | Block] = []
    for node in nodes:
        found.append(node)
        if isinstance(node, Block):
            found += flat(node.block) + flat(node.rescue) + flat(node.always)
    return found


def defaults(role: str) -> dict[str, Any]:
    path = ROOT / f"playbooks/roles/{role}/defaults/main.yaml"
    return (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}


def settings(role: str) -> dict[str, Any]:
    """Return what a role's tasks see when nobody sets anything."""
    path = ROOT / f"playbooks/roles/{role}/vars/main.yaml"
    return {**defaults(role), **(yaml.safe_load(path.read_text()) if path.exists() else {})}


def test_the_roles_are_there_in_their_order() -> None:
    play = site()
    assert [role.name for role in play.roles] == list(ROLES)
    assert play.keywords["become"] is True


def test_every_task_says_what_it_is_for() -> None:
    unnamed = [n.action for n in flat(site().nodes) if isinstance(n, Task) and "name" not in n.keywords]
    assert set(unnamed) <= {"meta"}


def test_roles_agree_about_the_defaults_that_they_share() -> None:
    seen: dict[str, tuple[str, Any]] = {}
    for role in ROLES:
        for name, value in defaults(role).items():
            assert seen.setdefault(name, (role, value))[1] == value, (name, role, seen[name][0])


def test_every_setting_has_a_word_about_it() -> None:
    for role in filter(defaults, ROLES):
        text = (ROOT / f"playbooks/roles/{role}/defaults/main.yaml").read_text()
        for paragraph in text.removeprefix("---\n").strip().split("\n\n"):
            assert paragraph.startswith("# "), (role, paragraph)
        assert all(name.startswith("gpuprov_") for name in defaults(role)), role


def test_every_template_that_a_role_names_is_there_and_used() -> None:
    named = {
        str(n.args["src"]).rpartition("/")[2]
        for n in flat(site().nodes)
        if isinstance(n, Task) and n.action == "template"
    }
    assert named == {path.name for path in (ROOT / "templates").glob("*.j2")}


def test_a_host_without_gpu_is_told_so_in_the_same_words_everywhere() -> None:
    reasons = []
    for node in flat(site().nodes):
        if "gpus" not in str(node.keywords.get("when", "")):
            continue
        reason = node.keywords["vars"]["gpuprov_skip_reason"]
        settings = {"ansible_check_mode": False}
        without = Renderer(settings, {"ansible_facts": {"gpuprov": {"gpus": []}}}).render(reason)
        having = Renderer(settings, {"ansible_facts": {"gpuprov": {"gpus": [GPU]}}}).render(reason)
        reasons.append(without)
        assert not having
    assert reasons == ["no NVIDIA GPU (PCI 10de)"]


@pytest.mark.parametrize(("variant", "source"), [("cpu", "controller"), ("cu130", "host")])
def test_who_fetches_torch(variant: str, source: str) -> None:
    stack = {"torch": {"version": "2.14.1", "variant": variant}, "python": {"version": "3.12", "managed": False}}
    renderer = Renderer(settings("torch"), {"gpuprov_resolved_stack": stack})
    assert renderer.render("{{ gpuprov_torch_source }}") == source


@pytest.mark.parametrize(
    ("given", "args"),
    [
        ({}, {"name": ["torch==2.13.0", "nvidia-ml-py"], "cpu_index_url": "default"}),
        ({"gpuprov_torch_index": "https://x/simple"}, {"index_url": "https://x/simple"}),
        ({"gpuprov_torch_cpu_index": ""}, {}),
        ({"gpuprov_torch_find_links": "/wheels", "gpuprov_torch_version": "2.9.1"}, {"find_links": "/wheels"}),
    ],
)
def test_what_the_pip_task_asks_for(given: dict[str, Any], args: dict[str, Any]) -> None:
    task = next(n for n in flat(site().nodes) if isinstance(n, Task) and n.action == "pip")
    renderer = Renderer({**settings("torch"), **given}, {"ansible_facts": {"gpuprov": {"gpus": []}}})
    found = renderer.render(dict(task.args))
    optional = {"index_url", "find_links", "cpu_index_url"}
    expected = dict(args)
    if expected.get("cpu_index_url") == "default":
        expected["cpu_index_url"] = defaults("torch")["gpuprov_torch_cpu_index"]
    if "gpuprov_torch_find_links" in given:
        expected["cpu_index_url"] = defaults("torch")["gpuprov_torch_cpu_index"]
        expected["name"] = ["torch==2.9.1", "nvidia-ml-py"]
    assert {k for k in found if k in optional} == {k for k in expected if k in optional}
    assert {k: found[k] for k in expected} == expected


@pytest.mark.parametrize(
    ("expected", "gpus", "found"), [(None, [GPU] * 4, 4), (None, [], None), (8, [GPU] * 4, 8), (0, [GPU], 0)]
)
def test_how_many_gpus_are_expected(expected: int | None, gpus: list[Any], found: int | None) -> None:
    task = next(n for n in flat(site().nodes) if isinstance(n, Task) and n.action == "gpuprov_proof")
    variables = {**defaults("verify"), "gpuprov_expect_gpus": expected}
    renderer = Renderer(variables, {"ansible_facts": {"gpuprov": {"gpus": gpus}}})
    assert renderer.render(dict(task.args)).get("expect_gpus") == found


def test_apply_looks_as_deep_as_the_quick_tier_and_trains() -> None:
    (task,) = [n for n in flat(site().nodes) if isinstance(n, Task) and n.action == "gpuprov_proof"]
    assert (task.args["tier"], task.args["tests"]) == ("quick", ["linear", "mlp"])
    assert task.args["expect"] == "{{ gpuprov_verify_expect }}"
    assert task.args["deadline_s"] >= 300  # four hosts that share two cores train for more than a minute


def test_the_lab_has_four_hosts_fed_by_the_controller() -> None:
    problems: list[Problem] = []
    inventory = load_inventory(str(ROOT / "inventory/lab.yaml"), problems)
    assert problems == []
    assert list(inventory.hosts) == ["gpu01", "gpu02", "gpu03", "gpu04"]
    for host in inventory.hosts.values():
        assert host.value("gpuprov_lab") == {"hosts": 4}
        assert host.value("gpuprov_torch_source") == "controller"


def test_the_simulated_fleet_has_four_hosts_with_gpus() -> None:
    problems: list[Problem] = []
    inventory = load_inventory(str(ROOT / "inventory/simulated.yaml"), problems)
    assert problems == []
    assert _simulated_gpus(inventory) == dict.fromkeys(("gpu01", "gpu02", "gpu03", "gpu04"), "8xh100-sxm")


def test_the_example_inventory_means_what_its_comments_say() -> None:
    problems: list[Problem] = []
    inventory = load_inventory(str(ROOT / "inventory/example.yaml"), problems)
    assert problems == []
    assert len(inventory.members("hopper")) == 16
    assert inventory.members("canary") == ("gpu01.example.com", "gpu17.example.com")
    assert inventory.hosts["gpu25.example.com"].value("gpuprov_expect_gpus") == 7
    assert inventory.hosts["gpu24.example.com"].value("gpuprov_expect_gpus") == 8
    assert "numpy" in inventory.hosts["gpu02.example.com"].value("gpuprov_python_packages")


def test_the_settings_that_the_documentation_names_exist() -> None:
    text = (ROOT / "docs/stack.md").read_text() + (ROOT / "inventory/example.yaml").read_text()
    known = {name for role in ROLES for name in defaults(role)} | {
        "gpuprov_fabric_address",
        "gpuprov_lab",
        "gpuprov_stack",
        "gpuprov_stack_tables",
    }
    named = set(re.findall(r"\bgpuprov_[a-z_]+\b", text)) - {
        "gpuprov_proof",
        "gpuprov_skip_reason",
        "gpuprov_resolved_stack",
    }
    assert named <= known
