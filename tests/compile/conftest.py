"""A small project on disk, loaded by the real loaders and compiled."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gpuprov.compile import Compiled, Compiler, analyse
from gpuprov.errors import Problem, SourceErrors
from gpuprov.load.inventory import load_inventory
from gpuprov.load.patterns import select
from gpuprov.load.playbook import load_playbook

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FACTS = {
    "hostname": "node",
    "kernel": "6.1.0",
    "os_family": "Debian",
    "distribution": "Debian",
    "processor_vcpus": 8,
    "devices": {"sda": {"size": "1 TB"}},
}
INVENTORY = """
    all:
      children:
        gpu:
          hosts:
            h1:
            h2:
"""


class Project:
    """Files below *folder*; `inventory.yaml` and `play.yaml` are what is compiled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("inventory.yaml", INVENTORY)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"))
        return path

    def play(self, tasks: str, head: str = "") -> None:
        """Write a play with *tasks* for the group gpu."""
        text = "- hosts: gpu\n"
        for part, below in ((head, 2), ("tasks:\n" + textwrap.indent(textwrap.dedent(tasks).strip("\n"), "  "), 2)):
            text += textwrap.indent(textwrap.dedent(part).strip("\n"), " " * below) + "\n" if part else ""
        (self.folder / "play.yaml").write_text(text)

    def compiler(self, **options: Any) -> Compiler:
        problems: list[Problem] = []
        inventory = load_inventory(str(self.folder / "inventory.yaml"), problems)
        playbook = load_playbook(str(self.folder / "play.yaml"), problems)
        assert problems == []
        return Compiler(playbook, inventory, select=select, run="r1", **options)

    def compile(self, host: str = "h1", facts: Mapping[str, Any] = FACTS, **options: Any) -> Compiled:
        return self.compiler(**options).plan(host, facts)

    def nodes(self, host: str = "h1", **options: Any) -> dict[str, dict[str, Any]]:
        """Return all task nodes and handlers by their names."""
        plan = self.compile(host, **options).plan
        return {node["name"]: node for play in plan["plays"] for node in flat([*play["nodes"], *play["handlers"]])}

    def node(self, tasks: str, head: str = "", **options: Any) -> dict[str, Any]:
        """Return the node of the last task of a play with *tasks*."""
        self.play(tasks, head)
        return [n for n in flat(self.compile(**options).plan["plays"][0]["nodes"]) if n["action"] != "meta"][-1]

    def refused(self, **options: Any) -> list[Problem]:
        """Return the problems that compiling meets."""
        with pytest.raises(SourceErrors) as raised:
            self.compile(**options)
        return list(raised.value.problems)

    def analyse(self, extra: Mapping[str, Any] | None = None, limit: list[str] | None = None) -> list[Problem]:
        problems: list[Problem] = []
        inventory = load_inventory(str(self.folder / "inventory.yaml"), problems)
        playbook = load_playbook(str(self.folder / "play.yaml"), problems)
        assert problems == []
        return analyse(playbook, inventory, limit or list(inventory.hosts), extra, select=select)

    def pointed(self, problems: list[Problem]) -> list[tuple[str, str, str]]:
        """Return (code, file:line, the word that the position points at) of each problem."""
        found = []
        for problem in problems:
            assert problem.position is not None, problem
            path = Path(problem.position.path)
            line = path.read_text().splitlines()[problem.position.line - 1]
            word = line[problem.position.column - 1 :].split()[0].strip("\"'")
            found.append((problem.code, f"{path.name}:{problem.position.line}", word))
        return sorted(found)


def flat(nodes: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for node in nodes:
        if node["kind"] == "block":
            for part in ("block", "rescue", "always"):
                yield from flat(node.get(part, []))
        else:
            yield node


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)
