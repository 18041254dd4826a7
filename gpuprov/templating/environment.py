"""The Jinja2 environment: strict, sandboxed, native values, one cache of compiled templates."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

from jinja2 import FunctionLoader, TemplateNotFound, TemplateSyntaxError, UndefinedError, nodes
from jinja2.environment import Template
from jinja2.lexer import TOKEN_STRING, TOKEN_VARIABLE_BEGIN, TOKEN_VARIABLE_END, TokenStream
from jinja2.nativetypes import NativeCodeGenerator
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEnvironment
from jinja2.utils import missing

from gpuprov.templating import filters, tests
from gpuprov.templating.lookups import GLOBALS
from gpuprov.templating.problem import TemplateProblem
from gpuprov.templating.undefined import Missing, near
from gpuprov.templating.values import as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from gpuprov.templating.renderer import Scope

#: Methods that change a list or mapping. A template that calls one works on copies of its variables.
MUTATORS = frozenset(
    ["append", "extend", "insert", "pop", "popitem", "remove", "clear", "update", "setdefault", "sort"]
)
#: Compiled templates kept per process; a playbook has some hundreds.
CACHE_SIZE = 20_000
HEADER = "#jinja2:"


class ScopeContext(Context):
    """Names as one template sees them: its own first, then the variables of its scope, lazily."""

    def __init__(
        self,
        environment: Any,
        parent: dict[str, Any],
        name: str | None,
        blocks: dict[str, Callable[[Context], Any]],
        scope: Scope | None = None,
    ) -> None:
        super().__init__(environment, parent, name, blocks)
        self.scope = scope

    def resolve_or_missing(self, key: str) -> Any:
        """Return the value of *key*, or jinja2's `missing`."""
        if key in self.vars:
            return self.vars[key]
        if key in self.parent:
            return self.parent[key]
        if self.scope is not None:
            return self.scope.lookup(key)
        return GLOBALS.get(key, missing)

    def get_all(self) -> dict[str, Any]:
        """Return the template's own names; the scope's come through `resolve_or_missing`."""
        return _Own(self)

    def derived(self, locals: dict[str, Any] | None = None) -> Context:
        """Return a context that also sees *locals* (jinja2 calls it inside loops)."""
        own = _merge(self.get_all(), locals)
        context = ScopeContext(self.environment, own, self.name, {}, self.scope)
        context.eval_ctx = self.eval_ctx
        context.blocks.update((k, list(v)) for k, v in self.blocks.items())
        return context


class _Own(dict):  # type: ignore[type-arg]  # a generic base cannot be subscripted on Python 3.8
    """The names that a template set itself, and whose scope it had: what include and import pass on."""

    def __init__(self, context: ScopeContext) -> None:
        super().__init__(context.parent)
        self.update(context.vars)
        self.scope = context.scope


def _merge(own: dict[str, Any], local: dict[str, Any] | None) -> dict[str, Any]:
    found = dict(own)
    if local:
        found.update((k, v) for k, v in local.items() if v is not missing)
    return found


class ScopeTemplate(Template):
    """A template whose includes and imports see the scope of their caller."""

    def new_context(
        self,
        vars: dict[str, Any] | None = None,
        shared: bool = False,  # noqa: ARG002 - a scope is always shared
        locals: Mapping[str, Any] | None = None,
    ) -> Context:
        """Return a context on *vars* (jinja2 calls it for include and import)."""
        own = _merge(vars or {}, dict(locals or {}))
        return ScopeContext(self.environment, own, self.name, self.blocks, getattr(vars, "scope", None))


class _CodeGenerator(NativeCodeGenerator):
    """Native values, constants too: `{{ 5 }}` gives 5."""

    def _output_const_repr(self, group: Iterable[Any]) -> str:
        values = list(group)
        return repr(values[0] if len(values) == 1 else "".join(map(as_text, values)))


class Environment(ImmutableSandboxedEnvironment):
    """Ansible's settings. `compiled` caches by source; dict operations make it thread-safe."""

    template_class = ScopeTemplate
    context_class = ScopeContext
    code_generator_class = _CodeGenerator
    concat = staticmethod(lambda parts: "".join(map(as_text, parts)))
    mutable = False
    literal_backslashes = False

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, undefined=Missing, cache_size=200)
        self.filters.update(filters.FILTERS)
        self.tests.update(tests.TESTS)
        self.globals = {}  # GLOBALS, through the context: a variable of that name wins
        self.compiled: dict[str, Compiled] = {}
        self.variants: dict[Any, Environment] = {}

    def variant(self, key: Any, **options: Any) -> Environment:
        """Return this environment with other options and a cache of its own; the same for the same *key*."""
        found = self.variants.get(key)
        if found is None:
            mutable = options.pop("mutable", self.mutable)
            literal = options.pop("literal_backslashes", self.literal_backslashes)
            found = self.overlay(**options)
            found.mutable, found.literal_backslashes, found.compiled, found.variants = mutable, literal, {}, {}
            self.variants[key] = found
        return found

    def with_loader(self, load: Callable[[str], str | None]) -> Environment:
        """Return this environment with includes and imports served by *load*, and caches of its own."""
        found = self.overlay(loader=FunctionLoader(load))
        found.compiled, found.variants = {}, {}
        return found

    def _tokenize(
        self, source: str, name: str | None, filename: str | None = None, state: str | None = None
    ) -> TokenStream:
        """Split *source* into tokens; a backslash in a text inside `{{ }}` may be just that."""
        tokens = self.lexer.tokeniter(self.preprocess(source, name, filename), name, filename, state)
        if self.literal_backslashes and "\\" in source:
            tokens = _with_literal_backslashes(tokens)
        return TokenStream(self.lexer.wrap(tokens, name, filename), name, filename)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Allow changing a list only where the template works on copies."""
        if self.mutable:
            return SandboxedEnvironment.is_safe_attribute(self, obj, attr, value)
        return super().is_safe_attribute(obj, attr, value)


def _with_literal_backslashes(tokens: Iterator[tuple[int, str, str]]) -> Iterator[tuple[int, str, str]]:
    inside = False
    for line, kind, text in tokens:
        if kind in (TOKEN_VARIABLE_BEGIN, TOKEN_VARIABLE_END):
            inside = kind == TOKEN_VARIABLE_BEGIN
        literal = inside and kind == TOKEN_STRING
        yield line, kind, text.replace("\\", "\\\\") if literal else text


class Compiled:
    """A template ready to run. newlines counts those that its source ends with."""

    __slots__ = ("copies", "newlines", "template")

    def __init__(self, template: Template, source: str, copies: bool) -> None:
        self.template = template
        self.copies = copies
        self.newlines = len(source) - len(source.rstrip("\n"))

    def parts(self, scope: Scope) -> list[Any]:
        """Run it and return what it outputs, piece by piece, native. Raises whatever an expression can."""
        template = self.template
        context = ScopeContext(template.environment, {}, template.name, template.blocks, scope)
        copies, scope.copies = scope.copies, self.copies
        try:
            return list(template.root_render_func(context))
        finally:
            scope.copies = copies

    def problem(self, error: Exception, source: str) -> TemplateProblem:
        """Return *error*, raised while *source* ran as this template, as a problem that knows its line."""
        if isinstance(error, TemplateProblem):
            if error.source is None:
                error.source, error.lineno = source, self.line_of(error.__traceback__)
            return error
        lineno = self.line_of(error.__traceback__)
        if isinstance(error, UndefinedError):
            name, token = getattr(error, "name", "") or None, getattr(error, "token", "")
            return TemplateProblem(str(error), code="undefined", name=name, token=token, lineno=lineno, source=source)
        if isinstance(error, TemplateSyntaxError):  # of an included file
            said = f"{error.name or 'an included file'}, line {error.lineno}: {error.message}"
            return TemplateProblem(said, code="template-syntax", lineno=lineno, source=source)
        said = str(error) or type(error).__name__
        if isinstance(error, (KeyError, RecursionError, TemplateNotFound)):
            said = f"{WORDS[type(error)] if type(error) in WORDS else type(error).__name__}: {said}"
        return TemplateProblem(said, lineno=lineno, source=source)

    def line_of(self, traceback: TracebackType | None) -> int | None:
        """Return the template's line in which *traceback* left it."""
        found = None
        while traceback is not None:
            if traceback.tb_frame.f_globals.get("__jinja_template__") is self.template:
                found = self.template.get_corresponding_lineno(traceback.tb_lineno)
            traceback = traceback.tb_next
        return found


WORDS = {TemplateNotFound: "template file not found", KeyError: "no such key"}


def compiled(environment: Environment, source: str) -> Compiled:
    """Return *source*, a text with templates in it, compiled. Raises TemplateProblem."""
    found = environment.compiled.get(source)
    if found is None:
        found = _compile(environment, source, environment.parse)
    return found


def compiled_expression(environment: Environment, source: str) -> Compiled:
    """Return *source*, an expression without braces, compiled. Raises TemplateProblem."""
    environment = environment.variant("expression")
    found = environment.compiled.get(source)
    if found is None:
        found = _compile(environment, source, partial(parse_expression, environment))
    return found


def parse_expression(environment: Environment, source: str) -> nodes.Template:
    """Return the syntax tree of an expression without braces."""
    reader = Parser(environment, source, state="variable")
    expression = reader.parse_expression()
    if not reader.stream.eos:
        reader.fail(f"unexpected {reader.stream.current.value!r}", reader.stream.current.lineno)
    tree = nodes.Template([nodes.Output([expression], lineno=1)], lineno=1)
    tree.set_environment(environment)
    return tree


def _compile(environment: Environment, source: str, parse: Callable[[str], nodes.Template]) -> Compiled:
    try:
        tree = parse(source)
        copies = changes_values(tree)
        maker = environment.variant("mutable", mutable=True) if copies else environment
        template = maker.from_string(tree)
    except TemplateSyntaxError as error:
        raise syntax_problem(error, source) from error
    found = Compiled(template, source, copies)
    if len(environment.compiled) >= CACHE_SIZE:
        environment.compiled.clear()
    environment.compiled[source] = found
    return found


def syntax_problem(error: TemplateSyntaxError, source: str) -> TemplateProblem:
    """Return what is wrong with the syntax of *source*, unknown filters and tests included."""
    message = error.message or "not a template"
    unknown = re.match(r"No (filter|test) named '(.*)'", message)
    if unknown is None:
        return TemplateProblem(message, code="template-syntax", lineno=error.lineno, source=source)
    problem = unknown_name(*unknown.groups())
    problem.lineno, problem.source = error.lineno, source
    return problem


def unknown_name(kind: str, name: str) -> TemplateProblem:
    """Return the problem that there is no filter or test (*kind*) of that *name*."""
    known: Mapping[str, Any] = ENVIRONMENT.filters if kind == "filter" else ENVIRONMENT.tests
    hint = filters.UNSUPPORTED.get(name.rpartition(".")[2], "") if kind == "filter" else ""
    said = f"there is no {kind} {name!r}{'' if hint else near(name, known)}"
    return TemplateProblem(said, code="unknown-" + kind, token=name, hint=hint)


def changes_values(tree: nodes.Node) -> bool:
    """Say whether a template calls something like `list.append`."""
    if any(node.attr in MUTATORS for node in tree.find_all(nodes.Getattr)):
        return True
    constants = (node.arg for node in tree.find_all(nodes.Getitem) if isinstance(node.arg, nodes.Const))
    return any(node.value in MUTATORS for node in constants if isinstance(node.value, str))


def with_header(environment: Environment, source: str) -> tuple[Environment, str]:
    """Apply a template file's first line `#jinja2: trim_blocks:False, ...`, and return the rest."""
    if not source.startswith(HEADER):
        return environment, source
    line, _, rest = source.partition("\n")
    options = {}
    for pair in line[len(HEADER) :].split(","):
        name, _, value = (part.strip() for part in pair.partition(":"))
        if name not in ALLOWED_OPTIONS:
            raise TemplateProblem(
                "{}: allowed are {}".format(name or "nothing before the colon", ", ".join(ALLOWED_OPTIONS)),
                code="template-syntax",
                lineno=1,
                source=source,
            )
        options[name] = {"True": True, "False": False}.get(value, value.strip("'\""))
    return environment.variant(line, **options), rest


ALLOWED_OPTIONS = (
    "trim_blocks",
    "lstrip_blocks",
    "keep_trailing_newline",
    "block_start_string",
    "block_end_string",
    "variable_start_string",
    "variable_end_string",
    "comment_start_string",
    "comment_end_string",
    "newline_sequence",
)


#: For template files and conditions.
ENVIRONMENT = Environment()
#: For values in YAML. YAML has escapes of its own, so `{{ x | regex_replace('(a)', '\\1') }}` means what it says.
VALUES = ENVIRONMENT.variant("values", literal_backslashes=True)
