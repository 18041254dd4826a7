"""Filters that work on lists and mappings."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import pass_environment

from gpuprov.templating.problem import TemplateProblem


def _listed(value: Any, name: str) -> list[Any]:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        raise TemplateProblem(f"{name} needs a list, it was given a {type(value).__name__}")
    return list(value)


def _key(value: Any) -> Any:
    """Return something hashable that is equal for equal values."""
    if isinstance(value, Mapping):
        return ("mapping", frozenset((_key(k), _key(v)) for k, v in value.items()))
    if isinstance(value, (list, tuple)):
        return ("list", tuple(map(_key, value)))
    return value


def _distinct(values: Iterable[Any], key: Callable[[Any], Any] = _key) -> list[Any]:
    found: dict[Any, Any] = {}
    for value in values:
        found.setdefault(key(value), value)
    return list(found.values())


@pass_environment
def unique(environment: Any, value: Any, case_sensitive: bool | None = None, attribute: str | None = None) -> list[Any]:
    """Return a list without repetitions, in its order. Texts that differ in case only are different."""

    def key(item: Any) -> Any:
        for name in (attribute or "").split(".") if attribute else ():
            item = environment.getitem(item, name)
        return _key(item.lower() if case_sensitive is False and isinstance(item, str) else item)

    return _distinct(_listed(value, "unique"), key)


def union(value: Any, other: Any) -> list[Any]:
    """Return what is in either list, once."""
    return _distinct([*_listed(value, "union"), *_listed(other, "union")])


def intersect(value: Any, other: Any) -> list[Any]:
    """Return what is in both lists, once."""
    there = {_key(item) for item in _listed(other, "intersect")}
    return _distinct(item for item in _listed(value, "intersect") if _key(item) in there)


def difference(value: Any, other: Any) -> list[Any]:
    """Return what is in the list and not in the other, once."""
    there = {_key(item) for item in _listed(other, "difference")}
    return _distinct(item for item in _listed(value, "difference") if _key(item) not in there)


def symmetric_difference(value: Any, other: Any) -> list[Any]:
    """Return what is in one of the two lists only, once."""
    return union(difference(value, other), difference(other, value))


def flatten(value: Any, levels: int | None = None, skip_nulls: bool = True) -> list[Any]:
    """Return a list with the items of its lists in it, *levels* deep (None: all)."""
    found: list[Any] = []
    for item in _listed(value, "flatten"):
        if skip_nulls and item in (None, "None", "null"):
            continue
        if isinstance(item, (list, tuple)) and levels != 0:
            found += flatten(item, None if levels is None else levels - 1, skip_nulls)
        else:
            found.append(item)
    return found


def zipped(value: Any, *others: Any, strict: bool = False) -> list[list[Any]]:
    """Return the lists' first items together, then the second ones, to the end of the shortest."""
    lists = [_listed(value, "zip"), *(_listed(other, "zip") for other in others)]
    if strict and len({len(each) for each in lists}) > 1:
        raise TemplateProblem("zip: the lists have {} items".format(", ".join(str(len(each)) for each in lists)))
    return [list(items) for items in zip(*lists)]


def zip_longest(value: Any, *others: Any, fillvalue: Any = None) -> list[list[Any]]:
    """Return the lists' items together, to the end of the longest."""
    return [list(items) for items in itertools.zip_longest(value, *others, fillvalue=fillvalue)]


def product(value: Any, *others: Any, repeat: int = 1) -> list[list[Any]]:
    """Return every combination of one item of each list."""
    return [list(items) for items in itertools.product(value, *others, repeat=repeat)]


def dict2items(value: Any, key_name: str = "key", value_name: str = "value") -> list[dict[str, Any]]:
    """Return a mapping as a list of {key, value}."""
    if not isinstance(value, Mapping):
        raise TemplateProblem(f"dict2items needs a mapping, it was given a {type(value).__name__}")
    return [{key_name: k, value_name: v} for k, v in value.items()]


def items2dict(value: Any, key_name: str = "key", value_name: str = "value") -> dict[Any, Any]:
    """Return a list of {key, value} as a mapping."""
    try:
        return {item[key_name]: item[value_name] for item in _listed(value, "items2dict")}
    except (KeyError, TypeError):
        raise TemplateProblem(f"items2dict needs mappings with {key_name} and {value_name}") from None


_MERGES: dict[str, Callable[[list[Any], list[Any]], list[Any]]] = {
    "replace": lambda _, new: new,
    "keep": lambda old, _: old,
    "append": lambda old, new: old + new,
    "prepend": lambda old, new: new + old,
    "append_rp": lambda old, new: [item for item in old if item not in new] + new,
    "prepend_rp": lambda old, new: new + [item for item in old if item not in new],
}


def combine(*terms: Any, recursive: bool = False, list_merge: str = "replace") -> dict[Any, Any]:
    """Return mappings merged, the later ones winning."""
    if list_merge not in _MERGES:
        raise TemplateProblem("combine: list_merge {!r}; allowed are {}".format(list_merge, ", ".join(_MERGES)))
    found: dict[Any, Any] = {}
    for term in flatten(list(terms)):
        if not isinstance(term, Mapping):
            raise TemplateProblem(f"combine needs mappings, it was given a {type(term).__name__}")
        found = _merged(found, term, recursive, list_merge)
    return found


def _merged(old: Mapping[Any, Any], new: Mapping[Any, Any], recursive: bool, list_merge: str) -> dict[Any, Any]:
    found = dict(old)
    for key, value in new.items():
        before = found.get(key)
        if recursive and isinstance(before, Mapping) and isinstance(value, Mapping):
            found[key] = _merged(before, value, recursive, list_merge)
        elif isinstance(before, list) and isinstance(value, list):
            found[key] = _MERGES[list_merge](before, value)
        else:
            found[key] = value
    return found


def subelements(value: Any, path: Any, skip_missing: bool = False) -> list[list[Any]]:
    """Return each item together with each of the entries of a list inside it."""
    keys = path.split(".") if isinstance(path, str) else list(path)
    items = list(value.values()) if isinstance(value, Mapping) else _listed(value, "subelements")
    found: list[list[Any]] = []
    for item in items:
        inner = item
        for key in keys:
            if not isinstance(inner, Mapping) or key not in inner:
                inner = [] if skip_missing else None
                break
            inner = inner[key]
        if not isinstance(inner, list):
            raise TemplateProblem("subelements: an item has no list at {}".format(".".join(keys)))
        found += [[item, entry] for entry in inner]
    return found


def rekey_on_member(value: Any, key: str, duplicates: str = "error") -> dict[Any, Any]:
    """Return mappings under what each has at *key*."""
    found: dict[Any, Any] = {}
    for item in value.values() if isinstance(value, Mapping) else value:
        if not isinstance(item, Mapping) or key not in item:
            raise TemplateProblem(f"rekey_on_member: an item has no {key!r}")
        if item[key] in found and duplicates == "error":
            raise TemplateProblem(f"rekey_on_member: {item[key]!r} is there twice")
        found[item[key]] = item
    return found


def _random(seed: Any) -> Any:
    from random import Random, SystemRandom

    return SystemRandom() if seed is None else Random(seed)  # noqa: S311 - to be the same every time


def random(end: Any, start: int = 0, step: int = 1, seed: Any = None) -> Any:
    """Return a random item of a list, or number below *end*; always the same one for a *seed*."""
    if isinstance(end, int):
        return _random(seed).randrange(start, end, step)
    return _random(seed).choice(list(end))


def shuffle(value: Any, seed: Any = None) -> list[Any]:
    """Return a list in random order; always the same one for a *seed*."""
    found = _listed(value, "shuffle")
    _random(seed).shuffle(found)
    return found


TABLE: dict[str, Callable[..., Any]] = {
    "combinations": lambda value, size: [list(items) for items in itertools.combinations(value, size)],
    "combine": combine,
    "dict2items": dict2items,
    "difference": difference,
    "flatten": flatten,
    "intersect": intersect,
    "items2dict": items2dict,
    "permutations": lambda value, size=None: [list(items) for items in itertools.permutations(value, size)],
    "product": product,
    "random": random,
    "rekey_on_member": rekey_on_member,
    "shuffle": shuffle,
    "subelements": subelements,
    "symmetric_difference": symmetric_difference,
    "union": union,
    "unique": unique,
    "zip": zipped,
    "zip_longest": zip_longest,
}
