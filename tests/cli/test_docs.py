"""docs/modules.md is what the modules declare; the declarations themselves are complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuprov.agent.modules import MODULES, arguments, base, load
from gpuprov.cli import docs
from gpuprov.cli.main import main
from gpuprov.errors import EXIT_INPUT, EXIT_OK

PAGE = Path(__file__).parents[2] / "docs" / "modules.md"


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == docs.modules(), "run: gpuprov docs modules > docs/modules.md"


def test_the_page_about_the_doctor_is_up_to_date(capsys):
    assert main(["docs", "doctor"]) == EXIT_OK
    shown = capsys.readouterr().out
    assert (PAGE.parent / "doctor.md").read_text() == shown, "run: gpuprov docs doctor > docs/doctor.md"


def test_the_page_about_compatibility_is_up_to_date(capsys):
    assert main(["docs", "compatibility"]) == EXIT_OK
    shown = capsys.readouterr().out
    page = (PAGE.parent / "compatibility.md").read_text()
    assert page == shown, "run: gpuprov docs compatibility > docs/compatibility.md"
    assert main(["docs", "compatibility", "T4"]) == EXIT_INPUT
    assert "gpuprov stack resolve" in capsys.readouterr().err


def test_one_row_of_the_doctors_table(capsys):
    assert main(["docs", "doctor", "apt-lock"]) == EXIT_OK
    shown = capsys.readouterr().out
    assert shown.startswith("## apt-lock")
    assert "Sources: ansible/ansible#51663" in shown
    assert main(["docs", "doctor", "apt-loc"]) == EXIT_INPUT
    assert "did you mean apt-lock" in capsys.readouterr().err


def test_one_module(capsys):
    assert main(["docs", "modules", "lineinfile"]) == EXIT_OK
    shown = capsys.readouterr().out
    assert shown.startswith("## lineinfile")
    assert "| `firstmatch` | yes or no | `no` |" in shown


def test_an_unknown_module(capsys):
    assert main(["docs", "modules", "lineinfle"]) == EXIT_INPUT
    assert "lineinfle" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(MODULES))
def test_declarations(name):
    file = load(name)
    spec = file.SPEC
    assert issubclass(file.MODULE, (base.State, base.Action))
    assert spec["summary"].endswith(".")
    for argument, rule in spec["args"].items():
        assert rule.get("doc") or argument == "_raw_params", argument
        assert rule.get("type", "str") in arguments.CONVERT, argument
        if "default" in rule:
            value = arguments.CONVERT[rule.get("type", "str")](rule["default"])
            assert value == rule["default"], f"{argument}: the default is not of the argument's type"
            assert value in rule.get("choices", [value])
    known = set(spec["args"]) | set(spec.get("internal", ()))
    for group in [*spec.get("exclusive", ()), *spec.get("one_of", ())]:
        assert known.issuperset(group)
    names = [alias for rule in spec["args"].values() for alias in rule.get("aliases", ())] + list(spec["args"])
    assert len(names) == len(set(names))
    assert not set(names) & set(spec.get("unsupported", {}))
    assert all(len(why) > 10 for why in spec.get("unsupported", {}).values())


def test_exclusive_arguments_have_no_defaults():
    """A default would always count as given."""
    for name in MODULES:
        spec = load(name).SPEC
        for group in spec.get("exclusive", ()):
            assert not [one for one in group if "default" in spec["args"].get(one, {})], name
