"""`gpuprov explain INVENTORY [HOST...]`: why a host gets the stack that it gets, or none."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from gpuprov.errors import EXIT_REFUSED, SourceErrors, worst_exit

if TYPE_CHECKING:
    import argparse

    from gpuprov.errors import Problem


def register(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    from gpuprov.cli.looking import add_looking_options

    add_looking_options(parser)
    parser.add_argument("--tables", action="append", metavar="FILE", help="rows over those of gpuprov's own tables")


def run(options: argparse.Namespace) -> int:
    """Ask the hosts, resolve, show the whole reasoning; return 0, 4 (unreachable) or 6 (refused)."""
    from gpuprov.cli.looking import look_at, show_unreachable

    looked = look_at(options, survey=True)
    problems: dict[Problem, None] = {}
    answers: dict[str, Any] = {}
    for one in looked.seen:
        if one.error is not None:
            continue
        try:
            want = looked.compiler.stack_want(one.host, one.facts)
            answers[one.host] = looked.chooser.answer(one.host, want, one.facts)
        except SourceErrors as error:
            problems.update(dict.fromkeys(error.problems))
    if problems:
        raise SourceErrors(problems)
    show_unreachable(looked)
    found = {host: answer.to_json() for host, answer in answers.items()}
    if options.json:
        json.dump(found, sys.stdout)
        sys.stdout.write("\n")
    else:
        _show(answers)
    refused = any("alternatives" in document for document in found.values())
    return worst_exit([looked.exit_code, EXIT_REFUSED if refused else 0])


def _show(answers: dict[str, Any]) -> None:
    """Print every host's reasoning; hosts with the same one together."""
    from gpuprov.load.ranges import fold
    from gpuprov.stack import explain

    groups: dict[str, list[str]] = {}
    for host, answer in answers.items():
        groups.setdefault(explain(answer), []).append(host)
    print("\n\n".join(f"{fold(hosts)}\n{text}" for text, hosts in groups.items()))
