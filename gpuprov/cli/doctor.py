"""`gpuprov doctor`: from a pasted error, a log or the hosts themselves to the cause and the command that fixes it."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from gpuprov.cli.looking import add_looking_options
from gpuprov.errors import EXIT_OK, EXIT_UNHEALTHY, Problem, SourceErrors, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from gpuprov.doctor.match import Finding
    from gpuprov.doctor.table import Table

#: Version of the JSON that is printed.
SCHEMA = 1
#: What is read of a log; of a longer one the end, which has the error.
TEXT_BYTES = 4 * 1024 * 1024


def register(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    ways = ("INVENTORY [HOST ...] [options]", "--text 'ERROR'", "< LOG")
    parser.usage = "\n       ".join(f"gpuprov doctor {way}" for way in ways)
    add_looking_options(parser)
    inventory = next(action for action in parser._actions if action.dest == "inventory")
    inventory.nargs, inventory.required = "?", False
    inventory.help = "look at its hosts; without it, --text or standard input is looked at"
    parser.add_argument("-l", "--limit", metavar="PATTERN", help="the same as HOST")
    parser.add_argument("--text", metavar="ERROR", help="a pasted error; no host is asked")


def run(options: argparse.Namespace) -> int:
    """Diagnose; return 0 when nothing was found and 3 when something was."""
    if options.inventory is None:
        return _text(options)
    if options.text is not None:
        raise UsageError("--text looks at no host, and an inventory was named", hint="leave out one of the two")
    if not os.path.exists(options.inventory):
        hint = "an error to explain goes behind --text: gpuprov doctor --text 'ERROR'"
        raise UsageError(f"there is no inventory {options.inventory}", hint=hint)
    from gpuprov.cli.doctor_hosts import look

    options.hosts += [options.limit] if options.limit else []
    return look(options, load_table())


def load_table() -> Table:
    """Return the table of symptoms that comes with gpuprov."""
    from gpuprov.doctor.table import FILES, FOLDER, table_of
    from gpuprov.load.marks import load_yaml

    problems: list[Problem] = []
    table = table_of([load_yaml(os.path.join(FOLDER, f"{name}.yaml"), problems) for name in FILES], problems)
    if problems:
        raise SourceErrors(problems)
    return table


def _text(options: argparse.Namespace) -> int:
    from gpuprov.doctor.match import diagnose
    from gpuprov.report import clean

    if options.limit:
        raise UsageError("hosts were named, and no inventory", hint="gpuprov doctor INVENTORY HOST")
    given = _given(options)
    lines = [line for line in clean.text(given, TEXT_BYTES, 0).splitlines() if line.strip()]
    if not lines:
        raise UsageError("there is no text to look at", hint="gpuprov doctor --text 'ERROR', or: gpuprov doctor < LOG")
    table = load_table()
    findings = diagnose(table, lines)
    if options.json:
        print(json.dumps({"schema": SCHEMA, "rows": len(table), "findings": _json(findings)}, ensure_ascii=False))
    else:
        _show(table, findings, len(lines))
    return EXIT_UNHEALTHY if findings else EXIT_OK


def _given(options: argparse.Namespace) -> str:
    """Return the text to look at: what stands behind --text, else standard input."""
    if options.text is not None:
        return str(options.text)
    if sys.stdin.isatty():
        hint = "gpuprov doctor --text 'ERROR', gpuprov doctor < LOG, or gpuprov doctor INVENTORY"
        raise UsageError("nothing to look at: no inventory, no --text, and nothing on standard input", hint=hint)
    data = b""
    cut = False
    while piece := sys.stdin.buffer.read(1 << 20):
        data += piece
        if len(data) > 2 * TEXT_BYTES:
            data, cut = data[-TEXT_BYTES:], True
    if cut or len(data) > TEXT_BYTES:
        data = data[-TEXT_BYTES:]
        print(f"warning: only the last {TEXT_BYTES >> 20} MiB of the log are looked at", file=sys.stderr)
    return data.decode("utf-8", "replace")


def _json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    from gpuprov.report.findings import to_json

    return [to_json(finding) for finding in findings]


def _show(table: Table, findings: Sequence[Finding], lines: int) -> None:
    from gpuprov.report.findings import nothing_found, render_findings, summary
    from gpuprov.report.ink import Ink, printable, wants_color, width_of

    if not findings:
        print(nothing_found(table, lines))
        return
    for line in render_findings(findings, None, Ink(wants_color(sys.stdout)), width_of(sys.stdout)):
        print(printable(line, sys.stdout))
    print(f"\n{summary(findings)}")
