"""The passes of a task's loop on one host: written out where they are known, else left to the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpuprov.compile.deferred import expression_of
from gpuprov.compile.loops import DEFERRED, LOOKUPS, expand
from gpuprov.errors import Problem, SourceErrors
from gpuprov.source import plain
from gpuprov.templating.names import names_of
from gpuprov.templating.problem import TemplateProblem

if TYPE_CHECKING:
    from gpuprov.compile.arguments import Arguments, Rendered
    from gpuprov.compile.build import HostBuild
    from gpuprov.compile.conditions import Conditions, Decision
    from gpuprov.compile.loops import Loop
    from gpuprov.templating.renderer import Renderer

#: What is shown of a pass.
_LABEL_LENGTH = 200


class Passes:
    """Compiles the loop of one task into its node. Raises SourceErrors and TemplateProblem."""

    def __init__(self, build: HostBuild, loop: Loop, renderer: Renderer) -> None:
        self._build = build
        self._loop = loop
        self._renderer = renderer

    def put_into(self, node: dict[str, Any], arguments: Arguments, conditions: Conditions, decision: Decision) -> None:
        """Add the loop, and arguments for all passes or each of them, to *node*."""
        loop = self._loop
        if loop.variable != "item":
            node["loop_var"] = loop.variable
        if loop.index:
            node["index_var"] = loop.index
        if loop.kind not in LOOKUPS and self._build.waits(names_of(loop.value), self._renderer):
            self._put_deferred(node, arguments, conditions, decision)
            return
        per_pass = conditions.names_pass(arguments.names(), self._renderer) or node["action"] == "template"
        passes = [
            self._pass(node, index, item, arguments if per_pass else None, conditions, decision)
            for index, item in enumerate(self._items())
        ]
        node["items"] = [entry for entry, _ in passes]
        if not per_pass:
            _put(arguments.rendered(self._renderer, may_be_skipped=bool(decision.waiting)), node)
            return
        defer = sorted({name for _, found in passes if found is not None for name in found.defer})
        for entry, found in passes:
            if found is not None:
                found.put_into(entry, quote=bool(defer))
        if defer:
            node["defer"] = defer

    def _pass(
        self,
        node: dict[str, Any],
        index: int,
        item: Any,
        arguments: Arguments | None,
        conditions: Conditions,
        decision: Decision,
    ) -> tuple[dict[str, Any], Rendered | None]:
        """Return one pass, and its arguments when it has its own."""
        renderer = self._renderer.child(final=self._names(item, index))
        entry: dict[str, Any] = {"item": plain(item), "label": self._label(item, renderer)}
        skip, waiting, _ = conditions.when(decision.by_pass, renderer, inside=True)
        if skip:
            entry["skip"] = skip
            return entry, None
        _add_conditions(node, waiting)
        if arguments is None:
            return entry, None
        return entry, arguments.rendered(renderer, may_be_skipped=bool(decision.waiting or waiting))

    def _items(self) -> list[Any]:
        loop = self._loop
        outside = self._renderer.outside
        assert outside is not None
        try:
            return expand(loop, self._renderer.render(loop.value), lambda kind, terms: _lookup(outside, kind, terms))
        except TemplateProblem as problem:
            if problem.source is None and isinstance(loop.value, str):
                problem.source = loop.value
            raise

    def _names(self, item: Any, index: int) -> dict[str, Any]:
        loop = self._loop
        return {
            loop.variable: item,
            "ansible_loop_var": loop.variable,
            **({loop.index: index} if loop.index else {}),
        }

    def _label(self, item: Any, renderer: Renderer) -> str:
        shown = item if self._loop.label is None else renderer.render(self._loop.label)
        return str(plain(shown))[:_LABEL_LENGTH]

    def _put_deferred(
        self, node: dict[str, Any], arguments: Arguments, conditions: Conditions, decision: Decision
    ) -> None:
        loop = self._loop
        if loop.kind not in DEFERRED:
            message = f"with_{loop.kind} waits for a result on the host; only loop, with_items and with_dict can"
            raise SourceErrors([Problem("not-known-in-time", message, loop.position)])
        node["loop"] = DEFERRED[loop.kind] % expression_of(loop.value)
        self._build.carry(names_of(loop.value))
        _add_conditions(node, tuple(conditions.left_to_host(part) for part in decision.by_pass))
        if loop.label is not None:
            node["label"] = str(loop.label)
            self._build.carry(names_of(loop.label))
        self._build.passes = loop.names
        _put(arguments.rendered(self._renderer, may_be_skipped=True), node)


def _put(found: Rendered, node: dict[str, Any]) -> None:
    found.put_into(node, quote=bool(found.defer))
    if found.defer:
        node["defer"] = found.defer


def _lookup(outside: Any, kind: str, terms: list[Any]) -> list[Any]:
    return list(outside.lookups[kind](terms, {}))


def _add_conditions(node: dict[str, Any], conditions: tuple[str, ...]) -> None:
    for condition in conditions:
        if condition not in node.setdefault("when", []):
            node["when"].append(condition)
