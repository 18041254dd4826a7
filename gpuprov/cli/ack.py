"""`gpuprov ack`: a person knows of what a check found; until a day it is a warning instead of a fail."""

from __future__ import annotations

import datetime
import time
from typing import TYPE_CHECKING

from gpuprov.cli import options as opts
from gpuprov.errors import EXIT_ERROR, EXIT_OK, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from gpuprov.store.history import Acknowledgement


def register(parser: argparse.ArgumentParser) -> None:
    """Declare the command's actions."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser(
        "add", help="acknowledge: gpuprov ack add gpu03 gemm.bf16 --until 2026-12-24 --reason RMA-4711"
    )
    remove = actions.add_parser("remove", help="withdraw an acknowledgement")
    shown = actions.add_parser("list", help="all of them, expired ones too")
    for one in (add, remove):
        one.add_argument("host", metavar="HOST", help="as the inventory names it")
        one.add_argument("check", metavar="CHECK", help="as the report names it")
        one.add_argument(
            "--device", default="", metavar="DEVICE", help="cuda:3, gpu:3; default: every device of the host"
        )
    add.add_argument("--until", required=True, metavar="DAY", help="the last day on which it holds, YYYY-MM-DD")
    add.add_argument("--reason", required=True, help="why, or the number of a ticket")
    add.add_argument("--owner", default=opts.owner(), help="who takes care of it (default: %(default)s)")
    for one in (add, remove, shown):
        one.add_argument("--history", metavar="FILE", help="default: ~/.local/state/gpuprov/history.sqlite")


def run(options: argparse.Namespace) -> int:
    """Do what was asked; return the exit code."""
    from gpuprov.store.history import Acknowledgement, History

    history = History(options.history or "")
    try:
        if options.action == "add":
            until = _day(options.until)
            one = Acknowledgement(options.host, options.check, options.device, options.owner, options.reason, until)
            history.acknowledge(one, time.time())
            print(f"{options.check} of {options.host} counts as a warning until {until}")
        elif options.action == "remove":
            if not history.withdraw(options.host, options.check, options.device):
                print(f"nobody has acknowledged {options.check} of {options.host}")
                return EXIT_ERROR
            print(f"{options.check} of {options.host} counts again")
        else:
            _show(history.acknowledgements())
    finally:
        history.close()
    return EXIT_OK


def _show(found: Sequence[Acknowledgement]) -> None:
    today = time.strftime("%Y-%m-%d")
    lines = [
        f"{one.host} {one.name}{' ' + one.device if one.device else ''}: until {one.until}"
        f"{' (EXPIRED: it counts again)' if one.until < today else ''}, {one.owner}: {one.reason}"
        for one in found
    ]
    print("\n".join(lines) or "nothing is acknowledged")


def _day(text: str) -> str:
    """Return the day *text*. Raises UsageError for what is none, or over."""
    try:
        day = datetime.date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--until {text} is not a day", hint="write YYYY-MM-DD, such as 2026-12-24") from None
    if day < datetime.date.today():
        raise UsageError(f"--until {text} is over", hint="name today or a later day")
    return day.isoformat()
