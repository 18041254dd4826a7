"""What is wanted of a stack: `gpuprov_stack`, or the short words that people use. Pure."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from gpuprov.errors import Problem
from gpuprov.source import place_of
from gpuprov.stack.hosts import unknown_key
from gpuprov.stack.model import AUTO, LATEST, NONE, Want
from gpuprov.stack.versions import is_version

if TYPE_CHECKING:
    from collections.abc import Mapping

KEYS = tuple(f.name for f in fields(Want))
#: Other words for a key, as in compat.yaml's cases.
_SAME = {"toolkit": "cuda", "repo": "repository", "variant": "torch_variant"}
FLAVOURS = (AUTO, "open", "proprietary")
_VARIANT = re.compile(r"(cu\d{3}|cpu)")
_REPOSITORIES = (AUTO, "nvidia", "distribution")


def from_mapping(value: Any, problems: list[Problem], what: str = "gpuprov_stack") -> Want:
    """Return the wishes in *value*; what is wrong with it goes to *problems*, all of it."""
    if value in (None, ""):
        return Want()
    if not isinstance(value, dict):
        said = f"{what} is a mapping such as {{torch: '2.9', cuda: none}}, not {type(value).__name__}"
        problems.append(Problem("stack", said, place_of({}, "")))
        return Want()
    found: dict[str, str] = {}
    for key, given in value.items():
        name = _SAME.get(str(key), str(key))
        if name not in KEYS:
            problems.append(unknown_key(key, KEYS, value))
            continue
        text = _word(given)
        if isinstance(given, float) and name in ("torch", "python") and re.fullmatch(r"\d+\.[12]", text):
            said = f"{what}: {name}: {text} may have been written {text}0, which YAML reads as the same number"
            problems.append(Problem("stack", f"{said}: put it in quotes", place_of(value, key)))
            continue
        found.update(_read(name, text))
        wrong = _wrong(name, found.get(name, ""))
        if wrong:
            problems.append(Problem("stack", f"{what}: {name}: {text!r} is not {wrong}", place_of(value, key)))
    return Want(**{name: text for name, text in found.items() if text})


def _word(value: Any) -> str:
    """Return what YAML made of a word: `none` is a text there, an empty value and `false` mean the same."""
    if value is None:
        return ""
    if value is False:
        return NONE
    if value is True:
        return AUTO
    return str(value).strip()


def _read(name: str, text: str) -> Mapping[str, str]:
    """Return the wishes in one word: "2.12.1 cu130", "580 dkms", "cuda-drivers 615", "12.9 with nvcc"."""
    low = text.lower()
    if low == "any":
        return {name: AUTO}
    if name == "torch" and (found := re.fullmatch(r"([\w.]+)[ +](cu\d{3}|cpu)", low)):
        return {"torch": found.group(1), "torch_variant": found.group(2)}
    if name == "driver":
        return _driver_words(low)
    if name == "cuda" and (found := re.fullmatch(r"(\d[\d.]*) with nvcc", low)):
        return {"cuda": found.group(1)}
    return {name: low}


def _driver_words(text: str) -> Mapping[str, str]:
    if found := re.fullmatch(r"(cuda-drivers|nvidia-open)[ -](\d[\d.]*)", text):
        return {"driver": found.group(2), "flavour": "open" if found.group(1) == "nvidia-open" else "proprietary"}
    if found := re.fullmatch(r"(\d[\d.]*) (dkms|open)", text):
        return {"driver": found.group(1), "flavour": "open" if found.group(2) == "open" else AUTO}
    if found := re.fullmatch(r"(\d[\d.]*) from the \w+ archive", text):
        return {"driver": found.group(1), "repository": "distribution"}
    return {"driver": text}


def _wrong(name: str, text: str) -> str:
    """Return what *text* should have been, "" when it is fine."""
    if not text:
        return ""
    version = is_version(text)
    if name == "flavour":
        return "" if text in FLAVOURS else "auto, open or proprietary"
    if name == "torch_variant":
        return "" if text == AUTO or _VARIANT.fullmatch(text) else "auto, cpu, or a CUDA variant such as cu130"
    if name == "repository":
        known = text in _REPOSITORIES or re.fullmatch(r"[a-z]+\d+", text)
        return "" if known else "auto, nvidia, distribution, or a repository of NVIDIA's such as debian12"
    if name == "python":
        return "" if text == AUTO or version else "auto, or a version such as 3.12"
    if name in ("fabricmanager", "dcgm", "container_toolkit"):
        return "" if text in (AUTO, NONE) or version else "auto, none or a version"
    if name == "driver":
        return (
            "" if text in (AUTO, LATEST, NONE) or version else "auto, latest, none, a branch such as 580, or a version"
        )
    return "" if text in (AUTO, LATEST, NONE) or version else "auto, latest, none or a version"
