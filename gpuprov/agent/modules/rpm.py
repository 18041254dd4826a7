"""What rpm has installed, asked once for many packages."""

from __future__ import annotations

from gpuprov.agent.modules.base import ProbeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuprov.agent.system import System

_FORMAT = "%{NAME}\\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\\t%{ARCH}\\n"
_ABSENT = (" is not installed", "no package provides ")


class Rpm:
    """rpm's database."""

    def __init__(self, system: System) -> None:
        self._system = system

    def installed(self, names: Sequence[str]) -> dict[str, bool]:
        """Return name -> whether it, or something that provides it, is installed. Raises ProbeError.

        A name may carry version, release and architecture, as rpm itself writes them.
        """
        answer = {name: bool(found) for name, found in self._ask([], names).items()}
        rest = [name for name, there in answer.items() if not there]
        if rest:
            answer.update({name: bool(found) for name, found in self._ask(["--whatprovides"], rest).items()})
        return answer

    def version(self, name: str) -> str:
        """Return "epoch:version-release" of an installed package, or ""."""
        found = self._ask([], [name])[name]
        return found[0].split("\t")[1] if found else ""

    def of_file(self, path: str) -> tuple[str, str]:
        """Return (name, "epoch:version-release") of a package file. Raises ProbeError."""
        done = self._run(["-qp", "--nosignature", "--qf", _FORMAT, path])
        words = done[0].strip().split("\t")
        if len(words) != 3:
            raise ProbeError("%s is no package file: %s" % (path, done[1].strip()[:200]))
        return words[0], words[1]

    def _ask(self, options: list[str], names: Sequence[str]) -> dict[str, list[str]]:
        if not names:
            return {}
        # One process for all; asked one by one only when the answers cannot be told apart.
        out, _ = self._run(["-q", *options, "--qf", _FORMAT, *names])
        lines = [line for line in out.splitlines() if line.strip()]
        if len(lines) == len(names):
            return {name: _found([line]) for name, line in zip(names, lines)}
        return {name: _found(self._run(["-q", *options, "--qf", _FORMAT, name])[0].splitlines()) for name in names}

    def _run(self, words: list[str]) -> tuple[str, str]:
        try:
            done = self._system.run(["rpm", *words])
        except FileNotFoundError:
            raise ProbeError("rpm is not on this host", "the dnf module is for RHEL, Rocky, Fedora") from None
        if done.rc != 0 and not any(text in done.out + done.err for text in _ABSENT) and done.err.strip():
            raise ProbeError("rpm: %s" % done.last_line)
        return done.out, done.err


def _found(lines: list[str]) -> list[str]:
    return [line for line in lines if line.count("\t") == 2]
