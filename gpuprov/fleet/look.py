"""Look at a fleet without running anything: connect, start the agent, take its facts, leave."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpuprov.errors import GpuprovError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gpuprov.fleet.hostrun import HostRun, Ways
    from gpuprov.fleet.options import RunOptions
    from gpuprov.fleet.session import Session


@dataclass(frozen=True, slots=True)
class Seen:
    """What one host said: its facts and what would keep a run from it, or why it could not be asked.

    answer is what the caller's own question brought.
    """

    host: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    trouble: tuple[Mapping[str, Any], ...] = ()
    error: GpuprovError | None = None
    answer: Any = None


def look(
    hosts: Sequence[HostRun],
    ways: Ways,
    options: RunOptions,
    then: Callable[[Seen], None] | None = None,
    ask: Callable[[str, Session], Any] | None = None,
) -> list[Seen]:
    """Return what each of *hosts* says, in their order; *then* is called for each as it comes. Blocks.

    ask(host, session) may ask the agent for more while it is there; it is called from several threads.
    """
    threads = max(1, min(options.threads, options.forks, len(hosts)))
    found: dict[str, Seen] = {}
    with ThreadPoolExecutor(threads, thread_name_prefix="look") as pool:
        for seen in pool.map(lambda host: _ask(host, ways, options, ask), hosts):
            found[seen.host] = seen
            if then is not None:
                then(seen)
    return list(found.values())


def _ask(host: HostRun, ways: Ways, options: RunOptions, ask: Callable[[str, Session], Any] | None) -> Seen:
    try:
        session = host.open(ways, options)
    except GpuprovError as error:
        return Seen(host.name, error=error)
    try:
        hello = session.hello
        answer = ask(host.name, session) if ask is not None else None
        return Seen(host.name, hello["facts"], tuple(hello.get("trouble", ())), answer=answer)
    except GpuprovError as error:
        return Seen(host.name, error=error)
    finally:
        session.close()


def answered(seen: Iterable[Seen]) -> list[Seen]:
    """Return those that could be asked."""
    return [one for one in seen if one.error is None]
