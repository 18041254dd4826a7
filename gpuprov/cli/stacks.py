"""The resolver as commands use it: tables with the admin's overlays, wants checked, stacks given by hand."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from gpuprov.errors import Problem, RefusedError, SourceErrors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gpuprov.model import Inventory
    from gpuprov.stack.model import HostFacts, Refusal, Stack, Want
    from gpuprov.stack.tables import Tables

#: The variable that names files with rows over those of gpuprov's own tables.
OVERLAYS = "gpuprov_stack_tables"
WANT = "gpuprov_stack"


class Chooser:
    """Finds stacks for hosts; hosts that are alike are resolved once. Thread-safe.

    overlays: files that count for every host, over its own ones in `own`. given: host -> the stack that it gets
    whatever the tables say.
    """

    def __init__(
        self,
        overlays: Sequence[str] = (),
        given: Mapping[str, Mapping[str, Any]] | None = None,
        own: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._overlays = tuple(overlays)
        self._given = given or {}
        self._own = own or {}
        self._tables: dict[tuple[str, ...], Tables] = {}
        self._answers: dict[tuple[Want, HostFacts, int], Stack | Refusal] = {}
        self._guard = threading.Lock()

    def tables(self, host: str) -> Tables:
        """Return the tables for *host*, read when they are first needed. Raises SourceErrors for a wrong overlay."""
        files = tuple(dict.fromkeys((*self._own.get(host, ()), *self._overlays)))
        with self._guard:
            if files not in self._tables:
                from gpuprov.cli.tables import tables_with

                self._tables[files] = tables_with(files)
            return self._tables[files]

    def check(self, hosts: Iterable[str]) -> None:
        """Read the overlays of *hosts*, if there are any. Raises SourceErrors with all that is wrong with them."""
        problems: dict[Problem, None] = {}
        for host in hosts:
            if self._overlays or self._own.get(host):
                try:
                    self.tables(host)
                except SourceErrors as error:
                    problems.update(dict.fromkeys(error.problems))
        if problems:
            raise SourceErrors(problems)

    def resolve(self, host: str, want: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the stack that fits *host*, as playbooks see it. Raises RefusedError, SourceErrors."""
        if host in self._given:
            return dict(self._given[host])
        answer = self.answer(host, want, facts)
        found = answer.to_json()
        if "alternatives" not in found:
            return found
        hint = f"instead: {found['alternatives'][0]['say']}" if found["alternatives"] else ""
        said = f"{found['message']} (rule {found['rule']}, tables of {found['tables']})"
        raise RefusedError(said, hint=hint, code=found["rule"], refusal=found)

    def answer(self, host: str, want: Any, facts: Mapping[str, Any]) -> Stack | Refusal:
        """Return what the resolver says. Raises SourceErrors when *want* is wrong."""
        from gpuprov.stack import host_from_facts, resolve, want_from

        problems: list[Problem] = []
        wanted = want_from(want or {}, problems)
        if problems:
            raise SourceErrors(problems)
        tables = self.tables(host)
        key = (wanted, host_from_facts(facts, tables), id(tables))
        found = self._answers.get(key)
        if found is None:  # two threads may both ask: they get the same answer
            found = self._answers[key] = resolve(wanted, key[1], tables)
        return found


def chooser_for(
    inventory: Inventory,
    names: Iterable[str],
    extra: Mapping[str, Any],
    overlays: Sequence[str] | None,
    given: Mapping[str, Mapping[str, Any]] | None = None,
) -> Chooser:
    """Return the chooser for hosts *names*: what can be told before any connection is checked.

    Raises SourceErrors for overlays and wishes that are wrong.
    """
    problems: dict[Problem, None] = {}
    own: dict[str, Sequence[str]] = {}
    for name in names:
        variables = inventory.hosts[name]
        found: list[Problem] = []
        own[name] = _files(extra.get(OVERLAYS, variables.value(OVERLAYS)), OVERLAYS in extra, inventory, found)
        _check_want(extra.get(WANT, variables.value(WANT)), found)
        problems.update(dict.fromkeys(found))
    chooser = Chooser(overlays or (), given, own)
    try:
        chooser.check(own)
    except SourceErrors as error:
        problems.update(dict.fromkeys(error.problems))
    if problems:
        raise SourceErrors(problems)
    return chooser


def _files(value: Any, named_here: bool, inventory: Inventory, problems: list[Problem]) -> tuple[str, ...]:
    """Return the paths of overlays; those of an inventory are relative to it, those of -e to the working directory."""
    from gpuprov.source import position_of

    given = value if isinstance(value, list) else [] if value in (None, "") else [value]
    if any(not isinstance(one, str) or "{{" in one for one in given):
        said = f"{OVERLAYS} is a path or a list of paths, without templates"
        problems.append(Problem("tables", said, position_of(value)))
        return ()
    path = inventory.path if os.path.isdir(inventory.path) else os.path.dirname(inventory.path)
    return tuple(str(one) if named_here else os.path.join(path, one) for one in given)


def _check_want(value: Any, problems: list[Problem]) -> None:
    """Check a wish that no template has a part in."""
    from gpuprov.load.keywords import has_template

    if value not in (None, "") and not has_template(value):
        from gpuprov.stack import want_from

        want_from(value, problems)
