"""Inventories: layout, precedence with provenance, and what is said about mistakes."""

import json
from pathlib import Path

import pytest

from gpuprov.load.inventory import load_inventory
from gpuprov.model import Inventory
from gpuprov.source import Position


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def load(path: Path | str, also: Path | None = None) -> Inventory:
    problems: list = []
    inventory = load_inventory(str(path), problems, also=str(also) if also else None)
    assert problems == []
    return inventory


def values(inventory: Inventory, host: str) -> dict:
    return {name: variable.value for name, variable in inventory.hosts[host].variables.items()}


FLEET = """\
all:
  vars: {site: fra1}
  hosts:
    login:
  children:
    gpus:
      vars:
        driver: 570
      children:
        h100:
          hosts:
            gpu[01:02]:
              rack: r1
        a100:
          hosts:
            gpu03: {driver: 550}
"""


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hosts.yaml").write_text(FLEET)
    return tmp_path


def test_groups_and_hosts_in_file_order(fleet: Path) -> None:
    inventory = load("hosts.yaml")
    assert list(inventory.hosts) == ["login", "gpu01", "gpu02", "gpu03"]
    assert list(inventory.groups) == ["all", "ungrouped", "gpus", "h100", "a100"]
    assert inventory.groups["gpus"].children == ("h100", "a100")
    assert inventory.groups["ungrouped"].hosts == ("login",)
    assert inventory.members("gpus") == ("gpu01", "gpu02", "gpu03")
    assert inventory.hosts["gpu01"].groups == ("gpus", "h100")
    assert inventory.hosts["login"].groups == ("ungrouped",)
    assert inventory.path == "hosts.yaml"


def test_every_value_says_who_set_it_and_what_lost(fleet: Path) -> None:
    host = load("hosts.yaml").hosts["gpu03"]
    driver = host.variables["driver"]
    assert (driver.value, driver.source) == (550, "host vars")
    assert driver.position == Position("hosts.yaml", 16, 21)
    [lost] = host.overridden["driver"]
    assert (lost.value, lost.source, lost.position) == (570, "vars of group gpus", Position("hosts.yaml", 8, 9))
    assert host.variables["site"].position == Position("hosts.yaml", 2, 16)
    assert host.position == Position("hosts.yaml", 16, 13)
    assert "site" not in host.overridden


def test_precedence_of_all_places(tmp_path: Path) -> None:
    """Each place sets its own variable and those of all stronger places; so each must keep its own."""
    places = [
        ("hosts.yaml", "all"), ("hosts.yaml", "gpus"), ("hosts.yaml", "h100"), ("group_vars/all.yml", None),
        ("play/group_vars/all", None), ("group_vars/gpus/main.yaml", None), ("group_vars/h100.json", None),
        ("play/group_vars/gpus.yml", None), ("play/group_vars/h100.yml", None), ("hosts.yaml", "host"),
        ("host_vars/gpu01.yml", None), ("play/host_vars/gpu01", None),
    ]  # fmt: skip
    settings = [json.dumps({f"v{k}": n for k in range(n, len(places))}) for n in range(len(places))]
    by_place = dict(zip(places, settings, strict=True))
    write(tmp_path, {file: text for (file, _), text in by_place.items()})
    own = {name: text for (_, name), text in by_place.items() if name}
    (tmp_path / "hosts.yaml").write_text(
        f"all:\n  vars: {own['all']}\n  children:\n    gpus:\n      vars: {own['gpus']}\n      children:\n"
        f"        h100:\n          vars: {own['h100']}\n          hosts:\n            gpu01: {own['host']}\n"
    )
    inventory = load(tmp_path / "hosts.yaml", also=tmp_path / "play")
    assert values(inventory, "gpu01") == {f"v{n}": n for n in range(len(places))}
    last = inventory.hosts["gpu01"].overridden[f"v{len(places) - 1}"]
    assert [v.value for v in last] == list(range(len(places) - 2, -1, -1))
    assert inventory.hosts["gpu01"].variables["v11"].source == "playbook host_vars"
    assert [v.source for v in last][:2] == ["host_vars", "host vars"]


def test_groups_of_one_depth_win_by_name_unless_they_have_a_priority(tmp_path: Path) -> None:
    text = (
        "a: {hosts: {h: }, vars: {x: a, y: a%s}}\nb: {hosts: {h: }, vars: {x: b}}\nc: {children: {a: }, vars: {y: c}}\n"
    )
    (tmp_path / "i.yaml").write_text(text % "")
    assert values(load(tmp_path / "i.yaml"), "h") == {"x": "a", "y": "a"}  # a is deeper: it is below c
    (tmp_path / "i.yaml").write_text(text.replace("c: {children: {a: },", "c: {") % "")
    assert values(load(tmp_path / "i.yaml"), "h") == {"x": "b", "y": "a"}
    (tmp_path / "i.yaml").write_text(text.replace("c: {children: {a: },", "c: {") % ", ansible_group_priority: 10")
    assert values(load(tmp_path / "i.yaml"), "h") == {"x": "a", "y": "a"}


def test_a_folder_of_files_is_one_inventory(tmp_path: Path) -> None:
    files = {
        "inv/10-racks.yaml": "r1: {hosts: {gpu01: {x: 1}}}",
        "inv/20-more.yml": "r1: {hosts: {gpu02: , gpu01: {x: 2}}}",
        "inv/30.json": '{"r2": {"hosts": {"gpu03": null}}}',
        "inv/site/more": "r3: {hosts: {gpu04: }}",
        "inv/notes.md": "not an inventory",
        "inv/.hidden": "{{",
        "inv/10-racks.yaml~": "{{",
        "inv/group_vars/r1.yml": "y: 3",
    }
    inventory = load(write(tmp_path, files) / "inv")
    assert list(inventory.hosts) == ["gpu01", "gpu02", "gpu03", "gpu04"]
    assert values(inventory, "gpu01") == {"x": 2, "y": 3}
    assert [v.value for v in inventory.hosts["gpu01"].overridden["x"]] == [1]


def test_folders_of_variables(tmp_path: Path) -> None:
    files = {
        "i.yaml": "gpus: {hosts: {gpu01.lan: }}",
        "group_vars/gpus/a.yml": "x: a\nz: 1",
        "group_vars/gpus/b": "x: b",
        "group_vars/gpus/deep/c.json": '{"x": "c"}',
        "group_vars/gpus/ignored.txt": "x: d",
        "group_vars/gpus/.hidden.yml": "x: e",
        "group_vars/others.yml": "x: f",
        "host_vars/gpu01.lan": "h: 1",
    }
    assert values(load(write(tmp_path, files) / "i.yaml"), "gpu01.lan") == {"x": "c", "z": 1, "h": 1}


def test_names_with_ports_and_addresses(tmp_path: Path) -> None:
    text = """\
all:
  hosts:
    gpu01:2222:
    "gpu[02:03]:2200": {x: 1}
    "[fe80::1]:22": {ansible_port: 23}
    fe80::2:
    10.0.0.[7:8]:
"""
    (tmp_path / "i.yaml").write_text(text)
    inventory = load(tmp_path / "i.yaml")
    ports = {name: host.value("ansible_port") for name, host in inventory.hosts.items()}
    assert ports == {
        "gpu01": 2222, "gpu02": 2200, "gpu03": 2200, "fe80::1": 23, "fe80::2": None, "10.0.0.7": None, "10.0.0.8": None
    }  # fmt: skip


def test_short_forms(tmp_path: Path) -> None:
    (tmp_path / "i.yaml").write_text("gpus:\n  hosts: gpu[1:2]\n  children: h100\nempty:\n")
    inventory = load(tmp_path / "i.yaml")
    assert inventory.groups["gpus"].hosts == ("gpu1", "gpu2")
    assert inventory.groups["gpus"].children == ("h100",)
    assert inventory.groups["all"].children == ("ungrouped", "gpus", "empty")


WRONG = [
    ("all:\n  host:\n    a:\n", "inventory-key", 2, 3, "did you mean hosts?"),
    ("all:\n  gpus:\n    hosts:\n", "inventory-key", 2, 3, "a group goes under children:"),
    ("hosts:\n  a:\n", "inventory-layout", 1, 1, "write all: above it"),
    ("- a\n", "inventory-layout", 1, 1, "a mapping of groups"),
    ("text\n", "inventory-layout", 1, 1, "a mapping of groups"),
    ("", "inventory-empty", 1, 1, "empty"),
    ("all:\n  hosts:\n    - gpu01\n", "inventory-layout", 3, 5, "gpu01: instead of - gpu01"),
    ("all:\n  vars: x=1\n", "inventory-layout", 2, 9, "vars of group all is not a mapping"),
    ("all: [a]\n", "inventory-layout", 1, 6, "group all is not a mapping"),
    ("all:\n  hosts:\n    a: b\n", "inventory-layout", 3, 8, "no mapping"),
    ("all:\n  hosts:\n    7:\n", "inventory-name", 3, 5, 'write "7" in quotes'),
    ("all:\n  hosts:\n    gpu 01:\n", "inventory-name", 3, 5, "cannot be the name of a host"),
    ("all:\n  children:\n    a*:\n", "inventory-name", 3, 5, "cannot be the name of a group"),
    ("all:\n  hosts:\n    gpu[16:01]:\n", "inventory-range", 3, 5, "backwards"),
    ("all:\n  hosts:\n    gpu[01-16]:\n", "inventory-range", 3, 5, "write [01:16]"),
    ("all:\n  hosts:\n    gpu[01:\n", "inventory-range", 3, 5, "no partner"),
    ("a:\n  children:\n    b:\n      children:\n        a:\n", "inventory-loop", 5, 9, "group a cannot be below b"),
    ("a:\n  children:\n    a:\n", "inventory-loop", 3, 5, "group a cannot be below a"),
    ("a:\n  children:\n    all:\n", "inventory-loop", 3, 5, "all cannot be a child"),
    ("gpu:\n  hosts:\n    gpu:\n", "inventory-name-clash", 3, 5, "a host and of a group"),
    ("plugin: aws_ec2\n", "inventory-plugin", 1, 1, "plugins are not supported yet"),
    ("[gpus]\ngpu01\n", "inventory-format", 1, 1, "INI inventories are not supported yet"),
    ("a:\n  vars: {ansible_group_priority: high}\n", "inventory-priority", 2, 34, "not a whole number"),
    ("all:\n  vars:\n    1: x\n", "variable-name", 3, 5, "1 is not text"),
    ("all:\n  vars:\n    ansible_port: 70000\n", "connection-variable", 3, 5, "from 1 to 65535"),
    ("all:\n  vars:\n    ansible_port: ssh\n", "connection-variable", 3, 19, "from 1 to 65535"),
    ("all:\n  vars:\n    ansible_connection: winrm\n", "connection-variable", 3, 25, "ssh or local"),
    ("all:\n  vars:\n    ansible_become_method: su\n", "connection-variable", 3, 28, "sudo"),
    ("all:\n  vars:\n    ansible_become: maybe\n", "connection-variable", 3, 21, "yes or no"),
    ("all:\n  hosts:\n    a:\n    a:\n", "yaml-duplicate-key", 4, 5, "given twice"),
]


@pytest.mark.parametrize(("text", "code", "line", "column", "part"), WRONG, ids=[w[0][:40] for w in WRONG])
def test_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, code: str, line: int, column: int, part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("i.yaml").write_text(text)
    problems: list = []
    load_inventory("i.yaml", problems)
    [problem] = problems
    assert (problem.code, problem.position) == (code, Position("i.yaml", line, column))
    assert part in f"{problem.message} | {problem.hint}"


def test_templates_in_connection_variables_are_left_for_later(tmp_path: Path) -> None:
    (tmp_path / "i.yaml").write_text(
        "all: {vars: {ansible_port: '{{ base + 1 }}', ansible_become: '{{ x }}'}, hosts: {a: }}"
    )
    assert values(load(tmp_path / "i.yaml"), "a") == {"ansible_port": "{{ base + 1 }}", "ansible_become": "{{ x }}"}


def test_all_mistakes_of_all_files_are_reported(tmp_path: Path) -> None:
    files = {
        "i.yaml": "gpus: {hosts: {a: , b: }, var: {x: 1}}",
        "group_vars/gpus.yml": "- x",
        "group_vars/gpus.yaml": "x: 1",
        "group_vars/all.yml": "x: {{ y }}",
        "host_vars/a.yml": "ansible_group_priority: 3",
    }
    problems: list = []
    load_inventory(str(write(tmp_path, files) / "i.yaml"), problems)
    assert sorted(p.code for p in problems) == [
        "inventory-key", "inventory-priority", "vars-file-twice", "yaml-unquoted-template"
    ]  # fmt: skip
    files["group_vars/all.yml"] = "- x"
    (write(tmp_path, files) / "group_vars/gpus.yml").unlink()
    problems.clear()
    load_inventory(str(tmp_path / "i.yaml"), problems)
    assert "vars-file" in [p.code for p in problems]


def test_scripts_and_missing_files_are_refused(tmp_path: Path) -> None:
    script = tmp_path / "inventory.py"
    script.write_text("#!/bin/sh\necho {}\n")
    script.chmod(0o755)
    problems: list = []
    load_inventory(str(script), problems)
    load_inventory(str(tmp_path / "missing.yaml"), problems)
    load_inventory(str(write(tmp_path, {"hosts.toml": "x"}) / "hosts.toml"), problems)
    assert [p.code for p in problems] == ["inventory-format", "file-unreadable", "inventory-format"]


def test_hosts_of_the_same_groups_share_their_variables(tmp_path: Path) -> None:
    """Two hundred hosts must not hold two hundred copies of what their groups set."""
    (tmp_path / "i.yaml").write_text("gpus: {hosts: {'gpu[001:200]': }, vars: {x: [1, 2, 3]}}")
    hosts = load(tmp_path / "i.yaml").hosts
    assert len(hosts) == 200
    assert len({id(host.variables["x"]) for host in hosts.values()}) == 1
