import re
from pathlib import Path

from gpuprov import errors
from gpuprov.report.exits import MEANINGS, meaning

DOC = Path(__file__).parents[2] / "docs" / "exit-codes.md"


def codes() -> dict[str, int]:
    return {name: value for name, value in vars(errors).items() if name.startswith("EXIT_") and isinstance(value, int)}


def test_every_code_has_a_meaning() -> None:
    assert set(MEANINGS) == set(codes().values()) == set(errors.EXIT_ORDER)
    assert meaning(None) == ""


def test_the_documentation_is_the_code() -> None:
    rows = re.findall(r"^\| (\d+) \| ([^|]+?) \|", DOC.read_text(), re.MULTILINE)
    assert {int(code): text for code, text in rows} == MEANINGS


def test_the_documented_order_is_the_code() -> None:
    (order,) = re.findall(r"the first of ([\d, ]+) wins", DOC.read_text())
    assert tuple(int(code) for code in order.split(",")) == errors.EXIT_ORDER


def test_the_documented_errors_are_the_code() -> None:
    text = DOC.read_text()
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.GpuprovError)]
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", text, re.MULTILINE))
    assert rows == {c.code: str(c.exit_code) for c in classes}
