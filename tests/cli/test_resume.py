"""`gpuprov resume` says the same again: also what followed the proof of each host."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import pytest

from gpuprov.cli import apply, resume
from gpuprov.proof.fabric.course import PARTS
from gpuprov.store.runs import RunFolder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("fabric", [True, False])
def test_a_resumed_verify_still_has_its_fabric_and_its_record(
    fabric: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"fabric": fabric, "tier": "nightly", "only": None, "record": str(tmp_path / "readings")}
    given.update(command="verify", check=False, diff=False, cwd=str(tmp_path), extra_vars=[], user="", private_key="")
    folder = RunFolder.create(str(tmp_path / "runs"), options=given)
    said: dict[str, Any] = {}
    monkeypatch.setattr(apply, "perform", lambda options, command, **more: said.update(more, command=command) or 0)
    asked = argparse.Namespace(run=folder.path, run_dir=None, extra_vars=None, user=None, private_key=None)
    asked.json, asked.verbose, asked.ask_become_pass = False, 0, False
    assert resume.run(asked) == 0
    assert said["command"] == "verify"
    assert said["together"] == (PARTS if fabric else ())
    assert (tmp_path / "readings").is_dir()
    assert callable(said["afterwards"])
