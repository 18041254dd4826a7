"""A set of packages through apt: what is there, what would happen, and doing it."""

from __future__ import annotations

import os
import re
import time

from gpuprov.agent.modules import apt_query
from gpuprov.agent.modules.apt_command import apt_get, configure
from gpuprov.agent.modules.base import ModuleError
from gpuprov.agent.modules.dpkg import Dpkg
from gpuprov.agent.modules.version_set import Candidate, one_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gpuprov.agent.modules.base import Call
    from gpuprov.agent.modules.version_set import Meta, Step

#: What apt must not do on a host with jobs on it: restart services on its own, after libraries changed.
_ENV = {"NEEDRESTART_SUSPEND": "1"}
_CONFFILES = ("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold")
#: Reading the sources is tried again when the network fails or a mirror is being updated.
_TRIES = 3
_AGAIN = ("network", "hash-mismatch")


class AptSet:
    """Packages of this host as dpkg and apt see them."""

    def __init__(self, call: Call) -> None:
        call.env = {**_ENV, **call.env}
        self._call = call
        self._dpkg = Dpkg(call.system)

    def forget(self) -> None:
        """Read dpkg's database again."""
        self._dpkg = Dpkg(self._call.system)

    def version(self, name: str) -> str:
        """Return the version that is installed and works, or ""."""
        package = self._dpkg.find(name)
        return package.version if package is not None and package.works else ""

    def present(self, name: str) -> bool:
        """Say whether the package is there in any state, broken ones too."""
        package = self._dpkg.find(name)
        return package is not None and (package.works or package.broken)

    def matching(self, patterns: Sequence[str]) -> list[str]:
        """Return the installed packages that match names and patterns."""
        names = {name for pattern in patterns for name in self._dpkg.matching(pattern)}
        return sorted(names | {name for name in self._dpkg.broken() if one_of(name, patterns)})

    def leftovers(self, patterns: Sequence[str]) -> list[str]:
        """Return the removed packages, of these, that left configuration files."""
        return sorted({name for pattern in patterns for name in self._dpkg.leftovers(pattern)})

    def broken(self) -> list[str]:
        """Return the packages that are neither installed nor absent: "nvidia-dkms-580 is half-configured"."""
        found = ((name, self._dpkg.find(name)) for name in self._dpkg.broken())
        return ["%s is %s" % (name, package.state) for name, package in found if package is not None]

    def held(self) -> list[str]:
        """Return the packages on hold."""
        return self._dpkg.held()

    def automatic(self) -> set[str]:
        """Return the packages that go when nothing needs them."""
        return apt_query.automatic(self._call)

    def stream_differs(self, stream: str) -> list[str]:  # noqa: ARG002
        """Return what differs of module streams: apt has none, the argument is for dnf hosts."""
        return []

    def set_stream(self, stream: str) -> Callable[[], None]:  # noqa: ARG002
        """Do nothing: apt has no module streams."""
        return lambda: None

    def candidates(self, names: Sequence[str]) -> dict[str, list[Candidate]]:
        """Return name -> the versions offered, newest first."""
        return apt_query.candidates(self._call, names)

    def metas(self, versions: Mapping[str, str]) -> dict[str, Meta]:
        """Return what the sources say of exactly these versions."""
        return apt_query.metas(self._call, dict(versions))

    def origins_of_installed(self, names: Sequence[str]) -> dict[str, str]:
        """Return name -> label of the source that offers the installed version, as far as one does."""
        labels = apt_query.origins(self._call) if names else {}
        found = {}
        for name, offered in self.candidates(names).items():
            for one in offered:
                if one.version == self.version(name):
                    found[name] = labels.get(one.source, "")
        return found

    def repair(self, about_to_change: Sequence[str], before: Mapping[str, str]) -> list[str]:  # noqa: ARG002
        """Finish what an interrupted or failed dpkg left; return what was broken. Raises ModuleError."""
        broken = self.broken()
        if not broken:
            return []
        try:
            configure(self._call)
        except ModuleError as error:
            self.forget()
            left = [one.split(" ", 1)[0] for one in self.broken()]
            if not set(left) <= set(about_to_change):
                self._fix(error)
        self.forget()
        return broken

    def _fix(self, first: ModuleError) -> None:
        """Let apt complete what dpkg alone could not; nothing may be removed for it."""
        try:
            apt_get(self._call, "install", "-f", "--no-remove", "--no-install-recommends", *_CONFFILES)
        except ModuleError as error:
            message = "%s since an earlier run, and dpkg --configure -a fails: %s"
            said = message % ("; ".join(self.broken()) or "dpkg was interrupted", first.message)
            hint = "mend its cause (a DKMS build needs headers of the kernel), or name the package in absent"
            raise ModuleError(said, hint, code="dpkg-broken", **error.result) from None

    def refresh(self) -> None:
        """Read the package sources. Raises ModuleError."""
        for left in reversed(range(_TRIES)):
            try:
                apt_get(self._call, "update", "-o", "APT::Update::Error-Mode=any")
            except ModuleError as error:
                if not left or error.code not in _AGAIN:
                    raise
                self._call.output("stdout", "%s; trying again" % error.message)
                time.sleep(1.0)
            else:
                return

    def simulate(self, versions: Mapping[str, str], absent: Sequence[str]) -> list[Step]:
        """Return what would be done, without changing anything. Raises ModuleError with apt's reason."""
        try:
            return apt_query.simulate(self._call, self._words(versions, absent))
        except ModuleError as error:
            if error.code == "dependencies":
                error.message = "the set cannot be installed, nothing was changed: %s" % apt_query.unmet(error)
                error.hint = "versions in the repository disagree, or other packages of the host are in the way"
            raise

    def apply(self, versions: Mapping[str, str], absent: Sequence[str]) -> str:
        """Do it, in one transaction; return what apt said. Raises ModuleError."""
        said = ""
        if versions or self.matching(absent):
            said = apt_get(self._call, *self._words(versions, absent), *_CONFFILES).out
            self.forget()
        leftovers = self.leftovers(absent) if self._call.args["purge"] else []
        if leftovers:
            self._run(["dpkg", "--purge", *leftovers])
        return said

    def _words(self, versions: Mapping[str, str], absent: Sequence[str]) -> list[str]:
        words = ["install", "--allow-downgrades", "--allow-change-held-packages", "--ignore-hold"]
        words += [] if self._call.args["install_recommends"] else ["--no-install-recommends"]
        words += ["--purge"] if self._call.args["purge"] else []
        words += ["%s=%s" % item for item in sorted(versions.items())]
        return words + ["%s-" % name for name in self.matching(absent)]

    def hold(self, names: Sequence[str]) -> None:
        """Put packages on hold."""
        self._run(["apt-mark", "hold", *names])

    def unhold(self, names: Sequence[str]) -> None:
        """Release the hold of packages."""
        self._run(["apt-mark", "unhold", *names])

    def keep(self, names: Sequence[str]) -> None:
        """Mark packages as asked for, so that they stay when nothing needs them."""
        self._run(["apt-mark", "manual", *names])

    def room(self, steps: Sequence[Step]) -> str:
        """Return why what is new does not fit on the disk, or ""."""
        new = {step.name: step.new for step in steps if step.new and not step.old}
        size_kb = sum(meta.size_kb for meta in self.metas(new).values())
        found = os.statvfs("/usr")
        free_kb = found.f_bavail * found.f_frsize // 1024
        if size_kb <= free_kb:
            return ""
        return "the set takes %d MB, and /usr has %d MB free" % (size_kb >> 10, free_kb >> 10)

    def _run(self, words: list[str]) -> None:
        done = self._call.system.run(words, self._call.env, timeout_s=self._call.timeout_s)
        if done.rc != 0:
            code = "disk-full" if re.search("No space left", done.err) else "apt-mark-failed"
            raise ModuleError("%s: %s" % (" ".join(words[:2]), done.last_line or done.why), code=code)
