"""Asking the resolver about hosts in the short form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpuprov.load.marks import load_text
from gpuprov.stack import Refusal, Stack, explain, host_from_short, load, overlaid, resolve, want_from

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuprov.errors import Problem
    from gpuprov.stack import Tables


def answer(
    host: Mapping[str, Any], want: Mapping[str, Any] | None = None, tables: Tables | None = None
) -> Stack | Refusal:
    tables = tables or load()
    problems: list[Problem] = []
    found = resolve(want_from(want or {}, problems), host_from_short(tables, dict(host), problems), tables)
    assert problems == []
    return found


def stack(host: Mapping[str, Any], want: Mapping[str, Any] | None = None, tables: Tables | None = None) -> Stack:
    found = answer(host, want, tables)
    assert isinstance(found, Stack), explain(found)
    return found


def refusal(host: Mapping[str, Any], want: Mapping[str, Any] | None = None, tables: Tables | None = None) -> Refusal:
    found = answer(host, want, tables)
    assert isinstance(found, Refusal), explain(found)
    return found


def with_overlay(text: str) -> tuple[Tables, list[Problem]]:
    problems: list[Problem] = []
    value = load_text(text, "mine.yaml", problems)
    assert problems == []
    return overlaid(load(), value, "mine.yaml", problems), problems
