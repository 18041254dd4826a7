"""`gpuprov inventory`: what a person sees of an inventory."""

import json
from pathlib import Path

import pytest

from gpuprov.cli.main import main
from gpuprov.errors import EXIT_INPUT

FLEET = """\
all:
  vars: {site: fra1, driver: 550, deploy_password: hunter2, odd: "yes"}
  hosts:
    login: {ansible_connection: local}
  children:
    gpus:
      vars: {driver: 570}
      children:
        h100:
          hosts:
            gpu[01:03]: {ansible_port: 2200}
        a100:
          hosts:
            gpu09:
              ansible_host: 192.0.2.9
              driver: 580
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hosts.yaml").write_text(FLEET)
    Path("playbooks/group_vars").mkdir(parents=True)
    Path("playbooks/group_vars/h100.yml").write_text("driver: 575\n")


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["inventory", *words]) == 0
    return capsys.readouterr().out


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "list", "hosts.yaml") == (
        "HOST   ADDRESS     GROUPS\n"
        "login  local       ungrouped\n"
        "gpu01  gpu01:2200  gpus, h100\n"
        "gpu02  gpu02:2200  gpus, h100\n"
        "gpu03  gpu03:2200  gpus, h100\n"
        "gpu09  192.0.2.9   a100, gpus\n"
        "5 hosts\n"
    )
    assert shown(capsys, "list", "-i", "hosts.yaml", "-l", "a100").splitlines()[1:] == [
        "gpu09  192.0.2.9  a100, gpus",
        "1 host",
    ]


def test_list_as_ansible_does(capsys: pytest.CaptureFixture[str]) -> None:
    listed = json.loads(shown(capsys, "list", "hosts.yaml", "--json", "--show-secrets"))
    assert listed["_meta"]["hostvars"]["gpu02"] == {
        "ansible_port": 2200, "deploy_password": "hunter2", "driver": 575, "odd": "yes", "site": "fra1"
    }  # fmt: skip
    del listed["_meta"]
    assert listed == {
        "all": {"children": ["gpus", "ungrouped"]},
        "ungrouped": {"hosts": ["login"]},
        "gpus": {"children": ["h100", "a100"]},
        "h100": {"hosts": ["gpu01", "gpu02", "gpu03"]},
        "a100": {"hosts": ["gpu09"]},
    }


def test_graph(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "graph", "hosts.yaml") == (
        "@all: 5 hosts\n"
        "  |--@gpus: 4 hosts\n"
        "  |  |--@a100: 1 host\n"
        "  |  |  |--gpu09\n"
        "  |  |--@h100: 3 hosts\n"
        "  |  |  |--gpu[01-03]\n"
        "  |--@ungrouped: 1 host\n"
        "  |  |--login\n"
    )
    with_variables = shown(capsys, "graph", "hosts.yaml", "--group", "gpus", "--vars").splitlines()
    assert with_variables[0] == "@gpus: 4 hosts"
    assert "  |  |--{driver = 575}  playbooks/group_vars/h100.yml:1:1" in with_variables
    assert "  |--{driver = 570}  hosts.yaml:7:14" in with_variables


def test_host_shows_who_set_what_and_what_it_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "host", "hosts.yaml", "gpu09") == (
        "gpu09  in a100, gpus  hosts.yaml:14:13\n"
        "  ansible_host     192.0.2.9                 hosts.yaml:15:29  host vars\n"
        "  deploy_password  (hidden; --show-secrets)  hosts.yaml:2:52   vars of group all\n"
        "  driver           580                       hosts.yaml:16:15  host vars\n"
        "    instead of     570                       hosts.yaml:7:14   vars of group gpus\n"
        "    instead of     550                       hosts.yaml:2:22   vars of group all\n"
        '  odd              "yes"                     hosts.yaml:2:66   vars of group all\n'
        "  site             fra1                      hosts.yaml:2:16   vars of group all\n"
    )


def test_host_from_the_playbooks_folder_and_in_either_order(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "host", "gpu01", "hosts.yaml")
    assert text == shown(capsys, "host", "gpu01", "-i", "hosts.yaml", "--playbook-dir", "playbooks")
    assert "playbooks/group_vars/h100.yml:1:1  playbook group_vars of h100" in text
    assert len(shown(capsys, "host", "hosts.yaml", "gpus").split("\n\n")) == 4


def test_host_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    host = json.loads(shown(capsys, "host", "hosts.yaml", "gpu09", "--json"))["gpu09"]
    assert host["groups"] == ["a100", "gpus"]
    assert host["variables"]["driver"] == {
        "value": 580,
        "source": "host vars",
        "position": "hosts.yaml:16:15",
        "overridden": [
            {"value": 570, "source": "vars of group gpus", "position": "hosts.yaml:7:14"},
            {"value": 550, "source": "vars of group all", "position": "hosts.yaml:2:22"},
        ],
    }
    assert "hunter2" not in json.dumps(host)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["list"], "there is no inventory inventory/lab.yaml"),
        (["list", "gone.yaml"], "there is no inventory gone.yaml"),
        (["list", "hosts.yaml", "-i", "other.yaml"], "more than one inventory"),
        (["list", "hosts.yaml", "-l", "gpu99"], "hosts.yaml has gpu[01-03,09]"),
        (["host", "hosts.yaml", "logn"], "did you mean login?"),
        (["graph", "hosts.yaml", "--group", "gpu"], "did you mean gpus?"),
        (["list", "hosts.yaml", "--playbook-dir", "gone"], "gone is not a folder"),
    ],
)
def test_what_is_not_there(words: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inventory", *words]) == EXIT_INPUT
    assert part in capsys.readouterr().err


def test_mistakes_are_shown_with_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    Path("hosts.yaml").write_text("all:\n  host:\n    gpu01:\n")
    assert main(["inventory", "list", "hosts.yaml"]) == EXIT_INPUT
    error = capsys.readouterr().err
    assert "--> hosts.yaml:2:3\n" in error
    assert "2 |   host:\n  |   ^\nhint: did you mean hosts?" in error
