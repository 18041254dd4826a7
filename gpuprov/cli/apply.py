"""`gpuprov apply INVENTORY [PLAYBOOK]`: converge, verify, train, report."""

from __future__ import annotations

import os
import shlex
import sys
import time
from typing import TYPE_CHECKING, Any

from gpuprov import __version__
from gpuprov.cli import options as opts
from gpuprov.cli.judging import judged
from gpuprov.errors import GpuprovError
from gpuprov.results import RunReport

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

    from gpuprov.fleet.options import RunOptions
    from gpuprov.results import HostReport


def register(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    opts.add_run_options(parser)
    parser.add_argument("-C", "--check", action="store_true", help="show what would change; change nothing")
    parser.add_argument("-D", "--diff", action="store_true", help="show the differences of changed files")


def run(options: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    return perform(options, "apply", check=options.check, diff=options.diff)


def perform(
    options: argparse.Namespace,
    command: str,
    *,
    check: bool,
    diff: bool,
    resume: Any = None,
    together: Sequence[str] = (),
    afterwards: Callable[[Any, Callable[[str], None]], None] | None = None,
) -> int:
    """Prepare, run over the fleet, report. resume is the RunFolder of an interrupted run.

    together: parts of the proof over several hosts (fleet/fabric.py) that follow when each host has ended.
    afterwards gets the run's folder before the report is shown, and whom to tell what it could not do.
    """
    from gpuprov.cli.again import Again
    from gpuprov.cli.prepare import Voice, prepare
    from gpuprov.store.names import new_run_id
    from gpuprov.store.runs import RunFolder

    name = resume.run if resume else new_run_id()
    voice = Voice()
    ready = prepare(options, name, check=check, diff=diff, voice=voice)
    report = _report(options, command, name, ready, time.time(), check)
    folder = resume or RunFolder.create(
        options.run_dir or "", run=name, document=_document(report), options=_remembered(options, command, check, diff)
    )
    for host in ready.hosts if resume else ():
        host.past = folder.events(host.name)
    view = _view(options, command, ready, voice)
    _say_what(view, options, command, ready, name)
    try:
        more = {"load_busy": getattr(options, "load_busy", False)}
        how = run_options(options, name, check=check, diff=diff, resume=resume is not None)
        report.hosts = run_fleet(ready, view, folder, how, together, more)
    except GpuprovError:
        folder.write_run({**_document(report), "state": "stopped"})
        raise
    if not check:
        again = Again(options, folder, voice, ready.password) if command == "verify" else None
        report.hosts = judged(report, getattr(options, "history", None), voice.warn, again)
    if afterwards is not None:
        afterwards(folder, voice.warn)
    report.duration_s = time.time() - report.started_at
    report.warnings = tuple(dict.fromkeys(voice.warnings))
    return _finish(report, view, folder, options, command, diff)


def _view(options: argparse.Namespace, command: str, ready: Any, voice: Any) -> Any:
    """Return the view, after telling it what came up before it was there. A plan is shown at its end."""
    from gpuprov.report.view import make_view

    quiet = options.json or (command == "plan" and not options.verbose)
    view = make_view(json=quiet, verbosity=options.verbose, stream=sys.stdout, hosts=len(ready.hosts))
    voice.view = view
    for text in voice.warnings:
        view.message(text, "warning")
    return view


def _say_what(view: Any, options: argparse.Namespace, command: str, ready: Any, name: str) -> None:
    """Say over which hosts, with which playbook; of a plan too, whose view is silent until its end."""
    from gpuprov.report.ink import plural

    hosts = plural(len(ready.hosts), "host")
    text = f"{command} {hosts} of {options.inventory} with {ready.which_playbook}, run {name}"
    if command == "plan" and not options.verbose and not options.json:
        print(f"{text}\n", flush=True)
    else:
        view.message(text)


def run_options(options: argparse.Namespace, name: str, *, check: bool, diff: bool, resume: bool) -> RunOptions:
    """Return what the command line says of how run *name* is done."""
    from gpuprov.fleet.options import RunOptions

    return RunOptions(
        run=name,
        owner=opts.owner(),
        check=check,
        diff=diff,
        forks=options.forks,
        gate_timeout_s=options.gate_timeout,
        reconnect_s=options.reconnect_timeout,
        total_s=options.host_timeout,
        skip_refused=options.skip_refused,
        take_over=options.take_over,
        resume=resume,
    )


def run_fleet(
    ready: Any,
    view: Any,
    folder: Any,
    how: RunOptions,
    together: Sequence[str] = (),
    more: Mapping[str, Any] | None = None,
) -> tuple[HostReport, ...]:
    """Run over the hosts that are ready, then what runs on them together; return their reports."""
    from gpuprov.fleet.run import Fleet

    try:
        reports = Fleet(ready.compiler, ready.ways, view, folder, how).run(ready.hosts)
        if together:
            from gpuprov.fleet.fabric import prove

            settings = ready.compiler.settings
            return prove(ready.hosts, reports, settings, ready.ways, view, folder, how, together, more=more)
        return reports
    finally:
        ready.ways.close()


def _finish(report: RunReport, view: Any, folder: Any, options: argparse.Namespace, command: str, diff: bool) -> int:
    """Write the run's documents and show its end."""
    import json

    from gpuprov.report.html import render

    document = _document(report)
    folder.finish(document)
    folder.write("report.html", render(document))
    view.finish(report, folder.path)
    if options.json:
        json.dump(document, sys.stdout)
        sys.stdout.write("\n")
    elif command == "plan" and not options.verbose:
        _show_plan(report, folder.path, diff)
    return report.exit_code


def _show_plan(report: RunReport, folder: str, diff: bool) -> None:
    from gpuprov.report.ink import Ink, wants_color, width_of
    from gpuprov.report.plan import render_plan
    from gpuprov.report.terminal import recap

    ink, width = Ink(wants_color(sys.stdout)), width_of(sys.stdout)
    print(render_plan(report, ink=ink, width=width, diff=diff))
    print()
    print(recap(report, folder, ink=ink, width=width), end="")


def _document(report: RunReport) -> dict[str, Any]:
    from gpuprov.report.jsonout import to_json

    return to_json(report)


def _report(options: argparse.Namespace, command: str, name: str, ready: Any, started: float, check: bool) -> RunReport:
    from gpuprov.store.runs import without_secrets

    return RunReport(
        run=name,
        command=shlex.join(without_secrets(["gpuprov", *sys.argv[1:]])[0]) if sys.argv else f"gpuprov {command}",
        inventory=options.inventory,
        playbook=ready.playbook.path,
        hosts=(),
        started_at=started,
        duration_s=0.0,
        check=check,
        version=__version__,
    )


def _remembered(options: argparse.Namespace, command: str, check: bool, diff: bool) -> dict[str, Any]:
    """Return what `gpuprov resume` needs to say the same again."""
    kept = {key: value for key, value in vars(options).items() if key not in ("command", "ask_become_pass")}
    kept.update(command=command, check=check, diff=diff, cwd=os.getcwd(), ask_become_pass=options.ask_become_pass)
    return kept
