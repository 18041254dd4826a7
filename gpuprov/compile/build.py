"""One host's plan under construction: its variables, and what gathers while tasks are compiled."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpuprov.compile.content import search_path
from gpuprov.compile.deferred import Deferral
from gpuprov.compile.magic import RESOLVED, HostVariables, HostVars, host_names, play_names, role_names
from gpuprov.compile.variables import inventory_variables
from gpuprov.templating.names import NONE, Names
from gpuprov.templating.renderer import Outside, Renderer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuprov.compile.actions import Wheels
    from gpuprov.compile.content import Content
    from gpuprov.compile.prepare import Prepared, PreparedPlay
    from gpuprov.model import Host, Inventory, RoleUse


@dataclass(slots=True)
class Shared:
    """What the builds of all hosts share. Thread-safe: only caches change."""

    inventory: Inventory
    playbook_dir: str
    content: Content
    wheels: Wheels | None
    run_names: Mapping[str, Any]
    extra: Mapping[str, Any]
    known_facts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _outsides: dict[tuple[int, str], Outside] = field(default_factory=dict)

    def outside(self, role: RoleUse | None, folder: str = "") -> Outside:
        """Return what templates of *role* may ask of the controller; includes are also found in *folder*."""
        from gpuprov.compile.lookups import FILTERS, Lookups

        key = (id(role), folder)
        found = self._outsides.get(key)
        if found is None:
            files = search_path("files", role, self.playbook_dir)
            templates = ((folder,) if folder else ()) + search_path("templates", role, self.playbook_dir)

            def load(name: str) -> str | None:
                path = self.content.find(name, templates)
                return None if path is None else self.content.text(path)

            lookups = Lookups(self.content, files, templates).table()
            found = self._outsides[key] = Outside(lookups, FILTERS, load)
        return found


class HostBuild:
    """The build of one host. facts are the host's, without prefix; may be empty for settings only.

    stack is what was found to fit the host, None when nothing that runs there names it.
    """

    def __init__(
        self,
        shared: Shared,
        host: Host,
        facts: Mapping[str, Any],
        results: frozenset[str],
        stack: Mapping[str, Any] | None = None,
    ) -> None:
        self.shared = shared
        self.host = host
        self.facts = facts
        self.content = shared.content
        self.wheels = shared.wheels
        self.deferral = Deferral(results, facts)
        self.files: dict[str, str | bytes] = {}
        self.blobs: dict[str, int] = {}
        self.stale: frozenset[str] = frozenset()
        self.passes: frozenset[str] = frozenset()
        self.need: Names = NONE
        self.task_files: list[str] = []
        self.inventory = inventory_variables(host)
        self._injected = inject(facts)
        self._own = host_names(host) if stack is None else {**host_names(host), RESOLVED: stack}
        self._hostvars = HostVars(shared.inventory, self._of)
        self._others: dict[str, HostVariables] = {}
        self._renderers: dict[tuple[str, int], Renderer] = {}

    def begin_task(self, stale: frozenset[str]) -> None:
        """Forget what belonged to the task before. *stale* are the facts that are not known any more."""
        self.stale, self.need, self.passes, self.task_files = stale, NONE, frozenset(), []

    def renderer(self, play: PreparedPlay, role: RoleUse | None) -> Renderer:
        """Return the variables of *play* as tasks of *role* see them."""
        key = (play.id, id(role))
        found = self._renderers.get(key)
        if found is None:
            layers = play.layers(role)
            final = {**self._final(layers.hides), **play_names(play.play, play.members)}
            if role is not None:
                final.update(role_names(role))
            templates = {"ansible_host": self.host.name, **layers.merged(self.inventory)}
            found = Renderer(templates, final, outside=self.shared.outside(role))
            self._renderers[key] = found
        return found

    def _final(self, hides: Any) -> dict[str, Any]:
        facts = self._injected
        if any(map(hides, facts)):
            facts = {name: value for name, value in facts.items() if not hides(name)}
        return {**facts, **self.shared.run_names, **self._own, "hostvars": self._hostvars}

    def settings_renderer(self, variables: Mapping[str, Any]) -> Renderer:
        """Return a Renderer of the inventory's variables under *variables*, without any play."""
        templates = {"ansible_host": self.host.name, **self.inventory, **variables, **self.shared.extra}
        return Renderer(templates, self._final(lambda _: False), outside=self.shared.outside(None))

    def _of(self, name: str) -> HostVariables:
        if name not in self._others:
            facts = self.facts if name == self.host.name else self.shared.known_facts.get(name)
            host = self.shared.inventory.hosts[name]
            templates = {"ansible_host": name, **inventory_variables(host), **self.shared.extra}
            final = {**inject(facts or {}), **self.shared.run_names, **host_names(host), "hostvars": self._hostvars}
            renderer = Renderer(templates, final, outside=self.shared.outside(None))
            self._others[name] = HostVariables(name, renderer, facts_known=facts is not None)
        return self._others[name]

    # -- what preparing arguments needs (actions.Services) -------------------

    def places(self, kind: str, prepared: Prepared) -> tuple[str, ...]:
        """Return the folders that are searched for files or templates."""
        return search_path(kind, prepared.role, self.shared.playbook_dir)

    def near(self, renderer: Renderer, path: str, prepared: Prepared) -> Renderer:
        """Return *renderer* with includes found beside the template at *path*."""
        names = {
            "template_path": path,
            "template_fullpath": os.path.abspath(path),
            "template_host": os.uname().nodename,
        }
        return renderer.child(final=names, outside=self.shared.outside(prepared.role, os.path.dirname(path)))

    def carry(self, names: Names) -> None:
        """Note that the host needs these names."""
        self.need = self.need | names

    def waits(self, names: Names, renderer: Renderer) -> bool:
        """Say whether something with these names waits for the host."""
        if names is NONE or not (self.deferral.results or self.stale or self.passes):
            return False
        return self.deferral.waits(self.deferral.reach(names, renderer), self.stale, self.passes)

    def add_file(self, sha256: str, size: int, where: str | bytes) -> None:
        """Note a file that travels with the plan."""
        self.files[sha256] = where
        self.blobs[sha256] = size
        self.task_files.append(sha256)


def inject(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts as the variables that they are: `ansible_facts`, and each as `ansible_NAME`."""
    names = {name if name.startswith("ansible_") else "ansible_" + name: value for name, value in facts.items()}
    names["ansible_facts"] = facts
    return names
