"""What the controller does for a module before its task travels: find files, render templates, decide."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from gpuprov.agent.modules import load
from gpuprov.agent.modules.arguments import check
from gpuprov.compile.content import searched
from gpuprov.errors import Problem, SourceErrors
from gpuprov.source import Position, place_of
from gpuprov.templating.conditions import condition_source
from gpuprov.templating.names import Names, condition_names, text_names
from gpuprov.templating.problem import TemplateProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gpuprov.compile.content import Blob, Content
    from gpuprov.compile.prepare import Prepared
    from gpuprov.templating.renderer import Renderer

#: Texts up to this size travel inside the plan; longer ones as files.
INLINE_BYTES = 64 * 1024
#: Arguments that are expressions, not texts with templates in them.
EXPRESSIONS: Mapping[str, frozenset[str]] = {"assert": frozenset(["that"]), "debug": frozenset(["var"])}
_NOT_DEFINED = "VARIABLE IS NOT DEFINED!"


class Wheels(Protocol):
    """Resolves and fetches Python packages on the controller (fleet/wheelhouse.py)."""

    def resolve(self, args: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Return what a pip task gains (`_wheels`, `_uv`) and {sha256: path} of the files it needs.

        Raises RefusedError when nothing fits the host; blocks.
        """


@dataclass(slots=True)
class Work:
    """One task (or one pass of its loop) on one host while its arguments are prepared.

    args: what is known is rendered; the arguments in *waiting* are still templates.
    """

    prepared: Prepared
    args: dict[str, Any]
    waiting: set[str]
    renderer: Renderer
    host: Services

    def at(self, name: str) -> Position:
        """Return where argument *name* was written."""
        return place_of(self.prepared.args, name) or self.prepared.task.position

    def fail(self, code: str, message: str, name: str, hint: str = "") -> SourceErrors:
        """Return the error that argument *name* is wrong."""
        return SourceErrors([Problem(code, message, self.at(name), hint)])

    def known(self, name: str) -> Any:
        """Return argument *name*. Raises SourceErrors when it waits for the host."""
        if name in self.waiting:
            raise self.fail(
                "not-known-in-time",
                f"{name} of {self.prepared.task.action} waits for a result on the host",
                name,
                "files are read before the run; choose between several tasks with when instead",
            )
        return self.args.get(name)


class Services(Protocol):
    """What preparing arguments needs of the host's build."""

    content: Content
    facts: Mapping[str, Any]
    wheels: Wheels | None

    def places(self, kind: str, prepared: Prepared) -> tuple[str, ...]:
        """Return the folders that are searched for files or templates."""

    def near(self, renderer: Renderer, path: str, prepared: Prepared) -> Renderer:
        """Return *renderer* with includes found beside the template at *path*."""

    def carry(self, names: Names) -> None:
        """Note that the host needs these names."""

    def waits(self, names: Names, renderer: Renderer) -> bool:
        """Say whether something with these names waits for the host."""

    def add_file(self, sha256: str, size: int, where: str | bytes) -> None:
        """Note a file that travels with the plan."""


def find(work: Work, kind: str, name: str = "src") -> str:
    """Return the path of the file that argument *name* names. Raises SourceErrors."""
    given = str(work.known(name))
    places = work.host.places(kind, work.prepared)
    path = work.host.content.find(given, places)
    if path is None:
        hint = searched(places) if not os.path.isabs(given) else ""
        raise work.fail("file-missing", f"there is no file {given}", name, hint)
    return path


def copy(work: Work) -> None:
    """Give `copy` the hash of its file, or those of a folder's."""
    if work.args.get("src") is None or _is_true(work, "remote_src"):
        return
    path = find(work, "files")
    try:
        if os.path.isdir(path):
            work.args["_tree"] = _tree(work, path)
        else:
            work.args["_blob"] = _travels(work, work.host.content.blob(path))
    except OSError as error:
        raise work.fail("file-unreadable", f"{path} cannot be read: {error.strerror}", "src") from None


def _is_true(work: Work, name: str) -> bool:
    value = work.known(name)
    return value is True or str(value).lower() in ("yes", "true", "on", "1")


def _travels(work: Work, blob: Blob) -> dict[str, Any]:
    work.host.add_file(blob.sha256, blob.size, blob.path)
    return {"sha256": blob.sha256, "size": blob.size, "mode": blob.mode}


def _tree(work: Work, folder: str) -> list[dict[str, Any]]:
    """Return the entries of a folder: its content for `src: folder/`, the folder itself for `src: folder`."""
    name = "" if str(work.args["src"]).endswith("/") else os.path.basename(folder)
    entries: list[dict[str, Any]] = [{"path": name, "dir": True}] if name else []
    for path, blob in work.host.content.tree(folder):
        place = {"path": f"{name}/{path}" if name else path}
        entries.append({**place, "dir": True} if blob is None else {**place, **_travels(work, blob)})
    return entries


#: Arguments of `template` that say how the text is read, with Ansible's defaults.
_SYNTAX = {
    "trim_blocks": True,
    "lstrip_blocks": False,
    "block_start_string": "{%",
    "block_end_string": "%}",
    "variable_start_string": "{{",
    "variable_end_string": "}}",
    "comment_start_string": "{#",
    "comment_end_string": "#}",
}


def template(work: Work) -> None:
    """Render `template`'s file into `content`, or send its text when it names a result."""
    path = find(work, "templates")
    syntax = [f"{name}: {work.known(name)}" for name in _SYNTAX if work.args.get(name) is not None]
    newline = work.known("newline_sequence")
    for name in (*_SYNTAX, "newline_sequence"):
        work.args.pop(name, None)
    try:
        text = work.host.content.text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise work.fail("file-unreadable", f"{path} cannot be read as text: {error}", "src") from None
    if syntax:
        text = "#jinja2: " + ", ".join(syntax) + "\n" + text
    try:
        names = text_names(text)
        if work.host.waits(names, work.renderer):
            _send_text(work, text, names, newline)
            return
        rendered = work.host.near(work.renderer, path, work.prepared).text(text)
    except TemplateProblem as problem:
        if syntax and problem.lineno is not None:
            problem.lineno -= 1
        problem.path = path if problem.source in (None, text) else ""
        raise
    _inline(work, rendered.replace("\n", str(newline)) if newline not in (None, "\n") else rendered)


def _send_text(work: Work, text: str, names: Names, newline: Any) -> None:
    if names.files:
        raise work.fail(
            "not-known-in-time",
            f"this template includes {', '.join(sorted(names.files))}, and it waits for a result on the host",
            "src",
            "put the included text into the template, or the result into a task of its own",
        )
    if newline not in (None, "\n"):
        raise work.fail(
            "not-known-in-time", "newline_sequence cannot be used with a template that waits for a result", "src"
        )
    work.args["content"] = text
    work.args["_text"] = True
    work.waiting.add("content")
    work.host.carry(names)


def _inline(work: Work, text: str) -> None:
    """Put rendered text into the plan, or, when it is long, beside it."""
    if len(text) <= INLINE_BYTES // 4 or len(data := text.encode()) <= INLINE_BYTES:
        work.args["content"] = text
        return
    sha256 = hashlib.sha256(data).hexdigest()
    work.host.add_file(sha256, len(data), data)
    work.args["_blob"] = {"sha256": sha256, "size": len(data)}


#: Arguments of `pip` that decide which packages and files travel.
_WHEELS_DEPEND_ON = (
    *("name", "version", "state", "virtualenv", "virtualenv_python", "index_url", "find_links"),
    *("cpu_index_url", "torch_index_url", "variant", "wheelhouse", "managed_python"),
)


def pip(work: Work) -> None:
    """Let the wheelhouse find what a pip task with `source` needs."""
    if work.host.wheels is None or work.known("source") is None:
        return
    for name in _WHEELS_DEPEND_ON:
        work.known(name)
    args, wrong = check(load("pip").SPEC, work.args)
    if wrong:
        return  # reported with all other arguments
    gained, files = work.host.wheels.resolve(args, work.host.facts)
    for sha256, path in files.items():
        work.host.add_file(sha256, os.path.getsize(path), path)
    work.args.update(gained)


def debug(work: Work) -> None:
    """Give `debug: var` the value, or the template of it."""
    var = work.prepared.args.get("var")
    if var is None:
        return
    source = condition_source(str(var))
    names = condition_names(str(var))
    if work.host.waits(names, work.renderer):
        work.args["_value"] = "{{ (" + source + ") | default('" + _NOT_DEFINED + "') }}"
        work.waiting.add("_value")
        work.host.carry(names)
        return
    try:
        work.args["_value"] = work.renderer.evaluate(source)
    except TemplateProblem as problem:
        if problem.code != "undefined":
            raise
        work.args["_value"] = _NOT_DEFINED


def assertion(work: Work) -> None:
    """Decide the expressions of `assert` that are known now."""
    that = work.prepared.args.get("that")
    decided: dict[str, bool] = {}
    expressions: list[Any] = []
    for expression in that if isinstance(that, list) else [that]:
        if not isinstance(expression, str):
            expressions.append(bool(expression))
            continue
        source = condition_source(str(expression))
        names = condition_names(str(expression))
        expressions.append(source)
        if work.host.waits(names, work.renderer):
            work.host.carry(names)
        else:
            decided[source] = work.renderer.test(expression)
    work.args["that"] = expressions
    if decided:
        work.args["_decided"] = decided


def set_fact(work: Work) -> None:
    """Drop `cacheable: false`, which is what gpuprov does anyway."""
    work.args.pop("cacheable", None)


#: Module -> what is done for it.
ACTIONS: Mapping[str, Callable[[Work], None]] = {
    "assert": assertion,
    "copy": copy,
    "debug": debug,
    "pip": pip,
    "set_fact": set_fact,
    "template": template,
}
#: Those whose outcome depends on nothing but the arguments and files: the same for every host.
SHARED = frozenset(["copy", "set_fact"])
