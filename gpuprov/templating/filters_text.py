"""Filters that work on one text: patterns, encodings, paths."""

from __future__ import annotations

import json
import os.path
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any

from jinja2 import Undefined
from jinja2.utils import missing

from gpuprov.templating.problem import TemplateProblem
from gpuprov.templating.values import fail_undefined, native

TRUE_WORDS = ("yes", "on", "1", "true", "t", "y", "1.0")


def to_bool(value: Any) -> bool | None:
    """Return whether *value* spells yes; None stays None, anything else is no."""
    if value is None or isinstance(value, bool):
        return value
    return str(value).strip().lower() in TRUE_WORDS


def ternary(value: Any, true: Any, false: Any, none: Any = missing) -> Any:
    """Return one of the others, by whether *value* is true, false or (when given) None."""
    if value is None and none is not missing:
        return none
    return true if bool(value) else false


def mandatory(value: Any, msg: str = "") -> Any:
    """Return *value*; an undefined one is an error that says *msg*."""
    if isinstance(value, Undefined):
        if msg:
            raise TemplateProblem(msg, code="undefined", name=value._undefined_name)
        fail_undefined(value)
    return value


def type_debug(value: Any) -> str:
    """Return the name of *value*'s type; a text from a file is a str like any other."""
    for kind in (bool, str, dict, list):
        if isinstance(value, kind):
            return kind.__name__
    return type(value).__name__


# -- regular expressions ------------------------------------------------------


def _flags(ignorecase: bool, multiline: bool) -> int:
    return (re.IGNORECASE if ignorecase else 0) | (re.MULTILINE if multiline else 0)


def regex_replace(
    value: Any,
    pattern: str = "",
    replacement: str = "",
    ignorecase: bool = False,
    multiline: bool = False,
    count: int = 0,
    mandatory_count: int = 0,
) -> str:
    r"""Return *value* with what matches *pattern* replaced (`\1` refers to groups)."""
    text, made = re.compile(pattern, _flags(ignorecase, multiline)).subn(replacement, str(value), count)
    if mandatory_count and made != mandatory_count:
        raise TemplateProblem(f"{pattern!r} was to match {mandatory_count} times, it matched {made} times")
    return text


def regex_search(value: Any, pattern: str, *groups: str, ignorecase: bool = False, multiline: bool = False) -> Any:
    r"""Return the first match (None without one); with `\1` or `\\g<name>` given, the list of those groups."""
    found = re.search(pattern, str(value), _flags(ignorecase, multiline))
    if found is None:
        return None
    if not groups:
        return found.group()
    return [found.group(_group(group)) for group in groups]


def _group(reference: str) -> int | str:
    named = re.fullmatch(r"\\g<(\w+)>|\\(\d+)", reference)
    if named is None:
        raise TemplateProblem(f"{reference!r} is no group; allowed: \\\\1 and \\\\g<name>")
    name = named.group(1) or named.group(2)
    return int(name) if name.isdigit() else name


def regex_findall(value: Any, pattern: str, multiline: bool = False, ignorecase: bool = False) -> list[Any]:
    """Return all matches, as tuples where the pattern has several groups."""
    return re.findall(pattern, str(value), _flags(ignorecase, multiline))


def regex_escape(value: Any, re_type: str = "python") -> str:
    """Return *value* so that as a pattern it matches itself."""
    if re_type == "python":
        return re.escape(str(value))
    return re.sub(r"([].[^$*\\])", r"\\\1", str(value))


# -- texts --------------------------------------------------------------------


def split(value: str, separator: str | None = None, maxsplit: int = -1) -> list[str]:
    """Return the parts of a text, by default between white space."""
    return value.split(separator, maxsplit)


def quote(value: Any) -> str:
    """Return *value* as one word of a shell."""
    import shlex

    return shlex.quote("" if value is None else str(value))


_COMMENTS = {
    "plain": ("", "# ", ""),
    "erlang": ("", "% ", ""),
    "c": ("", "// ", ""),
    "cblock": ("/*", " * ", " */"),
    "xml": ("<!--", " - ", "-->"),
}


def comment(
    value: str,
    style: str = "plain",
    decoration: str | None = None,
    prefix: str | None = None,
    postfix: str | None = None,
) -> str:
    """Return a text as a comment block of a configuration file."""
    if style not in _COMMENTS:
        raise TemplateProblem("comment style {!r}: allowed are {}".format(style, ", ".join(_COMMENTS)))
    begin, each, end = _COMMENTS[style]
    each = decoration if decoration is not None else each
    edge = each.rstrip()
    lines = [(each + line).rstrip() for line in value.rstrip("\n").split("\n")]
    before = [edge if prefix is None else prefix.rstrip("\n")]
    after = [edge if postfix is None else postfix.rstrip("\n")]
    return "\n".join([part for part in (begin,) if part] + before + lines + after + [part for part in (end,) if part])


def to_uuid(value: Any) -> str:
    """Return a UUID that depends on *value* alone, the same as Ansible's."""
    import uuid

    return str(uuid.uuid5(uuid.UUID("361E6D51-FAEC-444A-9079-341386DA8E2E"), str(value)))


# -- encodings ----------------------------------------------------------------


def b64encode(value: Any, encoding: str = "utf-8") -> str:
    """Return *value* in base64."""
    from base64 import b64encode as encode

    return encode(str(value).encode(encoding)).decode("ascii")


def b64decode(value: str, encoding: str = "utf-8") -> str:
    """Return the text that base64 *value* stands for."""
    from base64 import b64decode as decode

    return decode(value).decode(encoding)


def digest(value: Any, hashtype: str = "sha1") -> str:
    """Return a hash of a text, as hex."""
    import hashlib

    if hashtype not in hashlib.algorithms_guaranteed or hashtype.startswith("shake"):
        raise TemplateProblem(f"there is no hash {hashtype!r}")
    return hashlib.new(hashtype, str(value).encode()).hexdigest()


def _plain_for_json(value: Any) -> Any:
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    return native(value)


def to_json(value: Any, **options: Any) -> str:
    """Return *value* as JSON; options are those of json.dumps."""
    options.pop("vault_to_text", None)
    options.pop("preprocess_unsafe", None)
    return json.dumps(native(value), default=_plain_for_json, **options)


def to_nice_json(value: Any, indent: int = 4, sort_keys: bool = True, **options: Any) -> str:
    """Return *value* as JSON for people."""
    return to_json(value, indent=indent, sort_keys=sort_keys, separators=(",", ": "), **options)


def from_json(value: Any) -> Any:
    """Return what JSON text *value* stands for."""
    if isinstance(value, (dict, list)):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise TemplateProblem(f"from_json: not JSON: {error}") from None


# -- paths --------------------------------------------------------------------


def path_join(value: Any) -> str:
    """Return the parts of a path joined."""
    return os.path.join(*value) if isinstance(value, (list, tuple)) else str(value)


def splitext(value: str) -> list[str]:
    """Return a path's stem and its extension."""
    return list(os.path.splitext(value))


def urlsplit(value: str, query: str = "") -> Any:
    """Return the parts of a URL, or the one named *query*."""
    from urllib.parse import urlsplit as parse

    parts = parse(value)
    names = ("scheme", "netloc", "path", "query", "fragment", "username", "password", "hostname", "port")
    found = {name: getattr(parts, name) for name in names}
    if query and query not in found:
        raise TemplateProblem("urlsplit: {!r}; allowed are {}".format(query, ", ".join(names)))
    return found[query] if query else found


def urldecode(value: str) -> str:
    """Return a text with its %-escapes and plus signs undone."""
    from urllib.parse import unquote_plus

    return unquote_plus(value)


def _first(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return *function* as a filter of a text only."""
    return lambda value, *rest: function(str(value), *rest)


def md5(value: Any) -> str:
    """Return the MD5 of a text."""
    return digest(value, "md5")


def sha1(value: Any) -> str:
    """Return the SHA-1 of a text."""
    return digest(value, "sha1")


def extract(item: Any, container: Any, morekeys: Any = None) -> Any:
    """Return `container[item]`, and from there on along *morekeys*."""
    found = _item(container, item)
    for key in morekeys if isinstance(morekeys, (list, tuple)) else [] if morekeys is None else [morekeys]:
        found = _item(found, key)
    return found


def _item(container: Any, key: Any) -> Any:
    try:
        return container[key]
    except (KeyError, IndexError, TypeError):
        kind = "mapping" if isinstance(container, Mapping) else type(container).__name__
        raise TemplateProblem(f"extract: a {kind} has no {key!r}", code="undefined") from None


TABLE: dict[str, Callable[..., Any]] = {
    "b64decode": b64decode,
    "b64encode": b64encode,
    "basename": _first(os.path.basename),
    "bool": to_bool,
    "checksum": sha1,
    "comment": comment,
    "commonpath": os.path.commonpath,
    "dirname": _first(os.path.dirname),
    "extract": extract,
    "from_json": from_json,
    "hash": digest,
    "mandatory": mandatory,
    "md5": md5,
    "normpath": _first(os.path.normpath),
    "path_join": path_join,
    "quote": quote,
    "regex_escape": regex_escape,
    "regex_findall": regex_findall,
    "regex_replace": regex_replace,
    "regex_search": regex_search,
    "relpath": _first(os.path.relpath),
    "sha1": sha1,
    "split": split,
    "splitext": splitext,
    "ternary": ternary,
    "to_json": to_json,
    "to_nice_json": to_nice_json,
    "to_uuid": to_uuid,
    "type_debug": type_debug,
    "urldecode": urldecode,
    "urlsplit": urlsplit,
}
