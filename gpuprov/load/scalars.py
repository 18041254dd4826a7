"""What a plain YAML scalar means: YAML 1.1 as Ansible reads it, minus its traps."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_WORDS: dict[str, Any] = {"": None, "~": None}
for _spellings, _meaning in (("null", None), ("yes true on", True), ("no false off", False)):
    for _word in _spellings.split():
        _WORDS.update(dict.fromkeys((_word, _word.title(), _word.upper()), _meaning))

_INTEGER = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]+|0|[1-9][0-9_]*)\Z")
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?\Z")
_SPECIAL = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")
_BASE_60 = re.compile(r"[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?\Z")
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?\Z")
_NUMBER_STARTS = frozenset("+-.0123456789")


class TrickyNumberError(ValueError):
    """Text such as 65:00, which YAML 1.1 takes for a number in base 60 and nobody means."""

    def __init__(self, value: float, text: str) -> None:
        super().__init__(text)
        self.value = value
        self.hint = f'write "{text}" for text, {value} for the number'


def resolve(text: str) -> Any:
    """Return what the unquoted *text* means; *text* itself when it is text. Dates stay text.

    Raises TrickyNumberError.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_STARTS:
        return text
    if _INTEGER.match(text):
        return _integer(text)
    if _FLOAT.match(text):
        return float(text.replace("_", ""))
    if _SPECIAL.match(text):
        return float(text.replace(".", ""))
    if _BASE_60.match(text):
        raise TrickyNumberError(_base_60(text), text)
    return text


def resolve_json(text: str) -> Any:
    """Return what *text* means in JSON, where 1e5 is a number; otherwise as `resolve`."""
    if _JSON_NUMBER.match(text):
        return int(text) if text.lstrip("-").isdigit() else float(text)
    return resolve(text)


def _integer(text: str) -> Any:
    digits = text.replace("_", "").lstrip("+-")
    base = 10
    if digits.startswith(("0b", "0x")):
        base = 2 if digits[1] == "b" else 16
        digits = digits[2:]
    elif digits.startswith("0") and len(digits) > 1:
        base = 8
    if not digits:
        return text
    value = int(digits, base)
    return -value if text[0] == "-" else value


def _base_60(text: str) -> float:
    value: float = 0
    for part in text.replace("_", "").lstrip("+-").split(":"):
        value = value * 60 + (float(part) if "." in part else int(part))
    return -value if text[0] == "-" else value


def _unsafe(text: str) -> str:
    """Return a template that renders to exactly *text*."""
    if not any(mark in text for mark in ("{{", "{%", "{#")):
        return text
    if "endraw" in text:
        raise ValueError("text with endraw in it cannot be kept from templating")
    return "{% raw %}" + text + "{% endraw %}"


def _boolean(text: str) -> bool:
    value = _WORDS.get(text)
    if not isinstance(value, bool):
        raise ValueError("not a boolean")  # noqa: TRY004 - the text is wrong, not a type
    return value


def _int_tag(text: str) -> int:
    value = resolve(text)
    if type(value) is not int:
        raise ValueError("not an integer")
    return value


_STANDARD = "tag:yaml.org,2002:"

#: Tags of scalars that are understood, and what they do to the text.
TAGGED: dict[str, Callable[[str], Any]] = {
    "!": lambda text: text,
    "!unsafe": _unsafe,
    _STANDARD + "str": lambda text: text,
    _STANDARD + "int": _int_tag,
    _STANDARD + "float": lambda text: float(text.replace("_", "")),
    _STANDARD + "bool": _boolean,
    _STANDARD + "null": lambda _text: None,
}
