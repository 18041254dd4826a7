"""A host against the table: conditions over its facts, and the patterns over the evidence that its agent collected."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gpuprov.doctor.match import EVIDENCE_LINES, Evidence, Finding, filled, matches, ranked
from gpuprov.templating.problem import TemplateProblem
from gpuprov.templating.renderer import Renderer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpuprov.doctor.table import Condition, Table

#: Facts whose null means that nobody could tell; of the others it means that there is none.
_NULL_IS_UNKNOWN = ("secure_boot", "mok_enrolled")
#: What a person calls the sources of evidence.
SOURCES = {
    "kernel": "the kernel's log",
    "dkms": "the state of DKMS",
    "packages": "the package manager's check",
    "libraries": "the loader's cache",
    "nvidia_smi": "nvidia-smi",
    "services": "the services",
    "environment": "the environment of a login shell",
    "fabric": "InfiniBand devices",
    "torch": "torch in its environment",
}
_WHOSE = re.compile(r"\b(survey|evidence|gpuprov|facts)((?:\.\w+)+)")


@dataclass(frozen=True, slots=True)
class Untold:
    """Something that could not be told of a host, and the rows that therefore say nothing about it."""

    what: str
    rows: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Examined:
    """What one host shows, and what it does not tell."""

    findings: tuple[Finding, ...]
    untold: tuple[Untold, ...]


def examine(table: Table, facts: Mapping[str, Any], evidence: Mapping[str, Any]) -> Examined:
    """Return what *facts* and *evidence* of a host show. Pure; nothing that a host sends makes it raise."""
    found: dict[str, Finding] = {}
    untold = [Untold(f"{SOURCES[name]}: {why}") for name, why in _errors(evidence)]
    if not evidence:
        untold.append(Untold("no evidence was collected on this host"))
    for name in SOURCES:
        for finding in matches(table, _lines(evidence.get(name)), name).values():
            _merge(found, finding)
    missing: dict[str, list[str]] = {}
    renderer = Renderer({}, _variables(facts, evidence))
    for row in table:
        for condition in row.host:
            try:
                if renderer.test(condition.when):
                    _merge(found, filled(row, {}, (Evidence("facts", _seen(renderer, condition)),)))
            except TemplateProblem as problem:
                missing.setdefault(_what(condition, problem, renderer), []).append(row.id)
    untold += [Untold(what, tuple(dict.fromkeys(rows))) for what, rows in missing.items()]
    return Examined(tuple(ranked(found.values())), tuple(untold))


def _variables(facts: Mapping[str, Any], evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Return what conditions may name. What is not known is left out, so that naming it is an error."""
    own = _mapping(facts.get("gpuprov"))
    survey = {k: v for k, v in _mapping(own.get("survey")).items() if v is not None or k not in _NULL_IS_UNKNOWN}
    kernel, sources = _mapping(survey.get("kernel")), survey.get("repositories")
    if kernel:
        survey["kernel"] = {key: value for key, value in kernel.items() if value is not None}
    if isinstance(sources, list) and any(_mapping(one).get("reachable") is None for one in sources):
        del survey["repositories"]  # nobody has asked them
    told = {name: one for name, one in evidence.items() if isinstance(one, dict) and "error" not in one}
    known: dict[str, Any] = {name: one for name, one in told.items() if name in ("packages", "nvidia_smi", "torch")}
    for source, key, name in (
        ("services", "states", "services"),
        ("environment", "variables", "environment"),
        ("environment", "memlock_kib", "memlock_kib"),
        ("libraries", "known", "libraries"),
        ("fabric", "infiniband", "infiniband"),
    ):
        if key in told.get(source, {}):
            known[name] = told[source][key]
    variables = {"facts": facts, "gpuprov": own, "evidence": known}
    return {**variables, "survey": survey} if survey else variables


def _what(condition: Condition, problem: TemplateProblem, renderer: Renderer) -> str:
    """Return what *condition* needs and the host did not tell, the same for every row that lacks it."""
    if "survey" not in renderer and "survey" in condition.when:
        return "no survey of this host"
    for name, way in _WHOSE.findall(condition.when):
        at: Any = renderer.raw(name)[0] if name in renderer else {}
        keys = way[1:].split(".")
        for number, key in enumerate(keys):
            if not isinstance(at, Mapping) or key not in at:
                return _lacking(name, keys[: number + 1], renderer)
            at = at[key]
    return f"facts of an unexpected shape: {problem}"


def _lacking(name: str, keys: list[str], renderer: Renderer) -> str:
    """Return that a fact is not known, with the host's own reason when it gave one."""
    survey = _mapping(renderer.raw("survey")[0]) if name == "survey" else {}
    reasons = _mapping(survey.get("untold"))
    why = reasons.get(".".join(keys)) or reasons.get(keys[0])
    return f"{name}.{'.'.join(keys)} is not known{f': {why}' if why else ''}"


def _seen(renderer: Renderer, condition: Condition) -> str:
    try:
        return " ".join(str(renderer.render(condition.seen)).split())
    except TemplateProblem:
        return condition.when


def _merge(found: dict[str, Finding], finding: Finding) -> None:
    before = found.get(finding.row.id)
    if before is None:
        found[finding.row.id] = finding
        return
    evidence = (*before.evidence, *finding.evidence)
    more = before.more + finding.more + max(0, len(evidence) - EVIDENCE_LINES)
    found[finding.row.id] = replace(before, evidence=evidence[:EVIDENCE_LINES], more=more)


def _errors(evidence: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, one in evidence.items():
        if name in SOURCES and isinstance(one, dict) and "error" in one:
            yield name, str(one["error"])
        elif name in SOURCES and not isinstance(one, dict):
            yield name, "an answer of an unknown shape"
    yield from ((name, "not asked") for name in SOURCES if evidence and name not in evidence)


def _lines(source: object) -> list[str]:
    lines = source.get("lines") if isinstance(source, dict) else None
    return [line for line in lines if isinstance(line, str)] if isinstance(lines, list) else []


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
