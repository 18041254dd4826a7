"""What is measured after what, by what came out before: pairs, suspects again, the ladder, training. No I/O."""

from __future__ import annotations

from gpuprov.proof.fabric import localise, schedule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Generator, List, Mapping, Sequence

    Rounds = Generator[List["Group"], List["Ended"], None]

#: The parts of a run, in their order.
PARTS = ("pairs", "collectives", "ddp")


class Group:
    """Hosts that do one thing together, in one round beside other groups. what: one of PARTS."""

    __slots__ = ("hosts", "name", "what")

    def __init__(self, name: str, what: str, hosts: Sequence[str]) -> None:
        self.name = name
        self.what = what
        self.hosts = tuple(hosts)


class Ended:
    """How a group's round ended.

    state: "ok", "wrong" (it ran and a number is not what it must be) or "failed". culprits: hosts that are known to
    have caused it, empty when nobody can tell. gone: hosts that do not answer any more. data: what rank 0 measured.
    """

    __slots__ = ("culprits", "data", "gone", "group", "state", "why")

    def __init__(
        self,
        group: Group,
        state: str,
        why: str = "",
        culprits: Sequence[str] = (),
        gone: Sequence[str] = (),
        data: Mapping[str, Any] | None = None,
    ) -> None:
        self.group = group
        self.state = state
        self.why = why
        self.culprits = tuple(culprits)
        self.gone = tuple(gone)
        self.data = dict(data or {})

    @property
    def gb_per_s(self) -> float | None:
        """The bus bandwidth of the all-reduce; None when the round did not do what it should."""
        found = self.data.get("allreduce")
        return float(found["gb_per_s"]) if self.state == "ok" and found else None


class Course:
    """One run's order of rounds. kinds: host -> its devices in words; only equal kinds are compared."""

    def __init__(self, kinds: Mapping[str, str], parts: Sequence[str] = PARTS) -> None:
        self._hosts = list(kinds)
        self._kinds = dict(kinds)
        self._parts = parts
        self.pairs: list[localise.Measured] = []
        #: Hosts that take part in nothing more, and why.
        self.out: dict[str, str] = {}

    def rounds(self) -> Rounds:
        """Yield what is to be done next, side by side; take how it ended."""
        if "pairs" in self._parts:
            yield from self._pairings()
        if "collectives" in self._parts:
            yield from self._ladder()
        rest = self._rest()
        if "ddp" in self._parts and len(rest) > 1:
            self._take((yield [Group("training", "ddp", rest)]))

    def _rest(self) -> list[str]:
        return [host for host in self._hosts if host not in self.out]

    def _pairings(self) -> Rounds:
        plan = [[(self._hosts[a], self._hosts[b]) for a, b in r] for r in schedule.pairings(len(self._hosts))]
        for number, pairs in enumerate(plan, 1):
            yield from self._pair_round(f"pairs {number} of {len(plan)}", pairs)
        for pairs in localise.again(self.pairs, self._rest()):
            yield from self._pair_round("pairs again", pairs)
        for found in localise.blame(self.pairs):
            if found.part is None:  # nothing gets through: all of it would wait for the deadline
                what = "fails with every other host" if len(found.hosts) == 1 else f"fails with {found.hosts[0]}"
                self.out.setdefault(found.hosts[-1], what)

    def _pair_round(self, name: str, pairs: Sequence[localise.Link]) -> Rounds:
        groups = [Group(name, "pairs", pair) for pair in pairs if not set(pair) & set(self.out)]
        if not groups:
            return
        ended = yield groups
        for one in ended:
            first, second = one.group.hosts
            kind = self._kind(first, second)
            self.pairs.append(localise.Measured((first, second), one.gb_per_s, kind, one.why))
            for host in one.gone:
                self.out.setdefault(host, one.why)

    def _kind(self, first: str, second: str) -> str:
        kinds = sorted({self._kinds[first], self._kinds[second]}, reverse=True)
        return " with ".join(kinds)

    def _ladder(self) -> Rounds:
        hosts = self._rest()
        for rung in schedule.ladder(len(hosts)):
            named = ([hosts[at] for at in group if hosts[at] not in self.out] for group in rung)
            groups = [Group(f"{len(group)} hosts", "collectives", group) for group in named if len(group) > 1]
            if groups:
                self._take((yield groups))

    def _take(self, ended: Sequence[Ended]) -> None:
        """Leave out who made a round fail; everybody of it, when nobody knows who did."""
        for one in ended:
            if one.state == "failed":
                for host in one.culprits or one.group.hosts:
                    self.out.setdefault(host, f"{one.group.name}: {one.why}")
