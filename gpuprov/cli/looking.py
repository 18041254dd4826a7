"""What commands share that look at hosts and change nothing: explain, drift, doctor."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from gpuprov.cli import options as opts
from gpuprov.cli.meant import warn_on_stderr
from gpuprov.errors import EXIT_UNREACHABLE, SourceErrors, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from gpuprov.cli.stacks import Chooser
    from gpuprov.compile import Compiler
    from gpuprov.errors import Problem
    from gpuprov.fleet.look import Seen
    from gpuprov.fleet.session import Session


@dataclass(frozen=True, slots=True)
class Looked:
    """What the hosts of an inventory said, the compiler that knows what is wanted of them, and who finds a stack."""

    compiler: Compiler
    chooser: Chooser
    seen: tuple[Seen, ...]

    @property
    def exit_code(self) -> int:
        """4 when a host could not be asked, else 0."""
        return EXIT_UNREACHABLE if any(one.error is not None for one in self.seen) else 0


def add_looking_options(parser: argparse.ArgumentParser) -> None:
    """Add the inventory, which hosts of it, and how they are reached."""
    parser.add_argument("inventory", metavar="INVENTORY", help="inventory file or folder")
    parser.add_argument("hosts", metavar="HOST", nargs="*", help="these hosts or patterns (default: all)")
    parser.add_argument("-e", "--extra-vars", action="append", metavar="VARS", help="k=v, JSON or YAML text, or @file")
    parser.add_argument("--json", action="store_true", help="JSON on stdout, and nothing else there")
    opts.add_connection_options(parser)


def look_at(
    options: argparse.Namespace,
    *,
    survey: bool,
    network: bool = False,
    ask: Callable[[Compiler, str, Session], Any] | None = None,
) -> Looked:
    """Ask the hosts that *options* name. Raises SourceErrors, UsageError, LabError; blocks.

    network: the survey also says whether the hosts' package sources answer.
    ask(compiler, host, session) may ask a host's agent for more; it is called from several threads.
    """
    from gpuprov.cli import prepare as prep
    from gpuprov.cli.stacks import chooser_for
    from gpuprov.compile import Compiler
    from gpuprov.fleet.look import look
    from gpuprov.fleet.options import RunOptions
    from gpuprov.load.inventory import load_inventory
    from gpuprov.load.patterns import select
    from gpuprov.load.playbook import load_playbook
    from gpuprov.transport.target import ConnectOptions
    from gpuprov.transport.ways import Ways

    problems: list[Problem] = []
    path, _ = prep.default_playbook()
    inventory = load_inventory(options.inventory, problems)
    playbook = load_playbook(path, problems)
    if problems:
        raise SourceErrors(problems)
    names = list(select(inventory, "all", ",".join(options.hosts) or None))
    if not names:
        raise UsageError("the inventory has no host", hint="gpuprov inventory graph shows what was understood")
    inventory = prep.with_lab(inventory)
    extra = opts.extra_variables(options.extra_vars)
    chooser = chooser_for(inventory, names, extra, getattr(options, "tables", None))
    compiler = Compiler(playbook, inventory, select=select, run="look", extra_vars=extra)
    connect = ConnectOptions(
        user=options.user, private_key=options.private_key, connect_timeout_s=options.timeout, warn=warn_on_stderr
    )
    ways = Ways(connect)
    try:
        password = opts.become_password(options)
        hosts = prep.hosts_of(compiler, names, ways, connect, password, survey=survey, network=network)
        more = partial(ask, compiler) if ask is not None else None
        seen = look(hosts, ways, RunOptions(run="look", owner=opts.owner()), ask=more)
    finally:
        ways.close()
    return Looked(compiler, chooser, tuple(seen))


def show_unreachable(looked: Looked) -> None:
    """Say who could not be asked, and why."""
    for one in looked.seen:
        if one.error is not None:
            hint = f"  hint: {one.error.hint}" if one.error.hint else ""
            print(f"{one.host}  unreachable: {one.error.message}{hint}", file=sys.stderr)
