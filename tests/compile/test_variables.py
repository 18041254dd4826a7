"""Which value wins: every source of variables against the next stronger one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gpuprov.compile.variables import PRECEDENCE

if TYPE_CHECKING:
    from tests.compile.conftest import Project


def build(project: Project, sources: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write a project in which each of *sources* sets `ansible_v` to its own name; return options and facts."""
    has = sources.__contains__

    def line(source: str) -> str:
        return f"ansible_v: {source}" if has(source) else "{}"

    project.write("roles/r/defaults/main.yml", line("role defaults"))
    project.write("roles/r/vars/main.yml", line("role vars"))
    task = f"- name: here\n  debug: {{msg: '{{{{ ansible_v }}}}'}}\n  vars: {{{line('task vars').strip('{}')}}}\n"
    block = f"- vars: {{{line('block vars').strip('{}')}}}\n  block:\n" + "".join(
        f"    {text}\n" for text in task.splitlines()
    )
    project.write("roles/r/tasks/main.yml", block)
    project.write("group_vars/gpu.yml", line("inventory"))
    params = f", {line('role params')}" if has("role params") else ""
    project.write(
        "play.yaml",
        f"- hosts: gpu\n  vars: {{{line('play vars').strip('{}')}}}\n  roles:\n    - {{role: r{params}}}\n",
    )
    extra = {"ansible_v": "extra vars"} if has("extra vars") else {}
    return {"extra_vars": extra}, {"v": "facts"} if has("facts") else {}


ORDER = [source for source in PRECEDENCE if source != "registered results and set_fact"]


@pytest.mark.parametrize("strongest", range(len(ORDER)), ids=ORDER)
def test_the_strongest_source_wins(project: Project, strongest: int) -> None:
    options, facts = build(project, ORDER[: strongest + 1])
    plan = project.compile(facts=facts, **options).plan
    assert plan["plays"][0]["nodes"][0]["args"]["msg"] == ORDER[strongest]


def test_a_roles_own_defaults_and_vars_win_over_other_roles(project: Project) -> None:
    for role in ("a", "b"):
        project.write(f"roles/{role}/defaults/main.yml", f"d: default of {role}\nonly_{role}: 1")
        project.write(f"roles/{role}/vars/main.yml", f"v: var of {role}")
        project.write(f"roles/{role}/tasks/main.yml", f"- name: {role}\n  debug: {{msg: '{{{{ d }}}}, {{{{ v }}}}'}}")
    project.write(
        "play.yaml",
        """
        - hosts: gpu
          roles: [a, b]
          tasks:
            - name: after
              debug: {msg: "{{ only_a }} {{ v }}"}
        """,
    )
    nodes = project.nodes()
    assert nodes["a"]["args"]["msg"] == "default of a, var of a"
    assert nodes["b"]["args"]["msg"] == "default of b, var of b"
    assert nodes["after"]["args"]["msg"] == "1 var of b"


def test_variables_may_name_each_other_across_sources(project: Project) -> None:
    project.write("group_vars/gpu.yml", "base: /opt/{{ inventory_hostname }}\ncuda: '{{ base }}/cuda-{{ version }}'")
    node = project.node("- debug: {msg: '{{ cuda }}'}", "vars: {version: '{{ 12 }}'}")
    assert node["args"]["msg"] == "/opt/h1/cuda-12"


def test_magic_variables(project: Project) -> None:
    project.write("inventory.yaml", "all:\n  children:\n    gpu: {hosts: {'h1.rack.lan': {}, h2: {}}}\n")
    project.write("roles/r/tasks/main.yml", "- debug: {msg: '{{ role_name }} {{ role_path | basename }}'}")
    said = {
        "{{ inventory_hostname_short }}": "h1",
        "{{ group_names }}": ["gpu"],
        "{{ groups.gpu }}": ["h1.rack.lan", "h2"],
        "{{ 'gpu' in groups }} {{ groups.all | length }}": "True 2",
        "{{ ansible_play_hosts | length }}": 2,
        "{{ playbook_dir | basename }}": Path(project.folder).name,
        "{{ inventory_dir == playbook_dir }}": True,
        "{{ ansible_check_mode }}": True,
        "{{ gpuprov_run }}": "r1",
        "{{ ansible_host }}": "h1.rack.lan",
        "{{ ansible_facts.kernel }} {{ ansible_kernel }}": "6.1.0 6.1.0",
    }
    tasks = "".join(f'- debug: {{msg: "{text}"}}\n' for text in said)
    project.play(tasks + "- import_role: {name: r}\n")
    nodes = project.compile("h1.rack.lan", check=True).plan["plays"][0]["nodes"]
    assert [node["args"]["msg"] for node in nodes] == [*said.values(), "r r"]


def test_hostvars_have_other_hosts_variables(project: Project) -> None:
    project.write("host_vars/h2.yml", "port: 1\nurl: 'http://{{ inventory_hostname }}:{{ port }}'")
    node = project.node("- debug: {msg: \"{{ hostvars['h2'].url }} {{ hostvars.h2.port | default(5) }}\"}")
    assert node["args"]["msg"] == "http://h2:1 1"


def test_facts_of_other_hosts_are_there_when_they_were_learned_before(project: Project) -> None:
    project.play("- debug: {msg: \"{{ hostvars['h2'].ansible_kernel }}\"}")
    (problem,) = project.refused()
    assert "facts of other hosts are not known" in problem.message
    assert project.pointed([problem]) == [("undefined", "play.yaml:3", "ansible_kernel")]
    project.play("- debug: {msg: \"{{ hostvars['h2'].ansible_kernel | default('none') }}\"}")
    assert project.nodes()["debug"]["args"]["msg"] == "none"
    project.play("- debug: {msg: \"{{ hostvars['h2'].ansible_kernel }}\"}")
    compiler = project.compiler()
    compiler.learn("h2", {"kernel": "5.15"})
    assert compiler.plan("h1", {}).plan["plays"][0]["nodes"][0]["args"]["msg"] == "5.15"


def test_settings_are_rendered_without_facts(project: Project) -> None:
    project.write(
        "group_vars/gpu.yml",
        """
        ansible_user: "{{ who }}"
        who: ops
        gpuprov_torch_version: 2.9.0
        gpuprov_needs_facts: "{{ ansible_facts.kernel }}"
        other: x
        """,
    )
    project.play("- debug: {}", "vars: {ansible_port: 2222}")
    settings = project.compiler(extra_vars={"ansible_user": "root"}).settings("h1")
    assert settings == {"ansible_user": "root", "ansible_port": 2222, "gpuprov_torch_version": "2.9.0"}


def test_a_setting_that_cannot_be_rendered_is_an_error(project: Project) -> None:
    from gpuprov.errors import SourceErrors

    project.write("group_vars/gpu.yml", 'ansible_user: "{{ nobody_knows }}"')
    project.play("- debug: {}")
    with pytest.raises(SourceErrors) as raised:
        project.compiler().settings("h1")
    assert project.pointed(list(raised.value.problems)) == [("undefined", "gpu.yml:1", "nobody_knows")]


@pytest.mark.parametrize(
    ("tasks", "head", "expected"),
    [
        ("- command: id", "", False),
        ("- command: id", "become: true", True),
        ("- {command: id, become: true}", "", True),
        ("- {command: id, become: false}", "become: true", False),
        ("- {command: id, become: '{{ x }}'}", "", True),
        ("- {command: id, become: true, tags: other}", "", False),
    ],
)
def test_root_is_needed_when_a_task_that_runs_needs_it(project: Project, tasks: str, head: str, expected: bool) -> None:
    project.play(tasks, head)
    assert project.compiler(skip_tags=["other"]).needs_root("h1") is expected


def test_become_of_the_inventory_wins(project: Project) -> None:
    project.write("host_vars/h1.yml", "ansible_become: true\nansible_become_user: gpuops")
    project.write("host_vars/h2.yml", "ansible_become: false")
    project.play("- {name: a, command: id, become: true}\n- {name: b, command: id}")
    compiler = project.compiler()
    assert (compiler.needs_root("h1"), compiler.needs_root("h2")) == (True, False)
    nodes = {host: compiler.plan(host, {}).plan["plays"][0]["nodes"] for host in ("h1", "h2")}
    assert [(n.get("become"), n.get("become_user")) for n in nodes["h1"]] == [(True, "gpuops")] * 2
    assert [n.get("become") for n in nodes["h2"]] == [None, None]


def test_secrets_are_named_to_be_scrubbed(project: Project) -> None:
    project.write(
        "group_vars/gpu.yml",
        "ansible_become_password: hunter22\napi_token: '{{ t }}x'\nt: abcdef\nshort_password: ab\npassword_file: /x/yz",
    )
    project.play("- debug: {}")
    assert project.compile().plan["secrets"] == ["abcdefx", "hunter22"]
