"""What is wrong in a playbook, each at its place: code, line, column, part of what is said."""

from pathlib import Path

import pytest

from gpuprov.load.playbook import load_playbook

FILES = {
    "self.yml": "- import_tasks: self.yml\n",
    "notasks.yml": "a: 1\n",
    "list.yml": "- a\n",
    "ok.yml": "- command: x\n",
    "roles/ring/meta/main.yml": "dependencies: [ring]\n",
    "roles/again/tasks/main.yml": "- include_role: {name: again}\n",
    "roles/specs/meta/argument_specs.yml": "argument_specs: {}\n",
    "roles/odd/meta/main.yml": "dependency: []\n",
    "roles/bad/meta/main.yml": "- x\n",
    "roles/deps/meta/main.yml": "dependencies: common\n",
    "roles/vars/vars/main.yml": "- x\n",
    "roles/plain/tasks/main.yml": "- command: x\n",
}

TASKS = [
    ("- command: ls\n  regster: x", "keyword-unknown", 4, 7, "did you mean register?"),
    ("- comand: ls", "module-unknown", 3, 7, "did you mean command?"),
    ("- name: x\n  whn: y", "module-unknown", 4, 7, "did you mean when?"),
    ("- name: only", "task-modules", 3, 7, "without a module"),
    ("- command: a\n  shell: b", "task-modules", 4, 7, "command and shell"),
    ("- action: copy src=a dest=b\n  command: x", "task-modules", 4, 7, "action and command"),
    ("- action: {src: a}", "task-modules", 3, 7, "names no module"),
    ("- action: copyy a=b", "module-unknown", 3, 15, "did you mean copy?"),
    ("- uri: url=x", "module-unsupported", 3, 7, "uri is a module of Ansible"),
    ("- community.docker.docker_login: {}", "module-unsupported", 3, 7, "no module community.docker"),
    ("- command: x\n  delegate_to: localhost", "keyword-unsupported", 4, 7, "delegate_to is a task keyword of Ansible"),
    ("- command: x\n  async: 5", "keyword-unsupported", 4, 7, "timeout:"),
    ("- command: x\n  with_dict: {}", "keyword-unsupported", 4, 7, "dict2items"),
    ("- command: x\n  with_fileglob: a", "keyword-unsupported", 4, 7, "with_fileglob"),
    ("- local_action: command ls", "keyword-unsupported", 3, 7, "local_action"),
    ("- meta: end_play", "meta-unsupported", 3, 13, "allowed: flush_handlers, noop"),
    ("- meta: flush_handlers\n  when: x", "meta-keyword", 4, 7, "when has no effect"),
    ("- include_vars: x.yml", "module-unsupported", 3, 7, "include_vars"),
    ("- copy: {dest: /x, content: a, moed: '0644'}", "argument-unknown", 3, 36, "did you mean mode?"),
    ("- copy: {content: a}", "argument-missing", 3, 7, "copy: argument dest is missing"),
    ("- copy: {dest: /x, content: a, src: b}", "arguments-exclude", 3, 24, "src and content"),
    ("- file: {path: /x, state: presnt}", "argument-choice", 3, 31, "allowed: "),
    ("- file: {dest: /x, force: maybe}", "argument-type", 3, 31, "yes or no"),
    ("- group: {name: x, gid: many}", "argument-type", 3, 29, "a whole number"),
    ("- file: path=/x oops", "arguments-form", 3, 13, "'oops' in the arguments of file is not name=value"),
    ("- file: path='/x", "arguments-form", 3, 13, "not closed"),
    ("- file: '{{ all_of_it }}'", "arguments-form", 3, 13, "one template"),
    ("- file: [a]", "arguments-form", 3, 13, "not a list"),
    ("- command: [ls, -l]", "arguments-form", 3, 16, "not a list"),
    ("- command: ls\n  args: chdir=/x", "keyword-value", 4, 13, "args is 'chdir=/x'; allowed: a mapping"),
    ("- command: ls\n  retries: many", "keyword-value", 4, 16, "a number"),
    ("- command: ls\n  become_method: su", "keyword-value", 4, 22, "sudo"),
    ("- command: ls\n  become: perhaps", "keyword-value", 4, 15, "yes, no or a template"),
    ("- command: ls\n  loop: text", "keyword-value", 4, 13, "a list, or a template"),
    ("- command: ls\n  register: a-b", "keyword-value", 4, 17, "the name of a variable"),
    ("- command: ls\n  when: {a: b}", "keyword-value", 4, 13, "an expression"),
    ("- command: ls\n  tags: {a: b}", "keyword-value", 4, 13, "text or a list of texts"),
    ("- command: ls\n  environment: A=1", "keyword-value", 4, 20, "a mapping of names"),
    ("- command: ls\n  vars: [a]", "keyword-value", 4, 13, "a mapping"),
    ("- command: ls\n  vars: {a-b: 1}", "variable-name", 4, 14, "a-b"),
    ("- command: ls\n  vars: {class: 1}", "variable-name", 4, 14, "class"),
    ("- command: ls\n  loop: [1]\n  loop_control: {loop_vra: x}", "keyword-unknown", 5, 22, "did you mean loop_var?"),
    ("- command: ls\n  loop: [1]\n  loop_control: {extended: yes}", "keyword-unsupported", 5, 22, "extended"),
    ("- command: ls\n  loop_control: {label: x}", "keyword-alone", 4, 7, "without loop"),
    ("- command: ls\n  loop: [1]\n  with_items: [1]", "keywords-exclude", 5, 7, "with_items and loop"),
    ("- command: ls\n  listen: x", "keyword-unknown", 4, 7, "listen"),
    ("- command: ls\n  notify: nobody", "handler-unknown", 4, 15, "named nobody"),
    ("- command: ls\n  notify: [Restrt]", "handler-unknown", 4, 16, "did you mean Restart?"),
    ("- set_fact: {a-b: 1}", "variable-name", 3, 18, "a-b"),
    ("- set_fact: {a: 1, cacheable: yes}", "argument-unsupported", 3, 24, "no fact cache"),
    ("- block: [{command: a}]\n  notify: nobody", "handler-unknown", 4, 15, "named nobody"),
    ("- set_fact: {}", "argument-missing", 3, 17, "sets nothing"),
    ("-", "tasks-form", 3, 6, "an empty task"),
    ("- just text", "tasks-form", 3, 7, "a task is a mapping"),
    ("- block:\n    - command: a\n  retries: 3", "keyword-unknown", 5, 7, "retries is no block keyword"),
    ("- block: []\n  command: ls", "task-modules", 4, 7, "a block has no module"),
    ("- rescue: [{command: a}]", "block-form", 3, 7, "rescue without a block"),
    ("- block: {command: a}", "tasks-form", 3, 14, "block is not a list of tasks"),
    ("- import_tasks: gone.yml", "include-missing", 3, 21, "there is no file gone.yml"),
    ("- import_tasks: self.yml", "include-loop", 1, 17, "self.yml includes itself"),
    ("- import_tasks: notasks.yml", "tasks-form", 1, 1, "notasks.yml is not a list of tasks"),
    ("- import_tasks: list.yml", "tasks-form", 1, 3, "a task is a mapping"),
    ("- include_tasks: '{{ os }}.yml'", "include-dynamic", 3, 22, "is a template, which is not supported"),
    ("- include_tasks: ok.yml\n  loop: [1]", "include-keyword", 4, 7, "loop is not supported on include_tasks"),
    ("- include_tasks: {file: ok.yml, aply: {}}", "keyword-unknown", 3, 37, "did you mean apply?"),
    ("- include_tasks: {apply: {}}", "include-form", 3, 22, "not the name of one"),
    ("- import_role: {name: gone}", "role-missing", 3, 27, "searched: roles, "),
    ("- import_role: gone", "arguments-form", 3, 20, "not name=value"),
    ("- import_role: {name: plain, tasks_from: gone}", "role-part", 3, 46, "no tasks/gone"),
    ("- import_role: {name: plain, tasks_form: x}", "keyword-unknown", 3, 34, "did you mean tasks_from?"),
    ("- include_role: {name: '{{ r }}'}", "include-dynamic", 3, 28, "template"),
    ("- include_role: {name: again}", "include-loop", 1, 17, "includes itself"),
]  # fmt: skip

PLAYS = [
    ("", "playbook-form", 1, 1, "empty"),
    ("hosts: all\n", "playbook-form", 1, 1, "a list of plays"),
    ("- text\n", "playbook-form", 1, 3, "a play is a mapping"),
    ("- name: x\n  command: ls\n", "play-hosts", 1, 3, "tasks stand below tasks:"),
    ("- name: x\n", "play-hosts", 1, 3, "write hosts: PATTERN"),
    ("- hosts: ''\n", "play-hosts", 1, 10, "empty"),
    ("- hosts: []\n", "play-hosts", 1, 10, "empty"),
    ("- hosts: all\n  taks: []\n", "keyword-unknown", 2, 3, "did you mean tasks?"),
    ("- hosts: all\n  when: x\n", "keyword-unknown", 2, 3, "when is no play keyword"),
    ("- hosts: all\n  serial: 1\n", "keyword-unsupported", 2, 3, "--limit"),
    ("- hosts: all\n  remote_user: root\n", "keyword-unsupported", 2, 3, "ansible_user"),
    ("- hosts: all\n  gather_facts: often\n", "keyword-value", 2, 17, "yes, no or a template"),
    ("- hosts: all\n  tasks: {command: x}\n", "tasks-form", 2, 10, "tasks is not a list"),
    ("- hosts: all\n  vars_files: [gone.yml]\n", "vars-file-missing", 2, 16, "gone.yml"),
    ("- hosts: all\n  vars_files: ['{{ os }}.yml']\n", "include-dynamic", 2, 16, "template"),
    ("- hosts: all\n  vars_files: [list.yml]\n", "vars-file", 1, 1, "is a mapping"),
    ("- hosts: all\n  roles: plain\n", "keyword-value", 2, 10, "roles is 'plain'; allowed: a list"),
    ("- hosts: all\n  roles: [gone]\n", "role-missing", 2, 11, "there is no role gone"),
    ("- hosts: all\n  roles: [a.b.c]\n", "role-collection", 2, 11, "in a collection"),
    ("- hosts: all\n  roles: [{tags: x}]\n", "role-form", 2, 11, "names no role"),
    ("- hosts: all\n  roles: [[plain]]\n", "role-form", 2, 11, "a role is a name"),
    ("- hosts: all\n  roles: [{role: plain, when: {}}]\n", "keyword-value", 2, 31, "an expression"),
    ("- hosts: all\n  roles: [{role: plain, a-b: 1}]\n", "variable-name", 2, 25, "a-b"),
    ("- hosts: all\n  roles: [{role: plain, run_once: yes}]\n", "keyword-unsupported", 2, 25, "run_once"),
    ("- hosts: all\n  roles: [ring]\n", "role-loop", 1, 16, "role ring depends on itself"),
    ("- hosts: all\n  roles: [specs]\n", "role-argument-specs", 1, 1, "not supported yet"),
    ("- hosts: all\n  roles: [odd]\n", "keyword-unknown", 1, 1, "did you mean dependencies?"),
    ("- hosts: all\n  roles: [bad]\n", "role-meta", 1, 1, "not a mapping"),
    ("- hosts: all\n  roles: [deps]\n", "role-meta", 1, 15, "not a list of roles"),
    ("- hosts: all\n  roles: [vars]\n", "vars-file", 1, 1, "is a mapping"),
    ("- hosts: all\n  handlers: [{block: []}]\n", "handler-block", 2, 14, "blocks among handlers"),
    ("- hosts: all\n  handlers: [{include_role: {name: plain}}]\n", "handler-role", 2, 14, "among handlers"),
    ("- import_playbook: gone.yml\n", "include-missing", 1, 20, "there is no playbook gone.yml"),
    ("- import_playbook: site.yml\n", "include-loop", 1, 20, "imports itself"),
    ("- import_playbook: site.yml\n  hosts: all\n", "keyword-unknown", 2, 3, "hosts is no import_playbook keyword"),
    ("- hosts: all\n  tasks:\n    - command: {{ x }}\n", "yaml-unquoted-template", 3, 16, "must be quoted"),
]  # fmt: skip


def problems_of(text: str) -> list:
    for name, content in {**FILES, "site.yml": text}.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content)
    problems: list = []
    load_playbook("site.yml", problems)
    return problems


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "code", "line", "column", "part"), TASKS, ids=[t[0].replace("\n", "|") for t in TASKS]
)
def test_tasks(text: str, code: str, line: int, column: int, part: str) -> None:
    lines = "".join(f"    {row}\n" for row in text.splitlines())
    handlers = "  handlers:\n    - name: Restart\n      command: x\n"
    [problem] = problems_of(f"- hosts: all\n  tasks:\n{lines}{handlers}")
    assert (problem.code, problem.position.line, problem.position.column) == (code, line, column)
    assert part in f"{problem.message} | {problem.hint}"


@pytest.mark.parametrize(
    ("text", "code", "line", "column", "part"), PLAYS, ids=[p[0].replace("\n", "|") for p in PLAYS]
)
def test_plays(text: str, code: str, line: int, column: int, part: str) -> None:
    problem = problems_of(text)[0]
    assert (problem.code, problem.position.line, problem.position.column) == (code, line, column)
    assert part in f"{problem.message} | {problem.hint}"


def test_everything_wrong_is_reported_at_once_and_only_once() -> None:
    Path("roles/twice/tasks").mkdir(parents=True)
    Path("roles/twice/tasks/main.yml").write_text("- commnd: x\n")
    text = """\
- hosts: all
  serial: 1
  roles: [{role: twice, a: 1}, {role: twice, a: 2}]
  tasks:
    - file: {pth: /x}
      whn: y
  handlers:
    - name: broken
      nosuchmodule: x
    - name: fine
      command: x
"""
    found = [(p.code, str(p.position)) for p in problems_of(text)]
    assert found == [
        ("keyword-unsupported", "site.yml:2:3"),
        ("module-unknown", "roles/twice/tasks/main.yml:1:3"),
        ("keyword-unknown", "site.yml:6:7"),
        ("argument-unknown", "site.yml:5:14"),
        ("argument-missing", "site.yml:5:7"),
        ("module-unknown", "site.yml:9:7"),
    ]


def test_a_handler_that_could_not_be_read_is_not_also_reported_as_missing() -> None:
    text = "- hosts: all\n  tasks:\n    - command: a\n      notify: h\n  handlers:\n    - name: h\n      nosuch: x\n"
    assert [p.code for p in problems_of(text)] == ["module-unknown"]


def test_missing_playbook() -> None:
    problems: list = []
    assert load_playbook("gone.yml", problems).plays == ()
    assert [p.code for p in problems] == ["file-unreadable"]
