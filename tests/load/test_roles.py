"""Roles: where they are found, what they bring to a play, in which order."""

from pathlib import Path

import pytest

from gpuprov.load.playbook import load_playbook
from gpuprov.model import Block, Play, Task
from gpuprov.source import Position, place_of

COMMON = {
    "roles/common/tasks/main.yml": "- command: common\n",
    "roles/web/tasks/main.yaml": "- command: web\n  notify: [reload, 'web : reload']\n"
    "- include_tasks: sub.yml\n  tags: s\n",
    "roles/web/tasks/sub.yml": "- command: sub\n",
    "roles/web/tasks/other.yml": "- command: other\n",
    "roles/web/handlers/main.yml": "- name: reload\n  command: reload\n",
    "roles/web/defaults/main.yml": "port: 8080\n",
    "roles/web/vars/main/a.yml": "x: 1\ny: 1\n",
    "roles/web/vars/main/b.yml": "y: 2\n",
    "roles/web/vars/special.yml": "y: 3\n",
    "roles/web/meta/main.yml": "galaxy_info: {author: x}\ndependencies:\n  - common\n  - {role: user, who: web}\n",
    "roles/user/tasks/main.yml": "- command: user\n",
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(COMMON)


def write(files: dict[str, str]) -> None:
    for name, text in files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def load(text: str, **options: object) -> Play:
    write({"site.yml": text})
    problems: list = []
    playbook = load_playbook("site.yml", problems, **options)
    assert problems == []
    return playbook.plays[0]


def outline(node: Task | Block) -> object:
    if isinstance(node, Task):
        return str(node.args["_raw_params"])
    return [outline(inner) for inner in (*node.block, *node.rescue, *node.always)]


def test_a_role_is_a_block_with_its_dependencies_first() -> None:
    play = load("- hosts: all\n  roles:\n    - {role: web, when: go, tags: [w], listen_port: 80}\n    - common\n")
    web, flush = play.nodes
    assert outline(flush) == "flush_handlers"
    assert outline(web) == [["common"], ["user"], "web", ["sub"]]
    assert isinstance(web, Block)
    assert (dict(web.keywords), web.position) == ({"when": "go", "tags": ["w"]}, Position("site.yml", 3, 7))
    assert [role.name for role in play.roles] == ["common", "user", "web"]
    use = play.roles[2]
    assert web.role is use
    assert web.block[2].role is use
    assert dict(use.params) == {"listen_port": 80}
    assert dict(play.roles[1].params) == {"who": "web"}
    assert (dict(use.defaults), dict(use.variables)) == ({"port": 8080}, {"x": 1, "y": 2})
    assert place_of(use.variables, "y") == Position("roles/web/vars/main/b.yml", 1, 1)
    assert use.path == str(Path("roles/web").resolve())
    [handler] = play.handlers
    assert (handler.name, handler.handler, handler.role) == ("reload", True, use)


def test_a_role_runs_once_for_the_same_parameters() -> None:
    text = (
        "- hosts: all\n  roles:\n    - common\n    - common\n    - {role: user, who: a}\n    - {role: user, who: b}\n"
    )
    assert [outline(n) for n in load(text).nodes] == [["common"], ["user"], ["user"], "flush_handlers"]
    write({"roles/common/meta/main.yml": "allow_duplicates: true\n"})
    assert [outline(n) for n in load(text).nodes] == [["common"], ["common"], ["user"], ["user"], "flush_handlers"]


def test_included_roles_run_where_they_stand_each_time() -> None:
    text = """\
- hosts: all
  tasks:
    - import_role: {name: common}
    - include_role:
        name: web
        tasks_from: other
        vars_from: special.yml
      vars: {x: 5}
      when: go
    - import_role: name=common
    - include_role: {name: user, public: true}
"""
    play = load(text)
    blocks = play.nodes[:-1]
    assert [outline(n) for n in blocks] == [["common"], [["common"], ["user"], "other"], ["common"], ["user"]]
    assert dict(blocks[1].keywords) == {"vars": {"x": 5}, "when": "go"}
    assert dict(blocks[1].role.variables) == {"y": 3}
    # The variables of an include_role stay its own, unless it is public.
    assert [role.name for role in play.roles] == ["common", "common", "user", "common", "user"]
    assert [h.name for h in play.handlers] == ["reload"]


def test_roles_of_an_outer_folder_and_beside_a_role() -> None:
    write({
        "shared/gpu/tasks/main.yml": "- include_role: {name: driver}\n- command: gpu\n",
        "shared/driver/tasks/main.yml": "- include_tasks: '{{ role_path }}/tasks/install.yml'\n",
        "shared/driver/tasks/install.yml": "- command: install\n",
        "shared/common/tasks/main.yml": "- command: not this one\n",
    })  # fmt: skip
    play = load("- hosts: all\n  roles: [gpu, common]\n", roles_path=["shared"])
    assert [outline(n) for n in play.nodes] == [[["install"], "gpu"], ["common"], "flush_handlers"]


def test_a_role_without_tasks_still_brings_variables() -> None:
    write({"roles/settings/defaults/main.yml": "a: 1\n"})
    play = load("- hosts: all\n  roles: [settings]\n")
    assert [dict(role.defaults) for role in play.roles] == [{"a": 1}]
