"""Which hosts need a stack, and what their plans see of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gpuprov.errors import RefusedError, SourceErrors
from tests.compile.conftest import FACTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.compile.conftest import Project

STACK = {"driver": {"version": "580.178.04", "packages": [{"name": "a", "version": "580*"}]}, "torch": None}


class Chooser:
    """Remembers who asked for what."""

    def __init__(self, refuse: str = "") -> None:
        self.asked: list[tuple[str, Any, Mapping[str, Any]]] = []
        self._refuse = refuse

    def resolve(self, host: str, want: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append((host, want, facts))
        if host == self._refuse:
            raise RefusedError("nothing fits", hint="take another GPU")
        return STACK


SHOWN = "- debug: {msg: 'driver {{ gpuprov_resolved_stack.driver.version }}'}"


def test_a_task_that_names_it_gets_it(project: Project) -> None:
    stacks = Chooser()
    assert project.node(SHOWN, stacks=stacks)["args"]["msg"] == "driver 580.178.04"
    assert stacks.asked == [("h1", None, FACTS)]
    assert project.compile(stacks=stacks).stack == STACK


NAMED = {
    "argument": SHOWN,
    "condition": "- debug: {msg: x}\n  when: gpuprov_resolved_stack.torch is none",
    "assertion": "- assert: {that: gpuprov_resolved_stack.torch is none}",
    "loop": "- debug: {msg: '{{ item }}'}\n  loop: '{{ gpuprov_resolved_stack.driver.packages }}'",
    "environment": "- command: id\n  environment: {V: '{{ gpuprov_resolved_stack.driver.version }}'}",
    "task variable": "- debug: {msg: '{{ v }}'}\n  vars: {v: '{{ gpuprov_resolved_stack.torch }}'}",
    "own result": "- command: id\n  register: r\n  failed_when: r.stdout != gpuprov_resolved_stack.driver.version",
    "block's condition": "- block: [{debug: {msg: x}}]\n  when: gpuprov_resolved_stack.driver",
}


@pytest.mark.parametrize("tasks", NAMED.values(), ids=NAMED)
def test_wherever_it_is_named(project: Project, tasks: str) -> None:
    project.play(tasks)
    assert project.compiler(stacks=Chooser()).wants_stack("h1")
    project.compile(stacks=Chooser())


def test_through_variables_and_template_files(project: Project) -> None:
    project.write(
        "roles/r/defaults/main.yml", "version: '{{ driver.version }}'\ndriver: '{{ gpuprov_resolved_stack.driver }}'"
    )
    project.write("roles/r/tasks/main.yml", "- debug: {msg: '{{ version }}'}")
    project.play("- debug: {msg: x}", "roles: [r]")
    assert project.compiler(stacks=Chooser()).wants_stack("h1")
    project.write("templates/t.j2", "{{ gpuprov_resolved_stack.driver.version }}")
    project.play("- template: {src: t.j2, dest: /x}")
    compiled = project.compile(stacks=Chooser())
    assert compiled.plan["plays"][0]["nodes"][0]["args"]["content"] == "580.178.04"


def test_nobody_is_asked_where_nothing_that_runs_names_it(project: Project) -> None:
    project.write("roles/r/defaults/main.yml", "version: '{{ gpuprov_resolved_stack.driver }}'")
    project.write("roles/r/tasks/main.yml", "- debug: {msg: plain}")
    project.play("- debug: {msg: x}", "roles: [r]")
    stacks = Chooser()
    assert project.compile(stacks=stacks).stack is None
    project.play(SHOWN.replace("msg:", "msg:") + "\n  tags: [stack]\n- debug: {msg: x}\n  tags: [other]")
    compiler = project.compiler(stacks=stacks, tags=["other"])
    assert not compiler.wants_stack("h1")
    assert compiler.plan("h1", FACTS).stack is None
    assert stacks.asked == []


def test_only_hosts_of_the_play_that_names_it(project: Project) -> None:
    project.write(
        "play.yaml",
        """
        - {hosts: h1, tasks: [{debug: {msg: "{{ gpuprov_resolved_stack.torch }}"}}]}
        - {hosts: gpu, tasks: [{debug: {msg: all}}]}
        """,
    )
    compiler = project.compiler(stacks=Chooser())
    assert [compiler.wants_stack(host) for host in ("h1", "h2")] == [True, False]


def test_what_is_wanted_may_come_from_inventory_play_or_command_line_and_name_facts(project: Project) -> None:
    stacks = Chooser()
    project.play(
        SHOWN,
        "vars:\n  torch: '2.9'\n  gpuprov_stack: {torch: '{{ torch }}', driver: '{{ ansible_processor_vcpus + 572 }}'}",
    )
    project.compile(stacks=stacks)
    project.compile(stacks=stacks, extra_vars={"gpuprov_stack": {"cuda": "12.8"}})
    assert [want for _, want, _ in stacks.asked] == [{"torch": "2.9", "driver": 580}, {"cuda": "12.8"}]


def test_a_version_of_torch_that_is_set_by_itself_is_the_same_wish(project: Project) -> None:
    stacks = Chooser()
    project.write("roles/r/defaults/main.yml", "gpuprov_torch_version: '{{ gpuprov_resolved_stack.torch }}'")
    project.play(SHOWN, "roles: [r]")
    project.compile(stacks=stacks)
    project.compile(stacks=stacks, extra_vars={"gpuprov_torch_version": 2.9})
    project.compile(stacks=stacks, extra_vars={"gpuprov_torch_version": "2.9.1", "gpuprov_stack": {"cuda": "auto"}})
    project.compile(stacks=stacks, extra_vars={"gpuprov_torch_version": "2.9.1", "gpuprov_stack": {"torch": "auto"}})
    assert [want for _, want, _ in stacks.asked] == [
        None,
        {"torch": "2.9"},
        {"cuda": "auto", "torch": "2.9.1"},
        {"torch": "auto"},
    ]


def test_a_want_that_cannot_be_rendered_is_a_problem_of_the_input(project: Project) -> None:
    project.play(SHOWN, "vars: {gpuprov_stack: {torch: '{{ nowhere }}'}}")
    with pytest.raises(SourceErrors) as raised:
        project.compile(stacks=Chooser())
    assert "nowhere is undefined" in raised.value.problems[0].message


def test_a_refusal_is_the_hosts_own(project: Project) -> None:
    project.play(SHOWN)
    compiler = project.compiler(stacks=Chooser(refuse="h2"))
    assert compiler.plan("h1", FACTS).stack == STACK
    with pytest.raises(RefusedError, match="nothing fits"):
        compiler.plan("h2", FACTS)


def test_it_travels_when_the_host_decides(project: Project) -> None:
    node = project.node(
        "- command: id\n  register: r\n- debug: {msg: '{{ r.stdout }} {{ gpuprov_resolved_stack.driver.version }}'}",
        stacks=Chooser(),
    )
    assert node["vars"]["gpuprov_resolved_stack"]["driver"]["version"] == "580.178.04"


def test_it_is_known_after_a_reboot(project: Project) -> None:
    node = project.node("- reboot:\n" + SHOWN, stacks=Chooser())
    assert node["args"]["msg"] == "driver 580.178.04"


def test_no_variable_can_pose_as_it(project: Project) -> None:
    node = project.node(SHOWN, "vars: {gpuprov_resolved_stack: {driver: {version: mine}}}", stacks=Chooser())
    assert node["args"]["msg"] == "driver 580.178.04"
