"""YAML and JSON text to values that know where they were written. The only importer of PyYAML."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from gpuprov.errors import Problem
from gpuprov.load.scalars import TAGGED, TrickyNumberError, resolve, resolve_json
from gpuprov.load.syntax import explain_syntax, unquoted_template
from gpuprov.source import Position, SourceDict, SourceList, SourceStr

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: Deeper nesting is a mistake or an attack, and would exhaust the stack.
MAX_DEPTH = 64
#: What aliases may add up to when followed; beyond it a file is a "billion laughs".
MAX_NODES = 1_000_000

_SURROGATES = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")


class _FatalError(Exception):
    """The rest of this file cannot be understood; the problem is already recorded."""


def shown_path(path: str) -> str:
    """Return *path* as messages show it: relative when it lies below the working directory."""
    absolute = os.path.abspath(path)
    below = os.getcwd().rstrip(os.sep) + os.sep
    return absolute[len(below) :] if absolute.startswith(below) else absolute


def load_yaml(path: str, problems: list[Problem]) -> Any:
    """Return the one document of the YAML or JSON file at *path*; None when empty or broken.

    All that is wrong with it is appended to *problems*.
    """
    shown = shown_path(path)
    try:
        with open(path, "rb") as f:
            data = f.read()
    except OSError as error:
        problems.append(Problem("file-unreadable", f"{shown} cannot be read: {error.strerror}"))
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        problems.append(
            Problem(
                "file-encoding",
                f"byte 0x{data[error.start]:02x} is not UTF-8 text",
                Position(shown, line, column),
                "save the file as UTF-8",
            )
        )
        return None
    return load_text(text, shown, problems, json=path.endswith(".json"))


def load_text(text: str, path: str, problems: list[Problem], *, json: bool = False) -> Any:
    """Return the value of *text*; positions name *path*. *json*: 1e5 is a number, as in JSON."""
    if json:
        text = _SURROGATES.sub(_join_surrogates, text)
    builder = _Builder(text, path, problems, json)
    try:
        return builder.document()
    except _FatalError:
        return None
    except yaml.YAMLError as error:
        problem = explain_syntax(error, text, path)
        # An unquoted template may have been noticed before the parser gave up because of it.
        if not any(p.position == problem.position and p.code == problem.code for p in problems):
            problems.append(problem)
        return None


def _join_surrogates(pair: re.Match[str]) -> str:
    high, low = int(pair[1], 16), int(pair[2], 16)
    return f"\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"


class _Builder:
    """Turns PyYAML's events into values: half the time of building its node tree first."""

    def __init__(self, text: str, path: str, problems: list[Problem], json: bool) -> None:
        self._text = text
        self._path = path
        self._problems = problems
        self._resolve = resolve_json if json else resolve
        self._events: Iterator[Event] = yaml.parse(text, Loader=_LOADER)
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._nodes = 0

    def document(self) -> Any:
        documents, value = 0, None
        for event in self._events:
            if not isinstance(event, DocumentStartEvent):
                continue
            documents += 1
            if documents > 1:
                self._wrong("yaml-documents", "a second document starts here; only one is allowed", event)
                break
            value = self._value(next(self._events), 0)
        return value

    def _at(self, event: Any) -> Position:
        mark = event.start_mark
        return Position(self._path, mark.line + 1, mark.column + 1)

    def _wrong(self, code: str, message: str, event: Any, hint: str = "") -> None:
        self._problems.append(Problem(code, message, self._at(event), hint))

    def _value(self, event: Any, depth: int) -> Any:
        if type(event) is ScalarEvent:
            value = self._scalar(event)
            if event.anchor is not None:
                self._anchors[event.anchor] = (value, 1)
            self._nodes += 1
            return value
        if type(event) is AliasEvent:
            return self._alias(event)
        if depth >= MAX_DEPTH:
            self._wrong("yaml-depth", f"nested more than {MAX_DEPTH} levels deep", event)
            raise _FatalError
        if event.tag is not None and event.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", "!"):
            self._tag(event)
        before = self._nodes
        built = self._mapping(event, depth) if type(event) is MappingStartEvent else self._sequence(event, depth)
        self._nodes += 1
        if event.anchor is not None:
            self._anchors[event.anchor] = (built, self._nodes - before)
        return built

    def _alias(self, event: Any) -> Any:
        found = self._anchors.get(event.anchor)
        if found is None:
            hint = "quote the value if it is meant to start with *"
            self._wrong("yaml-alias", f"*{event.anchor} refers to an anchor that is not defined above", event, hint)
            return None
        self._nodes += found[1]
        if self._nodes > MAX_NODES:
            self._wrong("yaml-size", f"aliases repeat more than {MAX_NODES} values", event)
            raise _FatalError
        return found[0]

    def _sequence(self, event: SequenceStartEvent, depth: int) -> SourceList:
        result = SourceList(self._at(event))
        while type(item := next(self._events)) is not SequenceEndEvent:
            result.items_at.append(self._at(item))
            result.append(self._value(item, depth + 1))
        return result

    def _mapping(self, event: MappingStartEvent, depth: int) -> SourceDict | SourceStr:
        result = SourceDict(self._at(event))
        keys_at = result.keys_at
        merges: list[tuple[Any, Event]] = []
        template = False
        while type(key_event := next(self._events)) is not MappingEndEvent:
            if type(key_event) is not ScalarEvent:
                template = self._odd_key(event, key_event, depth) or template
                self._value(next(self._events), depth + 1)
                continue
            if key_event.value == "<<" and key_event.implicit[0]:
                merges.append((self._value(next(self._events), depth + 1), key_event))
                continue
            key = self._scalar(key_event)
            if type(key) is SourceStr:
                key = str(key)
            at = self._at(key_event)
            if key in keys_at:
                hint = f"keep one of them; the first is at {keys_at[key]}"
                self._wrong("yaml-duplicate-key", f"key {key} is given twice in the same mapping", key_event, hint)
            keys_at[key] = at
            result[key] = self._value(next(self._events), depth + 1)
        if template:
            return SourceStr("{{ }}", result.position)
        for value, at_event in merges:
            self._merge(result, value, at_event)
        return result

    def _odd_key(self, parent: MappingStartEvent, key: Any, depth: int) -> bool:
        """Record that a key is no scalar; True when it is an unquoted template."""
        start = self._at(parent)
        rest = self._text.splitlines()[start.line - 1][start.column - 1 :]
        self._value(key, depth + 1)
        if rest.startswith("{{"):
            self._problems.append(unquoted_template(start, rest))
            return True
        self._wrong("yaml-key", "a key must be text or a number, not a list or mapping", key)
        return False

    def _merge(self, result: SourceDict, value: Any, event: Any) -> None:
        sources = value if isinstance(value, list) else [value]
        for source in sources:
            if not isinstance(source, SourceDict):
                self._wrong("yaml-merge", "<< takes a mapping or a list of mappings", event)
                continue
            for key, item in source.items():
                if key not in result:
                    result[key] = item
                    result.keys_at[key] = source.keys_at[key]

    def _scalar(self, event: Any) -> Any:
        text = event.value
        if event.tag is not None:
            return self._tagged(event)
        if event.implicit[0]:
            try:
                value = self._resolve(text)
            except TrickyNumberError as error:
                self._wrong("yaml-number", f"{text} means the number {error.value} in YAML 1.1", event, error.hint)
                return error.value
            if value is not text:
                return value
        return SourceStr(text, self._at(event))

    def _tagged(self, event: Any) -> Any:
        convert = TAGGED.get(event.tag)
        if convert is None:
            self._tag(event)
            return SourceStr(event.value, self._at(event))
        try:
            value = convert(event.value)
        except ValueError as error:
            self._wrong("yaml-tag", f"{event.value!r} does not fit its tag {_short(event.tag)}: {error}", event)
            return None
        return SourceStr(value, self._at(event)) if isinstance(value, str) else value

    def _tag(self, event: Any) -> None:
        if event.tag in ("!vault", "!vault-encrypted"):
            hint = "keep the secret in a file outside the repository and pass it with -e @FILE"
            self._wrong("vault-unsupported", "vault is not supported yet", event, hint)
        else:
            message = f"tag {_short(event.tag)} is not supported; allowed: !unsafe, !!str, !!int, !!float, !!bool"
            self._wrong("yaml-tag", message, event)


def _short(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")
