"""Lists of tasks: modules, blocks, and what they include statically."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpuprov.agent.modules import short_name
from gpuprov.load import keywords as kw
from gpuprov.load.actions import CONTROL, is_action, read_arguments, unknown_action
from gpuprov.load.includes import read_meta, read_role_include, read_tasks_include
from gpuprov.model import Block, Task
from gpuprov.source import Position, SourceDict, SourceList, SourceStr, position_of

if TYPE_CHECKING:
    from gpuprov.load.context import Context

Nodes = tuple[Task | Block, ...]


def read_tasks(value: Any, context: Context, what: str, at: Position) -> Nodes:
    """Return the nodes of a list of tasks; *what* names it ("tasks", "rescue") and *at* is its place."""
    if value is None:
        return ()
    if not isinstance(value, SourceList):
        context.wrong(
            "tasks-form", f"{what} is not a list of tasks", position_of(value, at), "start each task with a dash"
        )
        return ()
    nodes: list[Task | Block] = []
    for item, place in zip(value, value.items_at, strict=True):
        nodes += read_task(item, context, place)
    return tuple(nodes)


def read_task(item: Any, context: Context, at: Position) -> Nodes:
    """Return what one item of a list of tasks stands for: one node, or those of an included file."""
    if item is None:
        context.wrong("tasks-form", "an empty task", at, "remove the dash, or write a task behind it")
        return ()
    if not isinstance(item, SourceDict):
        context.wrong("tasks-form", "a task is a mapping of keywords and one module", at)
        return ()
    if any(key in item for key in ("block", "rescue", "always")):
        return _read_block(item, context, at)
    action = _find_action(item, context, at)
    if action is None:
        context.gathered.handlers_lost |= context.handler
        kw.check_values(item, kw.HANDLER if context.handler else kw.TASK, context.problems)
        return ()
    name, value, place = action
    if name == "meta":
        return read_meta(item, value, context, at)
    if name in ("import_tasks", "include_tasks"):
        return read_tasks_include(name, item, value, context, at, read_tasks)
    if name in ("import_role", "include_role"):
        return read_role_include(name, item, value, context, at)
    table = kw.HANDLER if context.handler else kw.TASK
    written = context.keywords(item, table, kw.UNSUPPORTED_TASK, "task", skip=_action_keys(item))
    below = item.get("args")
    if below is not None and not isinstance(below, SourceDict):
        below = None  # already reported as no mapping
    args = read_arguments(name, value, below, place, context.problems)
    for lone in ("until", "with_items", "loop_control"):
        _check_together(lone, written, context)
    return (Task(name, args, written, at, context.role, context.handler),)


def _check_together(name: str, written: SourceDict, context: Context) -> None:
    """Report keywords that make no sense together, or alone."""
    at = written.keys_at.get(name)
    if name == "with_items" and name in written and "loop" in written:
        context.wrong("keywords-exclude", "with_items and loop exclude each other", at)
    if name == "loop_control" and name in written and not {"loop", "with_items"} & written.keys():
        context.wrong("keyword-alone", "loop_control has no effect without loop", at)


def _action_keys(item: SourceDict) -> set[Any]:
    return {key for key in item if is_action(key)} | {"action", "args"}


def _find_action(item: SourceDict, context: Context, at: Position) -> tuple[str, Any, Position] | None:
    """Return (short name, what stands behind it, its position) of a task's one action."""
    table = kw.HANDLER if context.handler else kw.TASK
    found = [key for key in item if is_action(key)]
    others = [key for key in item if key not in table and key not in found and key != "action"]
    strange = [key for key in others if not (isinstance(key, str) and kw.is_unsupported(key, kw.UNSUPPORTED_TASK))]
    if "action" in item:
        return _old_action(item, found, context)
    if len(found) > 1:
        message = f"two modules in one task: {found[0]} and {found[1]}"
        context.wrong("task-modules", message, item.keys_at[found[1]], "start another task with a dash")
    elif not found and strange:
        context.problems.append(unknown_action(str(strange[0]), item.keys_at[strange[0]], list(table)))
    elif not found and len(others) == len(strange):
        context.wrong("task-modules", "a task without a module", at, "name a module, such as command:")
    if not found:
        for key in others:
            if key not in strange:
                context.problems.append(kw.unsupported("task", key, item, kw.UNSUPPORTED_TASK))
        return None
    return short_name(found[0]), item[found[0]], item.keys_at[found[0]]


def _old_action(item: SourceDict, found: list[Any], context: Context) -> tuple[str, Any, Position] | None:
    """Understand `action: copy src=a dest=b` and `action: {module: copy, src: a}`."""
    at, value = item.keys_at["action"], item["action"]
    if found:
        context.wrong("task-modules", f"two modules in one task: action and {found[0]}", item.keys_at[found[0]])
        return None
    if isinstance(value, SourceDict) and isinstance(value.get("module"), str):
        rest = SourceDict(value.position)
        for key in value:
            if key != "module":
                rest[key] = value[key]
                rest.keys_at[key] = value.keys_at[key]
        name: str = value["module"]
        arguments: Any = rest
    elif isinstance(value, str) and value.strip():
        name, _, text = value.strip().partition(" ")
        arguments = SourceStr(text, position_of(value, at) or at) if text else None
    else:
        context.wrong("task-modules", "action names no module", at, "write action: MODULE name=value")
        return None
    if not is_action(name) or short_name(name) in CONTROL:
        context.problems.append(unknown_action(name, position_of(value, at), []))
        return None
    return short_name(name), arguments, position_of(value, at) or at


def _read_block(item: SourceDict, context: Context, at: Position) -> Nodes:
    if context.handler:
        context.wrong(
            "handler-block", "blocks among handlers are not supported yet", at, "write the handlers one by one"
        )
        return ()
    for key in item:
        if is_action(key):
            context.wrong("task-modules", f"a block has no module of its own, but here is {key}", item.keys_at[key])
    skip = _action_keys(item) | {"block", "rescue", "always"}
    written = context.keywords(item, kw.BLOCK, kw.UNSUPPORTED_BLOCK, "block", skip=skip)
    if "block" not in item:
        missing = "rescue" if "rescue" in item else "always"
        context.wrong("block-form", f"{missing} without a block", item.keys_at[missing])
    parts = [
        read_tasks(item.get(part), context, part, item.keys_at.get(part, at)) for part in ("block", "rescue", "always")
    ]
    return (Block(parts[0], parts[1], parts[2], written, at, context.role),)
