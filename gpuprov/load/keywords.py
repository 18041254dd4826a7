"""The keywords of plays, blocks, roles and tasks: which exist, what may stand behind each. Tables that grow."""

from __future__ import annotations

import keyword
import re
from typing import TYPE_CHECKING, Any

from gpuprov.errors import Problem
from gpuprov.load.near import did_you_mean
from gpuprov.source import SourceDict, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

#: Keyword -> kind (a key of KINDS). What tasks, blocks, roles and plays have in common comes first.
COMMON = {
    "name": "text",
    "tags": "words",
    "become": "boolean",
    "become_user": "text",
    "become_method": "sudo",
    "vars": "variables",
    "environment": "environment",
    "ignore_errors": "boolean",
    "no_log": "boolean",
    "check_mode": "boolean",
    "diff": "boolean",
    "timeout": "number",
}
CONDITIONAL = {**COMMON, "when": "condition", "notify": "words"}
TASK = {
    **CONDITIONAL,
    "args": "mapping",
    "changed_when": "condition",
    "delay": "number",
    "failed_when": "condition",
    "loop": "loop",
    "loop_control": "loop_control",
    "register": "variable",
    "retries": "number",
    "until": "condition",
    "with_items": "anything",
}
HANDLER = {**TASK, "listen": "words"}
BLOCK = {**CONDITIONAL, "block": "anything", "rescue": "anything", "always": "anything"}
ROLE = {**CONDITIONAL, "role": "text"}
PLAY = {
    **COMMON,
    "force_handlers": "boolean",
    "gather_facts": "boolean",
    "handlers": "anything",
    "hosts": "words",
    "post_tasks": "anything",
    "pre_tasks": "anything",
    "roles": "list",
    "tasks": "anything",
    "vars_files": "list",
}
LOOP_CONTROL = {"loop_var": "variable", "index_var": "variable", "label": "anything", "pause": "number"}

#: What Ansible knows and gpuprov does not yet, with a way round it where there is one.
UNSUPPORTED = {
    "any_errors_fatal": "",
    "become_exe": "",
    "become_flags": "",
    "collections": "name modules by their full names",
    "connection": "set ansible_connection in the inventory",
    "debugger": "",
    "ignore_unreachable": "an unreachable host never stops the others",
    "module_defaults": "",
    "port": "set ansible_port in the inventory",
    "remote_user": "set ansible_user in the inventory, or use -u",
    "run_once": "",
    "throttle": "",
}
UNSUPPORTED_TASK = {
    **UNSUPPORTED,
    "async": "use timeout: for a limit in seconds; long tasks do not hold up other hosts",
    "delegate_facts": "",
    "delegate_to": "",
    "first_available_file": "",
    "local_action": "",
    "poll": "",
    "with_dict": 'write loop: "{{ NAME | dict2items }}"',
    "with_list": "write loop:",
    "with_indexed_items": "use loop: with loop_control: {index_var: NAME}",
    "with_flattened": 'write loop: "{{ NAME | flatten }}"',
    "with_subelements": 'write loop: "{{ NAME | subelements(KEY) }}"',
    "with_sequence": 'write loop: "{{ range(START, END) | list }}"',
}
UNSUPPORTED_BLOCK = {**UNSUPPORTED, "delegate_to": "", "delegate_facts": ""}
UNSUPPORTED_PLAY = {
    **UNSUPPORTED,
    "fact_path": "",
    "gather_subset": "",
    "gather_timeout": "",
    "max_fail_percentage": "",
    "order": "",
    "serial": "hosts run independently; --limit chooses some, --forks how many at a time",
    "strategy": "every host runs at its own pace",
    "user": "set ansible_user in the inventory, or use -u",
    "validate_argspec": "",
    "vars_prompt": "pass the variable with -e",
}

_WITH = re.compile(r"with_[a-z_]+\Z")
_NAME = re.compile(r"[^\W\d]\w*\Z")


def has_template(value: Any) -> bool:
    """Tell whether *value* is, or has in it, text with a Jinja2 tag."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, dict):
        return any(has_template(v) or has_template(k) for k, v in value.items())
    return isinstance(value, list) and any(has_template(v) for v in value)


def is_variable_name(name: Any) -> bool:
    """Tell whether *name* can be the name of a variable in templates."""
    return isinstance(name, str) and bool(_NAME.match(name)) and not keyword.iskeyword(name)


def is_unsupported(name: str, table: Mapping[str, str]) -> bool:
    """Tell whether *name* is a keyword that Ansible has and gpuprov does not, by *table*."""
    return name in table or (table is UNSUPPORTED_TASK and bool(_WITH.match(name)) and name not in TASK)


def unsupported(what: str, name: str, mapping: SourceDict, table: Mapping[str, str]) -> Problem:
    """Return the Problem for a keyword that `is_unsupported`; *what* is "task", "block" ..."""
    message = f"{name} is a {what} keyword of Ansible that gpuprov does not support yet"
    return Problem("keyword-unsupported", message, mapping.keys_at.get(name), table.get(name, ""))


def unknown(what: str, name: Any, mapping: SourceDict, allowed: Iterable[str]) -> Problem:
    """Return the Problem for a key that nobody knows, with the nearest allowed one."""
    names = sorted(allowed)
    hint = did_you_mean(name, names, f"allowed: {', '.join(names)}")
    return Problem("keyword-unknown", f"{name} is no {what} keyword", mapping.keys_at.get(name), hint)


def check_values(mapping: SourceDict, table: Mapping[str, str], problems: list[Problem]) -> None:
    """Report every keyword of *mapping* whose value cannot be right. Keys not in *table* are passed over."""
    for name, value in mapping.items():
        kind = table.get(name) if isinstance(name, str) else None
        if kind is None or value is None:
            continue
        allowed = KINDS[kind](value)
        if allowed:
            message = f"{name} is {_shown(value)}; allowed: {allowed}"
            problems.append(Problem("keyword-value", message, place_of(mapping, name)))
        elif name == "loop_control":
            _check_loop_control(value, problems)
        elif kind == "variables":
            problems += check_names(value)


def check_names(variables: SourceDict) -> list[Problem]:
    """Return a Problem for every key that cannot be the name of a variable."""
    hint = "letters, digits and underscores; not a digit first, no word of Python"
    return [
        Problem("variable-name", f"{name} cannot be the name of a variable", variables.keys_at[name], hint)
        for name in variables
        if not is_variable_name(name)
    ]


def _check_loop_control(control: SourceDict, problems: list[Problem]) -> None:
    known_elsewhere = {"extended": "", "extended_allitems": "", "break_when": ""}
    for name in control:
        if name in known_elsewhere:
            problems.append(unsupported("loop_control", name, control, known_elsewhere))
        elif name not in LOOP_CONTROL:
            problems.append(unknown("loop_control", name, control, LOOP_CONTROL))
    check_values(control, LOOP_CONTROL, problems)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else repr(str(value) if isinstance(value, str) else value)


def _text(value: Any) -> str:
    return "" if isinstance(value, str | int | float) and not isinstance(value, bool) else "text"


def _boolean(value: Any) -> str:
    words = ("yes", "no", "true", "false", "on", "off", "1", "0")
    fits = isinstance(value, bool) or value in (0, 1) or (isinstance(value, str) and value.lower() in words)
    return "" if fits or has_template(value) else "yes, no or a template"


def _number(value: Any) -> str:
    if has_template(value):
        return ""
    try:
        fits = not isinstance(value, bool) and float(value) >= 0
    except (TypeError, ValueError):
        fits = False
    return "" if fits else "a number that is not negative, or a template"


def _words(value: Any) -> str:
    items = value if isinstance(value, list) else [value]
    return "" if all(not _text(item) for item in items) else "text or a list of texts"


def _condition(value: Any) -> str:
    items = value if isinstance(value, list) else [value]
    return "" if all(isinstance(i, str | bool | int) for i in items) else "an expression or a list of expressions"


def _environment(value: Any) -> str:
    items = value if isinstance(value, list) else [value]
    fits = all(isinstance(item, dict) or has_template(item) for item in items)
    return "" if fits else "a mapping of names to values, or a template"


def _loop(value: Any) -> str:
    return "" if isinstance(value, list) or has_template(value) else "a list, or a template that gives one"


def _mapping(value: Any) -> str:
    return "" if isinstance(value, SourceDict) else "a mapping"


#: Kind -> a check that returns what is allowed, "" when the value is right.
KINDS: dict[str, Callable[[Any], str]] = {
    "anything": lambda _value: "",
    "boolean": _boolean,
    "condition": _condition,
    "environment": _environment,
    "list": lambda value: "" if isinstance(value, list) else "a list",
    "loop": _loop,
    "loop_control": _mapping,
    "mapping": _mapping,
    "number": _number,
    "sudo": lambda value: "" if value in ("sudo", "ansible.builtin.sudo") else "sudo, the only method that gpuprov has",
    "text": _text,
    "variable": lambda value: "" if is_variable_name(value) else "the name of a variable",
    "variables": _mapping,
    "words": _words,
}
