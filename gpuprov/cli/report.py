"""`gpuprov report [RUN]`: the recap of a run again, its JSON, or where its page is."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from gpuprov.errors import EXIT_OK

if TYPE_CHECKING:
    import argparse

    from gpuprov.store.runs import RunFolder


def register(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("run", metavar="RUN", nargs="?", default="", help="run id, its start, or a folder (newest)")
    parser.add_argument("--run-dir", metavar="DIR", default="", help="where runs are (~/.local/state/gpuprov/runs)")
    parser.add_argument("-v", "--verbose", action="store_true", help="name every check that was skipped")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--html", action="store_true", help="print the path of report.html; make it when it is missing")
    what.add_argument("--json", action="store_true", help="print the report as JSON")
    what.add_argument("--list", action="store_true", help="list all runs, oldest first")


def run(options: argparse.Namespace) -> int:
    """Show a run; return 0 whatever became of it."""
    from gpuprov.store.runs import find

    if options.list:
        _list(options.run_dir)
        return EXIT_OK
    folder = find(options.run, options.run_dir)
    document = folder.document()
    note = ""
    if document.get("state") != "finished":
        note = f"run {folder.run} has not ended here; this is what its journal knows"
        document = _from_journal(folder, document)
        print(f"warning: {note}; `gpuprov resume {folder.run}` goes on with it", file=sys.stderr)
    if options.json:
        json.dump(document, sys.stdout)
        print()
    elif options.html:
        print(_page(folder, document, note))
    else:
        _recap(folder, document, names=options.verbose)
    return EXIT_OK


def _recap(folder: RunFolder, document: dict[str, Any], *, names: bool) -> None:
    from gpuprov.report.ink import Ink, printable, wants_color, width_of
    from gpuprov.report.jsonout import from_json
    from gpuprov.report.terminal import recap

    where = f"{document.get('inventory')} with {document.get('playbook')}"
    print(f"{document.get('command', '')}\nrun {folder.run}, {where}\n")
    ink, width = Ink(wants_color(sys.stdout)), width_of(sys.stdout)
    text = recap(from_json(document), folder.path, ink=ink, width=width, names=names)
    print(printable(text, sys.stdout), end="")


def _page(folder: RunFolder, document: dict[str, Any], note: str) -> str:
    path = os.path.join(folder.path, "report.html")
    if note or not os.path.exists(path):
        from gpuprov.report.html import render

        folder.write("report.html", render(document, note))
    return path


def _from_journal(folder: RunFolder, document: dict[str, Any]) -> dict[str, Any]:
    """Return the document of a run without an end, from the events that reached this machine."""
    from gpuprov.report.fold import HostFold
    from gpuprov.report.jsonout import from_json, to_json

    folds: dict[str, HostFold] = {}
    for host, event in folder.all_events():
        folds.setdefault(host, HostFold(host)).event(event)
    report = from_json({**document, "hosts": []})
    report.hosts = tuple(fold.report() for fold in folds.values())
    return to_json(report)


def _list(root: str) -> None:
    from gpuprov.store.runs import RunFolder, runs

    for path in runs(root):
        document = RunFolder.open(path).summary()
        hosts = document.get("hosts", [])
        code = document.get("exit_code")
        ending = f"exit {code}" if code is not None else str(document.get("state"))
        print(f"{os.path.basename(path)}  {ending:<9} {len(hosts):>4} hosts  {document.get('command', '')}")
