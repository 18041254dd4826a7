"""`gpuprov lab`: start, look at and take down the rehearsal fleet."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from gpuprov.errors import EXIT_ERROR, EXIT_OK, UsageError

if TYPE_CHECKING:
    from gpuprov.lab import HostStatus
    from gpuprov.lab.layout import Layout


_SUITE = "the Debian of booted hosts: bookworm (default) or trixie; implies --booted"


def register(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `gpuprov lab`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--state", help="the lab's folder (default: $GPUPROV_LAB_STATE, else /var/lib/gpuprov-lab)")
    up = actions.add_parser("up", parents=[shared], help="start the hosts that are not up")
    up.add_argument("--hosts", type=int, default=4, metavar="N", help="gpu01 to gpuN (default: 4)")
    up.add_argument(
        "--port", type=int, default=0, help="the sshd's port in a new lab (default: the first free from 2222)"
    )
    up.add_argument(
        "--booted", action="store_true", help="hosts that boot Debian with systemd, instead of views of this machine"
    )
    up.add_argument("--suite", metavar="SUITE", help=_SUITE)
    up.add_argument(
        "--gpus",
        default="",
        metavar="GPUS",
        help="simulated GPUs: 8xh100-sxm for all hosts, gpu01=8xh100-sxm,gpu02=4xt4 for some, "
        "or a file that `gpuprov verify --record` wrote",
    )
    actions.add_parser("down", parents=[shared], help="end all hosts and remove every file of the lab")
    status = actions.add_parser("status", parents=[shared], help="one line per host; exit 0 only if all are up")
    status.add_argument("--json", action="store_true", help="the same as JSON")
    fault = actions.add_parser("fault", parents=[shared], help="let a host with simulated GPUs have a fault, at once")
    fault.add_argument("host", nargs="?", metavar="HOST", help="gpu01 ...")
    fault.add_argument("kind", nargs="?", metavar="KIND", help="one of --list, or clear: all is well again")
    fault.add_argument("--gpu", type=int, default=0, metavar="N", help="the GPU that has it, by index (default: 0)")
    fault.add_argument("--list", action="store_true", help="the kinds of faults; with HOST, those that it has")
    prepare = actions.add_parser(
        "prepare", help="install what a lab needs (OpenSSH's server, not listening on this machine)"
    )
    prepare.add_argument(
        "--booted",
        action="store_true",
        help="what booted hosts need too: systemd-nspawn, debootstrap, and a Debian root, which takes a minute",
    )
    prepare.add_argument("--suite", metavar="SUITE", help=_SUITE)


def run(options: argparse.Namespace) -> int:
    """Do what was asked; return the exit code."""
    if options.action == "prepare":
        return _prepare(_suite(options))
    from gpuprov.lab import Lab

    lab = Lab(options.state)
    if options.action == "up":
        lab.up(options.hosts, port=options.port, booted=_suite(options), gpus=options.gpus, say=print)
        if not lab.confined:
            print("note: no user namespaces on this machine, so root in a lab host cannot mount or rename the host")
        count = f"{options.hosts} host{'s' if options.hosts != 1 else ''}"
        print(f"{count} up; ssh -F {lab.layout.path('ssh_config')} gpu01")
    elif options.action == "down":
        lab.down()
    elif options.action == "fault":
        _fault(options, lab.layout)
    else:
        return _status(lab.status(), lab.layout.state, options.json)
    return EXIT_OK


def _status(hosts: tuple[HostStatus, ...], state: str, as_json: bool) -> int:
    up = sum(status.up for status in hosts)
    if as_json:
        rows = [
            {**asdict(status.host), "up": status.up, "pid": status.pid, "booted": status.booted, "gpus": status.gpus}
            for status in hosts
        ]
        print(json.dumps({"state": state, "hosts": rows}, indent=1))
    else:
        for status in hosts:
            place = f"{status.host.address}:{status.host.port}"
            words = f"{status.host.name:8} {place:20} {'up' if status.up else 'down':5} {status.pid or '':<8}"
            gpus = f"simulated {status.gpus}" if status.gpus else ""
            print(f"{words} {status.booted} {gpus}".rstrip())
        print(f"{up} of {len(hosts)} up in {state}" if hosts else f"no lab in {state}; gpuprov lab up starts one")
    return EXIT_OK if hosts and up == len(hosts) else EXIT_ERROR


def _fault(options: argparse.Namespace, layout: Layout) -> None:
    from gpuprov.lab import gpus
    from gpuprov.lab.checks import need_root
    from gpuprov.lab.gpu_faults import FAULTS

    host, kind = options.host, options.kind
    if host is None or (kind is None and not options.list):
        if not options.list:
            raise UsageError("gpuprov lab fault needs a host and a kind of fault", hint="gpuprov lab fault --list")
        for name, fault in FAULTS.items():
            print(f"{name:20} {fault.says}")
        return
    if kind == "clear":
        need_root("fault")
        gpus.clear_faults(layout, host)
    elif kind is not None:
        need_root("fault")
        gpus.put_fault(layout, host, kind, options.gpu)
    had = [f"{fault['kind']} (GPU {fault['gpu']})" for fault in gpus.faults_of(layout, host)]
    print(f"{host}: {', '.join(had) or 'no fault'} (simulated)")


def _suite(options: argparse.Namespace) -> str:
    return options.suite or ("bookworm" if options.booted else "")


def _prepare(suite: str) -> int:
    from gpuprov.lab.install import install_for_booted_hosts, install_openssh_server

    for line in install_for_booted_hosts(suite, say=print) if suite else install_openssh_server():
        print(line)
    return EXIT_OK
