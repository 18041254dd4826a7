"""What apt knows, asked through its own programs and read from their texts. Nothing is changed."""

from __future__ import annotations

import re

from gpuprov.agent.modules.apt_command import apt_get
from gpuprov.agent.modules.base import ModuleError, ProbeError
from gpuprov.agent.modules.version_set import Candidate, Meta, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gpuprov.agent.modules.base import Call

AUTOMATIC = "/var/lib/apt/extended_states"
#: Names per process: NVIDIA's repositories keep hundreds of versions of each.
_AT_ONCE = 8
_STEP = re.compile(r"^(Inst|Remv|Purg|Conf) (\S+)(?: \[([^\]]*)\])?(?: \((\S+)([^\[\n]*)\[[^\]]*\]\))?", re.MULTILINE)
_VERSION = re.compile(r"^ (?:\*\*\*|   ) (\S+) (-?\d+)$")
_SOURCE = re.compile(r"^ {8,}-?\d+ (\S.*)$")
_RELATION = re.compile(r"^\s*([^\s(:]+)(?::\S+)?\s*(?:\(\s*([<>=]+)\s*([^)\s]+)\s*\))?")


def candidates(call: Call, names: Sequence[str]) -> dict[str, list[Candidate]]:
    """Return name -> the versions that the sources offer, newest first. Raises ModuleError, ProbeError."""
    found: dict[str, list[Candidate]] = {}
    for some in _chunks(names, _AT_ONCE):
        name = ""
        for line in _ask(call, ["apt-cache", "policy", *some]).splitlines():
            if line.endswith(":") and not line.startswith(" "):
                name = line[:-1]
                found[name] = []
                continue
            version, source = _VERSION.match(line), _SOURCE.match(line)
            if version:
                found[name].append(Candidate(version.group(1), "", int(version.group(2)) >= 0))
            elif source and found.get(name) and not source.group(1).startswith("/var/lib/dpkg/status"):
                found[name][-1].source = found[name][-1].source or source.group(1)
    # What only dpkg knows, since it is installed, is offered by nobody.
    return {name: [one for one in offered if one.source] for name, offered in found.items()}


def metas(call: Call, versions: dict[str, str]) -> dict[str, Meta]:
    """Return name -> what the sources say of exactly these versions."""
    found: dict[str, Meta] = {}
    for some in _chunks(["%s=%s" % item for item in sorted(versions.items())], 50):
        for stanza in _ask(call, ["apt-cache", "show", *some]).split("\n\n"):
            fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", stanza, re.MULTILINE))
            if "Version" in fields and versions.get(fields.get("Package", "")) == fields["Version"]:
                depends = ",".join(fields[key] for key in ("Pre-Depends", "Depends") if fields.get(key))
                size = fields.get("Installed-Size", "0")
                found[fields["Package"]] = Meta(list(_relations(depends)), int(size) if size.isdigit() else 0)
    return found


def origins(call: Call) -> dict[str, str]:
    """Return "URL suite/component" as apt-cache policy writes sources -> the label of their release."""
    found, source = {}, ""
    for line in _ask(call, ["apt-cache", "policy"]).splitlines():
        match = _SOURCE.match(" " * 8 + line.strip())
        if match:
            source = match.group(1)
        label = re.search(r"\bl=([^,]*)", line) if line.strip().startswith("release ") else None
        if label and source:
            found[source] = label.group(1)
    return found


def simulate(call: Call, words: Sequence[str]) -> list[Step]:
    """Return what apt-get would do. Raises ModuleError with apt's reason when it could not."""
    said = apt_get(call, *words, simulate=True)
    if said.dropped:
        raise ProbeError("apt-get's simulation said more than can be kept: %d bytes left out" % said.dropped)
    steps: dict[str, Step] = {}
    for action, name, old, new, source in _STEP.findall(said.out):
        if action in ("Remv", "Purg"):
            steps[name] = Step("remove", name, old)
        elif name not in steps:  # Conf follows Inst; alone, it finishes what an earlier run unpacked
            kind = _direction(call, old, new) if action == "Inst" else "configure"
            steps[name] = Step(kind, name, old, new, source.split(",")[0].strip())
    return list(steps.values())


def automatic(call: Call) -> set[str]:
    """Return the packages that apt removes when nothing needs them any more."""
    text = call.system.read_text(AUTOMATIC)
    found = re.findall(r"^Package: (\S+)\n(?:Architecture: \S+\n)?Auto-Installed: 1$", text, re.MULTILINE)
    return set(found)


def unmet(error: ModuleError) -> str:
    """Return what apt says does not fit together, all of it in one line."""
    lines = re.findall(
        r"^ (\S+) : ((?:Pre)?Depends|Conflicts|Breaks): (.*)$", error.result.get("stdout", ""), re.MULTILINE
    )
    return "; ".join("%s %s %s" % (name, verb.lower(), rest) for name, verb, rest in lines[:4])


def _direction(call: Call, old: str, new: str) -> str:
    if not old:
        return "install"
    if old == new:
        return "reinstall"
    older = call.system.run(["dpkg", "--compare-versions", new, "lt", old]).rc == 0
    return "downgrade" if older else "upgrade"


def _relations(text: str) -> Iterator[tuple[str, str]]:
    """Yield (name, version that it must equal or "") of the first alternative of each dependency."""
    for part in text.split(","):
        match = _RELATION.match(part.split("|")[0])
        if match:
            yield match.group(1), match.group(3) if match.group(2) == "=" else ""


def _ask(call: Call, words: list[str]) -> str:
    done = call.system.run(words, call.env, timeout_s=call.timeout_s)
    if done.dropped:
        raise ProbeError("%s said more than can be kept: %d bytes left out" % (words[0], done.dropped))
    if done.rc != 0 and "No packages found" not in done.err and "Unable to locate" not in done.err:
        raise ProbeError("%s: %s" % (" ".join(words[:2]), done.last_line or done.why))
    return done.out


def _chunks(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), size):
        yield names[start : start + size]
