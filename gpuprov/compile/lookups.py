"""Lookups, and the filters that only the controller has."""

from __future__ import annotations

import glob
import os
from typing import TYPE_CHECKING, Any

from gpuprov.compile.content import searched
from gpuprov.templating.problem import TemplateProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpuprov.compile.content import Content

#: Lookups of Ansible that are left out on purpose, and what to do instead.
UNSUPPORTED = {
    "password": "give passwords as variables, best from a vaulted file",
    "pipe": "give the value with -e, or run the command in a task and register it",
    "url": "use the get_url module",
    "config": "",
    "ini": "read the file in a task, or write the value as a variable",
    "csvfile": "write the table as a variable",
}


class Lookups:
    """The lookups of tasks that search *places* (folders) for relative names."""

    def __init__(self, content: Content, files: Sequence[str], templates: Sequence[str]) -> None:
        self._content = content
        self._files = files
        self._templates = templates

    def table(self) -> dict[str, Callable[[list[Any], dict[str, Any]], Sequence[Any]]]:
        """Return lookups by name: function(terms, options) -> list."""
        return {
            "env": env,
            "file": self.file,
            "fileglob": self.fileglob,
            "first_found": self.first_found,
            "lines": self.refuse("lines"),
            "items": lambda terms, _: terms,
            "list": lambda terms, _: terms,
            "dict": lambda terms, _: [{"key": k, "value": v} for term in terms for k, v in term.items()],
            "indexed_items": lambda terms, _: [[i, term] for i, term in enumerate(terms)],
            **{name: self.refuse(name) for name in UNSUPPORTED},
        }

    def run(self, name: str, terms: list[Any]) -> list[Any]:
        """Run one lookup. Raises TemplateProblem."""
        return list(self.table()[name](terms, {}))

    def file(self, terms: list[Any], options: dict[str, Any]) -> list[str]:
        """Return the text of files, without white space at their ends unless asked for."""
        found = []
        for term in terms:
            path = self._content.find(str(term), self._files)
            if path is None:
                raise TemplateProblem(f"lookup file: there is no file {term}", hint=searched(self._files))
            try:
                text = self._content.text(path)
            except (OSError, UnicodeDecodeError) as error:
                raise TemplateProblem(f"lookup file: {path} cannot be read: {error}") from None
            text = text.rstrip() if options.get("rstrip", True) else text
            found.append(text.lstrip() if options.get("lstrip") else text)
        return found

    def fileglob(self, terms: list[Any], _: dict[str, Any]) -> list[str]:
        """Return the files that match patterns, sorted."""
        found = []
        for term in terms:
            places = [""] if os.path.isabs(str(term)) else self._files
            matches = (sorted(glob.glob(os.path.join(place, str(term)))) for place in places)
            found += next(([m for m in some if os.path.isfile(m)] for some in matches if some), [])
        return found

    def first_found(self, terms: list[Any], options: dict[str, Any]) -> list[str]:
        """Return the first file of several that is there."""
        names, folders, skip = _first_found_terms(terms, options)
        for name in names:
            places = [os.path.join(p, f) for f in folders for p in ("", *self._files)] or list(self._files)
            path = self._content.find(name, places) or self._content.find(name, self._templates)
            if path is not None:
                return [path]
        if skip:
            return []
        raise TemplateProblem(f"first_found: there is none of {', '.join(names)}", hint=searched(self._files))

    @staticmethod
    def refuse(name: str) -> Callable[[list[Any], dict[str, Any]], Sequence[Any]]:
        """Return a lookup that says why it is not there."""

        def run(_terms: list[Any], _options: dict[str, Any]) -> Sequence[Any]:
            raise TemplateProblem(
                f"lookup {name} is not supported", code="unknown-lookup", token=name, hint=UNSUPPORTED.get(name, "")
            )

        return run


def env(terms: list[Any], options: dict[str, Any]) -> list[str]:
    """Return environment variables of the controller; without one, `default=` or an empty text."""
    return [os.environ.get(str(term), options.get("default", "")) for term in terms]


def _first_found_terms(terms: list[Any], options: dict[str, Any]) -> tuple[list[str], list[str], bool]:
    names: list[str] = []
    folders = _words(options.get("paths"))
    skip = bool(options.get("skip"))
    for term in terms:
        if isinstance(term, dict):
            names += _words(term.get("files"))
            folders += _words(term.get("paths"))
            skip = skip or bool(term.get("skip"))
        else:
            names.append(str(term))
    return names or _words(options.get("files")), folders, skip


def _words(value: Any) -> list[str]:
    if isinstance(value, str):
        return [part.strip() for part in value.replace(";", ",").split(",") if part.strip()]
    return [str(part) for part in value or ()]


def _no_yaml(name: str) -> Callable[..., Any]:
    def run(*_args: Any, **_options: Any) -> Any:
        raise TemplateProblem(f"filter {name} is not supported", token=name, hint="use to_nice_json: JSON is YAML too")

    return run


#: Filters that hosts do not have: they look at the controller's own files.
FILTERS: dict[str, Callable[..., Any]] = {
    **{name: _no_yaml(name) for name in ("to_yaml", "to_nice_yaml", "from_yaml", "from_yaml_all")},
    "realpath": lambda path: os.path.realpath(str(path)),
    "expanduser": lambda path: os.path.expanduser(str(path)),
    "expandvars": lambda path: os.path.expandvars(str(path)),
    "fileglob": lambda pattern: sorted(p for p in glob.glob(str(pattern)) if os.path.isfile(p)),
    "exists": lambda path: os.path.exists(str(path)),
}
