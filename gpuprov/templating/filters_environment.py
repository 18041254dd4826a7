"""Filters for environment variables: checked once, quoted for each reader of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from gpuprov.templating.problem import TemplateProblem

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Variables that are lists of folders, and the setting that adds to them.
_LISTS = {"PATH": "gpuprov_environment_path", "LD_LIBRARY_PATH": "gpuprov_environment_library_path"}
_BREAKS = re.compile("[\n\r\0]")


def environment_variables(given: Any) -> dict[str, str]:
    """Return variables (name -> value) as text; what no shell or service could be given is a TemplateProblem."""
    if not isinstance(given, Mapping):
        raise TemplateProblem(f"environment variables are a mapping of names to values, not {type(given).__name__}")
    return {_name(name): _text(str(name), value) for name, value in given.items()}


def environment_folders(given: Any) -> list[str]:
    """Return the folders of a search path; one that would become two, or the current folder, is a TemplateProblem."""
    if not isinstance(given, (list, tuple)):
        raise TemplateProblem(f"folders are a list, not {type(given).__name__}")
    for folder in given:
        if not isinstance(folder, str) or not folder.startswith("/") or ":" in folder or _BREAKS.search(folder):
            hint = "an absolute path without a colon and without a line break"
            raise TemplateProblem(f"{folder!r} cannot be an element of a search path", hint=hint)
    return list(map(str, given))


def quote_for(value: Any, reader: str) -> str:
    """Return *value* quoted for sh, csh, fish, or between the double quotes of a systemd setting."""
    text = str(value)
    if reader == "sh":
        return shlex.quote(text)
    if reader == "csh":  # a history mark counts between single quotes, too
        return "'" + text.replace("'", "'\\''").replace("!", "\\!") + "'"
    if reader == "fish":
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if reader == "systemd":
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    raise TemplateProblem(f"quote_for: {reader!r}; allowed are sh, csh, fish and systemd")


def _name(name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        hint = "letters, digits and _, not starting with a digit"
        raise TemplateProblem(f"{name!r} cannot be the name of an environment variable", hint=hint)
    if name in _LISTS:
        hint = f"{_LISTS[name]} puts folders in front of what is there"
        raise TemplateProblem(
            f"{name} is a list of folders, and a value of its own would hide what is in it", hint=hint
        )
    return str(name)


def _text(name: str, value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        words = {None: "nothing", True: "true", False: "false"}
        found = words[value] if value is None or isinstance(value, bool) else f"a {type(value).__name__}"
        raise TemplateProblem(f"the environment variable {name} is {found}, not text", hint=f'write {name}: "..."')
    if _BREAKS.search(value):
        hint = "shells and services cannot all be given one; put the text into a file and name the file"
        raise TemplateProblem(f"the environment variable {name} has a line break in its value", hint=hint)
    return str(value)


TABLE: dict[str, Callable[..., Any]] = {
    "environment_variables": environment_variables,
    "environment_folders": environment_folders,
    "quote_for": quote_for,
}
