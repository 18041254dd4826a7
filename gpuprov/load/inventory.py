"""An inventory, file or folder, with the group_vars/ and host_vars/ beside it, to an Inventory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gpuprov.errors import Problem
from gpuprov.load.connection import check_connection
from gpuprov.load.groups import Draft, finish_groups
from gpuprov.load.hosts import read_groups
from gpuprov.load.marks import load_yaml, shown_path
from gpuprov.load.merge import merge_hosts
from gpuprov.load.vars_files import read_vars_folders
from gpuprov.model import Group, Inventory
from gpuprov.source import Position

if TYPE_CHECKING:
    from gpuprov.model import Variable

#: What Ansible skips in a folder of inventory files too.
_IGNORED = (".pyc", ".pyo", ".swp", ".bak", "~", ".rpm", ".md", ".txt", ".rst", ".orig", ".cfg", ".retry")
_YAML = (".yaml", ".yml", ".json", "")


def load_inventory(path: str, problems: list[Problem], also: str | None = None) -> Inventory:
    """Return the inventory at *path*; what is wrong is appended to *problems*.

    *also* is the playbook's folder: its group_vars/ and host_vars/ count too, above those beside
    the inventory.
    """
    draft = Draft()
    if os.path.isdir(path):
        folder = path
        _read_folder(path, draft, problems)
    else:
        folder = os.path.dirname(os.path.abspath(path))
        _read_file(path, draft, problems)
    finish_groups(draft, problems)
    read_vars_folders(folder, draft, problems, playbook=False)
    if also is not None and os.path.realpath(also) != os.path.realpath(folder):
        read_vars_folders(also, draft, problems, playbook=True)
    check_connection(draft, problems)
    groups = {
        draft_group.name: Group(
            draft_group.name,
            tuple(draft_group.hosts),
            tuple(draft_group.children),
            _strongest(draft_group.settings.layers()),
            draft_group.position,
        )
        for draft_group in draft.groups.values()
    }
    return Inventory(merge_hosts(draft), groups, shown_path(path))


def _strongest(layers: list[dict[str, Variable]]) -> dict[str, Variable]:
    merged: dict[str, Variable] = {}
    for layer in layers:
        merged.update(layer)
    return merged


def _read_folder(path: str, draft: Draft, problems: list[Problem]) -> None:
    for name in sorted(os.listdir(path)):
        if name.startswith(".") or name.endswith(_IGNORED) or name in ("group_vars", "host_vars", "vars_plugins"):
            continue
        below = os.path.join(path, name)
        if os.path.isdir(below):
            _read_folder(below, draft, problems)
        else:
            _read_file(below, draft, problems)


def _read_file(path: str, draft: Draft, problems: list[Problem]) -> None:
    shown = shown_path(path)
    refused = _not_yaml(path)
    if refused is not None:
        problems.append(
            Problem("inventory-format", refused, Position(shown), "write the inventory in Ansible's YAML layout")
        )
        return
    before = len(problems)
    data = load_yaml(path, problems)
    if data is None and len(problems) == before:
        problems.append(Problem("inventory-empty", "this inventory is empty", Position(shown), "see docs/inventory.md"))
    elif data is not None:
        read_groups(data, shown, draft, problems)


def _not_yaml(path: str) -> str | None:
    """Return why the file cannot be a YAML inventory; None when it may be one (or cannot be read)."""
    try:
        with open(path, "rb") as f:
            start = f.read(4096)
        executable = os.access(path, os.X_OK)
    except OSError:
        return None
    if start.startswith(b"#!") and executable:
        return "inventory scripts are not supported yet"
    first = next((line for line in start.splitlines() if line.strip() and line.lstrip()[:1] not in b"#;"), b"")
    if path.endswith(".ini") or (first.startswith(b"[") and first.rstrip().endswith(b"]")):
        return "INI inventories are not supported yet"
    if os.path.splitext(path)[1] not in _YAML:
        return "an inventory file ends in .yaml, .yml or .json"
    return None
