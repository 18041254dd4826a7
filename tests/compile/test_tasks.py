"""What a task becomes: inherited keywords, conditions decided now, loops written out, stable ids."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.compile.conftest import Project


def test_a_task_without_templates_is_as_written(project: Project) -> None:
    node = project.node("- name: Folder\n  ansible.builtin.file: {path: /x, state: directory, mode: '0755'}")
    assert node.pop("position").endswith("play.yaml:3:7")
    assert node == {
        "kind": "task",
        "id": "p1.t1",
        "name": "Folder",
        "action": "file",
        "args": {"path": "/x", "state": "directory", "mode": "0755"},
    }


def test_what_is_inherited_and_what_is_not(project: Project) -> None:
    project.write("roles/r/tasks/main.yml", "- {name: in role, command: id}")
    project.write(
        "play.yaml",
        """
        - hosts: gpu
          become: true
          environment: {A: play, B: play}
          tags: [p]
          roles:
            - {role: r, tags: [r], when: "true", become_user: ann}
          tasks:
            - no_log: true
              ignore_errors: true
              environment: {B: "{{ 1 + 1 }}"}
              tags: [b]
              timeout: 60
              block:
                - {name: in block, command: id, become: false, tags: t, check_mode: false, diff: true}
            - {name: outside, command: id, timeout: "{{ 5 * 2 }}", delay: 1, retries: 2, until: result.rc == 0,
               register: result}
        """,
    )
    nodes = project.nodes()
    role, block, outside = nodes["in role"], nodes["in block"], nodes["outside"]
    assert (role["tags"], role["become"], role["become_user"], role["role"]) == (["p", "r"], True, "ann", "r")
    assert role["environment"] == {"A": "play", "B": "play"}
    assert "become" not in block
    assert (block["no_log"], block["ignore_errors"], block["check_mode"], block["diff"]) == (True, True, False, True)
    assert (block["tags"], block["environment"], block["timeout_s"]) == (["b", "p", "t"], {"A": "play", "B": "2"}, 60.0)
    assert (outside["timeout_s"], outside["retries"], outside["delay_s"]) == (10.0, 2, 1.0)
    assert not {"no_log", "ignore_errors", "check_mode"} & outside.keys()


CONDITIONS = {
    "ansible_facts.os_family == 'Debian'": "",
    "ansible_facts.os_family == 'RedHat'": "when: ansible_facts.os_family == 'RedHat' is false",
    "[true, 'inventory_hostname in groups.gpu']": "",
    "[1 == 1, ansible_processor_vcpus > 100]": "when: ansible_processor_vcpus > 100 is false",
    "nowhere is defined": "when: nowhere is defined is false",
    "flag": "when: flag is false",
    "false": "when: false",
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_that_is_known_is_decided(project: Project, condition: str) -> None:
    node = project.node(
        f"- {{command: id, when: {condition!s}}}" if condition[0] == "[" else f"- command: id\n  when: {condition}",
        "vars: {flag: 'no'}",
    )
    assert node.get("skip", "") == CONDITIONS[condition]
    assert "when" not in node


def test_conditions_of_all_levels_hold_together(project: Project) -> None:
    project.play(
        """
        - when: outer
          block:
            - {name: a, command: id, when: inner}
            - {name: b, command: id}
        """
    )
    for outer, inner, skipped in ((1, 1, []), (1, 0, ["a"]), (0, 1, ["a", "b"])):
        nodes = project.nodes(extra_vars={"outer": outer, "inner": inner})
        assert [name for name in ("a", "b") if nodes[name].get("skip")] == skipped


def test_an_undefined_condition_is_refused_at_the_gate(project: Project) -> None:
    project.play("- command: id\n  when: ansible_facts.nothing.like == 1")
    problems = project.refused()
    assert project.pointed(problems) == [("undefined", "play.yaml:4", "nothing.like")]


LOOPS = {
    "loop: [a, b]": ["a", "b"],
    "loop: '{{ words }}'": ["x", "y"],
    "loop: '{{ range(2) }}'": [0, 1],
    "loop: '{{ sizes | dict2items }}'": [{"key": "s", "value": 1}],
    "with_items: [a, [b, c], '{{ words }}']": ["a", "b", "c", "x", "y"],
    "with_items: '{{ words }}'": ["x", "y"],
    "loop: []": [],
}


@pytest.mark.parametrize("loop", LOOPS)
def test_loops_that_are_known_are_written_out(project: Project, loop: str) -> None:
    node = project.node(f"- command: echo {{{{ item }}}}\n  {loop}", "vars: {words: [x, y], sizes: {s: 1}}")
    assert [item["item"] for item in node["items"]] == LOOPS[loop]
    assert [item["args"]["_raw_params"] for item in node["items"]] == [f"echo {item}" for item in LOOPS[loop]]


def test_loop_control(project: Project) -> None:
    node = project.node(
        """
        - command: "echo {{ number }} {{ user.name }}"
          loop: [{name: ann, in: yes}, {name: bob, in: no}]
          when: user["in"]
          loop_control: {loop_var: user, index_var: number, label: "{{ user.name }}", pause: 0.5}
        """
    )
    assert (node["loop_var"], node["index_var"], node["pause_s"]) == ("user", "number", 0.5)
    ann, bob = node["items"]
    assert (ann["label"], ann["args"]["_raw_params"]) == ("ann", "echo 0 ann")
    assert (bob["label"], bob["skip"]) == ("bob", 'when: user["in"] is false')


def test_arguments_that_are_the_same_for_all_passes_travel_once(project: Project) -> None:
    node = project.node("- {command: id, loop: [1, 2]}")
    assert node["args"] == {"_raw_params": "id"}
    assert all("args" not in item for item in node["items"])


def test_a_loop_over_something_else_is_an_error_with_its_place(project: Project) -> None:
    project.play("- command: id\n  loop: '{{ ansible_facts.kernel }}'")
    (problem,) = project.refused()
    assert "loop needs a list, it was given a str" in problem.message
    assert problem.position is not None
    assert problem.position.line == 4


def test_omitted_arguments_are_not_there(project: Project) -> None:
    node = project.node("- file: {path: /x, owner: '{{ nobody | default(omit) }}', mode: '{{ omit }}'}")
    assert node["args"] == {"path": "/x"}


def test_rendered_arguments_are_checked_at_the_gate(project: Project) -> None:
    project.play("- file: {path: /x, state: '{{ wanted }}'}", "vars: {wanted: '{{ ansible_facts.kernel }}'}")
    problems = project.refused()
    assert project.pointed(problems) == [("argument-choice", "play.yaml:4", "{{")]
    assert "allowed:" in problems[0].message


def test_ids_are_the_same_in_every_compile(project: Project) -> None:
    project.play(
        """
        - {name: a, command: id, tags: x}
        - block:
            - {name: b, command: id}
          rescue:
            - {name: never reached, command: id, tags: x}
        - {name: d, command: id, tags: x}
        """
    )
    everything = {name: node["id"] for name, node in project.nodes().items()}
    some = {name: node["id"] for name, node in project.nodes(host="h2", tags=["x"]).items()}
    assert some.items() < everything.items()
    assert set(some) == {"a", "d"}


def test_a_block_without_rescue_and_always_is_only_its_tasks(project: Project) -> None:
    project.play(
        "- block:\n    - {name: a, command: id}\n- block:\n    - {name: b, command: id}\n  always:\n"
        "    - {name: c, command: id}"
    )
    kinds = [(n["kind"], n.get("name")) for n in project.compile().plan["plays"][0]["nodes"]]
    assert kinds == [("task", "a"), ("block", "")]


def test_handlers_are_there_when_something_may_notify_them(project: Project) -> None:
    project.write(
        "play.yaml",
        """
        - hosts: gpu
          tasks:
            - {name: a, command: id, notify: [one, topic]}
            - {name: skipped, command: id, notify: never, when: false}
          handlers:
            - {name: one, command: id, notify: chained}
            - {name: two, command: id, listen: topic}
            - {name: never, command: id}
            - {name: chained, command: id}
        """,
    )
    handlers = project.compile().plan["plays"][0]["handlers"]
    assert [(h["name"], h["id"], h.get("listen")) for h in handlers] == [
        ("one", "p1.h1", None),
        ("two", "p1.h2", ["topic"]),
        ("chained", "p1.h4", None),
    ]


def test_plays_for_other_hosts_are_not_in_the_plan(project: Project) -> None:
    project.write(
        "play.yaml",
        "- {hosts: h2, tasks: [{command: 'false'}]}\n- {hosts: h1, name: mine, force_handlers: true, tasks: []}\n",
    )
    assert [(p["id"], p["name"], p["force_handlers"]) for p in project.compile().plan["plays"]] == [
        ("p2", "mine", True)
    ]


def test_names_that_cannot_be_rendered_yet_stay_as_written(project: Project) -> None:
    node = project.node("- {name: 'For {{ item }} on {{ inventory_hostname }}', command: id, loop: [1]}")
    assert node["name"] == "For {{ item }} on {{ inventory_hostname }}"
    assert project.node("- {name: 'On {{ inventory_hostname }}', command: id}")["name"] == "On h1"


TAGS: list[tuple[dict[str, Any], str]] = [
    ({}, "plain x always"),
    ({"tags": ["all"]}, "plain x always"),
    ({"tags": ["x"]}, "x always"),
    ({"tags": ["never"]}, "always never never-y"),
    ({"tags": ["y"]}, "always never-y"),
    ({"tags": ["tagged"]}, "x always"),
    ({"tags": ["untagged"]}, "plain always"),
    ({"skip_tags": ["x"]}, "plain always"),
    ({"skip_tags": ["always"]}, "plain x"),
    ({"skip_tags": ["tagged"]}, "plain"),
    ({"skip_tags": ["all"]}, "always"),
    ({"tags": ["x"], "skip_tags": ["always"]}, "x"),
]


@pytest.mark.parametrize(("options", "expected"), TAGS, ids=str)
def test_tags(project: Project, options: dict[str, Any], expected: str) -> None:
    project.play(
        """
        - {name: plain, command: id}
        - {name: x, command: id, tags: "x, z"}
        - {name: always, command: id, tags: always}
        - {name: never, command: id, tags: never}
        - {name: never-y, command: id, tags: [never, y]}
        """
    )
    assert list(project.nodes(**options)) == expected.split()


def test_constant_tasks_are_shared_between_hosts_and_still_run_as_each_host_wants(project: Project) -> None:
    project.write("host_vars/h2.yml", "ansible_become: true")
    project.play("- {name: a, command: id}\n- {name: b, command: 'echo {{ inventory_hostname }}'}")
    compiler = project.compiler()
    first, second = (compiler.plan(host, {}).plan["plays"][0]["nodes"] for host in ("h1", "h2"))
    again = compiler.plan("h1", {}).plan["plays"][0]["nodes"]
    assert again[0] is first[0]
    assert [n["args"]["_raw_params"] for n in (first[1], second[1])] == ["echo h1", "echo h2"]
    assert [(n.get("become")) for n in (*first, *second, *again)] == [None, None, True, True, None, None]


def test_plans_compiled_in_many_threads_are_the_same(project: Project) -> None:
    hosts = [f"h{n}" for n in range(40)]
    project.write(
        "inventory.yaml",
        "gpu:\n  hosts:\n" + "".join(f"    {h}: {{own: '{{{{ {n} }}}}'}}\n" for n, h in enumerate(hosts)),
    )
    project.write("files/f", "content")
    project.write("templates/t.j2", "{{ own }} {{ inventory_hostname }} {{ hostvars.h1.own }}")
    project.play(
        "- copy: {src: f, dest: /f}\n- template: {src: t.j2, dest: '/t{{ own }}'}\n- {command: id, loop: [1, 2]}"
    )
    one_by_one = project.compiler()
    expected = [one_by_one.plan(host, {}) for host in hosts]
    compiler = project.compiler()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda host: compiler.plan(host, {}), hosts))
    assert found == expected
    assert found[7].plan["plays"][0]["nodes"][1]["args"]["content"] == "7 h7 1"


def test_debug_speaks_from_its_verbosity_on(project: Project) -> None:
    tasks = "- debug: {msg: hello, verbosity: 2}"
    assert project.node(tasks)["skip"] == "shown with -vv only"
    assert "skip" not in project.node(tasks, verbosity=2)
