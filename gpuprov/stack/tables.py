"""The tables: what is known about drivers, toolkits, GPUs, systems and torch, with source and date."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from gpuprov.stack.reading import Blocks
from gpuprov.stack.versions import key

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Where the rows of a block are.
ROWS = {"gpus": "ids", "torch": "releases", "toolkits": "releases", "kernel_build_floor": "rows"}


@dataclass(frozen=True, eq=False)
class Tables:
    """All blocks, those of pci_ids.yaml read when one of them is asked for. Shared by everybody and never changed."""

    blocks: Blocks
    overlays: tuple[str, ...] = ()
    cached: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def as_of(self) -> str:
        """The date of the tables: that of the file, which is the newest of its blocks."""
        date = str(self.blocks["as_of"])
        return f"{date} with {', '.join(self.overlays)}" if self.overlays else date

    def rows(self, block: str) -> Any:
        """Return the rows of *block*: a list, or a mapping."""
        return self.blocks[block][ROWS.get(block, "list")]

    def rule(self, rule: str) -> Mapping[str, Any]:
        """Return what the tables say of a rule. Raises KeyError."""
        if "rules" not in self.cached:
            self.cached["rules"] = {row["id"]: row for row in self.blocks["rules"]["list"]}
        found: Mapping[str, Any] = self.cached["rules"][rule]
        return found

    def arch(self, cc: str) -> Mapping[str, Any] | None:
        """Return the row of a compute capability, or None."""
        return self._by("archs", "cc").get(cc)

    def branch(self, number: int) -> Mapping[str, Any] | None:
        """Return the row of a driver branch, or None."""
        return self._by("driver_branches", "branch").get(number)

    def newest_first(self, block: str) -> list[str]:
        """Return the releases of block *block* ("torch", "toolkits"), the newest first."""
        if (block, "newest") not in self.cached:
            self.cached[block, "newest"] = sorted(self.rows(block), key=key, reverse=True)
        found: list[str] = self.cached[block, "newest"]
        return found

    def _by(self, block: str, name: str) -> Mapping[Any, Mapping[str, Any]]:
        if (block, name) not in self.cached:
            self.cached[block, name] = {row[name]: row for row in self.rows(block)}
        found: Mapping[Any, Mapping[str, Any]] = self.cached[block, name]
        return found

    def system(self, os_id: str | None, version: str | None) -> Mapping[str, Any] | None:
        """Return the row of an operating system, or None. A major version is enough where rows have only that."""
        for row in self.rows("os"):
            named = os_id == row["id"] or os_id in row.get("also", ())
            if named and version is not None and (version == row["ver"] or version.split(".")[0] == row["ver"]):
                found: Mapping[str, Any] = row
                return found
        return None

    def distribution(self, os_id: str | None, version: str | None) -> Mapping[str, Any] | None:
        """Return what a distribution's own archive carries, or None where nothing is known."""
        rows = self.rows("distribution_drivers")
        major = (version or "").split(".")[0]
        return next((row for row in rows if row["os"] == os_id and row["ver"] in (version, major)), None)


@cache
def load() -> Tables:
    """Return the tables that came with gpuprov; read once per process, a GPU's row when somebody asks for it."""
    return Tables(Blocks())
