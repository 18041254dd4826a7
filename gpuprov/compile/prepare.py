"""Plays as every host shares them: flattened inheritance, stable ids, and what is constant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpuprov.compile.inherit import Condition, Inherited, conditions, listed
from gpuprov.compile.loops import Loop, loop_of
from gpuprov.compile.stale import made_stale
from gpuprov.compile.variables import Layers, layers_of, task_variables
from gpuprov.model import Block, Task
from gpuprov.templating.values import has_template

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gpuprov.model import Play, Playbook, RoleUse


@dataclass(slots=True)
class Prepared:
    """One task, with everything that it inherits. The same for every host.

    variables are what it sees beyond its play. stale are the facts that an earlier task may
    have changed. constant is its node, once it is known to be the same for every host.
    """

    task: Task
    id: str
    place: Inherited
    variables: Mapping[str, Any]
    args: Mapping[str, Any]
    loop: Loop | None
    stale: frozenset[str]
    until: tuple[Condition, ...] = ()
    changed_when: tuple[Condition, ...] = ()
    failed_when: tuple[Condition, ...] = ()
    notify: tuple[Any, ...] = ()
    constant: dict[str, Any] | None = None
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    blobs: Mapping[str, int] = field(default_factory=dict)

    @property
    def role(self) -> RoleUse | None:
        """The role it came with."""
        return self.place.role

    @property
    def expressions(self) -> tuple[Condition, ...]:
        """The conditions that are always deferred, since they name the task's own result."""
        return self.until + self.changed_when + self.failed_when


@dataclass(frozen=True, slots=True)
class PreparedBlock:
    """A block of prepared tasks."""

    source: Block
    id: str
    place: Inherited
    block: tuple[Prepared | PreparedBlock, ...]
    rescue: tuple[Prepared | PreparedBlock, ...]
    always: tuple[Prepared | PreparedBlock, ...]


@dataclass(slots=True)
class PreparedPlay:
    """One play. defines are the names that its tasks register or set; hosts the names it is for."""

    play: Play
    id: str
    nodes: tuple[Prepared | PreparedBlock, ...]
    handlers: tuple[Prepared, ...]
    hosts: frozenset[str]
    members: list[str]
    extra: Mapping[str, Any]
    defines: frozenset[str] = frozenset()
    _layers: dict[int, Layers] = field(default_factory=dict)

    def layers(self, role: RoleUse | None) -> Layers:
        """Return the variables of this play for tasks of *role*."""
        key = id(role)
        if key not in self._layers:
            self._layers[key] = layers_of(self.play, role, self.extra)
        return self._layers[key]

    def tasks(self) -> Iterator[Prepared]:
        """Yield all tasks, then all handlers."""
        yield from flat(self.nodes)
        yield from self.handlers


def flat(nodes: Iterable[Prepared | PreparedBlock]) -> Iterator[Prepared]:
    """Yield the tasks of *nodes*, those in blocks too, in the order written."""
    for node in nodes:
        if isinstance(node, Prepared):
            yield node
        else:
            yield from flat((*node.block, *node.rescue, *node.always))


def prepare(playbook: Playbook, members: list[list[str]], extra: Mapping[str, Any]) -> list[PreparedPlay]:
    """Return the plays of *playbook*, whose hosts are *members* (play by play), prepared."""
    stale: frozenset[str] = frozenset()
    plays = []
    for number, (play, hosts) in enumerate(zip(playbook.plays, members, strict=True), 1):
        walk = _Walk(f"p{number}", extra, stale)
        top = Inherited().under(play.keywords, of_play=True)
        nodes = walk.nodes(play.nodes, top)
        handlers = tuple(walk.task(handler, top, "h") for handler in play.handlers)
        prepared = PreparedPlay(play, f"p{number}", nodes, handlers, frozenset(hosts), hosts, extra)
        prepared.defines = frozenset(name for task in prepared.tasks() for name in defines(task.task))
        stale = walk.stale
        plays.append(prepared)
    return plays


def defines(task: Task) -> Iterator[str]:
    """Yield the names that *task* gives a value on the host."""
    if task.keywords.get("register"):
        yield str(task.keywords["register"])
    if task.action == "set_fact":
        yield from (str(name) for name in task.args if name != "cacheable")


class _Walk:
    """Goes through one play in order, counting."""

    def __init__(self, play_id: str, extra: Mapping[str, Any], stale: frozenset[str]) -> None:
        self._play_id = play_id
        self._extra = extra
        self._counts: dict[str, int] = {}
        self.stale = stale

    def _next(self, kind: str) -> str:
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{self._play_id}.{kind}{self._counts[kind]}"

    def nodes(self, nodes: Iterable[Task | Block], place: Inherited) -> tuple[Prepared | PreparedBlock, ...]:
        return tuple(self.task(n, place, "t") if isinstance(n, Task) else self._block(n, place) for n in nodes)

    def _block(self, block: Block, place: Inherited) -> PreparedBlock:
        below = place.in_role(block.role)
        if block.role is None or block.keywords is not block.role.keywords:
            below = below.under(block.keywords)
        return PreparedBlock(
            block,
            self._next("b"),
            below,
            self.nodes(block.block, below),
            self.nodes(block.rescue, below),
            self.nodes(block.always, below),
        )

    def task(self, task: Task, place: Inherited, kind: str) -> Prepared:
        """Return *task* with what it inherits at *place*."""
        outer = place.in_role(task.role)
        own = outer.under(task.keywords)
        args = {**own.defaults.get(task.action, {}), **task.args} if own.defaults else task.args
        prepared = Prepared(
            task=task,
            id=self._next(kind),
            place=own,
            variables=task_variables(outer.variables, task.keywords.get("vars") or {}, own.params, self._extra),
            args=args,
            loop=loop_of(task.keywords),
            stale=self.stale,
            until=conditions(task.keywords, "until"),
            changed_when=conditions(task.keywords, "changed_when"),
            failed_when=conditions(task.keywords, "failed_when"),
            notify=own.notify,
        )
        self.stale |= made_stale(task)
        return prepared


def is_constant(prepared: Prepared) -> bool:
    """Say whether a task is the same for every host, its arguments' files apart."""
    place, keywords = prepared.place, prepared.task.keywords
    if place.when or prepared.loop is not None or place.environment:
        return False
    if any(not isinstance(c.source, bool) for c in prepared.expressions):
        return False
    values = (prepared.args, keywords.get("name"), list(prepared.notify), dict(place.nearest), *_numbers(keywords))
    return not any(map(has_template, values)) and not isinstance(place.nearest.get("ignore_errors"), str)


def _numbers(keywords: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(keywords.get(name) for name in ("retries", "delay", "register"))


__all__ = ["Prepared", "PreparedBlock", "PreparedPlay", "defines", "flat", "is_constant", "listed", "prepare"]
