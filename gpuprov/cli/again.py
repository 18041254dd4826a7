"""A second look, in the same run, at the GPUs whose bits are not those of the others."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

from gpuprov.errors import GpuprovError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpuprov.judge.run import Key
    from gpuprov.results import HostReport


class Again:
    """Runs parts of the proof once more on hosts of a verify that has ended; once, however often it is asked.

    options are those of the run, run_folder its folder: the second look keeps its own in there. What cannot be run
    again costs a warning. password is sudo's, which nobody is asked for twice.
    """

    def __init__(self, options: argparse.Namespace, run_folder: Any, voice: Any, password: str | None) -> None:
        self._options, self._folder, self._voice, self._password = options, run_folder, voice, password
        self._reports: tuple[HostReport, ...] | None = None

    def __call__(self, suspects: Iterable[Key]) -> tuple[HostReport, ...]:
        """Return the reports of the hosts of *suspects*, with the parts alone that have the suspect checks."""
        if self._reports is None:
            keys = sorted(suspects)
            try:
                self._reports = self._run(sorted({host for host, _, _ in keys}), parts_of(name for _, name, _ in keys))
            except GpuprovError as error:
                self._voice.warn(f"what is suspect was not run again: {error.message}")
                self._reports = ()
            for report in self._reports:
                if report.outcome not in ("ok", "changed"):
                    self._voice.warn(f"what is suspect on {report.host} was not run again: {report.cause}")
        return self._reports

    def _run(self, hosts: list[str], parts: list[str]) -> tuple[HostReport, ...]:
        from gpuprov.cli.apply import run_fleet, run_options
        from gpuprov.cli.prepare import prepare
        from gpuprov.report.jsonout import to_json
        from gpuprov.report.view import SilentView
        from gpuprov.results import RunReport
        from gpuprov.store.names import new_run_id
        from gpuprov.store.runs import RunFolder

        self._voice.info(f"other bits than elsewhere: {', '.join(parts)} once more on {', '.join(hosts)}")
        same = argparse.Namespace(**vars(self._options))
        same.limit = ",".join(hosts)
        wanted = {"gpuprov_verify_tier": "", "gpuprov_verify_tests": parts, "gpuprov_verify_record": False}
        same.extra_vars = [*(same.extra_vars or ()), json.dumps(wanted)]
        name = new_run_id()
        ready = prepare(same, name, check=False, diff=False, voice=self._voice, password=self._password)
        started = time.time()
        folder = RunFolder.create(self._folder.path, run=name)
        how = run_options(same, name, check=False, diff=False, resume=False)
        reports = run_fleet(ready, SilentView(), folder, how)
        took = time.time() - started
        whole = RunReport(
            name, f"run again by {self._folder.run}", same.inventory, same.playbook, reports, started, took
        )
        folder.finish(to_json(whole))
        return reports


def parts_of(checks: Iterable[str]) -> list[str]:
    """Return the parts of the proof that have *checks*, sorted; a check without one is left out."""
    from gpuprov.proof.registry import parts

    names = [part.name for part in parts()]
    found = set()
    for check in checks:
        having = [name for name in names if check == name or check.startswith(f"{name}.")]
        found.update(sorted(having, key=len)[-1:])
    return sorted(found)
