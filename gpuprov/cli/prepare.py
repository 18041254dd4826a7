"""From the words of a command line to hosts that are ready to be run: all input read, checked, refused."""

from __future__ import annotations

import getpass
import os
import sys
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gpuprov.cli import options as opts
from gpuprov.cli.stacks import chooser_for
from gpuprov.compile import Compiler, analyse
from gpuprov.errors import Problem, SourceErrors, UsageError
from gpuprov.fleet.hostrun import HostRun, Prepared
from gpuprov.fleet.session import Become
from gpuprov.load.inventory import load_inventory
from gpuprov.load.patterns import check_hosts, matching, select
from gpuprov.load.playbook import load_playbook
from gpuprov.model import Inventory, Playbook, Variable
from gpuprov.report.fold import HostFold
from gpuprov.transport.target import ConnectOptions, Target, target_of
from gpuprov.transport.ways import Ways

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

DEFAULT_PLAYBOOK = "playbooks/site.yaml"


@dataclass(frozen=True, slots=True)
class Ready:
    """Everything that a run needs, before any connection."""

    inventory: Inventory
    playbook: Playbook
    compiler: Compiler
    hosts: tuple[HostRun, ...]
    ways: Ways
    which_playbook: str
    password: str | None = field(repr=False)


class Voice:
    """Sentences that come up before there is a view, or from worker threads; told once there is one."""

    def __init__(self) -> None:
        self.view: Any = None
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        """Tell something that a person should know, and keep it for the report."""
        self.warnings.append(text)
        if self.view is not None:
            self.view.message(text, "warning")

    def info(self, text: str) -> None:
        """Tell what takes long."""
        if self.view is not None:
            self.view.message(text)


def default_playbook() -> tuple[str, str]:
    """Return (path, words for a person) of the playbook that is used when none is named."""
    if os.path.isfile(DEFAULT_PLAYBOOK):
        return DEFAULT_PLAYBOOK, DEFAULT_PLAYBOOK
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for folder in (os.path.join(package, "content"), os.path.dirname(package)):  # a wheel, a checkout
        path = os.path.join(folder, DEFAULT_PLAYBOOK)
        if os.path.isfile(path):
            return path, f"the packaged {DEFAULT_PLAYBOOK}"
    raise UsageError("there is no ./playbooks/site.yaml here", hint="name a playbook: gpuprov apply INVENTORY PLAYBOOK")


def prepare(
    options: argparse.Namespace,
    run: str,
    *,
    check: bool,
    diff: bool,
    voice: Voice,
    wheels: Any = None,
    password: str | None = None,
) -> Ready:
    """Read and check all input. Raises SourceErrors with everything that is wrong, UsageError, LabError.

    wheels: who is asked for the packages of pip tasks, instead of this machine's store. password: sudo's, when it is
    known already; else -K asks for it.
    """
    path, which = (options.playbook, options.playbook) if options.playbook else default_playbook()
    extra = opts.extra_variables(options.extra_vars)
    problems: list[Problem] = []
    inventory = load_inventory(options.inventory, problems, also=os.path.dirname(path) or ".")
    playbook = load_playbook(path, problems)
    if problems:
        raise SourceErrors(problems)
    names = selected(inventory, playbook, options.limit, problems)
    problems += analyse(playbook, inventory, names, extra, select=select)
    if problems:
        raise SourceErrors(problems)
    if not names:
        raise UsageError("no host of the inventory is named by the playbook", hint="gpuprov inventory graph shows them")
    inventory = with_lab(inventory)
    compiler = Compiler(
        playbook,
        inventory,
        select=select,
        run=run,
        extra_vars=extra,
        check=check,
        diff=diff,
        tags=opts.split_tags(options.tags),
        skip_tags=opts.split_tags(options.skip_tags),
        wheels=wheels or _Wheels(voice.info),
        stacks=chooser_for(inventory, names, extra, options.tables, getattr(options, "given_stacks", None)),
        verbosity=options.verbose,
    )
    connect = ConnectOptions(
        user=options.user, private_key=options.private_key, connect_timeout_s=options.timeout, warn=voice.warn
    )
    password = password or opts.become_password(options)
    ways = Ways(connect)
    hosts = tuple(hosts_of(compiler, names, ways, connect, password))
    return Ready(inventory, playbook, compiler, hosts, ways, which, password)


def selected(inventory: Inventory, playbook: Playbook, limit: str | None, problems: list[Problem]) -> list[str]:
    """Return the hosts of all plays, within --limit, in inventory order. A play may match nobody."""
    wanted: set[str] = set()
    for play in playbook.plays:
        found = check_hosts(inventory, play.hosts, play.position)
        problems += found
        if not found:
            wanted.update(matching(inventory, play.hosts))
    if limit is not None:
        allowed = select(inventory, "all", limit)
        if not problems and not wanted.intersection(allowed):
            raise UsageError(
                f"--limit {limit} leaves no host of the playbook", hint="gpuprov inventory graph shows them"
            )
        wanted.intersection_update(allowed)
    return [name for name in inventory.hosts if name in wanted]


def with_lab(inventory: Inventory) -> Inventory:
    """Start the rehearsal fleet when the inventory asks for one; give its hosts their addresses."""
    settings = [host.value("gpuprov_lab") for host in inventory.hosts.values()]
    wanted = [s for s in settings if s not in (None, False)]
    if not wanted:
        return inventory
    from gpuprov.lab import Lab

    lab = Lab()
    lab.ensure(
        hosts=len(wanted),
        booted=_suite(wanted),
        gpus=_simulated_gpus(inventory),
        say=lambda text: print(text, file=sys.stderr),
    )
    hosts = dict(inventory.hosts)
    for name, host in inventory.hosts.items():
        if host.value("gpuprov_lab") in (None, False):
            continue
        given: Mapping[str, Any] = lab.connection(name)
        layer = {key: Variable(value, "the lab") for key, value in given.items()}
        hosts[name] = replace(host, variables={**layer, **host.variables})
    return replace(inventory, hosts=hosts)


def _suite(settings: list[Any]) -> str:
    """Return the Debian suite that all of a lab's *settings* ask for with booted, "" for ordinary hosts."""
    asked = [setting.get("booted", False) if isinstance(setting, dict) else False for setting in settings]
    suites = {value if isinstance(value, str) else "bookworm" if value is True else "" for value in asked}
    if len(suites) > 1:
        raise UsageError(
            "gpuprov_lab asks for hosts of several kinds, and a lab that an inventory starts has one kind",
            hint="give all of its hosts the same booted: false, true or the name of a Debian suite",
        )
    return suites.pop()


def _simulated_gpus(inventory: Inventory) -> dict[str, str]:
    """Return the simulated GPUs that each lab host of the inventory asks for."""
    settings = {name: host.value("gpuprov_lab") for name, host in inventory.hosts.items()}
    asked = {name: setting.get("gpus", "") for name, setting in settings.items() if isinstance(setting, dict)}
    wrong = next((name for name, gpus in asked.items() if not isinstance(gpus, str)), None)
    if wrong is not None:
        raise UsageError(f"gpuprov_lab of {wrong} has gpus: {asked[wrong]!r}", hint="such as gpus: 8xh100-sxm")
    return {name: gpus for name, gpus in asked.items() if gpus}


class _Wheels:
    """The wheelhouse, imported when the first task asks for wheels."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._house: Any = None
        self._guard = threading.Lock()

    def resolve(self, args: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Return what a pip task gains for one host; see Wheelhouse.resolve."""
        with self._guard:  # one for all hosts, so that they ask pip once
            if self._house is None:
                from gpuprov.fleet.wheelhouse import Wheelhouse

                self._house = Wheelhouse(say=self._say)
        found: tuple[dict[str, Any], dict[str, str]] = self._house.resolve(args, facts)
        return found


def hosts_of(
    compiler: Compiler,
    names: list[str],
    ways: Ways,
    connect: ConnectOptions,
    password: str | None,
    *,
    survey: bool = False,
    network: bool = False,
) -> list[HostRun]:
    """Return *names* ready to be connected to. survey: they are to tell all that choosing a stack needs.

    network: and whether their package sources answer. Raises SourceErrors.
    """
    problems: dict[Problem, None] = {}
    hosts = []
    for name in names:
        try:
            settings = compiler.settings(name)
            target = target_of(name, settings, connect)
            user = getpass.getuser() if target.connection == "local" else ways.route(target).user
            prepared = _prepared(compiler, target, settings, user, password, survey or compiler.wants_stack(name))
            hosts.append(HostRun(replace(prepared, survey_network=network), HostFold(name)))
        except SourceErrors as error:
            problems.update(dict.fromkeys(error.problems))
    if problems:
        raise SourceErrors(problems)
    return hosts


def _prepared(
    compiler: Compiler, target: Target, settings: Mapping[str, Any], user: str, password: str | None, survey: bool
) -> Prepared:
    """Turn one host's rendered settings into what the fleet needs to know of it."""
    root = compiler.needs_root(target.name) and user != "root"
    given = settings.get("ansible_become_password") or settings.get("ansible_become_pass") or password
    expected = settings.get("gpuprov_expect_gpus")
    python = settings.get("ansible_python_interpreter")
    secrets = [str(s) for s in (given, target.password, target.key_passphrase) if s]
    return Prepared(
        name=target.name,
        target=target,
        become=Become(root=root, password=str(given) if given else None),
        python=None if python in (None, "auto", "auto_silent", "auto_legacy") else str(python),
        home=settings.get("gpuprov_state_dir"),
        expected_gpus=int(expected) if expected is not None else None,
        login_user=user if root else None,
        secrets=tuple(secrets),
        survey=survey,
    )
