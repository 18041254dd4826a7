"""`gpuprov verify INVENTORY`: the nightly fleet health check; touches no configuration."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from gpuprov.cli import options as opts
from gpuprov.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

TIERS = {
    "quick": "looks, without load: 10 s",
    "nightly": "measures and trains for up to a minute",
    "weekly": "all of it, up to 5 minutes",
    "burnin": "hours, for new and repaired machines",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    opts.add_run_options(parser, playbook=False)
    proof = parser.add_argument_group("the proof")
    depth = "; ".join(f"{name} {what}" for name, what in TIERS.items())
    proof.add_argument("--tier", choices=TIERS, default="nightly", help=f"{depth} (default: nightly)")
    proof.add_argument(
        "--only", action="append", metavar="CHECK", help="these checks alone (docs/proof.md), whatever the tier"
    )
    proof.add_argument("--fabric", action="store_true", help="also all hosts together, in every tier (docs/fabric.md)")
    proof.add_argument("--load-busy", action="store_true", help="load GPUs that jobs use, too")
    proof.add_argument("--record", metavar="DIR", help="write what NVML said of each host to DIR/HOST.json")


def run(options: argparse.Namespace) -> int:
    """Run playbooks/verify.yaml over the inventory; return the exit code."""
    from gpuprov.cli.apply import perform
    from gpuprov.cli.prepare import default_playbook

    options.playbook = os.path.join(os.path.dirname(default_playbook()[0]), "verify.yaml")
    if not os.path.isfile(options.playbook):
        raise UsageError(f"there is no {options.playbook}", hint="copy the packaged playbooks/verify.yaml there")
    _check_names(options.only or ())
    wanted: dict[str, Any] = {
        "gpuprov_verify_tier": "" if options.only else options.tier,
        "gpuprov_verify_tests": options.only or [],
        "gpuprov_verify_load_busy": options.load_busy,
        "gpuprov_verify_record": bool(options.record),
    }
    options.extra_vars = [json.dumps(wanted), *(options.extra_vars or ())]
    return perform(options, "verify", check=False, diff=False, **rest_of(options))


def rest_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return what follows when each host has proved itself, as arguments of perform: also of a run that is resumed."""
    from gpuprov.proof.fabric.course import PARTS

    together = PARTS if options.fabric or (options.tier in ("weekly", "burnin") and not options.only) else ()
    return {"together": together, "afterwards": _Recorder(options.record) if options.record else None}


def _check_names(names: Sequence[str]) -> None:
    """Raise UsageError with all names that no part of the proof has."""
    from gpuprov.proof.registry import parts

    known = [part.name for part in parts()]
    wrong = [name for name in names if not any(one == name or one.startswith(name + ".") for one in known)]
    if wrong:
        import difflib

        near = [one for name in wrong for one in difflib.get_close_matches(name, known, 3)]
        hint = (
            f"did you mean {', '.join(near)}?"
            if near
            else "docs/checks.md, docs/checks-host.md and docs/measurements.md name them"
        )
        raise UsageError(f"--only {', '.join(wrong)}: there is no such check", hint=hint)


class _Recorder:
    """Writes what NVML said of each host to DIR/HOST.json, from the journal of the run. Raises UsageError."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--record {folder}: {error.strerror}", hint="name a folder that can be written") from None

    def __call__(self, run_folder: Any, warn: Callable[[str], None]) -> None:
        from gpuprov.store.names import file_name

        for host, event in run_folder.all_events():
            reading = (event.get("result") or {}).get("reading") if event.get("kind") == "TaskFinished" else None
            if reading:
                path = os.path.join(self._folder, file_name(host) + ".json")
                try:
                    with open(path, "w", encoding="utf-8") as f:
                        json.dump(reading, f, indent=1)
                except OSError as error:
                    warn(f"--record: {path} was not written: {error.strerror}")
