"""What a task list includes: other files, roles, and `meta`. Everything is expanded here, while loading."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from gpuprov.load import keywords as kw
from gpuprov.load.actions import as_mapping, is_action
from gpuprov.load.marks import load_yaml, shown_path
from gpuprov.model import Block, Task
from gpuprov.source import Position, SourceDict, place_of, position_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuprov.load.context import Context

    Nodes = tuple[Task | Block, ...]

#: `meta:` actions that gpuprov has. Everything else of Ansible is refused by name.
META = ("flush_handlers", "noop")
_TASKS_ARGS = ("file", "apply")
_NEEDS_RUN = "it is read before any host is known, so it cannot depend on one"
_KNOWN_FOLDER = re.compile(r"\{\{\s*(role_path|playbook_dir)\s*\}\}")


def flush_handlers(at: Position) -> Task:
    """Return the task that runs the handlers notified so far."""
    args = SourceDict(at)
    args["_raw_params"] = "flush_handlers"
    args.keys_at["_raw_params"] = at
    return Task("meta", args, SourceDict(at), at)


def read_meta(item: SourceDict, value: Any, context: Context, at: Position) -> Nodes:
    """Return the node of a `meta` task; `noop` is none."""
    place = position_of(value, at)
    if value not in META:
        message = f"meta: {value} is not supported yet; allowed: {', '.join(META)}"
        context.wrong("meta-unsupported", message, place)
        return ()
    for key in item:
        if key not in ("name", "tags") and not is_action(key):
            context.wrong("meta-keyword", f"{key} has no effect on meta: {value}", item.keys_at[key], "remove it")
    return () if value == "noop" else (flush_handlers(at),)


def include_keywords(name: str, item: SourceDict, context: Context) -> SourceDict:
    """Return the keywords of an include; they hold for everything that it includes, as those of a block."""
    keys = {key for key in item if isinstance(key, str) and key.rsplit(".", 1)[-1] == name}
    for key in [key for key in item if key in kw.TASK and key not in kw.BLOCK and key not in keys and key != "args"]:
        hint = _NEEDS_RUN if key in ("loop", "with_items", "until", "register") else "write it at the tasks inside"
        context.wrong("include-keyword", f"{key} is not supported on {name}", item.keys_at[key], hint)
        keys.add(key)
    return context.keywords(item, kw.CONDITIONAL, kw.UNSUPPORTED_TASK, name, skip={*keys, "args"})


def static_text(value: Any, what: str, context: Context, at: Position | None) -> str | None:
    """Return *value* as text that is known now; role_path and playbook_dir are. None after a problem."""
    folders = {"role_path": context.role.path if context.role else "", "playbook_dir": context.playbook_folder}
    if not isinstance(value, str) or not value.strip():
        context.wrong("include-form", f"{what} is not the name of one", at, f"write {what}: NAME")
        return None
    text = _KNOWN_FOLDER.sub(lambda found: folders[found[1]] or found[0], value).strip()
    if kw.has_template(text):
        message = f"{what} {value!r} is a template, which is not supported: {_NEEDS_RUN}"
        context.wrong("include-dynamic", message, at, "name each one and choose with when:")
        return None
    return text


def add_apply(written: SourceDict, args: SourceDict, context: Context) -> None:
    """Add the keywords of an include's `apply:` to those of the include."""
    apply = args.get("apply")
    if apply is None:
        return
    if not isinstance(apply, SourceDict):
        context.wrong("include-form", "apply is not a mapping of keywords", place_of(args, "apply"))
        return
    applied = context.keywords(apply, kw.CONDITIONAL, kw.UNSUPPORTED_TASK, "task")
    for key, value in applied.items():
        if key in written and key != "name":
            context.wrong("include-apply", f"{key} is given at the include and in its apply", applied.keys_at[key])
        written[key] = value
        written.keys_at[key] = applied.keys_at[key]


def read_tasks_include(
    name: str, item: SourceDict, value: Any, context: Context, at: Position, read: Callable[..., Nodes]
) -> Nodes:
    """Return the nodes of a file of tasks: in a block when keywords hold for them, else as they are."""
    written = include_keywords(name, item, context)
    args = arguments(name, item, value, at, "file", _TASKS_ARGS, context)
    if args is None:
        return ()
    add_apply(written, args, context)
    place = place_of(args, "file") or args.position
    text = static_text(args.get("file"), f"{name} file", context, place)
    path = text and _find(text, context, place)
    if not path:
        return ()
    tasks = load_yaml(path, context.problems)
    nodes = read(tasks, context.inside(path), shown_path(path), Position(shown_path(path)))
    if not written.keys() - {"name"}:
        return nodes
    if context.handler:
        first = next(key for key in written if key != "name")
        context.wrong(
            "include-keyword", f"{first} on {name} among handlers is not supported yet", written.keys_at[first]
        )
        return nodes
    return (Block(nodes, (), (), written, at, context.role),)


def read_role_include(name: str, item: SourceDict, value: Any, context: Context, at: Position) -> Nodes:
    """Return the block of a role that a task includes."""
    if context.handler:
        context.wrong("handler-role", f"{name} among handlers is not supported yet", at)
        return ()
    written = include_keywords(name, item, context)
    args = arguments(name, item, value, at, None, (), context)
    if args is None:
        return ()
    add_apply(written, args, context)
    block = context.roles.include(written, args, context, static=name == "import_role")
    return () if block is None else (block,)


def arguments(
    name: str,
    item: SourceDict,
    value: Any,
    at: Position,
    free_form: str | None,
    allowed: tuple[str, ...],
    context: Context,
) -> SourceDict | None:
    """Return what an include is given, under the names that it has in a mapping. None after a problem."""
    before = len(context.problems)
    below = item.get("args")
    args = as_mapping(name, value, at, free_form, context.problems) if value is not None else SourceDict(at)
    if args is None or len(context.problems) > before:
        return None
    if isinstance(below, SourceDict):
        for key in below.keys() - args.keys():
            args[key] = below[key]
            args.keys_at[key] = below.keys_at[key]
    for key in [key for key in args if allowed and key not in allowed]:
        context.problems.append(kw.unknown(name, key, args, allowed))
    return args


def _find(text: str, context: Context, at: Position) -> str | None:
    """Return the path of an included file: beside the including one, in the role, or beside the playbook."""
    folders = [context.folder]
    if context.role is not None:
        folders += [os.path.join(context.role.path, "tasks"), context.role.path]
    folders += [context.playbook_folder, os.path.join(context.playbook_folder, "tasks")]
    path = next((p for p in (os.path.join(f, text) for f in folders) if os.path.isfile(p)), None)
    if path is None:
        searched = ", ".join(shown_path(folder) for folder in dict.fromkeys(folders))
        context.wrong("include-missing", f"there is no file {text}", at, f"searched: {searched}")
        return None
    path = os.path.normpath(path)
    if path in context.files:
        context.wrong("include-loop", f"{shown_path(path)} includes itself", at)
        return None
    return path
