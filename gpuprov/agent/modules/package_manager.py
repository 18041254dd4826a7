"""What `gpuprov_packages` asks of a package manager. For type checkers only: nothing imports it on hosts."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Protocol

    from gpuprov.agent.modules.version_set import Candidate, Meta, Step
else:
    Protocol = object


class Manager(Protocol):
    """apt_set.AptSet and dnf_set.DnfSet. Methods that change something raise ModuleError."""

    def forget(self) -> None:
        """Read the package database again."""

    def version(self, name: str) -> str:
        """Return the version that is installed and works, or ""."""

    def present(self, name: str) -> bool:
        """Say whether the package is there in any state, broken ones too."""

    def matching(self, patterns: Sequence[str]) -> list[str]:
        """Return the installed packages that match names and patterns."""

    def leftovers(self, patterns: Sequence[str]) -> list[str]:
        """Return the removed packages, of these, that left configuration files."""

    def broken(self) -> list[str]:
        """Return "NAME is STATE" of what is neither installed nor absent."""

    def held(self) -> list[str]:
        """Return the packages on hold."""

    def automatic(self) -> set[str]:
        """Return the packages that go when nothing needs them."""

    def stream_differs(self, stream: str) -> list[str]:
        """Return what differs of module streams."""

    def set_stream(self, stream: str) -> Callable[[], None]:
        """Enable a module stream; return what takes that back."""

    def candidates(self, names: Sequence[str]) -> dict[str, list[Candidate]]:
        """Return name -> the versions offered, newest first."""

    def metas(self, versions: Mapping[str, str]) -> dict[str, Meta]:
        """Return what the sources say of exactly these versions."""

    def origins_of_installed(self, names: Sequence[str]) -> dict[str, str]:
        """Return name -> origin of what is installed, as far as it is known."""

    def repair(self, about_to_change: Sequence[str], before: Mapping[str, str]) -> list[str]:
        """Finish what an interrupted change left; return what was broken.

        What is about to change anyway need not be mended. *before* has the versions of an interrupted change.
        """

    def refresh(self) -> None:
        """Read the package sources."""

    def simulate(self, versions: Mapping[str, str], absent: Sequence[str]) -> list[Step]:
        """Return what would be done, without changing anything."""

    def apply(self, versions: Mapping[str, str], absent: Sequence[str]) -> str:
        """Do it; return what the package manager said."""

    def hold(self, names: Sequence[str]) -> None:
        """Put packages on hold."""

    def unhold(self, names: Sequence[str]) -> None:
        """Release the hold of packages."""

    def keep(self, names: Sequence[str]) -> None:
        """Mark packages as asked for, so that they stay when nothing needs them."""

    def room(self, steps: Sequence[Step]) -> str:
        """Return why what they install does not fit on the disk, or ""."""
