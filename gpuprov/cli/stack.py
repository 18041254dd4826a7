"""`gpuprov stack`: ask the resolver about a machine that one only thinks of, and how old the tables are."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from gpuprov.errors import EXIT_OK, EXIT_REFUSED, SourceErrors

if TYPE_CHECKING:
    from gpuprov.errors import Problem
    from gpuprov.stack import Tables


def register(parser: argparse.ArgumentParser) -> None:
    """Declare the actions."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--tables", action="append", metavar="FILE", help="rows over those of gpuprov's own tables")
    shared.add_argument("--json", action="store_true", help="JSON on stdout, and nothing else there")
    resolve = actions.add_parser("resolve", parents=[shared], help="what fits a machine; exit 6 when nothing does")
    resolve.add_argument(
        "--host",
        required=True,
        metavar="YAML",
        help="such as \"{gpus: [T4], os: 'ubuntu 22.04', python: '3.10'}\"; also driver, kernel, nvswitches ...",
    )
    resolve.add_argument(
        "--want", default="{}", metavar="YAML", help="as gpuprov_stack: \"{torch: latest, cuda: '12.8'}\""
    )
    actions.add_parser("tables", parents=[shared], help="what the tables know, since when and from where")


def run(options: argparse.Namespace) -> int:
    """Do what was asked; return the exit code."""
    from gpuprov.cli.tables import tables_with

    tables = tables_with(options.tables or ())
    return _resolve(options, tables) if options.action == "resolve" else _tables(options, tables)


def _resolve(options: argparse.Namespace, tables: Tables) -> int:
    from gpuprov.load.marks import load_text
    from gpuprov.stack import Stack, explain, host_from_short, resolve, want_from

    problems: list[Problem] = []
    host = load_text(options.host, "--host", problems)
    want = load_text(options.want, "--want", problems)
    if problems:
        raise SourceErrors(problems)
    described, wanted = host_from_short(tables, host, problems), want_from(want, problems, "--want")
    if problems:
        raise SourceErrors(problems)
    answer = resolve(wanted, described, tables)
    fits = isinstance(answer, Stack)
    if options.json:
        json.dump({"verdict": "accept" if fits else "refuse", **answer.to_json()}, sys.stdout)
        sys.stdout.write("\n")
    else:
        print("fits:" if fits else "nothing fits:")
        print(explain(answer))
    return EXIT_OK if fits else EXIT_REFUSED


def _tables(options: argparse.Namespace, tables: Tables) -> int:
    """Show each block's date and source; blocks without a date are not facts."""
    found: dict[str, dict[str, Any]] = {
        name: {"as_of": str(block["as_of"]), "source": str(block.get("source", ""))}
        for name, block in tables.blocks.items()
        if isinstance(block, dict) and "as_of" in block
    }
    if options.json:
        json.dump({"as_of": tables.as_of, "blocks": found}, sys.stdout)
        sys.stdout.write("\n")
        return EXIT_OK
    print(f"tables of {tables.as_of}; a row of your own goes on top with --tables FILE")
    for name, block in sorted(found.items(), key=lambda one: one[1]["as_of"], reverse=True):
        source = block["source"]
        print(f"  {block['as_of']:<10}  {name:<22}  {source if len(source) < 90 else source[:89] + '…'}")
    return EXIT_OK
