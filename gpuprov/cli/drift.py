"""`gpuprov drift INVENTORY [HOST...]`: exact differences between wanted, installed, loaded and last applied."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from gpuprov.errors import EXIT_FAILED, EXIT_REFUSED, EXIT_UNHEALTHY, RefusedError, worst_exit

if TYPE_CHECKING:
    import argparse

    from gpuprov.stack.drift import Difference


def register(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    from gpuprov.cli.looking import add_looking_options

    add_looking_options(parser)
    parser.add_argument("--tables", action="append", metavar="FILE", help="rows over those of gpuprov's own tables")


def run(options: argparse.Namespace) -> int:
    """Look, compare, show.

    Returns 0 when all is as wanted, 2 when something differs, 3 when something could not be told, 4 for an
    unreachable and 6 for a refused host.
    """
    from gpuprov.cli.looking import look_at, show_unreachable
    from gpuprov.stack.drift import differences

    looked = look_at(options, survey=True)
    found: dict[str, list[Difference]] = {}
    refused: dict[str, RefusedError] = {}
    for one in looked.seen:
        if one.error is not None:
            continue
        survey = one.facts.get("gpuprov", {}).get("survey", {})
        try:
            stack = looked.chooser.resolve(one.host, looked.compiler.stack_want(one.host, one.facts), one.facts)
        except RefusedError as error:
            refused[one.host] = error
            continue
        found[one.host] = differences(stack, survey)
    show_unreachable(looked)
    if options.json:
        _print_json(found, refused)
    else:
        _show(found, refused)
    kinds = {difference.kind for each in found.values() for difference in each}
    codes = [looked.exit_code, EXIT_REFUSED if refused else 0, EXIT_FAILED if kinds - {"unknown"} else 0]
    return worst_exit([*codes, EXIT_UNHEALTHY if "unknown" in kinds else 0])


def _print_json(found: dict[str, list[Difference]], refused: dict[str, RefusedError]) -> None:
    document: dict[str, Any] = {
        host: {"differences": [one.to_json() for one in each], "refusal": None} for host, each in found.items()
    }
    for host, error in refused.items():
        document[host] = {"differences": None, "refusal": error.refusal}
    json.dump(document, sys.stdout)
    sys.stdout.write("\n")


def _show(found: dict[str, list[Difference]], refused: dict[str, RefusedError]) -> None:
    """Print hosts with the same differences together, those that are as wanted last."""
    from gpuprov.load.ranges import fold

    groups: dict[tuple[str, ...], list[str]] = {}
    for host, each in found.items():
        groups.setdefault(tuple(str(one) for one in each), []).append(host)
    for host, error in refused.items():
        hint = (f"  {error.hint}",) if error.hint else ()
        groups.setdefault((f"nothing fits: {error.message}", *hint), []).append(host)
    for lines, hosts in sorted(groups.items(), key=lambda group: not group[0]):
        print(fold(hosts))
        print("\n".join(f"  {line}" for line in lines or ("as wanted",)))
