"""The controller's files that tasks name: are they there, and are the templates among them right?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

from gpuprov.compile.build import HostBuild
from gpuprov.compile.content import search_path, searched
from gpuprov.source import place_of
from gpuprov.templating.names import Names, names_of, text_names
from gpuprov.templating.problem import TemplateProblem

if TYPE_CHECKING:
    from gpuprov.compile.build import Shared
    from gpuprov.compile.prepare import Prepared, PreparedPlay
    from gpuprov.compile.problems import Problems
    from gpuprov.compile.scope import Family, Scope, Undefined
    from gpuprov.source import Position

#: Module -> where its src is searched.
KINDS = {"copy": "files", "template": "templates"}


class Analysis(Protocol):
    """What checking files needs of the analysis."""

    @property
    def shared(self) -> Shared:
        """What builds of hosts share."""

    @property
    def problems(self) -> Problems:
        """Where problems go."""

    @property
    def undefined(self) -> Undefined:
        """Where names without a value go."""

    def known(self, names: Names, text: str, at: Position | None, path: str = "") -> None:
        """Report filters, tests and lookups that nobody has."""


def check_sources(
    analysis: Analysis, prepared: Prepared, play: PreparedPlay, scope: Scope, hosts: list[Family]
) -> None:
    """Check the src of a copy or template task, for each family of hosts."""
    kind = KINDS.get(prepared.task.action)
    src = prepared.args.get("src")
    if kind is None or not isinstance(src, str) or _remote(prepared):
        return
    at = place_of(prepared.args, "src") or prepared.task.position
    places = search_path(kind, prepared.role, analysis.shared.playbook_dir)
    for family in hosts:
        for name in _rendered(src, analysis.shared, prepared, play, family):
            path = analysis.shared.content.find(name, places)
            if path is None:
                hint = "" if os.path.isabs(name) else searched(places)
                analysis.problems.add("file-missing", f"there is no file {name}", at, hint)
            elif kind == "templates" and os.path.isfile(path):
                _check_template(analysis, path, prepared, scope, [family], at, ())


def _remote(prepared: Prepared) -> bool:
    return str(prepared.args.get("remote_src", False)).lower() not in ("false", "no", "off", "0")


def _rendered(src: str, shared: Shared, prepared: Prepared, play: PreparedPlay, family: Family) -> list[str]:
    """Return what *src* is for the hosts of *family*; nothing when that takes facts, results or a loop to tell."""
    try:
        names = names_of(src)
        host = shared.inventory.hosts[family.hosts[0]]
        build = HostBuild(shared, host, {}, family.results)
        renderer = build.renderer(play, prepared.role).child(templates=prepared.variables)
        if build.waits(names, renderer):
            return []
        if prepared.loop is not None and not prepared.loop.names.isdisjoint(build.deferral.reach(names, renderer).all):
            return _by_item(src, prepared.loop.value, prepared.loop.variable) if prepared.loop.kind in _PLAIN else []
        return [str(renderer.render(src))]
    except TemplateProblem:
        return []  # reported as what it is, or only facts can tell


#: Loops whose list, when it is written out, has the passes themselves.
_PLAIN = ("loop", "items", "list")


def _by_item(src: str, items: Any, variable: str) -> list[str]:
    from gpuprov.templating.renderer import Renderer
    from gpuprov.templating.values import has_template

    if not isinstance(items, list) or has_template(items):
        return []
    return [str(Renderer({}, {variable: item}).render(src)) for item in items]


def _check_template(
    analysis: Analysis,
    path: str,
    prepared: Prepared,
    scope: Scope,
    hosts: list[Family],
    at: Position,
    above: tuple[str, ...],
) -> None:
    """Check a template file, and those that it includes."""
    if path in above:
        return
    try:
        text = analysis.shared.content.text(path)
    except (OSError, UnicodeDecodeError) as error:
        analysis.problems.add("file-unreadable", f"{path} cannot be read as text: {error}", at)
        return
    try:
        names = text_names(text)
    except TemplateProblem as problem:
        analysis.problems.template(problem, at, path)
        return
    analysis.known(names, text, at, path)
    if not above:  # an included one also sees what the including one sets
        analysis.undefined.check(names.needed, scope, hosts, text, at, path)
    places = (os.path.dirname(path), *search_path("templates", prepared.role, analysis.shared.playbook_dir))
    for name in sorted(names.files):
        included = analysis.shared.content.find(name, places)
        if included is None:
            place = analysis.problems.place_in_file(path, name, None)
            analysis.problems.add("file-missing", f"there is no template {name}", place, searched(places))
        else:
            _check_template(analysis, included, prepared, scope, hosts, at, (*above, path))
