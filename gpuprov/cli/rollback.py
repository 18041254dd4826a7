"""`gpuprov rollback`: put the stack back that hosts had before the last one, or before a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpuprov.cli import options as opts
from gpuprov.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping


def register(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    opts.add_run_options(parser)
    parser.add_argument("--run", metavar="RUN", help="to what hosts had before this run (default: before the last)")
    parser.add_argument("-C", "--check", action="store_true", help="show what would change; change nothing")
    parser.add_argument("-D", "--diff", action="store_true", help="show the differences of changed files")


def run(options: argparse.Namespace) -> int:
    """Read what was applied on each host, then apply the one before; return the exit code."""
    from gpuprov.cli.apply import perform
    from gpuprov.cli.looking import look_at, show_unreachable
    from gpuprov.report.stack import summary

    options.hosts = [options.limit] if options.limit else []
    looked = look_at(options, survey=True)
    show_unreachable(looked)
    records = {
        one.host: one.facts.get("gpuprov", {}).get("survey", {}).get("applied")
        for one in looked.seen
        if one.error is None
    }
    given = {host: stack for host, record in records.items() if (stack := earlier(record, options.run)) is not None}
    for host in records:
        what = f"back to {summary(given[host])}" if host in given else "no earlier stack is recorded; left as it is"
        if not options.json:
            print(f"{host}  {what}")
    if not given:
        raise UsageError(
            "no host has an earlier stack on record",
            hint="gpuprov drift shows what was applied where",
            code="no-record",
        )
    options.limit = ",".join(given)
    options.given_stacks = {host: dict(stack) for host, stack in given.items()}
    del options.hosts, options.run
    return perform(options, "rollback", check=options.check, diff=options.diff)


def earlier(record: Any, run_id: str | None) -> Mapping[str, Any] | None:
    """Return the stack that a host had before run *run_id* (before the last one when None), or None."""
    entries = record.get("applied") if isinstance(record, dict) else None
    stacks = [
        (e.get("run"), e["stack"]) for e in entries or () if isinstance(e, dict) and isinstance(e.get("stack"), dict)
    ]
    if run_id is None:
        return stacks[-2][1] if len(stacks) > 1 else None
    at = next((index for index, (run, _) in enumerate(stacks) if run == run_id), 0)
    return stacks[at - 1][1] if at > 0 else None
