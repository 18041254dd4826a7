"""`gpuprov inventory`: what was understood of an inventory, and which line set each value."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from typing import TYPE_CHECKING, Any

from gpuprov.errors import EXIT_OK, Problem, SourceErrors, UsageError
from gpuprov.source import plain

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Sequence

    from gpuprov.model import Host, Inventory, Variable

DEFAULT_INVENTORY = "inventory/lab.yaml"
DEFAULT_PLAYBOOKS = "playbooks"

#: Variables whose values are not shown unless asked for.
_SECRET = re.compile(r"(?:^|_)(?:password|passwd|pass|passphrase|secret|token|api_?key)(?:$|_)", re.IGNORECASE)
_HIDDEN = "(hidden; --show-secrets)"


def register(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `gpuprov inventory`. The inventory may stand first, as in `apply`, or behind -i."""
    import argparse as arguments

    shared = arguments.ArgumentParser(add_help=False)
    shared.add_argument("-i", "--inventory", metavar="PATH", help=f"file or folder (default: {DEFAULT_INVENTORY})")
    shared.add_argument(
        "--playbook-dir", metavar="DIR", help=f"its group_vars and host_vars count too (default: ./{DEFAULT_PLAYBOOKS})"
    )
    shared.add_argument("--show-secrets", action="store_true", help="show the values of passwords and tokens")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=type(parser))
    listing = actions.add_parser("list", parents=[shared], help="every host with its address and groups")
    listing.add_argument("words", nargs="*", metavar="INVENTORY", help="the same as -i")
    listing.add_argument("-l", "--limit", default="all", metavar="PATTERN", help="only the hosts of this pattern")
    listing.add_argument("--json", action="store_true", help="all of it, in the format of ansible-inventory --list")
    graph = actions.add_parser("graph", parents=[shared], help="the tree of groups")
    graph.add_argument("words", nargs="*", metavar="INVENTORY", help="the same as -i")
    graph.add_argument("--group", default="all", help="start here (default: all)")
    graph.add_argument("--vars", action="store_true", help="with the variables that each group sets")
    host = actions.add_parser("host", parents=[shared], help="every variable of a host, and which line set it")
    host.add_argument("words", nargs="+", metavar="[INVENTORY] HOST", help="a host, or a pattern")
    host.add_argument("--json", action="store_true", help="the same as JSON")


def run(options: argparse.Namespace) -> int:
    """Do what was asked; return the exit code."""
    path, name = _words(options)
    inventory = _load(path, options.playbook_dir)
    shown = _Shown(options.show_secrets)
    if options.action == "graph":
        lines: Iterable[str] = _graph(inventory, options.group, shown if options.vars else None)
    elif options.action == "host":
        lines = _hosts(inventory, name, shown, as_json=options.json)
    elif options.json:
        lines = [json.dumps(_ansible_list(inventory, options.limit, shown), indent=4, ensure_ascii=False)]
    else:
        lines = _list(inventory, options.limit)
    for line in lines:
        print(line)
    return EXIT_OK


def _words(options: argparse.Namespace) -> tuple[str, str]:
    """Return the inventory's path and the host's name, in whichever order they were given."""
    words, name = list(options.words), ""
    if options.action == "host":
        if len(words) == 2 and not os.path.exists(words[0]) and os.path.exists(words[1]):
            words.reverse()
        name = words.pop()
    paths = [path for path in (options.inventory, *words) if path is not None]
    if len(paths) > 1:
        raise UsageError(f"more than one inventory: {' and '.join(paths)}", hint="name one file or folder")
    return (paths or [DEFAULT_INVENTORY])[0], name


def _load(path: str, folder: str | None) -> Inventory:
    from gpuprov.load.inventory import load_inventory

    if not os.path.exists(path):
        raise UsageError(f"there is no inventory {path}", hint="name a file or folder: -i PATH")
    if folder is None and os.path.isdir(DEFAULT_PLAYBOOKS):
        folder = DEFAULT_PLAYBOOKS
    if folder is not None and not os.path.isdir(folder):
        raise UsageError(f"--playbook-dir {folder} is not a folder")
    problems: list[Problem] = []
    inventory = load_inventory(path, problems, also=folder)
    if problems:
        raise SourceErrors(problems)
    return inventory


def _select(inventory: Inventory, pattern: str) -> list[Host]:
    from gpuprov.load.patterns import select

    return [inventory.hosts[name] for name in select(inventory, pattern)]


class _Shown:
    """Values as a person reads them."""

    def __init__(self, secrets: bool) -> None:
        self._secrets = secrets

    def value(self, name: str, value: Any) -> Any:
        """Return *value* without source types; hidden when *name* says that it is a secret."""
        hide = not self._secrets and value is not None and _SECRET.search(name)
        return _HIDDEN if hide else plain(value)

    def text(self, name: str, value: Any) -> str:
        """Return *value* on one line: text as it is when nothing else could be meant, else as JSON."""
        value = self.value(name, value)
        if isinstance(value, str) and value.isprintable() and value == value.strip() and value:
            from gpuprov.load.scalars import TrickyNumberError, resolve

            try:
                if isinstance(resolve(value), str):
                    return value
            except TrickyNumberError:
                pass
        return json.dumps(value, ensure_ascii=False)


def _list(inventory: Inventory, pattern: str) -> Iterator[str]:
    hosts = _select(inventory, pattern)
    rows = [(host.name, _address(host), ", ".join(host.groups)) for host in hosts]
    yield from _columns([("HOST", "ADDRESS", "GROUPS"), *rows])
    yield f"{len(hosts)} host{'s' if len(hosts) != 1 else ''}"


def _address(host: Host) -> str:
    if host.value("ansible_connection") == "local":
        return "local"
    if host.value("gpuprov_lab") not in (None, False) and host.value("ansible_host") is None:
        return "lab"
    port = host.value("ansible_port")
    address = str(host.value("ansible_host", host.name))
    return f"{address}:{port}" if port is not None else address


def _ansible_list(inventory: Inventory, pattern: str, shown: _Shown) -> dict[str, Any]:
    chosen = {host.name for host in _select(inventory, pattern)}
    variables = {
        name: {key: shown.value(key, variable.value) for key, variable in sorted(host.variables.items())}
        for name, host in inventory.hosts.items()
        if name in chosen
    }
    result: dict[str, Any] = {"_meta": {"hostvars": {name: values for name, values in variables.items() if values}}}
    for name, group in inventory.groups.items():
        entry: dict[str, Any] = {}
        members = [host for host in group.hosts if host in chosen]
        if group.children:
            entry["children"] = list(group.children)
        if members and name != "all":
            entry["hosts"] = members
        if entry:
            result[name] = entry
    return result


def _graph(inventory: Inventory, start: str, shown: _Shown | None) -> Iterator[str]:
    """Yield the tree of groups as ansible-inventory draws it, with hosts folded to ranges."""
    from gpuprov.load.ranges import fold, natural_key, split_outside_brackets

    if start not in inventory.groups:
        from gpuprov.load.near import did_you_mean

        hint = did_you_mean(start, inventory.groups, f"groups: {', '.join(inventory.groups)}")
        raise UsageError(f"there is no group {start} in {inventory.path}", hint=hint)

    def below(name: str, lead: str) -> Iterator[str]:
        group = inventory.groups[name]
        count = len(inventory.members(name))
        yield f"{lead}@{name}: {count} host{'s' if count != 1 else ''}"
        inner = lead.replace("--", "") + "  |--"
        for child in sorted(group.children, key=natural_key):
            yield from below(child, inner)
        # Hosts that stand below `all` only are drawn below `ungrouped`.
        own = group.hosts if name != "all" else ()
        yield from (inner + part for part in split_outside_brackets(fold(own), ","))
        if shown is not None:
            for key, variable in sorted(group.variables.items()):
                yield f"{inner}{{{key} = {shown.text(key, variable.value)}}}  {variable.position}"

    yield from below(start, "")


def _hosts(inventory: Inventory, pattern: str, shown: _Shown, *, as_json: bool) -> Iterator[str]:
    hosts = _select(inventory, pattern)
    if as_json:
        yield json.dumps({host.name: _host_json(host, shown) for host in hosts}, indent=1, ensure_ascii=False)
        return
    for index, host in enumerate(hosts):
        if index:
            yield ""
        yield from _host(host, shown)


def _host_json(host: Host, shown: _Shown) -> dict[str, Any]:
    def entry(name: str, variable: Variable) -> dict[str, Any]:
        position = str(variable.position) if variable.position else None
        return {"value": shown.value(name, variable.value), "source": variable.source, "position": position}

    return {
        "groups": list(host.groups),
        "variables": {
            name: {**entry(name, variable), "overridden": [entry(name, lost) for lost in host.overridden.get(name, ())]}
            for name, variable in sorted(host.variables.items())
        },
    }


def _host(host: Host, shown: _Shown) -> Iterator[str]:
    """Yield a host's variables in aligned columns; what lost stands below the value that won, strongest first."""
    place = f"  {host.position}" if host.position else ""
    yield f"{host.name}  in {', '.join(host.groups)}{place}"
    if not host.variables:
        yield "  no variables"
        return
    rows, dim = [], []
    for name, variable in sorted(host.variables.items()):
        rows.append((f"  {name}", *_cells(name, variable, shown)))
        dim.append(False)
        for lost in host.overridden.get(name, ()):
            rows.append(("    instead of", *_cells(name, lost, shown)))
            dim.append(True)
    faint = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line, lost_one in zip(_columns(rows, flexible=1), dim, strict=True):
        yield f"\x1b[2m{line}\x1b[0m" if faint and lost_one else line


def _cells(name: str, variable: Variable, shown: _Shown) -> tuple[str, str, str]:
    return shown.text(name, variable.value), str(variable.position or ""), variable.source


def _columns(rows: Sequence[tuple[str, ...]], flexible: int | None = None) -> Iterator[str]:
    """Yield *rows* as aligned text. On a terminal, column *flexible* is cut so that lines fit."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    if flexible is not None and sys.stdout.isatty():
        others = sum(widths) - widths[flexible] + 2 * (len(widths) - 1)
        widths[flexible] = min(widths[flexible], max(16, shutil.get_terminal_size().columns - others))
    for row in rows:
        cells = [_cut(cell, width).ljust(width) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join(cells).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
