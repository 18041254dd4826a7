"""Which names a template needs, found without running it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from jinja2 import TemplateSyntaxError, meta, nodes

from gpuprov.templating import filters, tests
from gpuprov.templating.conditions import condition_source
from gpuprov.templating.environment import ENVIRONMENT, parse_expression, syntax_problem, with_header
from gpuprov.templating.lookups import EVERYWHERE, GLOBALS
from gpuprov.templating.problem import TemplateProblem
from gpuprov.templating.values import has_template

_DEFAULTS = ("default", "d", "ansible.builtin.default")
_DEFINED = ("defined", "undefined")
_LOOKUPS = ("lookup", "query", "q")
#: Names of single facts that stand for all of them.
ALL_FACTS = "*"


class Names(NamedTuple):
    """The names of one or more templates.

    needed: must have a value. guarded: need none, since they are named only under `default`,
    `is defined` or in the test of an inline if. facts: what is named of `ansible_facts`, "*"
    for all of it. controller: (kind, name) of lookups, filters and tests that only the
    controller has. unknown: (kind, name) of those that nobody has. files: constant names of
    included templates.
    """

    needed: frozenset[str] = frozenset()
    guarded: frozenset[str] = frozenset()
    facts: frozenset[str] = frozenset()
    controller: frozenset[tuple[str, str]] = frozenset()
    unknown: frozenset[tuple[str, str]] = frozenset()
    files: frozenset[str] = frozenset()

    @property
    def all(self) -> frozenset[str]:
        """Every name, needed or guarded."""
        return self.needed | self.guarded if self.guarded else self.needed

    def __or__(self, other: Names) -> Names:
        if other is NONE:
            return self
        if self is NONE:
            return other
        needed = self.needed | other.needed
        return Names(
            needed,
            (self.guarded | other.guarded) - needed,
            self.facts | other.facts,
            self.controller | other.controller,
            self.unknown | other.unknown,
            self.files | other.files,
        )


NONE = Names()


@lru_cache(maxsize=20_000)
def text_names(source: str) -> Names:
    """Return the names of a text with templates in it. Raises TemplateProblem."""
    return _names(source, expression=False) if has_template(source) else NONE


@lru_cache(maxsize=20_000)
def condition_names(source: str) -> Names:
    """Return the names of a condition or another expression without braces. Raises TemplateProblem."""
    return _names(source, expression=True)


def names_of(value: Any) -> Names:
    """Return the names of all templates in *value*, deep. Raises TemplateProblem."""
    if isinstance(value, str):
        if "{" not in value:
            return NONE
        try:
            return text_names(str(value))
        except TemplateProblem as problem:
            problem.source = value  # which may know its position
            raise
    found = NONE
    if isinstance(value, dict):
        for key, item in value.items():
            found = found | names_of(key) | names_of(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            found = found | names_of(item)
    return found


def _names(source: str, expression: bool) -> Names:
    try:
        if expression:
            tree = parse_expression(ENVIRONMENT, condition_source(source))
        else:
            environment, rest = with_header(ENVIRONMENT, source)
            tree = environment.parse(rest)
    except TemplateSyntaxError as error:
        raise syntax_problem(error, source) from error
    walk = _Walk()
    walk.visit(tree, guarded=False)
    free = frozenset(meta.find_undeclared_variables(_known_only(tree))) - GLOBALS.keys()
    needed = (free & walk.needed) - walk.defined
    files = frozenset(f for f in meta.find_referenced_templates(tree) if f is not None)
    return Names(
        needed,
        free - needed,
        frozenset(walk.facts),
        frozenset(walk.controller),
        frozenset(walk.unknown),
        files,
    )


def _known_only(tree: nodes.Template) -> nodes.Template:
    """Rename filters and tests that nobody has, so that the rest can be analysed. Changes *tree*."""
    for node in tree.find_all((nodes.Filter, nodes.Test)):
        table = ENVIRONMENT.filters if isinstance(node, nodes.Filter) else ENVIRONMENT.tests
        if node.name not in table:
            node.name = "default" if isinstance(node, nodes.Filter) else "defined"
    return tree


class _Walk:
    """Collects names from a syntax tree. Scopes are left to jinja2.meta."""

    def __init__(self) -> None:
        self.needed: set[str] = set()
        self.defined: set[str] = set()
        self.facts: set[str] = set()
        self.controller: set[tuple[str, str]] = set()
        self.unknown: set[tuple[str, str]] = set()

    def visit(self, node: nodes.Node, guarded: bool) -> None:
        """Look at *node* and below; *guarded* says that undefined is fine there."""
        if isinstance(node, nodes.Name):
            self._name(node, guarded)
        elif isinstance(node, nodes.Filter):
            self._filter(node, guarded)
        elif isinstance(node, nodes.Test):
            self._test(node, guarded)
        elif isinstance(node, nodes.CondExpr):
            self.visit(node.test, guarded=True)
            for branch in (node.expr1, node.expr2):
                if branch is not None:
                    self.visit(branch, guarded)
        elif self._fact(node):
            if not guarded:
                self.needed.add("ansible_facts")
        else:
            if isinstance(node, nodes.Call):
                self._call(node)
            for child in node.iter_child_nodes():
                self.visit(child, guarded)

    def _name(self, node: nodes.Name, guarded: bool) -> None:
        if node.ctx != "load":
            return
        if node.name == "ansible_facts":
            self.facts.add(ALL_FACTS)
        if not guarded:
            self.needed.add(node.name)

    def _fact(self, node: nodes.Node) -> bool:
        """Note `ansible_facts.x` and `ansible_facts['x']`."""
        if not isinstance(node, (nodes.Getattr, nodes.Getitem)) or not isinstance(node.node, nodes.Name):
            return False
        if node.node.name != "ansible_facts":
            return False
        if isinstance(node, nodes.Getattr):
            self.facts.add(node.attr)
            return True
        if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            self.facts.add(node.arg.value)
            return True
        return False

    def _filter(self, node: nodes.Filter, guarded: bool) -> None:
        if node.name not in ENVIRONMENT.filters:
            self.unknown.add(("filter", node.name))
        elif node.name.rpartition(".")[2] in filters.CONTROLLER_ONLY:
            self.controller.add(("filter", node.name))
        for child in node.iter_child_nodes():
            self.visit(child, guarded or (child is node.node and node.name in _DEFAULTS))

    def _test(self, node: nodes.Test, guarded: bool) -> None:
        if node.name not in ENVIRONMENT.tests:
            self.unknown.add(("test", node.name))
        elif node.name in tests.CONTROLLER_ONLY:
            self.controller.add(("test", node.name))
        if node.name in _DEFINED:
            self.defined.update(_roots(node.node))
        for child in node.iter_child_nodes():
            self.visit(child, guarded or (child is node.node and node.name in _DEFINED))

    def _call(self, node: nodes.Call) -> None:
        if not isinstance(node.node, nodes.Name) or node.node.name not in _LOOKUPS or not node.args:
            return
        first = node.args[0]
        if not isinstance(first, nodes.Const) or not isinstance(first.value, str):
            self.controller.add(("lookup", "a lookup whose name is not constant"))
            return
        name = first.value[len("ansible.builtin.") :] if first.value.startswith("ansible.builtin.") else first.value
        if name not in EVERYWHERE:
            self.controller.add(("lookup", name))


def _roots(node: nodes.Node) -> set[str]:
    """Return the names at the start of `a.b[c]` chains below *node*."""
    return {name.name for name in [node, *node.find_all(nodes.Name)] if isinstance(name, nodes.Name)}
