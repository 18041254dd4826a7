"""`gpuprov top INVENTORY`: what the GPUs of a fleet do right now."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from gpuprov.cli import options as opts
from gpuprov.cli.meant import meant_hosts, warn_on_stderr
from gpuprov.errors import EXIT_OK, EXIT_UNREACHABLE, UsageError

if TYPE_CHECKING:
    import argparse

    from gpuprov.fleet.top import Top

#: How long a table that is printed once waits for hosts that have not spoken yet.
FIRST_S = 20.0
_ENTER, _LEAVE, _HOME, _BELOW = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l", "\x1b[H", "\x1b[J"


def register(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Utilisation, memory, temperature, power and processes of all GPUs of a fleet, refreshed in a terminal until "
        "Ctrl-C. Sick GPUs and silent hosts come first; where there is no room for one row per GPU, hosts that are "
        "alike share one. Elsewhere than in a terminal, and with --once, one table is printed."
    )
    parser.add_argument("inventory", metavar="INVENTORY", help="inventory file or folder")
    parser.add_argument("-l", "--limit", metavar="PATTERN", help="only these hosts")
    parser.add_argument("-e", "--extra-vars", action="append", metavar="VARS", help="k=v, JSON or YAML text, or @file")
    parser.add_argument("--interval", type=_interval, default=2.0, metavar="S", help="between two samples (2)")
    parser.add_argument("--once", action="store_true", help="print one table and end")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    opts.add_connection_options(parser)


def run(options: argparse.Namespace) -> int:
    """Watch until interrupted, or print once; 4 when a host could not be reached."""
    from gpuprov.fleet.top import Top

    live = sys.stdout.isatty() and not options.json and not options.once
    hosts, ways = meant_hosts(options, "top", warn=_unheard if live else warn_on_stderr)
    top = Top(hosts, ways, options.interval)
    try:
        if not live:
            _once(top, options.json)
        else:
            _live(top)
    finally:
        top.close()
        ways.close()
    return EXIT_UNREACHABLE if any(host.unreachable for host in top.hosts) else EXIT_OK


def _once(top: Top, as_json: bool) -> None:
    from gpuprov.report.ink import Ink, printable, wants_color, width_of
    from gpuprov.report.top import render

    until = time.monotonic() + FIRST_S
    while any(host.trouble == "connecting" for host in top.hosts) and time.monotonic() < until:
        top.turn()
    if as_json:
        print(json.dumps({"hosts": [{k: v for k, v in asdict(host).items() if k != "at"} for host in top.hosts]}))
    else:
        width = width_of(sys.stdout) if sys.stdout.isatty() else 1000
        print(printable(render(top.hosts, time.monotonic(), Ink(wants_color(sys.stdout)), width), sys.stdout))


def _live(top: Top) -> None:
    from gpuprov.report.ink import Ink, printable, wants_color
    from gpuprov.report.top import render

    ink, drawn_at = Ink(wants_color(sys.stdout)), 0.0
    sys.stdout.write(_ENTER)
    try:
        while True:
            top.turn()
            if time.monotonic() - drawn_at >= 0.5:
                drawn_at = time.monotonic()
                size = shutil.get_terminal_size((120, 24))
                text = render(top.hosts, drawn_at, ink, size.columns, size.lines)
                sys.stdout.write(_HOME + printable(text, sys.stdout).replace("\n", "\x1b[K\n") + "\x1b[K" + _BELOW)
                sys.stdout.flush()
    except KeyboardInterrupt:
        return
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()


def _unheard(text: str) -> None:
    """Take a warning that would be written across the live table."""


def _interval(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.2 <= value <= 3600:
        raise UsageError(f"--interval {text} is not a number of seconds from 0.2 to 3600")
    return value
