"""gpuprov trust: show the host keys of a fleet, and record those that a person believes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from gpuprov.cli.options import add_connection_options
from gpuprov.errors import EXIT_ERROR, EXIT_OK, EXIT_UNREACHABLE, Problem, SourceErrors

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from gpuprov.transport.survey import Finding
    from gpuprov.transport.target import Target
    from gpuprov.transport.ways import Ways

#: What the person reads for each verdict; only what needs a look is loud.
WORDS = {"new": "new", "same": "same", "changed": "CHANGED", "revoked": "REVOKED", "unreachable": "unreachable"}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpuprov trust`."""
    parser.add_argument("inventory", metavar="INVENTORY", help="inventory file or folder")
    parser.add_argument("-l", "--limit", metavar="PATTERN", help="only these hosts")
    parser.add_argument("-y", "--yes", action="store_true", help="record new keys without asking")
    parser.add_argument("--replace", action="store_true", help="with --yes: replace CHANGED keys as well")
    add_connection_options(parser)


def run(options: argparse.Namespace) -> int:
    """Look at the keys of all hosts, ask, record."""
    from gpuprov.transport.survey import rounds, survey
    from gpuprov.transport.ways import Ways

    targets, ways = _targets(options)
    assert isinstance(ways, Ways)
    code = EXIT_OK
    try:
        for hops in rounds(ways.route(target) for target in targets):
            findings = survey(ways, hops)
            _show(findings)
            code = max(code, _settle(ways, findings, options))
    finally:
        ways.close()
    return code


def _targets(options: argparse.Namespace) -> tuple[list[Target], Ways]:
    from gpuprov.compile import Compiler
    from gpuprov.load.inventory import load_inventory
    from gpuprov.load.patterns import select
    from gpuprov.model import Playbook
    from gpuprov.transport.target import ConnectOptions, target_of
    from gpuprov.transport.ways import Ways

    problems: list[Problem] = []
    inventory = load_inventory(options.inventory, problems)
    if problems:
        raise SourceErrors(problems)
    connect = ConnectOptions(
        user=options.user,
        private_key=options.private_key,
        connect_timeout_s=options.timeout,
        warn=lambda text: print(f"warning: {text}", file=sys.stderr),
    )
    ways = Ways(connect)
    compiler = Compiler(Playbook(options.inventory, ()), inventory, select=select, run="trust")
    targets = []
    for name in select(inventory, "all", options.limit):
        if inventory.hosts[name].value("gpuprov_lab"):
            continue  # the lab records the keys of its hosts itself
        try:
            target = target_of(name, compiler.settings(name), connect)
        except SourceErrors as errors:
            problems += errors.problems
            continue
        if target.connection == "ssh":
            targets.append(target)
    problems += ways.check(targets)
    if problems:
        raise SourceErrors(dict.fromkeys(problems))
    return targets, ways


def _show(findings: Sequence[Finding]) -> None:
    for verdict in WORDS:
        for finding in findings:
            if finding.verdict == verdict:
                print("\n".join(_lines(finding)))
    counts = {verdict: sum(f.verdict == verdict for f in findings) for verdict in WORDS}
    said = ", ".join(f"{count} {WORDS[verdict]}" for verdict, count in counts.items() if count)
    print(f"{len(findings)} host{'s' if len(findings) != 1 else ''}: {said}")


def _lines(finding: Finding) -> list[str]:
    head = f"{WORDS[finding.verdict]:<12}{finding.hop.who}"
    if finding.error is not None:
        return [f"{head}: {finding.error.message}"]
    if finding.verdict == "same":
        return [head]
    lines = [head, *(f"{'':<12}  offers     {key.type} {key.fingerprint}" for key in finding.keys)]
    lines += [f"{'':<12}  on record  {e.key.type} {e.key.fingerprint}  {e.where}" for e in finding.recorded]
    return lines


def _settle(ways: Ways, findings: Sequence[Finding], options: argparse.Namespace) -> int:
    """Record what the person wants recorded; return the exit code of this round."""
    from gpuprov.transport.survey import record

    new = [f for f in findings if f.verdict == "new"]
    changed = [f for f in findings if f.verdict == "changed"]
    beyond_help = any(f.verdict in {"revoked", "unreachable"} for f in findings)
    code = EXIT_UNREACHABLE if beyond_help else EXIT_OK
    agreed: list[Finding] = []
    if new:
        agreed += new if options.yes or _ask(f"record the keys of {_count(new)} in {_files(new)}?") else []
    if changed:
        replace = options.replace if options.yes else _ask(f"replace the CHANGED keys of {_count(changed)}?")
        agreed += changed if replace else []
    for finding in agreed:
        record(ways, finding)
    if agreed:
        print(f"recorded the keys of {_count(agreed)} in {_files(agreed)}")
    left = len(new) + len(changed) - len(agreed)
    if left:
        hint = (
            "compare the fingerprints, then: --yes --replace" if options.yes else "nothing is recorded unasked: --yes"
        )
        print(f"{left} host{'s' if left != 1 else ''} left as before\nhint: {hint}", file=sys.stderr)
        code = max(code, EXIT_ERROR)
    return code


def _ask(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}


def _count(findings: Sequence[Finding]) -> str:
    return f"{len(findings)} host{'s' if len(findings) != 1 else ''}"


def _files(findings: Sequence[Finding]) -> str:
    return ", ".join(dict.fromkeys(finding.hop.record_in for finding in findings))
