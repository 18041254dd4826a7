"""What dpkg has installed, read from its database: 3 ms for many packages instead of a process for each."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase

from gpuprov.agent.modules.base import ProbeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuprov.agent.system import System

STATUS = "/var/lib/dpkg/status"
#: Entries, in files with numbers for names, that are newer than those of the status file.
UPDATES = "/var/lib/dpkg/updates"
#: States in which a package works; the trigger states only wait for somebody else's script.
_WORKING = ("installed", "triggers-pending", "triggers-awaited")
_ABSENT = ("not-installed", "config-files")
_FIELD = re.compile(rb"^(Status|Architecture|Version|Multi-Arch): (.*)$", re.MULTILINE)


class Installed:
    """One package of dpkg's database. state is dpkg's word; want is install, hold, deinstall or purge."""

    __slots__ = ("arch", "name", "state", "version", "want")

    def __init__(self, name: str, arch: str, version: str, want: str, state: str) -> None:
        self.name = name
        self.arch = arch
        self.version = version
        self.want = want
        self.state = state

    @property
    def works(self) -> bool:
        """It is installed completely."""
        return self.state in _WORKING

    @property
    def broken(self) -> bool:
        """It is neither installed completely nor gone: unpacked, half-configured, half-installed."""
        return self.state not in _WORKING and self.state not in _ABSENT


class Dpkg:
    """dpkg's database as it is now."""

    def __init__(self, system: System) -> None:
        self._data = database(system)
        dpkg = next(self._stanzas(b"dpkg"), None)
        self.native = dpkg.arch if dpkg else ""

    def find(self, name: str) -> Installed | None:
        """Return package *name* ("foo" of this machine's architecture, or "foo:i386"), or None."""
        plain, _, arch = name.partition(":")
        for package in self._stanzas(plain.encode()):
            if package.arch == arch or (arch in ("", "native", "any") and package.arch in (self.native, "all")):
                return package
        return None

    def provider(self, name: str) -> str:
        """Return the name of an installed package that provides the virtual package *name*, or ""."""
        pattern = rb"^Provides: (?:.*[ ,])?" + re.escape(name.encode()) + rb"(?: \([^)]*\))?(?:,.*)?$"
        for match in re.finditer(pattern, self._data, re.MULTILINE):
            start = self._data.rfind(b"\nPackage: ", 0, match.start()) + len(b"\nPackage: ")
            package = self.find(self._data[start : self._data.index(b"\n", start)].decode())
            if package is not None and package.works:
                return package.name
        return ""

    def matching(self, pattern: str) -> list[str]:
        """Return the installed packages whose name matches a pattern with * and ?."""
        names = {name.decode() for name in re.findall(rb"^Package: (.*)$", self._data, re.MULTILINE)}
        found = ((name, self.find(name)) for name in sorted(names) if fnmatchcase(name, pattern))
        return [name for name, package in found if package is not None and package.works]

    def leftovers(self, pattern: str) -> list[str]:
        """Return the removed packages with configuration files left whose name matches a pattern."""
        names = {name.decode() for name in re.findall(rb"^Package: (.*)$", self._data, re.MULTILINE)}
        found = ((name, self.find(name)) for name in sorted(names) if fnmatchcase(name, pattern))
        return [name for name, package in found if package is not None and package.state == "config-files"]

    def held(self) -> list[str]:
        """Return the packages on hold."""
        suspects = re.findall(rb"^Package: (.*)\n(?:\S+: .*\n)?Status: hold ", self._data, re.MULTILINE)
        found = ((name, self.find(name)) for name in sorted({name.decode() for name in suspects}))
        return [name for name, package in found if package is not None and package.want == "hold"]

    def broken(self) -> list[str]:
        """Return the packages that are half-installed or half-configured."""
        suspects = re.findall(
            rb"^Package: (.*)\n(?:\S+: .*\n)?Status: \S+ \S+ (?:half-\S+|unpacked)$", self._data, re.M
        )
        found = ((name, self.find(name)) for name in sorted({name.decode() for name in suspects}))
        return [name for name, package in found if package is not None and package.broken]

    def _stanzas(self, name: bytes) -> Iterator[Installed]:
        key, at = b"\nPackage: " + name + b"\n", 0
        while True:
            at = self._data.find(key, at)
            if at < 0:
                return
            end = self._data.find(b"\n\n", at + 1)
            stanza = self._data[at : end if end > 0 else len(self._data)]
            fields = {key: value.decode() for key, value in _FIELD.findall(stanza)}
            want, _, state = [*fields.get(b"Status", "unknown ok not-installed").split(), "", "", ""][:3]
            yield Installed(name.decode(), fields.get(b"Architecture", ""), fields.get(b"Version", ""), want, state)
            at = max(end, at + len(key))


def database(system: System) -> bytes:
    """Return dpkg's status as text, newest entries first. Raises ProbeError."""
    try:
        names = sorted((name for name in os.listdir(UPDATES) if name.isdigit()), reverse=True)
        newer = b"".join(b"\n" + system.read(os.path.join(UPDATES, name)).strip(b"\n") + b"\n" for name in names)
        return newer + b"\n" + system.read(STATUS)
    except FileNotFoundError:
        raise ProbeError("this host has no dpkg database", "the apt module is for Debian and Ubuntu") from None
    except OSError as error:
        raise ProbeError("cannot read dpkg's database: %s" % error) from None
