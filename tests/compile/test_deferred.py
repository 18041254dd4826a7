"""What waits for a result: compiled here, then run by the real engine on this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gpuprov.agent.engine import Engine
from gpuprov.agent.journal import Journal
from gpuprov.agent.system import System
from gpuprov.compile.deferred import expression_of, quoted
from gpuprov.templating.renderer import Renderer

if TYPE_CHECKING:
    from tests.compile.conftest import Project


def run(project: Project, facts: dict[str, Any] | None = None, **options: Any) -> dict[str, dict[str, Any]]:
    """Compile for h1, send the plan through JSON, run it; return the TaskFinished events by task name."""
    facts = facts or {"kernel": "6.1.0"}
    compiled = project.compile(facts=facts, **options)
    plan = json.loads(json.dumps(compiled.plan))
    names = {n["id"]: n["name"] for p in plan["plays"] for n in [*_flat(p["nodes"]), *p["handlers"]]}
    folder = project.folder / "state"
    blobs = folder / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    for sha256, where in compiled.files.items():
        (blobs / sha256).write_bytes(where if isinstance(where, bytes) else Path(where).read_bytes())
    journal_path = folder / "journal"
    journal_path.unlink(missing_ok=True)
    journal = Journal(str(journal_path))
    context = {"home": str(folder), "run": str(folder), "facts": facts, "layers": {}, "source": "", "in_use": ""}
    engine = Engine(plan, journal, System(), context)
    try:
        engine.run()
    finally:
        journal.close()
        os.close(engine._current)
    events = [json.loads(line) for line in journal_path.read_text().splitlines()]
    done = {names[e["id"]]: e for e in events if e["kind"] == "TaskFinished" and "item" not in e}
    for event in events:
        if "item" in event:
            done[names[event["id"]]]["result"].setdefault("results", []).append(event["result"])
    return done


def _flat(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for node in nodes:
        parts = [_flat(node.get(p, [])) for p in ("block", "rescue", "always")] if node["kind"] == "block" else []
        found += [node] if not parts else [n for part in parts for n in part]
    return found


def test_a_result_reaches_conditions_arguments_and_names_in_variables(project: Project) -> None:
    project.write("group_vars/gpu.yml", "greeting: '{{ word }} {{ out.stdout }}'\nword: hello\nunused: '{{ x }}'")
    project.play(
        """
        - {name: ask, command: echo world, register: out, changed_when: false}
        - {name: say, debug: {msg: "{{ greeting }} from {{ inventory_hostname }}"}, when: out.rc == 0}
        - {name: not said, debug: {msg: no}, when: "out.stdout == 'mars'"}
        """
    )
    say = project.nodes()["say"]
    assert say["when"] == ["out.rc == 0"]
    assert say["defer"] == ["args"]
    assert say["vars"] == {"greeting": "{{ word }} {{ out.stdout }}", "inventory_hostname": "h1", "word": "hello"}
    done = run(project)
    assert done["say"]["result"]["msg"] == "hello world from h1"
    assert done["not said"]["outcome"] == "skipped"


def test_only_plans_that_wait_for_something_need_jinja(project: Project) -> None:
    project.play("- {name: a, command: id, register: out, changed_when: false}\n- debug: {msg: '{{ 1 + 1 }}'}")
    assert project.compile().plan["jinja"] is False
    project.play("- {name: a, command: id, register: out, changed_when: out.rc == 1}")
    assert project.compile().plan["jinja"] is True


def test_until_changed_when_and_failed_when_see_the_result(project: Project) -> None:
    counter = project.folder / "counter"
    project.play(
        f"""
        - name: third time
          shell: "echo x >> {counter}; wc -l < {counter}"
          register: tries
          until: tries.stdout | int >= wanted
          retries: 5
          delay: 0
          changed_when: tries.stdout == '3'
        - {{name: fine, command: "false", register: f, failed_when: f.rc not in allowed}}
        - name: bad
          command: "true"
          register: b
          failed_when: [b.rc == 0, strict]
          ignore_errors: "{{{{ f.rc == 1 }}}}"
        """,
        "vars: {wanted: 3, allowed: [0, 1], strict: true}",
    )
    done = run(project)
    assert (done["third time"]["outcome"], done["third time"]["result"]["attempts"]) == ("changed", 3)
    assert done["fine"]["outcome"] == "changed"
    assert done["bad"]["outcome"] == "ignored"


def test_a_condition_that_is_known_to_be_false_skips_whatever_else_waits(project: Project) -> None:
    project.play(
        "- {name: a, command: id, register: r}\n- {name: b, command: id, when: [r.rc == 0, false_one]}",
        "vars: {false_one: no}",
    )
    node = project.nodes()["b"]
    assert node["skip"] == "when: false_one is false"
    assert "when" not in node


def test_what_may_be_skipped_may_name_what_is_not_there(project: Project) -> None:
    project.play(
        """
        - {name: a, command: "true", register: r}
        - {name: b, command: "echo {{ ansible_facts.gpu.nothing }}", when: r.rc != 0}
        - {name: c, command: id, when: [r.rc != 0, ansible_facts.gpu.nothing]}
        """
    )
    done = run(project)
    assert [done[name]["outcome"] for name in "abc"] == ["changed", "skipped", "skipped"]


def test_retries_alone_go_on_until_it_succeeds(project: Project) -> None:
    count = project.folder / "count"
    project.play(f"- {{name: a, shell: 'echo x >> {count}; test $(wc -l < {count}) = 3', retries: 4, delay: 0}}")
    done = run(project)
    assert (done["a"]["outcome"], done["a"]["result"]["attempts"]) == ("changed", 3)


def test_loops_over_results(project: Project) -> None:
    project.play(
        """
        - {name: list, command: "printf 'a\\\\nb\\\\n'", register: out}
        - {name: loop, debug: {msg: "{{ item }}{{ suffix }}"}, loop: "{{ out.stdout_lines }}", when: item != 'b'}
        - {name: items, debug: {msg: "{{ item }}"}, with_items: ["x y", "it's", "{{ out.stdout_lines }}", 3]}
        - {name: results, debug: {msg: "{{ entry.item }}"}, loop: "{{ made.results }}",
           loop_control: {loop_var: entry, label: "{{ entry.item }}"}, when: entry is changed}
        - {name: made first, command: "true", loop: [1, 2], register: made}
        - {name: again, debug: {msg: "{{ entry.item }}{{ n }}"}, loop: "{{ made.results }}",
           loop_control: {loop_var: entry, index_var: n}, when: entry is changed}
        """,
        "vars: {suffix: '!', made: {results: []}}",
    )
    done = run(project)
    assert [r.get("msg") for r in done["loop"]["result"]["results"]] == ["a!", None]
    assert [r["msg"] for r in done["items"]["result"]["results"]] == ["x y", "it's", "a", "b", 3]
    assert done["results"]["skip"] == "the loop's list is empty"
    assert [r["msg"] for r in done["again"]["result"]["results"]] == ["10", "21"]


def test_a_known_loop_with_arguments_that_wait(project: Project) -> None:
    project.write("group_vars/gpu.yml", "line: 'v{{ item }}={{ out.stdout }}'")
    project.play(
        """
        - {name: ask, command: echo R, register: out}
        - {name: each, debug: {msg: "{{ line }} {{ braces }}"}, loop: [1, 2], when: item > least and out.rc == 0}
        - {name: mixed, debug: {msg: "{{ out.stdout if item == 1 else braces }}"}, loop: [1, 2]}
        """,
        "vars: {least: 1, braces: '{% raw %}{{ kept }}{% endraw %}'}",
    )
    done = run(project)
    assert [r.get("msg") for r in done["each"]["result"]["results"]] == [None, "v2=R {{ kept }}"]
    assert [r["msg"] for r in done["mixed"]["result"]["results"]] == ["R", "{{ kept }}"]


def test_set_fact_and_what_comes_after(project: Project) -> None:
    project.play(
        """
        - {name: before, debug: {msg: "{{ mode }}"}}
        - set_fact: {mode: fast, from_result: "{{ 1 + 1 }}"}
        - {name: after, debug: {msg: "{{ mode }} {{ from_result }} {{ words }}"}}
        """,
        "vars: {mode: default, words: ['a {{ mode }}']}",
    )
    done = run(project)
    assert (done["before"]["result"]["msg"], done["after"]["result"]["msg"]) == ("default", "fast 2 ['a fast']")


def test_a_template_that_names_a_result_is_rendered_on_the_host(project: Project) -> None:
    project.write("templates/t.j2", "{% for w in out.stdout_lines %}\n{{ w }} {{ unit }}\n{% endfor %}\nend\n")
    dest = project.folder / "out"
    project.play(
        f"- {{name: ask, command: echo 5, register: out}}\n- template: {{src: t.j2, dest: {dest}}}",
        "vars: {unit: GB, unused: \"{{ lookup('env', 'HOME') }}\"}",
    )
    run(project)
    assert dest.read_text() == "5 GB\nend\n"


def test_what_is_known_survives_being_rendered_again(project: Project) -> None:
    project.write("group_vars/gpu.yml", "odd: \"{% raw %}{{ x }} {% 'y' %} {# z #}{% endraw %} 'a' \\\"b\\\" \\\\n\"")
    project.play(
        """
        - {name: ask, command: echo R, register: out}
        - name: say
          debug: {msg: ["{{ out.stdout }}", "{{ odd }}", {"{{ odd }}": "{{ ansible_facts.braces }}"}, 5]}
        - {name: env, shell: 'printf "%s" "$A $B"', environment: {A: "{{ odd }}", B: "{{ out.stdout }}"}}
        """
    )
    odd = "{{ x }} {% 'y' %} {# z #} 'a' \"b\" \\n"
    done = run(project, facts={"braces": "{{ 7 * 7 }}\n"})
    assert done["say"]["result"]["msg"] == ["R", odd, {odd: "{{ 7 * 7 }}\n"}, 5]
    assert done["env"]["result"]["stdout"] == f"{odd} R"


@pytest.mark.parametrize("text", ["{{ a }}", 'it\'s {% x %} "y"\r\n', "{#\\\\ é", "{{ 'a' }} + 100% \\n\n", "{{"])
def test_quoting_any_text(text: str) -> None:
    assert Renderer({"v": quoted([text])}, {}).render("{{ v }}") == [text]
    assert Renderer({}, {}).render("{{ " + expression_of(["plain", 1, None, True, {"k": "it's"}]) + " }}") == [
        "plain",
        1,
        None,
        True,
        {"k": "it's"},
    ]


def test_controller_values_are_rendered_before_they_travel(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUPROV_TEST", "here")
    project.write("host_vars/h2.yml", "port: 7")
    project.play(
        """
        - {name: ask, command: echo R, register: out}
        - {name: say, debug: {msg: "{{ out.stdout }} {{ where }} {{ peer }} {{ groups.gpu }}"}}
        """,
        "vars: {where: \"{{ lookup('env', 'GPUPROV_TEST') }}\", peer: '{{ hostvars.h2.port }}'}",
    )
    assert run(project)["say"]["result"]["msg"] == "R here 7 ['h1', 'h2']"


@pytest.mark.parametrize(
    ("task", "word"),
    [
        ("debug: {msg: \"{{ out.stdout ~ lookup('env', 'X') }}\"}", "lookup env"),
        ('debug: {msg: "{{ out.stdout ~ hostvars.h2.x }}"}', "hostvars"),
        ("copy: {src: '{{ out.stdout }}', dest: /x}", "src of copy"),
        ("template: {src: '{{ out.stdout }}', dest: /x}", "src of template"),
        ("{command: id, become: '{{ out.rc }}'}", "become"),
        ("{command: id, timeout: '{{ out.rc }}'}", "timeout"),
        ("{command: id, notify: '{{ out.stdout }}'}", "notify"),
    ],
)
def test_what_cannot_wait_is_refused_with_its_place(project: Project, task: str, word: str) -> None:
    item = task if task.startswith("{") else f"{{{task}}}"
    project.play(f"- {{name: ask, command: echo R, register: out}}\n- {item}")
    problems = project.refused()
    assert len(problems) == 1
    assert word in problems[0].message
    assert problems[0].code in ("controller-only", "not-known-in-time")
    assert problems[0].position is not None
    assert problems[0].position.line == 4


def test_facts_get_old_when_something_renews_them(project: Project) -> None:
    project.play(
        """
        - {name: before, debug: {msg: "{{ ansible_facts.kernel }}"}}
        - setup:
        - {name: after, debug: {msg: "{{ ansible_facts.kernel }}"}}
        - {name: short, debug: {msg: "{{ k }}"}}
        - {name: lasting, debug: {msg: "{{ ansible_facts.os_family }} {{ ansible_os_family }}"}}
        """,
        "vars: {k: '{{ ansible_kernel }}'}",
    )
    nodes = project.nodes()
    assert [name for name, node in nodes.items() if node.get("defer")] == ["after", "short"]
    assert nodes["before"]["args"]["msg"] == "6.1.0"
    assert "vars" not in nodes["after"]
    assert nodes["short"]["vars"] == {"k": "{{ ansible_kernel }}"}
    assert nodes["lasting"]["args"]["msg"] == "Debian Debian"


def test_assert_and_debug_var_wait_too(project: Project) -> None:
    project.play(
        """
        - {name: ask, command: echo 5, register: out}
        - {name: holds, assert: {that: [out.stdout | int < limit, limit == 10], quiet: true}}
        - {name: shown, debug: {var: out.stdout}}
        - {name: fails, assert: {that: "out.stdout == '6'", fail_msg: "got {{ out.stdout }}"}, ignore_errors: true}
        """,
        "vars: {limit: 10}",
    )
    assert project.nodes()["holds"]["args"]["_decided"] == {"limit == 10": True}
    done = run(project)
    assert done["holds"]["outcome"] == "ok"
    assert done["shown"]["result"]["out.stdout"] == "5"
    assert (done["fails"]["outcome"], done["fails"]["msg"]) == ("ignored", "got 5")


def test_a_rescue_part_sees_the_failure(project: Project) -> None:
    project.play(
        """
        - block:
            - {name: breaks, command: "false"}
          rescue:
            - {name: told, debug: {msg: "{{ ansible_failed_task.name }} {{ ansible_failed_result.rc }}"}}
        """
    )
    assert run(project)["told"]["result"]["msg"] == "breaks 1"
