import time

import pytest

from gpuprov.report import clean


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b(B\x1b=ok\x1bM", "ok"),
        ("10 %\r20 %\r\n", "10 %\n20 %\n"),
        ("abc\u202egnp.exe", "abcgnp.exe"),
        ("half \ud800 pair", "half  pair"),
        ("nul\x00bell\x07", "nulbell"),
        ("Grüße 😀", "Grüße 😀"),
        ("ends in escape \x1b", "ends in escape "),
        (7, ""),
        (None, ""),
    ],
)
def test_text(given: object, kept: str) -> None:
    assert clean.text(given) == kept


def test_long_text_keeps_its_ends() -> None:
    kept = clean.text("a" * 9000 + "b" * 9000, 10, 5)
    assert kept == "a" * 10 + "\n... 17985 characters left out, the journal has them ...\n" + "b" * 5


def test_line() -> None:
    assert clean.line(" a\n\n b\t\x1b[0m ") == "a b"
    assert clean.line("x" * 600) == "x" * 497 + "..."
    assert clean.line(["x"]) == ""


@pytest.mark.parametrize("given", [float("nan"), float("inf"), 10**400, True, "1", None, [1]])
def test_what_is_no_number_is_the_default(given: object) -> None:
    assert clean.number(given, -1.0) == -1.0


def test_plain_values_are_bounded() -> None:
    budget = clean.Budget(10_000)
    deep: list = []
    for _ in range(50):
        deep = [deep]
    kept = clean.plain({"deep": deep, "nan": float("nan"), "big": 10**30, "o": object(), "many": ["x"] * 9999}, budget)
    assert repr(kept["deep"]).count("[") == clean.MAX_DEPTH - 1
    assert (kept["nan"], kept["big"], kept["o"]) == ("nan", None, None)
    assert len(kept["many"]) == clean.MAX_LIST
    assert kept["many"][-1] is None  # the budget ended before the list did
    assert budget.left >= 0


def test_long_series_are_thinned_and_keep_their_ends() -> None:
    kept = clean.plain(list(range(6300)), clean.Budget(100_000))
    assert (kept[0], kept[-1], len(kept)) == (0, 6299, clean.MAX_LIST)
    assert kept == sorted(kept)


@pytest.mark.parametrize("piece", ["\x1b[", "\x1b]", "\x1b[0", "\x1b(", "\x9b;", "\x1bP\x1b"])
def test_no_text_takes_long(piece: str) -> None:
    text = piece * 50_000 + "0" * 50_000
    began = time.process_time()
    clean.text(text, len(text), 0)
    assert time.process_time() - began < 0.5
