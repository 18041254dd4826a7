"""Everything wrong in templates and names, at its line and column, before anything connects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.compile.conftest import Project


def test_a_right_playbook_has_no_problems(project: Project) -> None:
    project.write("group_vars/gpu.yml", "prefix: /opt\npath: '{{ prefix }}/bin'\nlazy: '{{ set_later }}'")
    project.write("roles/r/defaults/main.yml", "port: 80")
    project.write("roles/r/templates/t.j2", "{{ port }} {{ path }} {{ item }} {{ ansible_managed }} {{ out.rc }}")
    project.write("roles/r/tasks/main.yml", "- template: {src: t.j2, dest: /t}\n  loop: [1]")
    project.write(
        "play.yaml",
        """
        - hosts: gpu
          roles: [r]
          tasks:
            - {command: "{{ path }} {{ ansible_facts.any.at_all }} {{ ansible_default_ipv4.x }}", register: out}
            - set_fact: {set_later: 1}
            - {command: "{{ lazy }} {{ out.stdout }} {{ guarded }}", when: guarded is defined}
            - {command: "{{ maybe | default('x') }} {{ a if b is defined else '' }}", vars: {a: 1}}
            - {debug: {msg: "{{ one }} {{ n }}"}, loop: [1], loop_control: {loop_var: one, index_var: n}}
            - {debug: {var: not_there}}
            - {command: id, when: also_not_there == 1}
            - debug: {msg: "{{ hostvars[groups.gpu[0]].x }} {{ vars.y | default(1) }} {{ lookup('env', 'HOME') }}"}
            - block: [{command: "false"}]
              rescue: [{debug: {msg: "{{ ansible_failed_result.msg }}"}}]
        """,
    )
    assert project.analyse() == []


WRONG = {
    "command: echo {{ a b }}": ("template-syntax", "{{"),
    "command: \"echo {{ 'x' | uper }}\"": ("unknown-filter", "uper"),
    "command: \"echo {{ 'x' | json_query('y') }}\"": ("unknown-filter", "json_query('y')"),
    'command: "echo {{ 3 is evn }}"': ("unknown-test", "evn"),
    "command: \"echo {{ lookup('enw', 'X') }}\"": ("unknown-lookup", "enw',"),
    "command: \"echo {{ lookup('password', 'x') }}\"": ("unknown-lookup", "password',"),
    'command: "echo {{ prefx }}"': ("undefined", "prefx"),
    "{command: id, when: prefix ==}": ("template-syntax", "prefix"),
    "{command: id, register: r, until: rr.rc == 0}": ("undefined", "rr.rc"),
    "{command: id, changed_when: chnged}": ("undefined", "chnged}"),
    "{command: id, environment: {A: '{{ nope }}'}}": ("undefined", "nope"),
    "{command: id, loop: '{{ nope }}'}": ("undefined", "nope"),
    "{command: id, become: '{{ nope }}'}": ("undefined", "nope"),
    "{debug: {msg: '{{ k }}'}, vars: {k: '{{ nope }}'}}": ("undefined", "nope"),
    "assert: {that: [prefix == 'a', nope]}": ("undefined", "nope]}"),
    "{command: id, register: r, failed_when: \"r.rc == lookup('env', 'X')\"}": ("controller-only", "env',"),
    "copy: {src: none.txt, dest: /x}": ("file-missing", "none.txt,"),
    "template: {src: none.j2, dest: /x}": ("file-missing", "none.j2,"),
    "{copy: {src: '{{ item }}', dest: /x}, loop: [here.txt, none.txt]}": ("file-missing", "{{"),
    "set_fact: {'{{ prefix }}': 1}": ("set-fact-name", "{{"),
}


@pytest.mark.parametrize("task", WRONG)
def test_one_mistake_is_one_problem_at_its_place(project: Project, task: str) -> None:
    project.write("files/here.txt", "")
    project.play(f"- debug:\n- {task}", "vars: {prefix: /opt}")
    code, word = WRONG[task]
    assert project.pointed(project.analyse()) == [(code, "play.yaml:5", word)]


def test_positions_inside_longer_texts(project: Project) -> None:
    project.play(
        """
        - copy:
            dest: /x
            content: |
              first
              {{ nope }} and
              {{ a
                 | upper }}
        - command: >
            echo one
            {{ nope_too }}
        - command: echo
            {{ third }}
        - debug:
            msg: "a
              {{ fourth }}"
        """
    )
    assert project.pointed(project.analyse()) == [
        ("undefined", "play.yaml:12", "nope_too"),
        ("undefined", "play.yaml:14", "third"),
        ("undefined", "play.yaml:17", "fourth"),
        ("undefined", "play.yaml:7", "nope"),
        ("undefined", "play.yaml:8", "a"),
    ]


def test_a_near_name_is_offered(project: Project) -> None:
    project.play("- command: id\n  register: result\n- debug: {msg: '{{ reslt.rc }} {{ inventory_hostnam }}'}")
    assert [p.hint for p in project.analyse()] == ["did you mean inventory_hostname?", "did you mean result?"]


def test_all_problems_come_at_once_and_each_once(project: Project) -> None:
    project.write("group_vars/gpu.yml", "bad: '{{ x | nofilter }}'")
    project.play("- debug: {msg: '{{ one }}'}\n- debug: {msg: '{{ two }} {{ one }}'}\n- debug: {msg: '{{ bad }}'}")
    assert project.pointed(project.analyse()) == [
        ("undefined", "gpu.yml:1", "x"),
        ("undefined", "play.yaml:3", "one"),
        ("undefined", "play.yaml:4", "one"),
        ("undefined", "play.yaml:4", "two"),
        ("unknown-filter", "gpu.yml:1", "nofilter"),
    ]


def test_a_variable_is_followed_to_what_it_lacks(project: Project) -> None:
    project.write("group_vars/gpu.yml", "a: '{{ b }}'\nb: [1, '{{ missing }}']")
    project.play("- debug: {msg: '{{ a }}'}")
    (problem,) = project.analyse()
    assert project.pointed([problem]) == [("undefined", "gpu.yml:2", "missing")]
    assert problem.context == ("on the way: variable a", "on the way: variable b")


def test_hosts_that_lack_a_variable_are_named(project: Project) -> None:
    hosts = ", ".join(f"h{n}: {{}}" for n in range(1, 9))
    project.write("inventory.yaml", f"all: {{children: {{gpu: {{hosts: {{{hosts}, has: {{v: 1}}}}}}}}}}\n")
    project.play("- debug: {msg: '{{ v }}'}")
    (problem,) = project.analyse()
    assert problem.context == ("on h1, h2, h3, h4, h5 and 3 more",)
    assert project.analyse(limit=["has"]) == []
    assert project.analyse(extra={"v": 1}) == []


def test_template_files_are_read(project: Project) -> None:
    project.write(
        "templates/t.j2", "ok\nname {{ inventory_hostnam }}\n{% include 'sub/i.j2' %}\n{% include 'no.j2' %}\n"
    )
    project.write("templates/sub/i.j2", "{{ 'x' | nofilter }}\n")
    project.write("templates/broken.j2", "a\n{% if x %}\nb\n")
    project.play(
        "- template: {src: t.j2, dest: /t}\n- template: {src: '{{ which }}.j2', dest: /t}", "vars: {which: broken}"
    )
    assert project.pointed(project.analyse()) == [
        ("file-missing", "t.j2:4", "no.j2"),
        ("template-syntax", "broken.j2:3", "b"),
        ("undefined", "t.j2:2", "inventory_hostnam"),
        ("unknown-filter", "i.j2:1", "nofilter"),
    ]


def test_what_only_facts_can_tell_is_left_to_the_gate(project: Project) -> None:
    project.play("- template: {src: '{{ ansible_facts.os_family }}.j2', dest: /t}")
    assert project.analyse() == []
    assert [p.code for p in project.refused()] == ["file-missing"]


def test_roles_that_are_used_twice_are_told_once(project: Project) -> None:
    project.write("roles/r/tasks/main.yml", "- debug: {msg: '{{ nope }}'}")
    project.write("play.yaml", "- {hosts: gpu, roles: [{role: r, x: 1}, {role: r, x: 2}]}\n")
    assert project.pointed(project.analyse()) == [("undefined", "main.yml:1", "nope")]
