"""What a task inherits from its play, its role and the blocks around it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gpuprov.compile.tags import tags_of
from gpuprov.source import place_of, position_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuprov.model import RoleUse
    from gpuprov.source import Position

#: Keywords whose nearest setting counts.
NEAREST = (
    "become",
    "become_user",
    "check_mode",
    "diff",
    "ignore_errors",
    "no_log",
    "timeout",
)


@dataclass(frozen=True, slots=True)
class Condition:
    """One part of a `when`: an expression or a boolean, and where it was written."""

    source: Any
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class Inherited:
    """The keywords that hold at one place of a play. Conditions are those of all levels, outermost first."""

    tags: frozenset[str] = frozenset()
    when: tuple[Condition, ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    environment: tuple[Any, ...] = ()
    nearest: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notify: tuple[Any, ...] = ()
    role: RoleUse | None = None

    def under(self, keywords: Mapping[str, Any], *, of_play: bool = False) -> Inherited:
        """Return what holds below something with *keywords*. A play's vars are no block vars."""
        return replace(
            self,
            tags=self.tags | tags_of(keywords.get("tags")),
            when=self.when + conditions(keywords, "when"),
            variables=self.variables if of_play else {**self.variables, **(keywords.get("vars") or {})},
            environment=self.environment + environments(keywords.get("environment")),
            nearest={**self.nearest, **{name: keywords[name] for name in NEAREST if name in keywords}},
            defaults=module_defaults(self.defaults, keywords.get("module_defaults")),
            notify=self.notify + listed(keywords.get("notify")),
        )

    def in_role(self, role: RoleUse | None) -> Inherited:
        """Return what holds for tasks of *role*; the same when they are in it already."""
        if role is None or role is self.role:
            return self
        below = self.under(role.keywords)
        return replace(below, role=role, params={**self.params, **role.params})


def conditions(keywords: Mapping[str, Any], name: str) -> tuple[Condition, ...]:
    """Return the parts of keyword *name*, all of which must hold."""
    value = keywords.get(name)
    if value is None:
        return ()
    at = place_of(keywords, name)
    if isinstance(value, list | tuple):
        return tuple(Condition(part, place_of(value, i) or at) for i, part in enumerate(value))
    return (Condition(value, position_of(value, at)),)


def environments(value: Any) -> tuple[Any, ...]:
    """Return the mappings (or templates of such) of an environment keyword."""
    return tuple(value) if isinstance(value, list | tuple) else (value,) if value else ()


def listed(value: Any) -> tuple[Any, ...]:
    """Return a keyword that takes one thing or a list of them, as a tuple."""
    return () if value is None else tuple(value) if isinstance(value, list | tuple) else (value,)


def module_defaults(before: Mapping[str, Mapping[str, Any]], value: Any) -> Mapping[str, Mapping[str, Any]]:
    """Return default arguments by module, the inner ones winning."""
    if not isinstance(value, dict):
        return before
    from gpuprov.agent.modules import short_name

    found = dict(before)
    for module, args in value.items():
        name = short_name(str(module))
        found[name] = {**found.get(name, {}), **(args or {})}
    return found
