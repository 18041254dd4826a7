"""Look at the host keys of a fleet without logging in: what is new, known, changed, revoked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gpuprov.errors import TransportError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gpuprov.transport.hop import Hop
    from gpuprov.transport.known_hosts import Entry, HostKey, Known
    from gpuprov.transport.ways import Ways

#: Connections at once. Every one is short and mostly waits.
THREADS = 32

Verdict = Literal["new", "same", "changed", "revoked", "unreachable"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one server offers, and what is on record about it. error is set when it was not reached."""

    hop: Hop
    verdict: Verdict
    keys: tuple[HostKey, ...] = ()
    recorded: tuple[Entry, ...] = ()
    error: TransportError | None = None


def rounds(hops: Iterable[Hop]) -> Iterator[list[Hop]]:
    """Yield the servers to look at: bastions first, since what is behind them is reached through them."""
    chains = []
    for hop in hops:
        chain = [hop]
        while (via := chain[-1].via) is not None:
            chain.append(via)
        chains.append(chain[::-1])
    for depth in range(max(map(len, chains), default=0)):
        yield list(dict.fromkeys(chain[depth] for chain in chains if depth < len(chain)))


def survey(ways: Ways, hops: Sequence[Hop]) -> list[Finding]:
    """Fetch the keys of all *hops*, in their order."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="survey") as pool:
        return list(pool.map(lambda hop: look(ways, hop), hops))


def look(ways: Ways, hop: Hop) -> Finding:
    """Fetch the keys of one server."""
    known = ways.known(hop)
    try:
        keys = tuple(ways.fetch_host_keys(hop))
    except TransportError as error:
        return Finding(hop, "unreachable", error=error)
    verdict = judge(keys, known)
    recorded = known.revoked if verdict == "revoked" else known.keys
    return Finding(hop, verdict, keys, tuple(recorded))


def judge(keys: Sequence[HostKey], known: Known) -> Verdict:
    """Compare offered with recorded keys. Pure.

    A server is the same when a recorded key is offered and none contradicts: further key types
    it may have got since are not a change.
    """
    if any(entry.key in keys for entry in known.revoked):
        return "revoked"
    if not known.keys:
        return "new"
    recorded = {entry.key for entry in known.keys}
    types = {key.type for key in recorded}
    contradicted = any(key.type in types and key not in recorded for key in keys)
    return "same" if recorded.intersection(keys) and not contradicted else "changed"


def record(ways: Ways, finding: Finding) -> None:
    """Put the keys of *finding* on record, in place of what was there. HostKeyError when that cannot be written."""
    hop = finding.hop
    if finding.verdict == "changed":
        types = {entry.key.type for entry in finding.recorded}
        for path in {entry.path for entry in finding.recorded}:
            ways.known_hosts.forget_keys(path, hop.key_name, hop.port, types)
    ways.known_hosts.record(hop.record_in, hop.key_name, hop.port, finding.keys, hashed=hop.hash_names)
