"""Options that several commands share, spelled as ansible-playbook spells them."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from typing import Any

from gpuprov.errors import Problem, SourceErrors, UsageError


def add_run_options(parser: argparse.ArgumentParser, *, playbook: bool = True) -> None:
    """Add the inventory, the playbook and everything about how a run is done."""
    parser.add_argument("inventory", metavar="INVENTORY", help="inventory file or folder")
    if playbook:
        help_text = "default: ./playbooks/site.yaml, else the one that came with gpuprov"
        parser.add_argument("playbook", metavar="PLAYBOOK", nargs="?", help=help_text)
    what = parser.add_argument_group("what to do, and where")
    what.add_argument(
        "-l", "--limit", metavar="PATTERN", help="only these hosts: a:&b:!c, g[0:3], ~regex, globs, @file"
    )
    what.add_argument("-t", "--tags", action="append", metavar="TAGS", help="only tasks with these tags")
    what.add_argument("--skip-tags", action="append", metavar="TAGS", help="leave out tasks with these tags")
    what.add_argument("-e", "--extra-vars", action="append", metavar="VARS", help="k=v, JSON or YAML text, or @file")
    what.add_argument(
        "--tables", action="append", metavar="FILE", help="rows over those of gpuprov's own tables (docs/stack.md)"
    )
    what.add_argument("--skip-refused", action="store_true", help="go on without the hosts that the preflight refuses")
    what.add_argument("--take-over", action="store_true", help="give up an interrupted run that still holds a host")
    add_connection_options(parser)
    how = parser.add_argument_group("how")
    how.add_argument(
        "-f", "--forks", type=_positive, default=256, metavar="N", help="SSH sessions at once (default 256)"
    )
    how.add_argument(
        "--gate-timeout", type=_seconds, default=60.0, metavar="S", help="until a host is unreachable (60)"
    )
    how.add_argument("--host-timeout", type=_seconds, metavar="S", help="for all tasks of one host (no limit)")
    how.add_argument("--reconnect-timeout", type=_seconds, default=300.0, metavar="S", help="seek a lost host (300)")
    add_output_options(parser)


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    """Add who logs in, and how."""
    group = parser.add_argument_group("connection")
    group.add_argument("-u", "--user", help="log in as this user where the inventory names none")
    group.add_argument("--private-key", metavar="FILE", help="SSH key where the inventory names none")
    group.add_argument("-K", "--ask-become-pass", action="store_true", help="ask for the sudo password")
    group.add_argument("--timeout", type=_seconds, default=10.0, metavar="S", help="for one connection (10)")


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add what is shown and kept."""
    group = parser.add_argument_group("output")
    group.add_argument("-v", "--verbose", action="count", default=0, help="more; -vv shows outputs")
    group.add_argument("--json", action="store_true", help="the RunReport on stdout, and nothing else there")
    group.add_argument(
        "--history", metavar="FILE", help="what was measured before (~/.local/state/gpuprov/history.sqlite)"
    )
    group.add_argument("--run-dir", metavar="DIR", help="where runs are kept (~/.local/state/gpuprov/runs)")


def split_tags(values: list[str] | None) -> list[str]:
    """Return the tags of `--tags a,b --tags c`."""
    return [tag.strip() for value in values or () for tag in value.split(",") if tag.strip()]


def extra_variables(values: list[str] | None) -> dict[str, Any]:
    """Return what all -e options set, the last winning. Raises UsageError, SourceErrors."""
    found: dict[str, Any] = {}
    for value in values or ():
        found.update(_extra(value))
    return found


def become_password(options: argparse.Namespace) -> str | None:
    """Ask for the sudo password when -K was given."""
    if not options.ask_become_pass:
        return None
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    return getpass.getpass("BECOME password: ")


def owner() -> str:
    """Return who runs this, for the lock on hosts: user@machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{os.uname().nodename}"


def _extra(text: str) -> dict[str, Any]:
    if text.startswith("@") or text.lstrip()[:1] in "{[":
        from gpuprov.load.marks import load_text, load_yaml

        problems: list[Problem] = []
        value = load_yaml(text[1:], problems) if text.startswith("@") else load_text(text, "-e", problems)
        if problems:
            raise SourceErrors(problems)
        return _mapping(value, text)
    import shlex

    found: dict[str, Any] = {}
    for word in shlex.split(text):
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"-e {text}: {word!r} is not name=value", hint="write name=value, JSON, or @file")
        found[name] = value
    return found


def _mapping(value: Any, text: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"-e {text}: variables must be a mapping, not {type(value).__name__}")
    return value


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a time in seconds")
    return number
