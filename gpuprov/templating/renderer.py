"""Renders values for one host: variables are looked up lazily, and may be templates themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

from jinja2.runtime import Undefined
from jinja2.utils import missing

from gpuprov.templating.conditions import condition_source
from gpuprov.templating.environment import (
    ENVIRONMENT,
    VALUES,
    Compiled,
    compiled,
    compiled_expression,
    with_header,
)
from gpuprov.templating.lookups import GLOBALS
from gpuprov.templating.problem import TemplateProblem
from gpuprov.templating.values import OMIT, as_text, has_template, native, truth


class Outside:
    """What templates may ask of the controller; hosts have none of it.

    lookups: name -> function(terms, options) -> list. filters: extra ones (`to_yaml`) by name.
    load: the text of an included template file by name, or None when there is none.
    """

    __slots__ = ("environment", "filters", "lookups")

    def __init__(
        self,
        lookups: Mapping[str, Callable[[list[Any], dict[str, Any]], Sequence[Any]]] | None = None,
        filters: Mapping[str, Callable[..., Any]] | None = None,
        load: Callable[[str], str | None] | None = None,
    ) -> None:
        self.lookups = lookups or {}
        self.filters = filters or {}
        self.environment = ENVIRONMENT.with_loader(load) if load is not None else ENVIRONMENT


class Renderer:
    """The variables of one place (a host, a task, a loop's pass), and how to render with them.

    templates: values that may be templates; they are rendered when something names them.
    final: values that are never templates: facts, registered results, loop items. A final
    value wins over a template of the same name, also over one of a child.
    One Renderer may be used by one thread at a time; different ones are independent.
    """

    __slots__ = ("_cache", "_final", "_finals", "_layers", "_parent", "_templates", "outside")

    def __init__(
        self,
        templates: Mapping[str, Any],
        final: Mapping[str, Any],
        *,
        outside: Outside | None = None,
        parent: Renderer | None = None,
    ) -> None:
        self._templates = templates
        self._final: dict[str, Any] = dict(final)
        self._parent = parent
        self._finals: tuple[Mapping[str, Any], ...] = (self._final, *(parent._finals if parent else ()))
        self._layers: tuple[Mapping[str, Any], ...] = (templates, *(parent._layers if parent else ()))
        self._cache: dict[str, tuple[Any, set[str]]] = {}
        self.outside: Outside | None = outside if outside is not None or parent is None else parent.outside

    def child(
        self,
        templates: Mapping[str, Any] | None = None,
        final: Mapping[str, Any] | None = None,
        outside: Outside | None = None,
    ) -> Renderer:
        """Return a Renderer that sees these variables before ours. Cheap."""
        return Renderer(templates or {}, final or {}, outside=outside, parent=self)

    def register(self, name: str, value: Any) -> None:
        """Set a final value (a registered result), and forget what was rendered with the old one.

        Children made before keep what they have rendered.
        """
        self._final[name] = value
        stale = [key for key, (_, names) in self._cache.items() if name in names]
        for key in stale:
            del self._cache[key]

    def render(self, value: Any) -> Any:
        """Return *value* with every template in it rendered, deep; native for a lone `{{ }}`.

        Values without a template are returned as they are, not copied. The result may be
        OMIT; omitted entries of mappings and lists are gone. Raises TemplateProblem.
        """
        if not has_template(value):
            return value
        return Scope(self).deep(value)

    def evaluate(self, expression: str) -> Any:
        """Return the native value of an expression without braces. Raises TemplateProblem."""
        return Scope(self).run(compiled_expression(ENVIRONMENT, expression), expression, native)

    def test(self, condition: Any) -> bool:
        """Say whether *condition* holds: an expression, a boolean, or a list that must all hold.

        Stops at the first that does not. None holds. Raises TemplateProblem.
        """
        if isinstance(condition, str):
            source = condition_source(condition)
            return bool(Scope(self).run(compiled_expression(ENVIRONMENT, source), condition, truth))
        if isinstance(condition, (list, tuple)):
            return all(map(self.test, condition))
        return condition is None or bool(condition)

    def text(self, source: str) -> str:
        """Return a template file's text rendered, as Ansible's template module does.

        Raises TemplateProblem.
        """
        environment = self.outside.environment if self.outside is not None else ENVIRONMENT
        environment, rest = with_header(environment, source)
        try:
            return str(Scope(self).run(compiled(environment, rest), source, as_text, whole=False))
        except TemplateProblem as problem:
            if rest is not source and problem.source is not None and problem.lineno is not None:
                problem.lineno += 1 if problem.source in (rest, source) else 0
            raise

    def value(self, name: str) -> Any:
        """Return variable *name*, rendered. Raises TemplateProblem when it is undefined."""
        found = Scope(self).lookup(name)
        if found is missing:
            raise TemplateProblem(f"{name} is undefined", code="undefined", name=name)
        return native(found)

    def raw(self, name: str) -> tuple[Any, bool]:
        """Return variable *name* as it was given, and whether it is final. Raises KeyError."""
        for layer in self._finals:
            if name in layer:
                return layer[name], True
        for layer in self._layers:
            if name in layer:
                return layer[name], False
        raise KeyError(name)

    def __contains__(self, name: str) -> bool:
        return any(name in layer for layer in self._finals) or any(name in layer for layer in self._layers)

    def __iter__(self) -> Iterator[str]:
        seen: dict[str, None] = {}
        for layer in (*self._finals, *self._layers):
            seen.update(dict.fromkeys(layer))
        return iter(seen)

    def _known(self, name: str) -> tuple[Any, set[str]] | None:
        """Return the cached value of variable *name*, ours or an ancestor's that holds here too."""
        at: Renderer | None = self
        below: list[Mapping[str, Any]] = []
        while at is not None:
            entry = at._cache.get(name)
            if entry is not None and all(entry[1].isdisjoint(names) for names in below):
                return entry
            if name in at._templates:
                return None
            below += [at._final, at._templates]
            at = at._parent
        return None

    def _keep(self, name: str, entry: tuple[Any, set[str]]) -> None:
        """Cache it as far up as it does not depend on what is only known below."""
        at, names = self, entry[1]
        while at._parent is not None and names.isdisjoint(at._final) and names.isdisjoint(at._templates):
            at = at._parent
        at._cache[name] = entry


class Scope:
    """One rendering: which names it has asked for, and which variables it is in the middle of."""

    __slots__ = ("active", "copies", "names", "renderer")

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        self.active: list[str] = []
        self.names: set[str] = set()
        self.copies = False

    def lookup(self, name: str) -> Any:
        """Return variable *name* rendered, or jinja2's `missing`."""
        self.names.add(name)
        for layer in self.renderer._finals:
            if name in layer:
                return self._own(layer[name])
        for layer in self.renderer._layers:
            if name in layer:
                value = layer[name]
                return self._own(self._variable(name, value) if has_template(value) else value)
        return _Variables(self) if name == "vars" else GLOBALS.get(name, missing)

    def _own(self, value: Any) -> Any:
        """Return a copy for a template that changes values, so that nobody else sees the change."""
        return deepcopy(value) if self.copies and isinstance(value, (list, dict)) else value

    def _variable(self, name: str, value: Any) -> Any:
        entry = self.renderer._known(name)
        if entry is None:
            if name in self.active:
                way = " -> ".join([*self.active[self.active.index(name) :], name])
                raise TemplateProblem(f"variables need each other in a circle: {way}", code="template-loop")
            outer, self.names = self.names, {name}
            self.active.append(name)
            try:
                entry = (self.deep(value), self.names)
            except TemplateProblem as problem:
                problem.via = (name, *problem.via)
                raise
            finally:
                self.active.pop()
                outer |= self.names
                self.names = outer
            self.renderer._keep(name, entry)
        else:
            self.names |= entry[1]
        return entry[0]

    def deep(self, value: Any) -> Any:
        """Render *value*, whatever it is. Raises TemplateProblem."""
        if isinstance(value, str):
            return self.string(value) if "{" in value else value
        if isinstance(value, dict):
            pairs = ((self.deep(k), self.deep(v)) for k, v in value.items())
            return {k: v for k, v in pairs if v is not OMIT and k is not OMIT}
        if isinstance(value, (list, tuple)):
            return [v for v in map(self.deep, value) if v is not OMIT]
        return value

    def string(self, source: str) -> Any:
        """Render one string: its single output as it is, else everything as one text."""
        return self.run(compiled(VALUES, source), source, native) if has_template(source) else source

    def run(self, template: Compiled, source: str, finish: Callable[[Any], Any], whole: bool = True) -> Any:
        """Run *template* and finish its output; a lone one stays native when *whole*."""
        try:
            parts = template.parts(self)
            if whole and len(parts) == 1:
                found = finish(parts[0])
                if type(found) is not str or not template.newlines:
                    return found
                return _ending(template, found)
            return _ending(template, "".join(map(as_text, parts)))
        except Exception as error:  # an expression can raise anything: it is the user's code
            problem = template.problem(error, source)
            if problem is error:
                raise
            raise problem from error


def _ending(template: Compiled, text: str) -> str:
    """Put back the line ends that Jinja2 took from the end."""
    lacking = template.newlines - (len(text) - len(text.rstrip("\n"))) if template.newlines else 0
    return text + "\n" * lacking if lacking > 0 else text


class _Variables(Mapping):  # type: ignore[type-arg]  # a generic base cannot be subscripted on Python 3.8
    """The magic variable `vars`: every variable by name, rendered when asked for."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def __getitem__(self, name: str) -> Any:
        found = self._scope.lookup(name)
        if found is missing or isinstance(found, Undefined):
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._scope.renderer)

    def __len__(self) -> int:
        return len(list(iter(self)))
