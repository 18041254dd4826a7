"""Playbooks: what is understood of plays, tasks, blocks and includes."""

from pathlib import Path

import pytest

from gpuprov.load.playbook import load_playbook
from gpuprov.model import Block, Playbook, Task
from gpuprov.source import Position, place_of, position_of


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(text: str, files: dict[str, str] | None = None, **options: object) -> Playbook:
    write(Path(), {"site.yml": text, **(files or {})})
    problems: list = []
    playbook = load_playbook("site.yml", problems, **options)
    assert problems == []
    return playbook


def tasks_of(text: str, files: dict[str, str] | None = None) -> tuple[Task | Block, ...]:
    """Load one play with these lines under tasks:, and return its nodes without the flush."""
    lines = "".join(f"    {line}\n" for line in text.splitlines())
    [play] = load("- hosts: all\n  tasks:\n" + lines, files).plays
    assert play.nodes[-1].args["_raw_params"] == "flush_handlers"
    return play.nodes[:-1]


def outline(nodes: tuple[Task | Block, ...]) -> list:
    """Return the nodes as short text: a task is its command or action, a block is a list."""
    return [
        str(n.args.get("_raw_params") or n.name) if isinstance(n, Task) else outline((*n.block, *n.rescue, *n.always))
        for n in nodes
    ]


def test_a_play_with_everything() -> None:
    text = """\
- name: GPU hosts
  hosts: [gpus, "!gpu07"]
  become: true
  gather_facts: no
  vars: {a: 1, b: 2}
  vars_files: [v.yml, [missing.yml, vars/other.yml]]
  environment: {PATH: /bin}
  tags: base
  pre_tasks:
    - command: pre
  tasks:
    - name: Ours
      command: main
      register: out
      when: a == 1
      notify: [Restart, topic]
  post_tasks:
    - command: post
  handlers:
    - name: Restart
      command: restart
    - name: Listening
      command: listen
      listen: topic
"""
    [play] = load(text, {"v.yml": "b: 3\nc: 4\n", "vars/other.yml": "d: 5\n"}).plays
    assert (play.name, play.hosts) == ("GPU hosts", "gpus,!gpu07")
    assert position_of(play.hosts) == Position("site.yml", 2, 10)
    assert play.variables == {"a": 1, "b": 3, "c": 4, "d": 5}
    assert place_of(play.variables, "b") == Position("v.yml", 1, 1)
    assert dict(play.keywords) == {
        "name": "GPU hosts", "hosts": ["gpus", "!gpu07"], "become": True, "gather_facts": False,
        "environment": {"PATH": "/bin"}, "tags": "base",
    }  # fmt: skip
    assert outline(play.nodes) == ["pre", "flush_handlers", "main", "flush_handlers", "post", "flush_handlers"]
    ours = play.nodes[2]
    assert isinstance(ours, Task)
    assert (ours.name, ours.action, ours.position) == ("Ours", "command", Position("site.yml", 12, 7))
    assert dict(ours.keywords) == {"name": "Ours", "register": "out", "when": "a == 1", "notify": ["Restart", "topic"]}
    assert position_of(ours.keywords["when"]) == Position("site.yml", 15, 13)
    assert [(h.name, h.handler) for h in play.handlers] == [("Restart", True), ("Listening", True)]


def test_flush_points_only_where_something_ran_before() -> None:
    assert outline(load("- hosts: all\n  pre_tasks:\n    - command: a\n").plays[0].nodes) == ["a", "flush_handlers"]
    assert load("- hosts: all\n").plays[0].nodes == ()


@pytest.mark.parametrize(
    ("text", "action", "args"),
    [
        ("command: ls -l /tmp", "command", {"_raw_params": "ls -l /tmp"}),
        ("command: make all chdir=/src creates='/src/my out'", "command",
         {"_raw_params": "make all", "chdir": "/src", "creates": "/src/my out"}),
        ("command: A=1 run --creates=x", "command", {"_raw_params": "A=1 run --creates=x"}),
        ("command: {argv: [ls, -l]}", "command", {"argv": ["ls", "-l"]}),
        ("command: true", "command", {"_raw_params": "True"}),
        ("shell: echo \"it's\" > /x", "shell", {"_raw_params": "echo \"it's\" > /x"}),
        ("shell: echo it's creates=/x", "shell", {"_raw_params": "echo it's creates=/x"}),
        ("ansible.builtin.file: path=/opt/gpu state=directory mode=0755", "file",
         {"path": "/opt/gpu", "state": "directory", "mode": "0755"}),
        ("copy: content='a b' dest=\"{{ dir }}/x y\"", "copy", {"content": "a b", "dest": "{{ dir }}/x y"}),
        ("copy: dest={{ base | default('/x y') }}/z content=a=b", "copy",
         {"dest": "{{ base | default('/x y') }}/z", "content": "a=b"}),
        ("action: copy content=a dest=/b", "copy", {"content": "a", "dest": "/b"}),
        ("action: command ls -l", "command", {"_raw_params": "ls -l"}),
        ("action: {module: ansible.builtin.stat, path: /x}", "stat", {"path": "/x"}),
        ("stat:\n  args: {path: /x}", "stat", {"path": "/x"}),
        ("file: path=/x\n  args: {path: /y, state: touch}", "file", {"path": "/x", "state": "touch"}),
        ("ping:", "ping", {}),
    ],
)  # fmt: skip
def test_each_way_to_write_arguments(text: str, action: str, args: dict) -> None:
    [task] = tasks_of("- " + text)
    assert isinstance(task, Task)
    assert (task.action, dict(task.args)) == (action, args)


def test_a_shell_script_keeps_its_lines() -> None:
    [task] = tasks_of("- shell: |\n    cat > x <<EOF\n      indented\n    EOF\n  args: {chdir: /tmp}")
    assert dict(task.args) == {"chdir": "/tmp", "_raw_params": "cat > x <<EOF\n  indented\nEOF"}


def test_blocks_nest_and_keep_their_keywords() -> None:
    text = """\
- name: Outer
  when: x
  block:
    - command: a
    - block: [{command: b}]
      become: true
  rescue: [{command: c}]
  always: [{command: d}]
"""
    [outer] = tasks_of(text)
    assert isinstance(outer, Block)
    assert dict(outer.keywords) == {"name": "Outer", "when": "x"}
    assert [outline(part) for part in (outer.block, outer.rescue, outer.always)] == [["a", ["b"]], ["c"], ["d"]]
    inner = outer.block[1]
    assert isinstance(inner, Block)
    assert (dict(inner.keywords), inner.position) == ({"become": True}, Position("site.yml", 7, 11))


def test_included_files_become_what_they_hold() -> None:
    files = {
        "more.yml": "- command: one\n- import_tasks: deep/two.yml\n",
        "deep/two.yml": "- command: two\n- include_tasks: three.yml\n",
        "deep/three.yml": "- command: three\n",
        "tasks/four.yml": "- command: four\n",
        "empty.yml": "# nothing\n",
    }
    text = """\
- import_tasks: more.yml
- include_tasks: {file: "{{ playbook_dir }}/more.yml", apply: {become: true}}
  when: x
- ansible.builtin.include_tasks: four.yml
- import_tasks: empty.yml
"""
    nodes = tasks_of(text, files)
    assert outline(nodes) == ["one", "two", "three", ["one", "two", "three"], "four"]
    block = nodes[3]
    assert isinstance(block, Block)
    assert dict(block.keywords) == {"when": "x", "become": True}
    assert nodes[2].position == Position("deep/three.yml", 1, 3)


def test_imported_playbooks_bring_their_plays_with_the_keywords_of_the_import() -> None:
    files = {
        "sub/gpu.yml": "- hosts: gpus\n  vars: {a: 1, b: 1}\n  tags: [x]\n  pre_tasks: [{command: p}]\n"
        "  tasks:\n    - import_tasks: t.yml\n",
        "sub/t.yml": "- command: t\n",
    }
    text = """\
- import_playbook: sub/gpu.yml
  vars: {b: 2}
  tags: y
  when: go
- import_playbook: sub/gpu.yml
"""
    first, second = load(text, files).plays
    assert first.variables == {"a": 1, "b": 2}
    assert first.keywords["tags"] == ["x", "y"]
    assert outline(first.nodes) == [["p"], "flush_handlers", ["t"], "flush_handlers"]
    assert dict(first.nodes[0].keywords) == {"when": "go"}
    assert outline(second.nodes) == ["p", "flush_handlers", "t", "flush_handlers"]
    assert second.variables == {"a": 1, "b": 1}


def test_meta() -> None:
    assert outline(tasks_of("- command: a\n- meta: flush_handlers\n- meta: noop\n- command: b")) == [
        "a",
        "flush_handlers",
        "b",
    ]


def test_handlers_may_be_in_a_file_and_are_found_by_topic_or_role() -> None:
    text = """\
- hosts: all
  tasks:
    - command: a
      notify: ["one", "two", "{{ any }}"]
  handlers:
    - import_tasks: h.yml
"""
    [play] = load(text, {"h.yml": "- name: one\n  command: x\n- name: other\n  command: y\n  listen: [two]\n"}).plays
    assert [h.name for h in play.handlers] == ["one", "other"]


def test_templates_in_arguments_are_left_for_later() -> None:
    [task] = tasks_of(
        '- file: {path: /x, state: "{{ s }}", mode: "{{ m }}"}\n  become: "{{ b }}"\n  retries: "{{ r }}"'
    )
    assert task.args["state"] == "{{ s }}"


def test_set_fact_takes_any_variable() -> None:
    [task, short] = tasks_of("- set_fact: {gpus: 8, '{{ dynamic }}': 1}\n- set_fact: gpus=8 model='H 100'")
    assert dict(task.args) == {"gpus": 8, "{{ dynamic }}": 1}
    assert dict(short.args) == {"gpus": "8", "model": "H 100"}
