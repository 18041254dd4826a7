"""Roles: found, read with their dependencies, and put into a play as blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gpuprov.agent.modules.arguments import boolean
from gpuprov.load import keywords as kw
from gpuprov.load.includes import static_text
from gpuprov.load.marks import shown_path
from gpuprov.load.role_files import find_role, role_meta, role_tasks, role_variables
from gpuprov.model import Block, RoleUse, Task
from gpuprov.source import Position, SourceDict, place_of, plain

if TYPE_CHECKING:
    from gpuprov.load.context import Context

_INCLUDE_ARGS = (
    *("name", "role", "apply", "tasks_from", "vars_from", "defaults_from", "handlers_from"),
    *("public", "allow_duplicates", "rolespec_validate"),
)


@dataclass(frozen=True, slots=True)
class Roles:
    """Reads roles from `roles/` beside the playbook, then from the folders of *path*."""

    path: tuple[str, ...]

    def listed(self, entry: Any, context: Context, at: Position) -> list[Block]:
        """Return the block of one entry of a play's `roles:`; none when it has run already in this play."""
        block = self._entry(entry, context, at, ())
        return [block] if block is not None else []

    def include(self, item: SourceDict, args: SourceDict, context: Context, *, static: bool) -> Block | None:
        """Return the block of the role that a task includes; *item* has the keywords that hold for it."""
        for key in [key for key in args if key not in _INCLUDE_ARGS]:
            context.problems.append(kw.unknown("import_role" if static else "include_role", key, args, _INCLUDE_ARGS))
        key = "role" if "role" in args else "name"
        at = place_of(args, key) or args.position
        name = static_text(args.get(key), f"{key} of the role", context, at)
        path = name and find_role(name, self.path, context, at)
        if not name or not path:
            return None
        use = self._use(name, path, item, SourceDict(args.position), args, context)
        try:
            public = boolean(args.get("public", static))
        except ValueError:
            context.wrong("include-form", f"public is {args['public']!r}, not yes or no", place_of(args, "public"))
            return None
        return self._block(use, args, replace(context, role=use), (), listed=public)

    def _entry(self, entry: Any, context: Context, at: Position, above: tuple[str, ...]) -> Block | None:
        """Return the block of a role as `roles:` or `dependencies:` name it."""
        if isinstance(entry, str):
            item = SourceDict(at)
            item["role"], item.keys_at["role"] = entry, at
        elif isinstance(entry, SourceDict):
            item = entry
        else:
            context.wrong("role-form", "a role is a name, or a mapping with role: NAME", at)
            return None
        key = "role" if "role" in item else "name"
        if key not in item:
            hint = (
                "roles from a galaxy are installed beforehand and named by role:"
                if "src" in item
                else "write role: NAME"
            )
            context.wrong("role-form", "this entry names no role", at, hint)
            return None
        name = static_text(item[key], "role", context, place_of(item, key))
        path = name and find_role(name, self.path, context, place_of(item, key))
        if not name or not path:
            return None
        if path in above:
            context.wrong("role-loop", f"role {name} depends on itself", place_of(item, key))
            return None
        keywords, params = _split(item, key, context)
        use = self._use(name, path, keywords, params, None, context)
        once = repr((path, plain(params), plain({k: v for k, v in keywords.items() if k in ("when", "tags", "vars")})))
        meta = role_meta(path, context)
        if once in context.gathered.applied and meta.get("allow_duplicates") is not True:
            return None
        context.gathered.applied.add(once)
        return self._block(use, None, replace(context, role=use), (*above, path), listed=True, meta=meta)

    def _use(
        self, name: str, path: str, keywords: SourceDict, params: SourceDict, args: SourceDict | None, context: Context
    ) -> RoleUse:
        args = args if args is not None else SourceDict(keywords.position)
        defaults = role_variables(path, "defaults", args, context)
        variables = role_variables(path, "vars", args, context)
        return RoleUse(name, path, defaults, variables, params, keywords, keywords.position)

    def _block(
        self,
        use: RoleUse,
        args: SourceDict | None,
        context: Context,
        above: tuple[str, ...],
        *,
        listed: bool,
        meta: SourceDict | None = None,
    ) -> Block:
        """Return a role's tasks behind those of the roles that it depends on. The latter inherit its keywords."""
        at = use.position or Position(shown_path(use.path))
        meta = role_meta(use.path, context) if meta is None else meta
        nodes: list[Task | Block] = []
        dependencies = meta.get("dependencies") or []
        if not isinstance(dependencies, list):
            context.wrong("role-meta", "dependencies is not a list of roles", place_of(meta, "dependencies"))
            dependencies = []
        for index, entry in enumerate(dependencies):
            place = place_of(dependencies, index) or at
            block = self._entry(entry, context, place, above or (use.path,))
            nodes += [block] if block is not None else []
        if listed:
            context.gathered.roles.append(use)
        args = args if args is not None else SourceDict(at)
        handlers = role_tasks(use.path, "handlers", args, replace(context, handler=True))
        context.gathered.handlers[use.path] = tuple(task for task in handlers if isinstance(task, Task))
        nodes += role_tasks(use.path, "tasks", args, context)
        return Block(tuple(nodes), (), (), use.keywords, at, use)


def _split(item: SourceDict, name_key: str, context: Context) -> tuple[SourceDict, SourceDict]:
    """Return (keywords, parameters) of a role's entry: what is no keyword is a variable for the role."""
    keywords, params = SourceDict(item.position), SourceDict(item.position)
    for key, value in item.items():
        if key in ("role", name_key):
            continue
        if isinstance(key, str) and kw.is_unsupported(key, kw.UNSUPPORTED_BLOCK):
            context.problems.append(kw.unsupported("role", key, item, kw.UNSUPPORTED_BLOCK))
            continue
        target = keywords if key in kw.ROLE else params
        target[key] = value
        target.keys_at[key] = item.keys_at[key]
    kw.check_values(keywords, kw.ROLE, context.problems)
    context.problems.extend(kw.check_names(params))
    return keywords, params
