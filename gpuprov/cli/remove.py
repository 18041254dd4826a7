"""`gpuprov remove`: take the stack away again, as it was recorded when it came."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from gpuprov.cli import options as opts
from gpuprov.errors import UsageError

if TYPE_CHECKING:
    import argparse


def register(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    opts.add_run_options(parser, playbook=False)
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("-C", "--check", action="store_true", help="show what would change; change nothing")
    parser.add_argument("-D", "--diff", action="store_true", help="show the differences of changed files")


def run(options: argparse.Namespace) -> int:
    """Run playbooks/remove.yaml over the inventory; return the exit code."""
    from gpuprov.cli.apply import perform
    from gpuprov.cli.prepare import default_playbook

    folder = os.path.dirname(default_playbook()[0])
    options.playbook = os.path.join(folder, "remove.yaml")
    if not os.path.isfile(options.playbook):
        raise UsageError(f"there is no {options.playbook}", hint="copy the packaged playbooks/remove.yaml there")
    if not (options.yes or options.check):
        _ask(options)
    return perform(options, "remove", check=options.check, diff=options.diff)


def _ask(options: argparse.Namespace) -> None:
    """Have a person agree. Raises UsageError when nobody does."""
    where = f"{options.inventory}{f' ({options.limit})' if options.limit else ''}"
    if not sys.stdin.isatty():
        raise UsageError(
            "nothing is removed unasked", hint="--yes says that it is meant, --check shows what it would do"
        )
    answer = input(f"remove driver, toolkit and torch that gpuprov installed on the hosts of {where}? [y/N] ")
    if answer.strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was removed")
