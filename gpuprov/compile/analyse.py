"""Everything that can be wrong in templates, found before any connection."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gpuprov.compile.actions import EXPRESSIONS
from gpuprov.compile.build import Shared
from gpuprov.compile.compiler import members_of
from gpuprov.compile.content import Content
from gpuprov.compile.lookups import UNSUPPORTED, Lookups
from gpuprov.compile.magic import Groups, run_names
from gpuprov.compile.prepare import Prepared, PreparedPlay, prepare
from gpuprov.compile.problems import Problems
from gpuprov.compile.scope import Family, Scope, Undefined, families, texts
from gpuprov.compile.sources import check_sources
from gpuprov.source import Position, place_of
from gpuprov.templating.environment import unknown_name
from gpuprov.templating.lookups import EVERYWHERE
from gpuprov.templating.names import NONE, Names, condition_names, text_names
from gpuprov.templating.problem import TemplateProblem
from gpuprov.templating.values import has_template

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gpuprov.compile.compiler import Select
    from gpuprov.errors import Problem
    from gpuprov.model import Inventory, Playbook


def analyse(
    playbook: Playbook,
    inventory: Inventory,
    hosts: Iterable[str],
    extra_vars: Mapping[str, Any] | None = None,
    *,
    select: Select,
    content: Content | None = None,
) -> list[Problem]:
    """Return what is wrong with the templates, variables and files of *playbook* on *hosts*.

    Reads the files that tasks name. What depends on facts is left to the gate.
    """
    extra = dict(extra_vars or {})
    chosen = set(hosts)
    members = [[h for h in some if h in chosen] for some in members_of(playbook, inventory, select)]
    plays = prepare(playbook, members, extra)
    return _Analysis(playbook, inventory, plays, extra, content or Content()).run()


class _Analysis:
    def __init__(
        self,
        playbook: Playbook,
        inventory: Inventory,
        plays: list[PreparedPlay],
        extra: Mapping[str, Any],
        content: Content,
    ) -> None:
        folder = os.path.dirname(os.path.abspath(playbook.path))
        names = run_names(inventory, playbook.path, "", check=False, diff=False)
        names["groups"] = Groups(inventory)
        self._shared = Shared(inventory, folder, content, None, names, extra)
        self._inventory = inventory
        self._plays = plays
        self._problems = Problems(content)
        self._undefined = Undefined(self._problems)
        self._lookups = frozenset(Lookups(content, (), ()).table()) - UNSUPPORTED.keys() | EVERYWHERE
        self._seen: set[int] = set()

    def run(self) -> list[Problem]:
        """Look at everything; return the problems."""
        for host in self._inventory.hosts.values():
            for variable in host.variables.values():
                self._value(variable.value, variable.position)
        for play in self._plays:
            for role in play.play.roles:
                self._mappings(role.defaults, role.variables, role.params)
            self._mappings(play.play.variables)
            hosts = families(self._inventory, self._plays, play)
            for task in play.tasks():
                self._task(task, play, hosts)
        self._undefined.report()
        return list(self._problems.found.values())

    # -- syntax, filters, tests, lookups --------------------------------------

    def _mappings(self, *mappings: Mapping[str, Any]) -> None:
        for mapping in mappings:
            self._value(mapping, None)

    def _value(self, value: Any, at: Position | None) -> Names:
        """Check every template in *value*; return their names."""
        if id(value) in self._seen and not has_template(value):
            return NONE
        found = NONE
        for text, place in texts(value, at):
            found = found | self._names(text, place, expression=False)
        self._seen.add(id(value))
        return found

    def _names(self, text: str, at: Position | None, *, expression: bool) -> Names:
        try:
            names = condition_names(str(text)) if expression else text_names(str(text))
        except TemplateProblem as problem:
            problem.source = text
            self._problems.template(problem, at)
            return NONE
        self.known(names, text, at)
        return names

    def known(self, names: Names, text: str, at: Position | None, path: str = "") -> None:
        """Report filters, tests and lookups that nobody has."""
        for kind, name in sorted(names.unknown):
            problem = unknown_name(kind, name)
            problem.source = text
            self._problems.template(problem, at, path)
        for kind, name in sorted(names.controller):
            if kind == "lookup" and name not in self._lookups and " " not in name:
                problem = _unknown_lookup(name, self._lookups)
                problem.source = text
                self._problems.template(problem, at, path)

    # -- tasks ----------------------------------------------------------------

    def _task(self, prepared: Prepared, play: PreparedPlay, hosts: list[Family]) -> None:
        task = prepared.task
        at = task.position
        guarded: set[str] = set()
        for condition in prepared.place.when:
            if isinstance(condition.source, str):
                names = self._names(condition.source, condition.position or at, expression=True)
                self._late(names, condition.source, condition.position, hosts)
                guarded |= names.guarded
        scope = Scope(prepared, play, frozenset(guarded))
        self._mappings(task.keywords.get("vars") or {})
        for value, place in self._values(prepared):
            for text, where in texts(value, place):
                names = self._names(text, where, expression=False)
                self._late(names, text, where, hosts)
                self._undefined.check(names.needed, scope, hosts, text, where)
        for text, where, lenient in _expressions(prepared):
            names = self._names(text, where, expression=True)
            self._late(names, text, where, hosts)
            if not lenient:
                self._undefined.check(names.needed, scope, hosts, text, where)
        self._facts_to_set(prepared)
        check_sources(self, prepared, play, scope, hosts)

    def _values(self, prepared: Prepared) -> Iterator[tuple[Any, Position | None]]:
        """Yield what is rendered of a task, with a place for what cannot say its own."""
        task = prepared.task
        for name, value in prepared.args.items():
            if name not in EXPRESSIONS.get(task.action, ()):
                yield value, place_of(prepared.args, name) or task.position
        for name in ("retries", "delay", "loop_control"):
            if name in task.keywords:
                yield task.keywords[name], place_of(task.keywords, name)
        if prepared.loop is not None:
            yield prepared.loop.value, prepared.loop.position
        for value in (*prepared.place.environment, *prepared.place.nearest.values(), *prepared.notify):
            yield value, task.position

    def _late(self, names: Names, text: str, at: Position | None, hosts: list[Family]) -> None:
        """Report what only the controller has, where a result is waited for."""
        if not names.controller or not any(not family.results.isdisjoint(names.all) for family in hosts):
            return
        kind, name = sorted(names.controller)[0]
        problem = TemplateProblem(
            f"{kind} {name} works on the controller only, and this waits for a result on the host",
            code="controller-only",
            token=name,
            source=text,
            hint="give its value to a variable of its own, which is rendered before the run",
        )
        self._problems.template(problem, at)

    def _facts_to_set(self, prepared: Prepared) -> None:
        if prepared.task.action != "set_fact":
            return
        for name in prepared.args:
            at = place_of(prepared.args, name) or prepared.task.position
            if has_template(name):
                hint = "write the name itself; a mapping can have computed keys"
                self._problems.add("set-fact-name", f"the name {name} is a template, it must be constant", at, hint)
        if str(prepared.args.get("cacheable", False)).lower() in ("yes", "true", "on", "1"):
            self._problems.add(
                "argument-unsupported",
                "set_fact: cacheable is not supported: facts are gathered in every run, there is no fact cache",
                place_of(prepared.args, "cacheable"),
                "remove it",
            )

    # -- what check_sources needs ---------------------------------------------

    @property
    def shared(self) -> Shared:
        """What builds of hosts share."""
        return self._shared

    @property
    def problems(self) -> Problems:
        """Where problems go."""
        return self._problems

    @property
    def undefined(self) -> Undefined:
        """Where names without a value go."""
        return self._undefined


def _expressions(prepared: Prepared) -> Iterator[tuple[str, Position | None, bool]]:
    """Yield a task's expressions beside `when`: (text, place, whether undefined names are fine)."""
    at = prepared.task.position
    for condition in prepared.expressions:
        if isinstance(condition.source, str):
            yield condition.source, condition.position or at, False
    for name in EXPRESSIONS.get(prepared.task.action, ()):
        value = prepared.args.get(name)
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, str):
                yield part, place_of(prepared.args, name) or at, name == "var"


def _unknown_lookup(name: str, known: Iterable[str]) -> TemplateProblem:
    from gpuprov.templating.undefined import near

    if name in UNSUPPORTED:
        said, hint = f"lookup {name} is not supported", UNSUPPORTED[name]
    else:
        said, hint = f"there is no lookup {name!r}{near(name, dict.fromkeys(known))}", ""
    return TemplateProblem(said, code="unknown-lookup", token=name, hint=hint)
