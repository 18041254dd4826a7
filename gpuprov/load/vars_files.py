"""group_vars/ and host_vars/ beside an inventory or a playbook."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gpuprov.errors import Problem
from gpuprov.load.hosts import variables_of
from gpuprov.load.marks import load_yaml, shown_path
from gpuprov.source import Position, SourceDict, position_of

if TYPE_CHECKING:
    from gpuprov.load.groups import Draft, DraftGroup, DraftHost
    from gpuprov.model import Variable

_ENDINGS = ("", ".yml", ".yaml", ".json")


def read_vars_folders(folder: str, draft: Draft, problems: list[Problem], *, playbook: bool) -> None:
    """Add what *folder*/group_vars and *folder*/host_vars say about the groups and hosts of *draft*."""
    owner = "playbook " if playbook else ""
    for kind, members in (("group_vars", draft.groups), ("host_vars", draft.hosts)):
        found = _files_by_name(os.path.join(folder, kind), problems)
        for name in members.keys() & found.keys():
            member: DraftGroup | DraftHost = members[name]
            source = f"{owner}{kind} of {name}" if kind == "group_vars" else f"{owner}host_vars"
            layers = member.settings.beside_playbook if playbook else member.settings.beside_inventory
            for path in found[name]:
                layer = read_vars_file(path, source, problems)
                if "ansible_group_priority" in layer:
                    at = layer.pop("ansible_group_priority").position
                    message = "ansible_group_priority has no effect in this file"
                    hint = "move it to the group's vars in the inventory file"
                    problems.append(Problem("inventory-priority", message, at, hint))
                layers.append(layer)


def read_vars_file(path: str, source: str, problems: list[Problem]) -> dict[str, Variable]:
    """Return the variables of one file; an empty file has none."""
    data = load_yaml(path, problems)
    if isinstance(data, SourceDict):
        return variables_of(data, source, problems)
    if data is not None:
        at = position_of(data, Position(shown_path(path)))
        problems.append(Problem("vars-file", "a file of variables is a mapping", at, "write NAME: VALUE lines"))
    return {}


def _files_by_name(folder: str, problems: list[Problem]) -> dict[str, list[str]]:
    """Return, by group or host, the files that set its variables, weakest first."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        problems.append(Problem("file-unreadable", f"{shown_path(folder)} cannot be read: {error.strerror}"))
        return {}
    chosen: dict[str, str] = {}
    for entry in entries:
        if entry.name.startswith(".") or entry.name.endswith("~"):
            continue
        for name in _names(entry):
            if name in chosen:
                message = f"{shown_path(entry.path)} and {shown_path(chosen[name])} both hold the variables of {name}"
                hint = f"Ansible reads only the first; put both files into a folder named {name}"
                problems.append(Problem("vars-file-twice", message, Position(shown_path(chosen[name])), hint))
            else:
                chosen[name] = entry.path
    return {name: files_of(path) if os.path.isdir(path) else [path] for name, path in chosen.items()}


def _names(entry: os.DirEntry[str]) -> list[str]:
    """Return the names that a file or folder may belong to: gpu01.lan is a host, gpu01.yml is gpu01."""
    stem, ending = os.path.splitext(entry.name)
    if entry.is_dir():
        return [entry.name]
    return [stem] if ending in _ENDINGS[1:] else [entry.name]


def files_of(folder: str) -> list[str]:
    """Return the files of variables below *folder*, weakest first: hidden ones and backups left out."""
    files = []
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        ending = os.path.splitext(name)[1]
        if name.startswith(".") or name.endswith("~"):
            continue
        if os.path.isdir(path):
            files += files_of(path) if not ending else []
        elif ending in _ENDINGS:
            files.append(path)
    return files
