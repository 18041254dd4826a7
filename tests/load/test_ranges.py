"""Names with ranges: expanding them, folding them, and back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuprov.load.ranges import RangeSyntaxError, expand, expand_all, fold, natural_key, split_outside_brackets


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("gpu01", ["gpu01"]),
        ("gpu[01:03]", ["gpu01", "gpu02", "gpu03"]),
        ("gpu[8:11]", ["gpu8", "gpu9", "gpu10", "gpu11"]),
        ("gpu[01:09:4].lan", ["gpu01.lan", "gpu05.lan", "gpu09.lan"]),
        ("gpu[098:101]", ["gpu098", "gpu099", "gpu100", "gpu101"]),
        ("rack-[a:c]", ["rack-a", "rack-b", "rack-c"]),
        ("r[1:2]g[a:b]", ["r1ga", "r1gb", "r2ga", "r2gb"]),
        ("gpu[01-03,07]", ["gpu01", "gpu02", "gpu03", "gpu07"]),
        ("[1:2]", ["1", "2"]),
    ],
)
def test_expand(text: str, names: list[str]) -> None:
    assert expand(text) == names


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("gpu[16:01]", "backwards"),
        ("gpu[d:a]", "backwards"),
        ("gpu[1:d]", "mixes"),
        ("gpu[01:100]", "same number of digits"),
        ("gpu[]", "no range"),
        ("gpu[1:5:0]", "no range"),
        ("gpu[one:two]", "no range"),
        ("gpu[01", "no partner"),
        ("gpu01]", "no partner"),
        ("gpu[1:99999999]", "more than"),
        ("gpu[1:999][1:999]", "more than"),
    ],
)
def test_text_that_is_no_range(text: str, part: str) -> None:
    with pytest.raises(RangeSyntaxError, match=part):
        expand(text)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["gpu01"], "gpu01"),
        (["gpu02", "gpu01", "gpu01"], "gpu[01-02]"),
        ([f"gpu{n:02}" for n in range(1, 8)] + ["gpu12", "login"], "gpu[01-07,12],login"),
        (["gpu9", "gpu10", "gpu11"], "gpu[9-11]"),
        (["gpu98", "gpu099", "gpu99", "gpu100"], "gpu[98,099,99-100]"),
        (["gpu99", "gpu100"], "gpu[99-100]"),
        (["gpu01.dc2", "gpu02.dc2", "gpu01.dc3"], "gpu[01-02].dc2,gpu01.dc3"),
        (["10.0.0.7", "10.0.0.8"], "10.0.0.[7-8]"),
        (["db", "web"], "db,web"),
        (["r1g1", "r1g2", "r2g1"], "r1g[1-2],r2g1"),
    ],
)
def test_fold(names: list[str], text: str) -> None:
    assert fold(names) == text
    assert sorted(expand_all(text)) == sorted(set(names))


NAMES = st.lists(st.from_regex(r"\A[a-z0-9.-]{0,3}[0-9]{0,3}[a-z.-]{0,2}[0-9]{0,2}\Z").filter(bool), max_size=30)


@settings(deadline=None)
@given(NAMES)
def test_folding_loses_and_invents_nothing(names: list[str]) -> None:
    expanded = expand_all(fold(names))
    assert len(expanded) == len(set(names))
    assert set(expanded) == set(names)


def test_natural_order() -> None:
    assert sorted(["gpu10", "gpu2", "gpu2a", "login"], key=natural_key) == ["gpu2", "gpu2a", "gpu10", "login"]


def test_splitting_respects_brackets() -> None:
    assert split_outside_brackets(" a, b[1,2]: c[0:3],,", ",:") == ["a", "b[1,2]", "c[0:3]"]
