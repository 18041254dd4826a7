"""`gpuprov bootstrap INVENTORY`: give hosts a Python that an agent can run on, by their own package manager."""

from __future__ import annotations

import getpass
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from gpuprov.cli import options as opts
from gpuprov.cli.meant import meant_hosts, warn_on_stderr
from gpuprov.errors import EXIT_FAILED, EXIT_OK, EXIT_REFUSED, GpuprovError, TransportError, worst_exit

if TYPE_CHECKING:
    import argparse

    from gpuprov.fleet.bootstrap import Outcome
    from gpuprov.fleet.hostrun import Prepared
    from gpuprov.transport.ways import Ways

#: Hosts at a time: they work, we wait.
THREADS = 32


def register(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Make sure that every host has a Python 3.8 or newer. Where one is there, nothing is done. Needs only ssh, sh "
        "and apt-get, dnf, yum or zypper on the host; root is taken as for apply."
    )
    parser.add_argument("inventory", metavar="INVENTORY", help="inventory file or folder")
    parser.add_argument("-l", "--limit", metavar="PATTERN", help="only these hosts")
    parser.add_argument("-C", "--check", action="store_true", help="show what would be run; change nothing")
    parser.add_argument("-e", "--extra-vars", action="append", metavar="VARS", help="k=v, JSON or YAML text, or @file")
    opts.add_connection_options(parser)


def run(options: argparse.Namespace) -> int:
    """Look at all hosts, install where nothing usable is; return the exit code."""
    from concurrent.futures import ThreadPoolExecutor

    hosts, ways = meant_hosts(options, "bootstrap", password=opts.become_password(options), warn=warn_on_stderr)
    codes = [EXIT_OK]
    try:
        hosts = [_as_root(host, ways) for host in hosts]
        with ThreadPoolExecutor(min(THREADS, len(hosts))) as pool:
            for host, result in zip(hosts, pool.map(lambda h: _one(ways, h, options.check), hosts), strict=True):
                codes.append(_tell(host.name, result, options.check))
    finally:
        ways.close()
    return worst_exit(codes)


def _as_root(host: Prepared, ways: Ways) -> Prepared:
    """Return *host* with root taken where its login user is another: only root installs packages."""
    user = getpass.getuser() if host.target.connection == "local" else ways.route(host.target).user
    return replace(host, become=replace(host.become, root=user != "root"))


def _one(ways: Ways, host: Prepared, check: bool) -> Outcome | GpuprovError:
    from gpuprov.fleet.bootstrap import bootstrap

    try:
        connection = ways.connect(host.target)
        try:
            return bootstrap(connection, host.become, host.python, check=check)
        finally:
            connection.close()
    except GpuprovError as error:
        return error


def _tell(name: str, result: Outcome | GpuprovError, check: bool) -> int:
    """Print one line, and a hint for a failure; return the host's exit code."""
    if isinstance(result, GpuprovError):
        word = "unreachable" if isinstance(result, TransportError) else "failed"
        print(f"{name}  {word}: {result.message}", file=sys.stderr)
        if result.hint:
            print(f"{'':<{len(name)}}  hint: {result.hint}", file=sys.stderr)
        known = (result.exit_code,) if isinstance(result, TransportError) or result.exit_code == EXIT_REFUSED else ()
        return known[0] if known else EXIT_FAILED
    if not result.changed:
        print(f"{name}  ok: has {result.python}")
    elif check:
        print(f"{name}  would run: {result.command}")
    else:
        print(f"{name}  changed: has {result.python} now, by: {result.command}")
    return EXIT_OK
