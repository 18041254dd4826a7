"""A task's keywords on one host, rendered: they must be known before the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpuprov.agent.modules.arguments import boolean
from gpuprov.errors import Problem, SourceErrors
from gpuprov.source import place_of
from gpuprov.templating.conditions import condition_source
from gpuprov.templating.names import names_of
from gpuprov.templating.problem import TemplateProblem
from gpuprov.templating.values import OMIT, has_template

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuprov.compile.build import HostBuild
    from gpuprov.compile.prepare import Prepared
    from gpuprov.source import Position
    from gpuprov.templating.renderer import Renderer


class Keywords:
    """Renders the keywords of one task. Methods raise SourceErrors and TemplateProblem."""

    def __init__(self, build: HostBuild, prepared: Prepared, renderer: Renderer) -> None:
        self._build = build
        self._task = prepared.task
        self._nearest = prepared.place.nearest
        self._renderer = renderer

    def at(self, name: str) -> Position:
        """Return where keyword *name* was written, or else the task."""
        return place_of(self._task.keywords, name) or self._task.position

    def value(self, name: str, value: Any) -> Any:
        """Return a keyword's value rendered, None for an omitted one."""
        if not has_template(value):
            return value
        if self._build.waits(names_of(value), self._renderer):
            message = f"{name} waits for a result on the host; it must be known before the run"
            raise SourceErrors([Problem("not-known-in-time", message, self.at(name))])
        found = self._renderer.render(value)
        return None if found is OMIT else found

    def number(self, name: str, value: Any) -> float:
        """Return a keyword's value as a number."""
        found = self.value(name, value)
        try:
            return float(found)
        except (TypeError, ValueError):
            message = f"{name} is {found!r}, not a number"
            raise SourceErrors([Problem("keyword-value", message, self.at(name))]) from None

    def switch(self, name: str, value: Any) -> bool:
        """Return a keyword's value as yes or no; None is no."""
        found = self.value(name, value)
        try:
            return found is not None and boolean(found)
        except ValueError:
            message = f"{name} is {found!r}, not yes or no"
            raise SourceErrors([Problem("keyword-value", message, self.at(name))]) from None

    def name(self) -> str:
        """Return the task's name rendered, or as written when that is not possible yet, as in Ansible."""
        name = self._task.name
        if not has_template(name):
            return str(name)
        try:
            waits = self._build.waits(names_of(name), self._renderer)
            return str(name) if waits else str(self._renderer.render(name))
        except TemplateProblem:
            return str(name)

    def become(self, host: Mapping[str, Any]) -> dict[str, Any]:
        """Return become and become_user; the host's variables of that meaning win, as in Ansible."""
        if not self.switch("become", host.get("ansible_become", self._nearest.get("become", False))):
            return {}
        user = self.value("become_user", host.get("ansible_become_user", self._nearest.get("become_user")))
        return {"become": True, "become_user": str(user)} if user else {"become": True}

    def inherited(self) -> dict[str, Any]:
        """Return no_log, check_mode, diff, timeout and ignore_errors as they hold for the task."""
        found: dict[str, Any] = {}
        for name in ("check_mode", "diff"):
            if self._nearest.get(name) is not None:
                found[name] = self.switch(name, self._nearest[name])
        if self.switch("no_log", self._nearest.get("no_log")):
            found["no_log"] = True
        if self._nearest.get("timeout"):
            found["timeout_s"] = self.number("timeout", self._nearest["timeout"])
        ignored = self._ignore_errors(self._nearest.get("ignore_errors"))
        if ignored is not False:
            found["ignore_errors"] = ignored
        return found

    def _ignore_errors(self, value: Any) -> bool | str:
        names = names_of(value)
        if self._build.waits(names, self._renderer):
            self._build.carry(names)
            return condition_source(str(value))
        return self.switch("ignore_errors", value)
