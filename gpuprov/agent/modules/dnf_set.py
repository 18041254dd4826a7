"""A set of packages through dnf 4: what is there, what would happen, and doing it. Holds are versionlock's."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase

from gpuprov.agent.modules import dnf_query
from gpuprov.agent.modules.base import ModuleError
from gpuprov.agent.modules.dnf_command import dnf, dnf_program
from gpuprov.agent.modules.dnf_streams import Streams
from gpuprov.agent.modules.version_set import is_driver, one_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gpuprov.agent.modules.base import Call
    from gpuprov.agent.modules.version_set import Candidate, Meta, Step

#: Whose doubles are damage: of kernels there may be several.
_NO_DOUBLES = ("cuda-*", "libcudnn*", "libnccl*", "datacenter-gpu-manager*")


class DnfSet:
    """Packages of this host as rpm and dnf see them."""

    def __init__(self, call: Call) -> None:
        if os.path.basename(os.path.realpath(dnf_program(call))).startswith("dnf5"):
            hint = "RHEL, Rocky and AlmaLinux 8 to 10 have dnf 4"
            raise ModuleError("this host has dnf 5, which gpuprov_packages does not know", hint, code="dnf5")
        self._call = call
        self.forget()

    def forget(self) -> None:
        """Read rpm's database again, when it is needed next."""
        self._all: list[dnf_query.Installed] | None = None

    def _installed(self) -> list[dnf_query.Installed]:
        if self._all is None:
            self._all = dnf_query.installed(self._call)
        return self._all

    def version(self, name: str) -> str:
        """Return the version that is installed, of several the one that came last, or ""."""
        found = [one.version for one in self._installed() if one.name == name]
        return found[-1] if found else ""

    def present(self, name: str) -> bool:
        """Say whether the package is there."""
        return bool(self.version(name))

    def matching(self, patterns: Sequence[str]) -> list[str]:
        """Return the installed packages that match names and patterns."""
        return sorted({one.name for one in self._installed() if one_of(one.name, patterns)})

    def leftovers(self, patterns: Sequence[str]) -> list[str]:  # noqa: ARG002
        """Return nothing: rpm keeps no record of configuration files."""
        return []

    def broken(self) -> list[str]:
        """Return the packages that are there twice: an interrupted transaction left old versions behind."""
        return ["%s is installed twice" % one.name for one in self._doubles()]

    def _doubles(self) -> list[dnf_query.Installed]:
        """Return the older of each two versions."""
        last: dict[tuple[str, str], dnf_query.Installed] = {}
        older = []
        for one in self._installed():
            if is_driver(one.name) or one_of(one.name, _NO_DOUBLES):
                if (one.name, one.arch) in last:
                    older.append(last[one.name, one.arch])
                last[one.name, one.arch] = one
        return older

    def held(self) -> list[str]:
        """Return the installed packages that versionlock locks."""
        locks = self._lock_lines()
        return sorted({one.name for one in self._installed() if any(_locks(lock, one) for lock in locks)})

    def automatic(self) -> set[str]:
        """Return nothing: dnf itself notes what was asked for by name."""
        return set()

    def stream_differs(self, stream: str) -> list[str]:
        """Return what differs of the module stream that is enabled."""
        return Streams(self._call, stream).differs() if stream else []

    def set_stream(self, stream: str) -> Callable[[], None]:
        """Enable a module stream instead of the one that is; return what takes that back. Raises ModuleError."""
        return Streams(self._call, stream).enable()

    def candidates(self, names: Sequence[str]) -> dict[str, list[Candidate]]:
        """Return name -> the versions offered, newest first."""
        return dnf_query.candidates(self._call, names)

    def metas(self, versions: Mapping[str, str]) -> dict[str, Meta]:
        """Return what the sources say of these versions."""
        return dnf_query.metas(self._call, versions)

    def origins_of_installed(self, names: Sequence[str]) -> dict[str, str]:
        """Return name -> repository that it was installed from."""
        return dnf_query.origins(self._call, names)

    def repair(self, about_to_change: Sequence[str], before: Mapping[str, str]) -> list[str]:  # noqa: ARG002
        """Take away what an interrupted transaction left of old versions; run the scripts of new ones again."""
        doubles = self._doubles()
        if doubles:
            done = self._call.system.run(["rpm", "-e", "--nodeps", *(one.nevra for one in doubles)], self._call.env)
            if done.rc != 0:
                message = "%s is installed twice, and rpm -e fails: %s" % (doubles[0].name, done.last_line or done.why)
                raise ModuleError(message, "rpm -qa --last shows what came when", code="rpm-broken")
            self.forget()
        again = sorted(name for name, version in before.items() if self.version(name) not in ("", version))
        if again:
            dnf(self._call, *dnf_query.free(), "reinstall", *again)
        return ["%s was installed twice" % one.name for one in doubles] + ["%s was cut short" % name for name in again]

    def refresh(self) -> None:
        """Read the package sources. Raises ModuleError."""
        dnf(self._call, "makecache", "--refresh", "--setopt=skip_if_unavailable=False")

    def simulate(self, versions: Mapping[str, str], absent: Sequence[str]) -> list[Step]:
        """Return what would be done, without changing anything. Raises ModuleError with dnf's reason."""
        words, script = self._words(versions, absent)
        try:
            steps = dnf_query.simulate(self._call, words, script) if words else []
        except ModuleError as error:
            if error.code == "dependencies":
                error.message = "the set cannot be installed, nothing was changed: %s" % error.message
                error.hint = "versions in the repository disagree, or other packages of the host are in the way"
            raise
        for step in steps:
            step.old = step.old or self.version(step.name)
        return steps

    def apply(self, versions: Mapping[str, str], absent: Sequence[str]) -> str:
        """Do it, in one transaction; return what dnf said. Raises ModuleError."""
        words, script = self._words(versions, absent)
        return dnf(self._call, *words, stdin=script).out if words else ""

    def _words(self, versions: Mapping[str, str], absent: Sequence[str]) -> tuple[list[str], bytes]:
        """Return dnf's words, and the script for its shell where both directions go in one transaction."""
        options = [*dnf_query.free(), "--allowerasing", "--best"]
        options += [] if self._call.args["install_recommends"] else ["--setopt=install_weak_deps=False"]
        come = ["%s-%s" % item for item in sorted(versions.items())]
        go = self.matching(absent)
        if come and go:
            script = "install %s\nremove %s\nrun\n" % (" ".join(come), " ".join(go))
            return [*options, "shell"], script.encode()
        if not come and not go:
            return [], b""
        return [*options, "install", *come] if come else [*options, "remove", *go], b""

    def hold(self, names: Sequence[str]) -> None:
        """Lock packages at the version that they have. Raises ModuleError."""
        lines = [line for line in self._lock_lines() if _name(line) not in names]
        lines += ["%s-%s.*" % (name, dnf_query.with_epoch(self.version(name))) for name in names]
        self._write_locks(lines)

    def unhold(self, names: Sequence[str]) -> None:
        """Release the locks of packages. Raises ModuleError."""
        self._write_locks([line for line in self._lock_lines() if _name(line) not in names])

    def keep(self, names: Sequence[str]) -> None:
        """Do nothing: what is installed by name stays."""

    def room(self, steps: Sequence[Step]) -> str:  # noqa: ARG002
        """Return nothing: rpm looks for room itself before it begins."""
        return ""

    def _lock_lines(self) -> list[str]:
        text = self._call.system.read_text(_lock_file(self._call))
        return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]

    def _write_locks(self, lines: Sequence[str]) -> None:
        path = _lock_file(self._call)
        if not path:
            hint = "dnf install python3-dnf-plugin-versionlock"
            raise ModuleError(
                "hold needs dnf's versionlock, which this host does not have", hint, "versionlock-missing"
            )
        data = "".join("%s\n" % line for line in lines).encode()
        try:
            self._call.system.replace(path, data=data, mode=0o644)
        except OSError as error:
            raise ModuleError("%s cannot be written: %s" % (path, error.strerror), code="locks-unwritable") from None


def _lock_file(call: Call) -> str:
    """Return where versionlock keeps its list, "" without the plugin."""
    match = re.search(r"^locklist\s*=\s*(\S+)", call.system.read_text(dnf_query.LOCK_CONF), re.MULTILINE)
    return match.group(1) if match else ""


def _name(lock: str) -> str:
    """Return the package that a line of the list names; a pattern as it is."""
    match = re.match(r"^([^!*]+)-\d+:[^-]+-[^-]+$", lock)
    return match.group(1) if match else lock


def _locks(lock: str, one: dnf_query.Installed) -> bool:
    """Say whether a line of the list locks an installed package at the version that it has."""
    short = one.nevra.replace("-0:", "-")
    return fnmatchcase(one.nevra, lock) or fnmatchcase(short, lock)
