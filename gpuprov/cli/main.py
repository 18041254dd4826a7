"""The command line: one file per command, imported only when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import TYPE_CHECKING, NoReturn

from gpuprov import __version__
from gpuprov.errors import EXIT_BUG, EXIT_INPUT, EXIT_INTERRUPTED, GpuprovError, SourceErrors

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Command -> its one-line help. The file gpuprov/cli/<command>.py has `register` and `run`.
COMMANDS = {
    "apply": "converge, verify, train and report a fleet",
    "plan": "show what apply would do; changes nothing",
    "verify": "look, measure and train on every host, and tell which GPU got worse; changes nothing",
    "stack": "what would fit a machine, and how old the tables are",
    "explain": "why a host gets the stack that it gets, or none",
    "ack": "acknowledge what a check found, until a day",
    "drift": "what differs between wanted, installed, loaded and last applied",
    "rollback": "put the stack back that hosts had before",
    "remove": "take away what was installed",
    "resume": "collect what the hosts of an interrupted run finished, and go on",
    "top": "what the GPUs of a fleet do right now",
    "report": "show the report of a run again",
    "doctor": "from an error, a log or a host's symptoms to the cause and the command that fixes it",
    "inventory": "show what was understood of an inventory, and which line set it",
    "bootstrap": "give hosts a Python that an agent can run on, by their own package manager",
    "trust": "record host keys, after showing their fingerprints",
    "wheelhouse": "lock Python packages, and carry them to sites without a way to an index",
    "docs": "reference pages, generated from what the code declares",
    "lab": "a rehearsal fleet of real sshd hosts on this machine",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_INPUT, f"error[usage]: {message}\nhint: {self.prog} --help lists what is allowed\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the process's exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except SourceErrors as error:
        from gpuprov.cli.problems import render_problems

        print(render_problems(error.problems), file=sys.stderr)
        return error.exit_code
    except GpuprovError as error:
        print(f"error[{error.reference}]: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception:
        import traceback

        traceback.print_exc()
        print("error[bug]: this is a bug in gpuprov; please report the lines above", file=sys.stderr)
        return EXIT_BUG


def _dispatch(words: list[str]) -> int:
    parser = _Parser(prog="gpuprov", description="Provision, verify and train on fleets of machines with NVIDIA GPUs")
    parser.add_argument("--version", action="version", version=f"gpuprov {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    chosen = words[0] if words and words[0] in COMMANDS else None
    for name, summary in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary)
        if name == chosen:
            importlib.import_module(f"gpuprov.cli.{name}").register(sub)
    options = parser.parse_args(words)
    module = importlib.import_module(f"gpuprov.cli.{options.command}")
    code: int = module.run(options)
    return code
