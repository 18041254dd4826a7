"""`gpuprov doctor INVENTORY [HOST ...]`: ask the hosts, compare with the table, show the same trouble once."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from gpuprov.errors import EXIT_OK, EXIT_UNHEALTHY, worst_exit

if TYPE_CHECKING:
    import argparse

    from gpuprov.compile import Compiler
    from gpuprov.doctor.host import Examined
    from gpuprov.doctor.table import Table
    from gpuprov.fleet.session import Session

#: Version of the JSON that is printed.
SCHEMA = 1


def look(options: argparse.Namespace, table: Table) -> int:
    """Examine the hosts that *options* name; return 0, 3 when something was found, 4 when a host was not reached."""
    from gpuprov.cli.looking import look_at, show_unreachable
    from gpuprov.doctor.host import examine
    from gpuprov.report.sickness import Patient

    looked = look_at(options, survey=True, network=True, ask=_ask)
    patients = [
        Patient(seen.host, seen.facts, examine(table, seen.facts, seen.answer))
        for seen in looked.seen
        if seen.error is None
    ]
    if options.json:
        hosts: dict[str, Any] = {p.host: _host_json(p.examined, p.systems) for p in patients}
        hosts.update(
            {s.host: {"error": s.error.message, "hint": s.error.hint} for s in looked.seen if s.error is not None}
        )
        print(json.dumps({"schema": SCHEMA, "rows": len(table), "hosts": hosts}, ensure_ascii=False))
    else:
        _show(patients)
        show_unreachable(looked)
    sick = any(patient.examined.findings for patient in patients)
    return worst_exit([EXIT_UNHEALTHY if sick else EXIT_OK, looked.exit_code])


def _ask(compiler: Compiler, host: str, session: Session) -> Any:
    from gpuprov.fleet.evidence import ask

    virtualenv = compiler.settings(host).get("gpuprov_torch_virtualenv")
    return ask(session, str(virtualenv) if virtualenv else None)


def _host_json(examined: Examined, systems: tuple[str, ...]) -> dict[str, Any]:
    from gpuprov.report.findings import to_json

    return {
        "findings": [to_json(finding, systems) for finding in examined.findings],
        "could_not_be_told": [{"what": one.what, "rows": list(one.rows)} for one in examined.untold],
    }


def _show(patients: list[Any]) -> None:
    from gpuprov.report.ink import Ink, printable, wants_color, width_of
    from gpuprov.report.sickness import render

    for line in render(patients, Ink(wants_color(sys.stdout)), width_of(sys.stdout)):
        print(printable(line, sys.stdout))
