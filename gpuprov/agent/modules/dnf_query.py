"""What dnf and rpm know, asked through their own programs and read from their texts. Nothing is changed."""

from __future__ import annotations

import os
import re
from functools import cmp_to_key

from gpuprov.agent.modules.base import ProbeError
from gpuprov.agent.modules.dnf_command import dnf_program, failure, run_dnf
from gpuprov.agent.modules.version_set import Candidate, Meta, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gpuprov.agent.modules.base import Call

LOCK_CONF = "/etc/dnf/plugins/versionlock.conf"
_ALL = "%{NAME}\\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\\t%{ARCH}\\t%{INSTALLTIME}\\n"
#: Parts of a package list that is too long for one answer.
_PARTS = ("[a-k]*", "[l-o]*", "p*", "[!a-p]*")
#: What a section of dnf's transaction table means.
_SECTIONS = (
    ("Installing", "install"),
    ("Upgrading", "upgrade"),
    ("Downgrading", "downgrade"),
    ("Reinstalling", "reinstall"),
    ("Removing", "remove"),
)
_ROW = re.compile(r"^ (\S+)\s+(\S+)\s+(\S*\d\S*)\s+(\S+)\s+[\d.]+(?: [kMGT])?\s*$")
_SEGMENT = re.compile(r"\d+|[a-zA-Z]+|~|\^")


class Installed:
    """One package of rpm's database."""

    __slots__ = ("arch", "name", "time", "version")

    def __init__(self, name: str, version: str, arch: str, time: int) -> None:
        self.name = name
        self.version = version
        self.arch = arch
        self.time = time

    @property
    def nevra(self) -> str:
        """name-epoch:version-release.arch, always with the epoch."""
        return "%s-%s.%s" % (self.name, with_epoch(self.version), self.arch)


def installed(call: Call) -> list[Installed]:
    """Return all packages, the newest installation last. Raises ProbeError."""
    done = call.system.run(["rpm", "-qa", "--qf", _ALL], call.env, timeout_s=call.timeout_s)
    outputs = [done]
    if done.dropped:
        outputs = [call.system.run(["rpm", "-qa", "--qf", _ALL, part], call.env) for part in _PARTS]
    if any(one.rc != 0 or one.dropped for one in outputs):
        raise ProbeError("rpm does not list its packages: %s" % (done.last_line or done.why))
    found = []
    for line in "".join(one.out for one in outputs).splitlines():
        words = line.split("\t")
        if len(words) == 4:
            found.append(Installed(words[0], plain(words[1]), words[2], int(words[3])))
    return sorted(found, key=lambda one: one.time)


def candidates(call: Call, names: Sequence[str]) -> dict[str, list[Candidate]]:
    """Return name -> the versions that the sources offer, newest first."""
    found: dict[str, list[Candidate]] = {}
    for name, version, source in _query(call, "%{repoid}", names):
        if not any(one.version == version for one in found.setdefault(name, [])):
            found[name].append(Candidate(version, source))
    for offered in found.values():
        offered.sort(key=cmp_to_key(lambda one, other: compare(one.version, other.version)), reverse=True)
    return found


def metas(call: Call, versions: Mapping[str, str]) -> dict[str, Meta]:
    """Return name -> what the sources say of these versions; a release need not be given."""
    specs = ["%s-%s" % item for item in sorted(versions.items())]
    found = {}
    for name, _, said in _query(call, "%{installsize}\t%{requires}", specs):
        size, _, requires = said.partition("\t")
        found[name] = Meta([(one, "") for one in _relations(requires)], int(size) // 1024 if size.isdigit() else 0)
    return found


def origins(call: Call, names: Sequence[str]) -> dict[str, str]:
    """Return name -> the repository that an installed package came from."""
    found = {name: repo for name, _, repo in _query(call, "%{from_repo}", names, "--installed")}
    return {name: repo for name, repo in found.items() if repo}


def free() -> list[str]:
    """Return the word that makes dnf see versions beyond locks: which locks may give way is judged by gpuprov."""
    return ["--disableplugin=versionlock"] if os.path.exists(LOCK_CONF) else []


def simulate(call: Call, words: Sequence[str], script: bytes) -> list[Step]:
    """Return what dnf would do. Raises ModuleError with dnf's reason when it could not."""
    done = run_dnf(call, ["--assumeno", *words], script)
    if done.dropped:
        raise ProbeError("dnf's simulation said more than can be kept: %d bytes left out" % done.dropped)
    steps = list(_steps(done.out))
    if not steps and done.rc != 0:
        raise failure(done)
    return steps


def _steps(text: str) -> Iterator[Step]:
    """Yield the rows of dnf's table. A long name has a line of its own: the rest follows on the next."""
    action, kept = "", ""
    for line in text.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            action = next((word for start, word in _SECTIONS if line.startswith(start)), "")
            kept = ""
            continue
        row = _ROW.match(kept + line)
        kept = line + " " if re.match(r"^ \S+$", line) else ""
        if row and action:
            version = plain(row.group(3))
            gone = action == "remove"
            yield Step(action, row.group(1), version if gone else "", "" if gone else version, row.group(4))


def _query(call: Call, what: str, specs: Sequence[str], *more: str) -> Iterator[tuple[str, str, str]]:
    if not specs:
        return
    form = "%{name}\t%{epoch}:%{version}-%{release}\t" + what + "\x1e"
    words = ["-q", *free(), "repoquery", *(more or ["--available", "--showduplicates"]), "--qf", form, *specs]
    done = run_dnf(call, words)
    if done.rc != 0:
        raise failure(done)
    if done.dropped:
        raise ProbeError("%s said more than can be kept: %d bytes left out" % (dnf_program(call), done.dropped))
    for record in done.out.split("\x1e"):
        name, _, rest = record.strip("\n").partition("\t")
        version, _, said = rest.partition("\t")
        if version:
            yield name, plain(version), said


def _relations(text: str) -> Iterator[str]:
    """Yield the names of what a package requires; versions are left to dnf, which chooses them itself."""
    for line in text.splitlines():
        name = line.strip().split(" ", 1)[0]
        if name and not name.startswith(("rpmlib(", "config(", "/")):
            yield name


def plain(version: str) -> str:
    """Return a version without an epoch of 0, as dnf writes it."""
    return version[2:] if version.startswith("0:") else version


def with_epoch(version: str) -> str:
    """Return a version with its epoch, also when that is 0."""
    return version if ":" in version else "0:" + version


def compare(one: str, other: str) -> int:
    """Return -1, 0 or 1 as rpm orders [epoch:]version-release."""
    for mine, theirs in zip(_parts(one), _parts(other)):
        result = _compare(mine, theirs)
        if result:
            return result
    return 0


def _parts(version: str) -> tuple[str, str, str]:
    epoch, _, rest = with_epoch(version).partition(":")
    number, _, release = rest.partition("-")
    return epoch, number, release


def _compare(one: str, other: str) -> int:
    """Order two strings segment by segment: ~ sorts before the end, ^ after it, numbers above letters."""
    mine, theirs = _SEGMENT.findall(one), _SEGMENT.findall(other)
    for index in range(max(len(mine), len(theirs))):
        a = mine[index] if index < len(mine) else ""
        b = theirs[index] if index < len(theirs) else ""
        if _rank(a) != _rank(b):
            return -1 if _rank(a) < _rank(b) else 1
    return 0


def _rank(segment: str) -> tuple[int, int, str]:
    if segment.isdigit():
        return 4, int(segment), ""
    return {"~": 0, "": 1, "^": 2}.get(segment, 3), 0, segment
