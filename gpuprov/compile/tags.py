"""Which tasks --tags and --skip-tags choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Selection:
    """The tags asked for. `always`, `never`, `tagged`, `untagged` and `all` mean what they mean in Ansible."""

    only: frozenset[str]
    skip: frozenset[str]

    @classmethod
    def of(cls, only: Iterable[str] | None, skip: Iterable[str] | None) -> Selection:
        """Return the selection for the options' words; none given: all."""
        return cls(frozenset(only or ()) or frozenset(["all"]), frozenset(skip or ()))

    def runs(self, tags: frozenset[str]) -> bool:
        """Say whether a task with *tags* runs."""
        return self._chosen(tags) and not self._skipped(tags)

    def _chosen(self, tags: frozenset[str]) -> bool:
        if "always" in tags or tags & self.only:
            return True
        if "never" in tags:
            return False
        return "all" in self.only or ("tagged" in self.only if tags else "untagged" in self.only)

    def _skipped(self, tags: frozenset[str]) -> bool:
        if "all" in self.skip:
            return "always" not in tags or "always" in self.skip
        return bool(tags & self.skip) or ("tagged" in self.skip if tags else "untagged" in self.skip)


def tags_of(value: object) -> frozenset[str]:
    """Return a tags keyword's tags: a list, or words between commas."""
    if isinstance(value, str):
        return frozenset(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list | tuple):
        return frozenset().union(*map(tags_of, value))
    return frozenset([str(value)]) if value is not None else frozenset()
