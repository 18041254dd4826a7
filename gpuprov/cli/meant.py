"""The hosts that a command without a playbook is about."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from gpuprov.cli import options as opts
from gpuprov.errors import SourceErrors, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from gpuprov.errors import Problem
    from gpuprov.fleet.hostrun import Prepared
    from gpuprov.transport.ways import Ways


def meant_hosts(
    options: argparse.Namespace,
    run: str,
    *,
    password: str | None = None,
    warn: Callable[[str], None],
) -> tuple[list[Prepared], Ways]:
    """Return the hosts that inventory and --limit mean, and the ways to them, which the caller closes.

    run names the command to templates; password is the one for sudo. Raises SourceErrors, UsageError, LabError.
    """
    from gpuprov.cli import prepare as prep
    from gpuprov.compile import Compiler
    from gpuprov.load.inventory import load_inventory
    from gpuprov.load.patterns import select
    from gpuprov.model import Playbook
    from gpuprov.transport.target import ConnectOptions
    from gpuprov.transport.ways import Ways

    problems: list[Problem] = []
    inventory = load_inventory(options.inventory, problems)
    if problems:
        raise SourceErrors(problems)
    names = list(select(inventory, "all", options.limit))
    if not names:
        raise UsageError("no host is meant", hint="gpuprov inventory graph shows what was understood")
    inventory = prep.with_lab(inventory)
    extra = opts.extra_variables(options.extra_vars)
    compiler = Compiler(Playbook(options.inventory, ()), inventory, select=select, run=run, extra_vars=extra)
    connect = ConnectOptions(
        user=options.user, private_key=options.private_key, connect_timeout_s=options.timeout, warn=warn
    )
    ways = Ways(connect)
    try:
        return [host.prepared for host in prep.hosts_of(compiler, names, ways, connect, password)], ways
    except BaseException:
        ways.close()
        raise


def warn_on_stderr(text: str) -> None:
    """Say a warning where no view is there to say it."""
    print(f"warning: {text}", file=sys.stderr)
