"""A role on disk: where it is, and its tasks, handlers, variables and meta."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gpuprov.load import keywords as kw
from gpuprov.load.includes import static_text
from gpuprov.load.marks import load_yaml, shown_path
from gpuprov.load.tasks import Nodes, read_tasks
from gpuprov.load.vars_files import files_of
from gpuprov.source import Position, SourceDict, place_of, position_of

if TYPE_CHECKING:
    from gpuprov.load.context import Context
    from gpuprov.model import Block, Task

_ENDINGS = (".yml", ".yaml", ".json", "")
_META = ("allow_duplicates", "argument_specs", "collections", "dependencies", "galaxy_info")


def find_role(name: str, extra: tuple[str, ...], context: Context, at: Position | None) -> str | None:
    """Return a role's folder: in roles/ of the playbook, in *extra*, beside the present role, beside the playbook."""
    if name.count(".") == 2 and "/" not in name:
        message = f"role {name} is in a collection, which is not supported yet"
        context.wrong("role-collection", message, at, "copy the role to roles/ and use its last name")
        return None
    folders = [os.path.join(context.playbook_folder, "roles"), *extra]
    if context.role is not None:
        folders.append(os.path.dirname(context.role.path))
    folders.append(context.playbook_folder)
    for folder in folders:
        path = os.path.normpath(os.path.join(folder, name))
        if os.path.isdir(path):
            return path
    searched = ", ".join(shown_path(folder) for folder in dict.fromkeys(folders))
    context.wrong("role-missing", f"there is no role {name}", at, f"searched: {searched}")
    return None


def role_tasks(path: str, part: str, args: SourceDict, context: Context) -> Nodes:
    """Return the nodes of a role's tasks or handlers; *args* may choose a file (`tasks_from`)."""
    nodes: list[Task | Block] = []
    for file in _files(path, part, args, context):
        if file in context.files:
            context.wrong("include-loop", f"{shown_path(file)} includes itself", args.position)
            continue
        tasks = load_yaml(file, context.problems)
        nodes += read_tasks(tasks, context.inside(file), shown_path(file), Position(shown_path(file)))
    return tuple(nodes)


def role_variables(path: str, part: str, args: SourceDict, context: Context) -> SourceDict:
    """Return a role's defaults or vars."""
    merged = SourceDict(Position(shown_path(os.path.join(path, part))))
    for file in _files(path, part, args, context):
        merge_variables(merged, load_yaml(file, context.problems), shown_path(file), context)
    return merged


def role_meta(path: str, context: Context) -> SourceDict:
    """Return what meta/main.yml says, checked; empty when there is none."""
    empty = SourceDict(Position(shown_path(path)))
    for name in ("argument_specs.yml", "argument_specs.yaml"):
        specs = os.path.join(path, "meta", name)
        if os.path.exists(specs):
            _no_specs(Position(shown_path(specs)), context)
    files = _files(path, "meta", empty, context)
    data = load_yaml(files[0], context.problems) if files else None
    if data is None:
        return empty
    if not isinstance(data, SourceDict):
        context.wrong("role-meta", "the meta of a role is not a mapping", position_of(data, empty.position))
        return empty
    for key in data:
        if key not in _META:
            context.problems.append(kw.unknown("role meta", key, data, _META))
    if data.get("argument_specs"):
        _no_specs(data.keys_at["argument_specs"], context)
    return data


def merge_variables(merged: SourceDict, data: Any, shown: str, context: Context) -> None:
    """Put the variables of a file over those of *merged*; report what is no mapping of variables."""
    if data is None:
        return
    if not isinstance(data, SourceDict):
        at = position_of(data, Position(shown))
        context.wrong("vars-file", "a file of variables is a mapping", at, "write NAME: VALUE lines")
        return
    context.problems.extend(kw.check_names(data))
    for key, value in data.items():
        merged[key] = value
        merged.keys_at[key] = data.keys_at[key]


def _files(path: str, part: str, args: SourceDict, context: Context) -> list[str]:
    """Return the files of one part of a role: main, or what `tasks_from` and its like name."""
    chosen = args.get(f"{part}_from")
    at = place_of(args, f"{part}_from")
    name = "main" if chosen is None else static_text(chosen, f"{part}_from", context, at)
    if name is None:
        return []
    for ending in ("", *_ENDINGS) if chosen is not None else _ENDINGS:
        full = os.path.normpath(os.path.join(path, part, name + ending))
        if os.path.isfile(full):
            return [full]
        if os.path.isdir(full) and part in ("defaults", "vars"):
            return files_of(full)
    if chosen is not None:
        context.wrong("role-part", f"role {os.path.basename(path)} has no {part}/{name}", at)
    return []


def _no_specs(at: Position, context: Context) -> None:
    message = "argument specs of roles are not supported yet"
    context.wrong("role-argument-specs", message, at, "check the variables with assert")
