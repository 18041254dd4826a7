"""gpuprov docs: reference pages, generated from what the code declares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpuprov.agent.modules import MODULES, load
from gpuprov.agent.modules.arguments import NAMES
from gpuprov.errors import EXIT_OK, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

INTRODUCTION = """# Modules

Names, arguments, defaults and return keys are Ansible's; `ansible.builtin.copy` is `copy`. What Ansible has and
gpuprov does not is listed with the reason, and is an error with its position before anything connects.

A *state* module looks first, changes only what differs, and looks again: still different is a failure. An *action*
runs once. With `--check` nothing is changed; a task whose answer depends on an earlier change that was not made says
`unknown`. An action that only looks runs in check mode, too.

This page is generated: `gpuprov docs modules > docs/modules.md`.
"""


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpuprov docs`."""
    parser.add_argument("topic", choices=["modules", "doctor", "compatibility"], help="which reference")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these modules, or rows of the doctor's table")


def run(options: argparse.Namespace) -> int:
    """Print the page, or the part of it that was asked for."""
    if options.topic == "doctor":
        return _doctor(options.names)
    if options.topic == "compatibility":
        return _compatibility(options.names)
    unknown = [name for name in options.names if name not in MODULES]
    if unknown:
        raise UsageError(f"there is no module {unknown[0]}", hint=f"modules: {', '.join(sorted(MODULES))}")
    print("\n".join(module(name) for name in options.names) if options.names else modules(), end="")
    return EXIT_OK


def _compatibility(names: Sequence[str]) -> int:
    from gpuprov.cli.docs_compatibility import page
    from gpuprov.stack import load as load_tables

    if names:
        hint = "gpuprov stack resolve asks about one machine"
        raise UsageError("the page about compatibility has no parts to ask for", hint=hint)
    print(page(load_tables()), end="")
    return EXIT_OK


def _doctor(names: Sequence[str]) -> int:
    from gpuprov.cli.docs_doctor import page, row_page
    from gpuprov.cli.doctor import load_table
    from gpuprov.load.near import did_you_mean

    table = load_table()
    ids = [row.id for row in table]
    for name in names:
        if name not in ids:
            hint = did_you_mean(name, ids, "gpuprov docs doctor lists them", 3)
            raise UsageError(f"the doctor's table has no row {name}", hint=hint)
    print("\n".join(row_page(table[name]) for name in names) if names else page(table), end="")
    return EXIT_OK


def modules() -> str:
    """Return the whole page as Markdown. Pure, but for importing the modules."""
    first = _first_names()
    contents = "".join(f"- [{name}](#{name}): {load(name).SPEC['summary']}\n" for name in first)
    return "\n".join([INTRODUCTION, contents, *(module(name) for name in first)])


def module(name: str) -> str:
    """Return one module's part as Markdown."""
    file = load(name)
    spec = file.SPEC
    parts = [f"## {name}\n", f"{spec['summary']} {_kind(file.MODULE)}\n"]
    others = sorted(other for other, place in MODULES.items() if place == MODULES[name] and other != name)
    if others:
        parts.append(f"Also called: {', '.join(f'`{other}`' for other in others)}.\n")
    if spec.get("free_form"):
        parts.append("The arguments may be one text: the command, or `name=value` words.\n")
    if spec.get("any_name"):
        parts.append("Arguments of any name are taken.\n")
    parts += [_arguments(spec["args"]), *_rules(spec), _unsupported(spec.get("unsupported", {}))]
    parts.append(_returns(spec.get("returns", {})))
    return "\n".join(part for part in parts if part)


def _first_names() -> list[str]:
    """Return each module once, under the name of its file where it has that one."""
    names: dict[str, str] = {}
    for name, place in sorted(MODULES.items()):
        if place not in names or name == place:
            names[place] = name
    return sorted(names.values())


def _kind(cls: Any) -> str:
    if cls.kind == "state":
        return "*State.*"
    return "*Action that only looks.*" if cls.reads else "*Action.*"


def _arguments(args: dict[str, dict[str, Any]]) -> str:
    if not args:
        return ""
    rows = [
        (f"`{name}`{_aliases(rule)}", _type(rule), _default(rule), _cell(rule.get("doc", "")))
        for name, rule in args.items()
        if not name.startswith("_")
    ]
    return _table(("argument", "type", "default", ""), rows)


def _aliases(rule: dict[str, Any]) -> str:
    names = rule.get("aliases", ())
    return f" ({', '.join(f'`{name}`' for name in names)})" if names else ""


def _type(rule: dict[str, Any]) -> str:
    choices = rule.get("choices")
    if choices:
        return ", ".join(f"`{_shown(choice)}`" for choice in choices)
    kind = rule.get("type", "str")
    words: dict[str, str] = {"raw": "anything", "list": "a list", **NAMES}
    return words.get(kind, str(kind)).replace(' such as "0644" or "u+x"', "")


def _default(rule: dict[str, Any]) -> str:
    if rule.get("required"):
        return "**required**"
    value = rule.get("default")
    if value is None or value == "" or value == []:
        return ""
    return f"`{_shown(value)}`"


def _shown(value: Any) -> str:
    text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _rules(spec: dict[str, Any]) -> list[str]:
    lines = [f"At most one of {_names(group)}.\n" for group in spec.get("exclusive", ())]
    for group in spec.get("one_of", ()):
        shown = [name for name in group if not name.startswith("_")]
        if len(shown) > 1:
            lines.append(f"At least one of {_names(shown)}.\n")
    return lines


def _names(group: Sequence[str]) -> str:
    return ", ".join("free text" if name == "_raw_params" else f"`{name}`" for name in group)


def _unsupported(reasons: dict[str, str]) -> str:
    if not reasons:
        return ""
    grouped: dict[str, list[str]] = {}
    for name, why in reasons.items():
        grouped.setdefault(why, []).append(f"`{name}`")
    lines = "".join(f"- {', '.join(names)}: {why}\n" for why, names in grouped.items())
    return f"Not supported:\n\n{lines}"


def _returns(keys: dict[str, str]) -> str:
    if not keys:
        return ""
    return _table(("returns", ""), [(f"`{name}`", _cell(text)) for name, text in keys.items()])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
