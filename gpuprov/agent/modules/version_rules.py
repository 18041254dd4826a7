"""The rules that a simulated change of packages must keep. Pure; each gives Refusals."""

from __future__ import annotations

import re

from gpuprov.agent.modules.version_set import Refusal, Wanted, is_driver, matches, one_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from gpuprov.agent.modules.version_set import Meta, Step

#: A package without dependencies that takes no more than this has no content but its licence.
_EMPTY_KB = 64
#: Small packages without dependencies whose one small file is their purpose.
_SMALL = ("*pinning*", "*keyring*", "*-repo-*", "*-config", "*-release")


class Planned:
    """A simulated change, with all that the rules ask about it.

    after: name -> version once it is done, of what is wanted and of what changes. metas: of the wanted
    packages that would be installed. held: names on hold. sources: name -> origin, as far as it is known.
    """

    __slots__ = ("after", "held", "metas", "sources", "steps")

    def __init__(
        self,
        steps: Sequence[Step],
        after: Mapping[str, str],
        metas: Mapping[str, Meta],
        held: Sequence[str],
        sources: Mapping[str, str],
    ) -> None:
        self.steps = steps
        self.after = after
        self.metas = metas
        self.held = held
        self.sources = sources


def judge(planned: Planned, wanted: Sequence[Wanted], args: Mapping[str, Any]) -> list[Refusal]:
    """Return all reasons against a planned change."""
    names = [one.name for one in wanted]
    ours = [*names, *args["absent"], *args["family"]]
    refusals = _others(planned.steps, ours, planned.held)
    if not args["allow_downgrade"]:
        refusals += [_downgrade(step) for step in planned.steps if step.action == "downgrade"]
    refusals += _versions(planned.after, wanted)
    for one in wanted:
        refusals += _content(one, planned)
    refusals += _brought(planned.after, args["brings"])
    return refusals + _origins(planned.sources)


def _others(steps: Sequence[Step], ours: Sequence[str], held: Sequence[str]) -> list[Refusal]:
    """Return what would happen to packages that this task does not name."""
    refusals = []
    for step in steps:
        if one_of(step.name, ours):
            continue
        if step.name in held and step.action not in ("install", "configure"):
            message = "%s is on hold at %s, and the change would %s it" % (step.name, step.old, step.action)
            remedy = "name it in packages or family, or release its hold"
            refusals.append(Refusal("packages-held", step.name, step.old, step.new or "absent", message, remedy))
        elif step.action == "remove":
            message = "%s %s would be removed, too" % (step.name, step.old)
            remedy = "when that is meant, name it in absent or family"
            refusals.append(Refusal("would-remove", step.name, step.old, "stays", message, remedy))
        elif step.action == "downgrade":
            message = "%s would be downgraded from %s to %s, too" % (step.name, step.old, step.new)
            remedy = "when that is meant, name it in packages or family"
            refusals.append(Refusal("downgrade", step.name, step.old, step.new, message, remedy))
    return refusals


def _downgrade(step: Step) -> Refusal:
    message = "%s would be downgraded from %s to %s" % (step.name, step.old, step.new)
    return Refusal("downgrade", step.name, step.old, step.new, message, "allow_downgrade: true permits it")


def _versions(after: Mapping[str, str], wanted: Sequence[Wanted]) -> list[Refusal]:
    refusals = []
    for one in wanted:
        version = after.get(one.name, "")
        if not one.fits(version):
            message = "%s would be %s, wanted is %s" % (one.name, version or "absent", one.version or "any version")
            remedy = "another package of the set, or a pin of this host, asks for that version: name the whole set"
            refusals.append(Refusal("version-other", one.name, version, one.version, message, remedy))
    return refusals


def _content(one: Wanted, planned: Planned) -> list[Refusal]:
    """Return the refusal of a metapackage that brings nothing, or another version than its name and want say."""
    meta = planned.metas.get(one.name)
    if meta is None or not one.version:
        return []
    if not meta.depends and meta.size_kb <= _EMPTY_KB and not one_of(one.name, _SMALL):
        message = "%s %s is empty: it installs and brings nothing" % (one.name, planned.after.get(one.name, ""))
        remedy = "NVIDIA's cuda-drivers is empty from 615 on: choose the open flavour, or a branch up to 580"
        return [Refusal("package-empty", one.name, "no content, no dependencies", one.version, message, remedy)]
    for name, _ in meta.depends:
        version = planned.after.get(name, "")
        if name != one.name and version and _twin(name) == _twin(one.name) and not matches(version, one.version):
            message = "%s is a stub that brings %s %s, wanted is %s" % (one.name, name, version, one.version)
            remedy = "the branch has ended in this repository: choose that of %s, or another repository" % name
            return [Refusal("package-stub", one.name, "%s %s" % (name, version), one.version, message, remedy)]
    return []


def _twin(name: str) -> str:
    """Return a name without its numbers: packages of two branches have the same."""
    return re.sub(r"\d+", "#", name)


def _brought(after: Mapping[str, str], brings: Sequence[Wanted]) -> list[Refusal]:
    refusals = []
    for one in brings:
        found = {name: version for name, version in after.items() if one_of(name, [one.name])}
        if not any(one.fits(version) for version in found.values()):
            there = ", ".join("%s %s" % item for item in sorted(found.items())) or "no such package"
            message = "the set brings %s, not %s" % (there, one)
            remedy = "a metapackage of this set is empty or a stub: name the packages that have the files"
            refusals.append(Refusal("brings-nothing", one.name, there, one.version, message, remedy))
    return refusals


def _origins(sources: Mapping[str, str]) -> list[Refusal]:
    """Return the refusal of a driver whose parts come from the distribution and from NVIDIA."""
    origins: dict[str, list[str]] = {}
    for name in sorted(sources):
        if is_driver(name) and sources[name]:
            origins.setdefault(_origin(sources[name]), []).append(name)
    if len(origins) < 2:
        return []
    parts = ["%s from %s" % (_some(names), origin) for origin, names in sorted(origins.items())]
    message = "parts of the driver would come from different repositories: " + "; ".join(parts)
    remedy = "take all from one: a negative pin (gpuprov_repository: pin) keeps the other one's packages away"
    return [Refusal("origins-mixed", origins[max(origins)][0], "; ".join(parts), "one origin", message, remedy)]


def _origin(source: str) -> str:
    """Return the origin that a source belongs to: NVIDIA's repositories are one, a distribution's are one."""
    lower = source.lower()
    if "nvidia" in lower or lower.startswith("cuda"):
        return "NVIDIA"
    return re.split(r"[-:/\s]", source, maxsplit=1)[0] or source


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" and %d more" % (len(names) - 3) if len(names) > 3 else "")
