"""`gpuprov resume [RUN]`: collect what the hosts of an interrupted run finished, and go on with it."""

from __future__ import annotations

import argparse
import os

from gpuprov.cli import options as opts
from gpuprov.errors import UsageError


def register(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("run", metavar="RUN", nargs="?", help="run id or folder (default: the newest run)")
    parser.add_argument("-e", "--extra-vars", action="append", metavar="VARS", help="instead of the run's own -e")
    opts.add_connection_options(parser)
    opts.add_output_options(parser)


def run(options: argparse.Namespace) -> int:
    """Find the run, say the same again, attach to its hosts; return the exit code."""
    from gpuprov.cli.apply import perform
    from gpuprov.cli.verify import rest_of
    from gpuprov.store.runs import find

    folder = find(options.run or "", options.run_dir or "")
    before = folder.options()
    document = folder.document()
    if document.get("state") == "finished" and not any(map(_unfinished, document["hosts"])):
        raise UsageError(f"run {folder.run} has ended; there is nothing to resume", hint="gpuprov report shows it")
    lacking = [place for place in before.get("left_out", ()) if "extra_vars" in place and not options.extra_vars]
    if lacking:
        raise UsageError("the run was started with a secret in -e, which is kept nowhere", hint="give it again with -e")
    same = argparse.Namespace(**{k: v for k, v in before.items() if k not in ("cwd", "check", "diff", "left_out")})
    for name in ("json", "verbose", "run_dir", "ask_become_pass"):
        setattr(same, name, getattr(options, name))
    same.extra_vars = options.extra_vars or same.extra_vars
    same.user = options.user or same.user
    same.private_key = options.private_key or same.private_key
    try:
        os.chdir(before["cwd"])
    except OSError as error:
        raise UsageError(f"the run was started in {before['cwd']}: {error.strerror}") from None
    rest = rest_of(same) if before["command"] == "verify" else {}
    return perform(same, str(before["command"]), check=before["check"], diff=before["diff"], resume=folder, **rest)


def _unfinished(host: dict[str, object]) -> bool:
    return host.get("outcome") in ("interrupted", "lost")
