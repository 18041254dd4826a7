"""A playbook file, with everything that it includes, to a Playbook."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gpuprov.agent.modules import short_name
from gpuprov.load import keywords as kw
from gpuprov.load.actions import is_action
from gpuprov.load.context import Context, Gathered
from gpuprov.load.includes import arguments, flush_handlers, static_text
from gpuprov.load.marks import load_yaml, shown_path
from gpuprov.load.near import did_you_mean
from gpuprov.load.role_files import merge_variables
from gpuprov.load.roles import Roles
from gpuprov.load.tasks import read_tasks
from gpuprov.model import Block, Play, Playbook, Task
from gpuprov.source import Position, SourceDict, SourceList, SourceStr, place_of, position_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gpuprov.errors import Problem

_IMPORT = {"name": "text", "tags": "words", "vars": "variables", "when": "condition"}


def load_playbook(path: str, problems: list[Problem], roles_path: Sequence[str] = ()) -> Playbook:
    """Return the playbook at *path*; what is wrong is appended to *problems*.

    Roles are searched in `roles/` beside the playbook, then in the folders of *roles_path*.
    """
    folder = os.path.dirname(os.path.abspath(path))
    found: list[Problem] = []
    context = Context(found, folder, (os.path.abspath(path),), Roles(tuple(roles_path)), Gathered())
    plays = tuple(_plays(path, context))
    problems += dict.fromkeys(found)  # a role that is used twice is read twice
    return Playbook(shown_path(path), plays)


def _plays(path: str, context: Context) -> Iterator[Play]:
    before = len(context.problems)
    data = load_yaml(path, context.problems)
    at = Position(shown_path(path))
    if data is None:
        if len(context.problems) == before:
            context.wrong("playbook-form", "this playbook is empty", at, "write a list of plays")
        return
    if not isinstance(data, SourceList):
        hint = "start each play with a dash"
        context.wrong("playbook-form", "a playbook is a list of plays", position_of(data, at), hint)
        return
    for item, place in zip(data, data.items_at, strict=True):
        if not isinstance(item, SourceDict):
            context.wrong("playbook-form", "a play is a mapping", place)
            continue
        imported = next((k for k in item if isinstance(k, str) and short_name(k) == "import_playbook"), None)
        if imported is not None:
            yield from _import(item, imported, context, place)
        else:
            play = _play(item, replace(context, gathered=Gathered()), place)
            if play is not None:
                yield play


def _import(item: SourceDict, key: str, context: Context, at: Position) -> Iterator[Play]:
    """Yield the plays of another playbook, with the keywords of the import on them."""
    written = context.keywords(item, _IMPORT, kw.UNSUPPORTED_PLAY, "import_playbook", skip={key})
    args = arguments("import_playbook", item, item[key], item.keys_at[key], "file", (), context)
    text = args and static_text(args.get("file"), "import_playbook", context, place_of(args, "file"))
    if not args or not text:
        return
    path = os.path.normpath(os.path.join(context.folder, text))
    if path in context.files:
        context.wrong("include-loop", f"{shown_path(path)} imports itself", place_of(args, "file"))
        return
    if not os.path.isfile(path):
        context.wrong("include-missing", f"there is no playbook {shown_path(path)}", place_of(args, "file"))
        return
    inner = replace(context.inside(path), playbook_folder=os.path.dirname(path))
    for play in _plays(path, inner):
        yield _with_import(play, written, at)


def _with_import(play: Play, written: SourceDict, at: Position) -> Play:
    """Return *play* with the variables, tags and condition of its import."""
    variables = _merged(at, play.variables, written.get("vars") or {})
    keywords = play.keywords
    if "tags" in written:
        tags = SourceDict(at)
        tags["tags"] = [*_listed(keywords.get("tags")), *_listed(written["tags"])]
        tags.keys_at["tags"] = written.keys_at["tags"]
        keywords = _merged(at, keywords, tags)
    nodes = play.nodes
    if "when" in written:
        condition = SourceDict(at)
        condition["when"] = written["when"]
        condition.keys_at["when"] = written.keys_at["when"]
        nodes = tuple(n if _is_flush(n) else Block((n,), (), (), condition, at) for n in nodes)
    return replace(play, variables=variables, keywords=keywords, nodes=nodes)


def _is_flush(node: Task | Block) -> bool:
    return isinstance(node, Task) and node.action == "meta"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _places(value: Any, at: Position) -> Iterator[tuple[Any, Position]]:
    """Yield the items of a list with their places; a single value at *at*."""
    if isinstance(value, SourceList):
        yield from zip(value, value.items_at, strict=True)
    elif value is not None:
        yield value, at


def _merged(at: Position, *parts: Any) -> SourceDict:
    result = SourceDict(at)
    for part in parts:
        result.update(part)
        if isinstance(part, SourceDict):
            result.keys_at.update(part.keys_at)
    return result


def _play(item: SourceDict, context: Context, at: Position) -> Play | None:
    if "hosts" not in item:
        loose = next((key for key in item if is_action(key)), None)
        hint = "tasks stand below tasks: of a play" if loose else "write hosts: PATTERN"
        context.wrong("play-hosts", "a play without hosts", at, hint)
        return None
    written = context.keywords(item, kw.PLAY, kw.UNSUPPORTED_PLAY, "play")
    variables = _variables(item, context)
    roles: list[Task | Block] = []
    for entry, place in _places(item.get("roles"), at):
        roles += context.roles.listed(entry, context, place)
    parts = {
        part: read_tasks(item.get(part), context, part, item.keys_at.get(part, at))
        for part in ("pre_tasks", "tasks", "post_tasks")
    }
    flush = flush_handlers(at)
    nodes: list[Task | Block] = []
    for section in (parts["pre_tasks"], (*roles, *parts["tasks"]), parts["post_tasks"]):
        nodes += [*section, flush] if section else []
    handlers = _handlers(item, context, at)
    for part in ("pre_tasks", "roles", "tasks", "post_tasks", "handlers", "vars_files", "vars"):
        written.pop(part, None)
    play = Play(
        str(written.get("name") or _hosts(item, context, at)),
        _hosts(item, context, at),
        tuple(nodes),
        handlers,
        tuple(context.gathered.roles),
        variables,
        written,
        at,
    )
    _check_notified(play, context)
    return play


def _hosts(item: SourceDict, context: Context, at: Position) -> str:
    value = item["hosts"]
    place = place_of(item, "hosts") or at
    names = [str(name) for name in _listed(value)]
    if not names or not all(name.strip() for name in names):
        context.wrong("play-hosts", "hosts of this play is empty", place, "write hosts: all, a group or a pattern")
        return SourceStr("all", place)
    return SourceStr(",".join(names), place)


def _variables(item: SourceDict, context: Context) -> SourceDict:
    """Return the play's variables: vars_files win over vars, as in Ansible; a list names alternatives."""
    own = item.get("vars")
    merged = _merged(item.position, own if isinstance(own, SourceDict) else {})
    for entry, at in _places(item.get("vars_files"), item.position):
        names = [static_text(name, "vars_files", context, position_of(name, at)) for name in _listed(entry)]
        if None in names or not names:
            continue
        folders = (context.folder, os.path.join(context.folder, "vars"))
        paths = [os.path.join(folder, str(name)) for name in names for folder in folders]
        path = next((p for p in paths if os.path.isfile(p)), None)
        if path is None:
            context.wrong("vars-file-missing", f"there is no file {' or '.join(map(str, names))}", at)
            continue
        merge_variables(merged, load_yaml(path, context.problems), shown_path(path), context)
    return merged


def _handlers(item: SourceDict, context: Context, at: Position) -> tuple[Task, ...]:
    """Return the handlers of the play's roles, then its own."""
    own = read_tasks(item.get("handlers"), replace(context, handler=True), "handlers", item.keys_at.get("handlers", at))
    all_handlers = [handler for group in context.gathered.handlers.values() for handler in group]
    return (*all_handlers, *(task for task in own if isinstance(task, Task)))


def _check_notified(play: Play, context: Context) -> None:
    """Report `notify` of a name that no handler of the play has or listens to."""
    known: set[str] = set()
    for handler in play.handlers:
        listens = [str(topic) for topic in _listed(handler.keywords.get("listen"))]
        known.update((handler.name, *listens))
        if handler.role is not None:
            known.add(f"{handler.role.name} : {handler.name}")
    if context.gathered.handlers_lost or any(kw.has_template(name) for name in known):
        return
    for node in (*_all_nodes(play.nodes), *play.handlers):
        notify = node.keywords.get("notify")
        for name, at in _places(notify, position_of(notify, node.position) or node.position):
            if kw.has_template(name) or str(name) in known:
                continue
            hint = did_you_mean(name, known, "names are compared exactly")
            context.wrong("handler-unknown", f"no handler of this play is named {name} or listens to it", at, hint)


def _all_nodes(nodes: Iterable[Task | Block]) -> Iterator[Task | Block]:
    for node in nodes:
        yield node
        if isinstance(node, Block):
            yield from _all_nodes((*node.block, *node.rescue, *node.always))
