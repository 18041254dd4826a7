"""`gpuprov wheelhouse`: lock Python packages on a connected machine, fetch them into a folder, check a folder."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from gpuprov.cli.options import add_connection_options
from gpuprov.errors import EXIT_ERROR, EXIT_OK, EXIT_UNREACHABLE, UsageError

if TYPE_CHECKING:
    from gpuprov.fleet.locks import Lock
    from gpuprov.fleet.wheel_builder import Builder
    from gpuprov.fleet.wheel_wishes import Wish

PYTORCH = "https://download.pytorch.org/whl"
_EXAMPLE = "gpuprov wheelhouse build --stack '{torch: 2.13.0, python: \"3.11\"}' --out wheels"


def register(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `gpuprov wheelhouse`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    lock = actions.add_parser("lock", help="write which wheels are meant, each with its hash; fetches metadata")
    build = actions.add_parser("build", help="fetch all wheels of all locks into the folder, with a manifest")
    for one in (lock, build):
        _add_what(one)
        _add_where(one)
        add_connection_options(one)
    help_text = "fetch what this lock names, unchanged (again: several)"
    build.add_argument("--lock", action="append", metavar="FILE", default=[], help=help_text)
    verify = actions.add_parser("verify", help="read every file of a folder; exit 1 when one is missing or damaged")
    verify.add_argument("folder", metavar="DIR")
    verify.add_argument("--json", action="store_true", help="the same as JSON")


def _add_what(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what is wanted: an inventory, whose hosts are asked for their facts, or a stack")
    what.add_argument("inventory", metavar="INVENTORY", nargs="?", help="inventory file or folder")
    what.add_argument("--playbook", metavar="FILE", help="default: as for apply")
    what.add_argument("-l", "--limit", metavar="PATTERN", help="only these hosts")
    what.add_argument("-e", "--extra-vars", action="append", metavar="VARS", help="k=v, JSON or YAML text, or @file")
    what.add_argument("-t", "--tags", action="append", metavar="TAGS", help="only tasks with these tags")
    what.add_argument("--skip-tags", action="append", metavar="TAGS", help="leave out tasks with these tags")
    what.add_argument(
        "--tables", action="append", metavar="FILE", help="rows over those of gpuprov's own tables (docs/stack.md)"
    )
    what.add_argument(
        "--stack",
        action="append",
        metavar="YAML",
        default=[],
        help="{torch, torchvision, torchaudio, variant, packages, python, managed, machine, glibc} (again: several)",
    )


def _add_where(parser: argparse.ArgumentParser) -> None:
    where = parser.add_argument_group("from where, to where")
    where.add_argument("--out", metavar="DIR", required=True, help="the folder; what is in it stays")
    where.add_argument("--anew", action="store_true", help="resolve again what is locked already")
    where.add_argument(
        "--index", metavar="URL", default="", help="package index, with --stack (default: as pip is set)"
    )
    where.add_argument("--find-links", metavar="PLACE", default="", help="a page or folder with wheels, with --stack")
    where.add_argument(
        "--pytorch-index", metavar="URL", default=PYTORCH, help=f"has /cu130 and so on, with --stack ({PYTORCH})"
    )
    where.add_argument("--python-mirror", metavar="URL", default="", help="of managed Pythons, laid out as uv expects")
    where.add_argument("--python-downloads", metavar="URL", default="", help="uv's list of Pythons, another one")
    where.add_argument("-v", "--verbose", action="count", default=0, help=argparse.SUPPRESS)
    where.add_argument("--json", action="store_true", help="what was made, as JSON")


def run(options: argparse.Namespace) -> int:
    """Do what was asked; return the exit code."""
    if options.action == "verify":
        return _verify(options)
    files = getattr(options, "lock", [])
    if not (options.inventory or options.stack or files):
        raise UsageError("nothing is wanted: name an inventory, or a stack", hint=_EXAMPLE)
    from gpuprov.fleet.wheel_builder import Builder

    wishes = _stacks(options)
    if options.inventory:
        found, code = _asked_hosts(options)
        if code != EXIT_OK:
            return code
        wishes += found
    builder = Builder(options.out, _say)
    locks = _lock(builder, wishes, anew=options.anew)
    if options.action == "build":
        locks += _adopt(builder, files, options)
        _fetch(builder, locks)
    _show(builder, [lock for lock, _ in locks], options)
    return EXIT_OK


def _stacks(options: argparse.Namespace) -> list[Wish]:
    from gpuprov.errors import Problem, SourceErrors
    from gpuprov.fleet.managed_python import PythonSources
    from gpuprov.fleet.pip_tool import Sources
    from gpuprov.fleet.wheel_wishes import Wish, of_stack
    from gpuprov.load.marks import load_text

    problems: list[Problem] = []
    wishes = []
    base = options.pytorch_index.rstrip("/")
    for text in options.stack:
        stack = load_text(text, "--stack", problems)
        if problems:
            raise SourceErrors(problems)
        if not isinstance(stack, dict):
            raise UsageError(f"--stack {text}: a mapping is needed", hint=_EXAMPLE)
        request = of_stack(stack)
        own = f"{base}/{request.variant}" if base and request.variant.startswith("cu") else ""
        sources = Sources(options.index, options.find_links, own)
        pythons = PythonSources(options.python_mirror, options.python_downloads)
        wishes.append(Wish(request, sources, f"{base}/cpu" if base else "", pythons))
    return wishes


def _asked_hosts(options: argparse.Namespace) -> tuple[list[Wish], int]:
    """Return what the hosts' plans would ask for, and an exit code when not all hosts could be asked."""
    from gpuprov.cli.prepare import Voice, prepare
    from gpuprov.fleet.look import look
    from gpuprov.fleet.options import RunOptions
    from gpuprov.fleet.wheel_wishes import Recorder

    recorder = Recorder()
    ready = prepare(options, "wheelhouse", check=True, diff=False, voice=Voice(), wheels=recorder)
    try:
        seen = look(ready.hosts, ready.ways, RunOptions(run="wheelhouse", check=True))
    finally:
        ready.ways.close()
    silent = [one for one in seen if one.error is not None]
    for one in silent:
        assert one.error is not None
        print(f"{one.host}: {one.error.message}", file=sys.stderr)
    if silent:
        print("hint: leave these hosts out with --limit, or describe them with --stack", file=sys.stderr)
        return [], EXIT_UNREACHABLE
    for one in seen:
        ready.compiler.learn(one.host, one.facts)
    for one in seen:
        ready.compiler.plan(one.host, dict(one.facts))
    wishes = recorder.wishes()
    if not wishes:
        raise UsageError("no task of the playbook asks for packages with source", hint="the role torch does")
    return wishes, EXIT_OK


def _lock(builder: Builder, wishes: list[Wish], *, anew: bool) -> list[tuple[Lock, Wish]]:
    made = []
    for wish in wishes:
        lock = builder.lock(wish.request, wish.sources, cpu_index_url=wish.cpu_index_url, anew=anew)
        made.append((lock, wish))
    return made


def _adopt(builder: Builder, files: list[str], options: argparse.Namespace) -> list[tuple[Lock, Wish]]:
    """Take over locks that were made elsewhere. Raises UsageError, SourceErrors."""
    from gpuprov.fleet.locks import read
    from gpuprov.fleet.managed_python import PythonSources
    from gpuprov.fleet.pip_tool import Sources
    from gpuprov.fleet.wheel_wishes import Wish

    adopted = []
    pythons = PythonSources(options.python_mirror, options.python_downloads)
    for path in files:
        try:
            lock = builder.adopt(read(path))
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}", hint="gpuprov wheelhouse lock makes locks") from None
        base = options.pytorch_index.rstrip("/")
        own = f"{base}/{lock.request.variant}" if any(pin.of_torch for pin in lock.pins) else ""
        adopted.append((lock, Wish(lock.request, Sources(options.index, options.find_links, own), "", pythons)))
    return adopted


def _fetch(builder: Builder, made: list[tuple[Lock, Wish]]) -> None:
    for lock, wish in made:
        sources = wish.sources
        if not sources.torch_index_url and any(pin.of_torch for pin in lock.pins):
            from dataclasses import replace

            sources = replace(sources, torch_index_url=wish.cpu_index_url)
        builder.fetch(lock, sources)
        if lock.request.managed:
            builder.fetch_python(lock.request.target.python, lock.request.target.machine, wish.pythons)
    builder.write_manifest()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _show(builder: Builder, locks: list[Lock], options: argparse.Namespace) -> None:
    from gpuprov.fleet.wheel_folder import WheelFolder

    files = WheelFolder(builder.folder).files()
    if options.json:
        rows = [{"name": lock.name, "request": str(lock.request), "wheels": len(lock.pins)} for lock in locks]
        print(json.dumps({"folder": builder.folder, "locks": rows, "files": list(files.values())}, indent=1))
        return
    for lock in locks:
        print(f"{lock.name}: {len(lock.pins)} wheels, {lock.request}")
    if options.action == "build":
        size = sum(one["size"] for one in files.values())
        print(f"{len(files)} files, {size / 1e6:.1f} MB in {builder.folder}; gpuprov_wheelhouse names it")
    else:
        print(f"fetch what they name: gpuprov wheelhouse build --lock FILE --out {options.out}")


def _verify(options: argparse.Namespace) -> int:
    from gpuprov.fleet.wheel_folder import WheelFolder

    folder = WheelFolder(options.folder)
    locks, files = folder.locks(), folder.files()
    troubles = list(folder.verify())
    bad = [one for one in troubles if one.kind != "unknown"]
    if options.json:
        rows = [asdict(one) for one in troubles]
        print(json.dumps({"folder": folder.path, "locks": len(locks), "files": len(files), "troubles": rows}, indent=1))
    else:
        for one in troubles:
            print(f"{one.kind}: {one.message} ({one.path})")
        whole = "complete and undamaged" if not bad else f"{len(bad)} missing or damaged: build it again"
        print(f"{len(locks)} locks, {len(files)} files in {folder.path}: {whole}")
    if not files and not bad:
        print("there is no file to check: locks only", file=sys.stderr)
    return EXIT_ERROR if bad or not files else EXIT_OK
