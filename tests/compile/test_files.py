"""The controller's part of modules: files found and hashed, templates rendered, values decided."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import pytest

from gpuprov.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.compile.conftest import Project


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_copy_carries_a_file_by_its_hash(project: Project) -> None:
    path = project.write("files/tool", "content")
    os.chmod(path, 0o750)
    project.play("- copy: {src: tool, dest: /opt/tool}")
    compiled = project.compile()
    node = compiled.plan["plays"][0]["nodes"][0]
    digest = sha256(b"content")
    assert node["args"] == {"src": "tool", "dest": "/opt/tool", "_blob": {"sha256": digest, "size": 7, "mode": 0o750}}
    assert node["files"] == [digest]
    assert compiled.plan["blobs"] == {digest: 7}
    assert compiled.files == {digest: str(path)}


def test_constant_files_travel_with_every_hosts_plan(project: Project) -> None:
    project.write("files/tool", "content")
    project.play("- copy: {src: tool, dest: /opt/tool}")
    compiler = project.compiler()
    plans = [compiler.plan(host, {}) for host in ("h1", "h2", "h1")]
    assert [set(p.files) for p in plans] == [{sha256(b"content")}] * 3
    assert [p.plan["blobs"] for p in plans] == [{sha256(b"content"): 7}] * 3


def test_a_file_is_searched_in_the_role_first(project: Project) -> None:
    for place in ("roles/r/files", "roles/r", "files", "."):
        project.write(f"{place}/x", place)
    project.write("roles/r/tasks/main.yml", "- {name: in role, copy: {src: x, dest: /x}}")
    project.play("- import_role: {name: r}\n- {name: in play, copy: {src: x, dest: /x}}")
    for gone, role, play in (
        (None, "roles/r/files", "files"),
        ("roles/r/files/x", "roles/r", "files"),
        ("roles/r/x", "files", "files"),
        ("files/x", ".", "."),
    ):
        if gone:
            (project.folder / gone).unlink()
        found = {name: node["args"]["_blob"]["sha256"] for name, node in project.nodes().items() if "args" in node}
        assert (found["in role"], found["in play"]) == (sha256(role.encode()), sha256(play.encode()))


def test_a_folder_is_carried_file_by_file(project: Project) -> None:
    project.write("files/d/a", "A")
    project.write("files/d/sub/b", "B")
    for src, prefix in (("d", "d/"), ("d/", "")):
        tree = project.node(f"- copy: {{src: {src}, dest: /x}}")["args"]["_tree"]
        files = {entry["path"]: entry["sha256"] for entry in tree if not entry.get("dir")}
        assert files == {f"{prefix}a": sha256(b"A"), f"{prefix}sub/b": sha256(b"B")}
        folders = [entry["path"] for entry in tree if entry.get("dir")]
        assert folders == (["d", "d/sub"] if prefix else ["sub"])


def test_remote_and_inline_copies_read_nothing_here(project: Project) -> None:
    assert "_blob" not in project.node("- copy: {src: /nowhere/x, dest: /x, remote_src: true}")["args"]
    assert project.node("- copy: {content: '{{ {1: [2]} }}', dest: /x}")["args"]["content"] == {1: [2]}


def test_a_missing_file_is_refused_with_where_was_looked(project: Project) -> None:
    project.play("- copy: {src: 'no-{{ ansible_facts.kernel }}', dest: /x}")
    (problem,) = project.refused()
    assert problem.message == "there is no file no-6.1.0"
    assert problem.hint.startswith("searched: ")
    assert project.pointed([problem]) == [("file-missing", "play.yaml:3", "no-{{")]


def test_templates_are_rendered_here(project: Project) -> None:
    project.write(
        "templates/motd.j2",
        "# {{ ansible_managed }}\n{% for n in names %}\n{{ n }}\n{% endfor %}\n{% include 'part.j2' %}\n",
    )
    project.write("templates/part.j2", "on {{ inventory_hostname }} from {{ template_path | basename }}")
    node = project.node("- template: {src: motd.j2, dest: /etc/motd}", "vars: {names: [a, b]}")
    lines = node["args"]["content"].splitlines()
    assert lines[0].startswith("# Managed by gpuprov")
    assert lines[1:] == ["a", "b", "on h1 from motd.j2"]
    assert "_text" not in node["args"]
    assert "defer" not in node


def test_a_templates_own_syntax(project: Project) -> None:
    project.write("templates/t.j2", "<% if true %>\n[[ 1 + 1 ]] {{ kept }}\n<% endif %>\n")
    node = project.node(
        """
        - template:
            src: t.j2
            dest: /t
            block_start_string: "<%"
            block_end_string: "%>"
            variable_start_string: "[["
            variable_end_string: "]]"
            newline_sequence: "\\r\\n"
        """
    )
    assert node["args"] == {"src": "t.j2", "dest": "/t", "content": "2 {{ kept }}\r\n"}


def test_a_mistake_in_a_template_points_into_its_file(project: Project) -> None:
    project.write("templates/t.j2", "fine\n\nvalue {{ ansible_facts.kernl }}\n")
    project.play("- template: {src: t.j2, dest: /t}")
    (problem,) = project.refused()
    assert project.pointed([problem]) == [("undefined", "t.j2:3", "kernl")]
    assert "did you mean 'kernel'" in problem.message
    assert any("play.yaml:3" in line for line in problem.context)


def test_a_long_text_travels_beside_the_plan(project: Project) -> None:
    project.write("templates/long.j2", "{{ 'x' * 70000 }}")
    project.play("- template: {src: long.j2, dest: /t}")
    compiled = project.compile()
    args = compiled.plan["plays"][0]["nodes"][0]["args"]
    assert "content" not in args
    assert compiled.files[args["_blob"]["sha256"]] == b"x" * 70000


def test_debug_and_assert_are_decided_where_they_can_be(project: Project) -> None:
    assert project.node("- debug: {var: ansible_facts.kernel}")["args"] == {
        "var": "ansible_facts.kernel",
        "_value": "6.1.0",
    }
    assert project.node("- debug: {var: nowhere.at.all}")["args"]["_value"] == "VARIABLE IS NOT DEFINED!"
    node = project.node("- assert: {that: [ansible_processor_vcpus > 4, 'false'], fail_msg: 'on {{ ansible_kernel }}'}")
    assert node["args"] == {
        "that": ["ansible_processor_vcpus > 4", "false"],
        "_decided": {"ansible_processor_vcpus > 4": True, "false": False},
        "fail_msg": "on 6.1.0",
    }
    assert project.compile().plan["jinja"] is False


class Wheelhouse:
    """Gives every pip task one wheel, or refuses."""

    def __init__(self, path: str, refuse: bool = False) -> None:
        self.asked: list[tuple[dict[str, Any], Any]] = []
        self._path = path
        self._refuse = refuse

    def resolve(self, args: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        self.asked.append((dict(args), facts["kernel"]))
        if self._refuse:
            raise RefusedError("nothing fits")
        return {"_wheels": [{"sha256": "abc"}]}, {"abc": self._path}


PIP = "- pip: {name: 'torch=={{ version }}', virtualenv: /v, source: controller}"


def test_pip_asks_the_wheelhouse(project: Project) -> None:
    wheel = project.write("t.whl", "12345")
    wheels = Wheelhouse(str(wheel))
    node = project.node(PIP, "vars: {version: 2.9.0}", wheels=wheels)
    assert node["args"]["_wheels"] == [{"sha256": "abc"}]
    assert wheels.asked[0][0]["name"] == ["torch==2.9.0"]
    assert wheels.asked[0][1] == "6.1.0"
    assert project.compile(wheels=wheels).plan["blobs"] == {"abc": 5}


def test_a_refusal_of_the_wheelhouse_refuses_the_host(project: Project) -> None:
    project.play(PIP, "vars: {version: 2.9.0}")
    with pytest.raises(RefusedError):
        project.compile(wheels=Wheelhouse("", refuse=True))


def test_controller_lookups(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUPROV_TEST", "from env")
    project.write("files/key.pub", "ssh-ed25519 AAA\n")
    project.write("files/b.conf", "")
    project.write("files/a.conf", "")
    said = {
        "{{ lookup('env', 'GPUPROV_TEST') }}": "from env",
        "{{ lookup('file', 'key.pub') }}": "ssh-ed25519 AAA",
        "{{ query('fileglob', '*.conf') | map('basename') }}": ["a.conf", "b.conf"],
        "{{ lookup('first_found', ['none.pub', 'key.pub']) | basename }}": "key.pub",
        "{{ (playbook_dir ~ '/files/key.pub') is exists }}": True,
    }
    project.play("".join(f'- debug: {{msg: "{text}"}}\n' for text in said))
    nodes = project.compile().plan["plays"][0]["nodes"]
    assert [n["args"]["msg"] for n in nodes] == list(said.values())
