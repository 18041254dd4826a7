"""`gpuprov plan INVENTORY [PLAYBOOK]`: what apply would do on every host; changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuprov.cli import options as opts

if TYPE_CHECKING:
    import argparse


def register(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    opts.add_run_options(parser)
    parser.add_argument("-D", "--diff", action="store_true", help="show the differences of files that would change")


def run(options: argparse.Namespace) -> int:
    """Run everything in check mode and show what hosts have in common; return the exit code."""
    from gpuprov.cli.apply import perform

    return perform(options, "plan", check=True, diff=options.diff)
