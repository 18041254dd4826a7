"""A combination that is being considered, and what the rules say of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuprov.stack.tables import Tables


@dataclass(frozen=True, slots=True)
class Draft:
    """A candidate. "" is "not part of it".

    kept: the driver is the one that is installed already; exact: a person named this very version. repository is
    the name of NVIDIA's repository, or "distribution"; kind is "nvidia" or "distribution". more: packages beside
    the driver are wanted; alone: nothing is wanted that uses a GPU.
    """

    driver: str = ""
    flavour: str = ""
    kind: str = ""
    repository: str = ""
    kept: bool = False
    exact: bool = False
    more: bool = False
    alone: bool = False
    torch: str = ""
    variant: str = ""
    python: str = ""
    python_path: str = ""
    managed: bool = False
    cuda: str = ""
    cudnn: str = ""
    nccl: str = ""
    fabricmanager: str = ""
    dcgm: str = ""
    container_toolkit: str = ""

    @property
    def branch(self) -> int:
        """The driver's branch; 0 without a driver."""
        return int(self.driver.split(".")[0]) if self.driver else 0

    @property
    def packaged(self) -> bool:
        """Whether anything of it is installed as packages."""
        return self.more or (bool(self.driver) and not self.kept)

    def having(self, **more: Any) -> Draft:
        """Return it with other parts."""
        return replace(self, **more)


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that a draft does not keep. message is one sentence with both values; part is what is wrong with it."""

    rule: str
    part: str
    found: str
    needed: str
    message: str
    warning: bool = False

    def source(self, tables: Tables) -> str:
        """Return where the rule is from."""
        row: Mapping[str, Any] = tables.rule(self.rule)
        return str(row.get("src", ""))


def broken(rule: str, part: str, found: object, needed: object, message: str) -> Violation:
    """Return a violation that refuses."""
    return Violation(rule, part, str(found), str(needed), message)


def doubtful(rule: str, part: str, found: object, needed: object, message: str) -> Violation:
    """Return a violation that only warns."""
    return Violation(rule, part, str(found), str(needed), message, warning=True)
