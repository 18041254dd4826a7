"""A task's module and arguments, in each way that they can be written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from gpuprov.agent.modules import MODULES, load, short_name
from gpuprov.agent.modules.arguments import check
from gpuprov.errors import Problem
from gpuprov.load.keywords import has_template, is_variable_name
from gpuprov.load.near import did_you_mean
from gpuprov.source import Position, SourceDict, SourceStr, place_of, position_of

if TYPE_CHECKING:
    from gpuprov.agent.modules.arguments import Wrong

#: Actions that are no modules: the loader replaces them by what they include.
CONTROL = ("import_role", "import_tasks", "include_role", "include_tasks", "meta")

#: Ansible's own modules that gpuprov does not have: a clearer answer than "unknown".
_ELSEWHERE = (
    "add_host alternatives apt_key apt_repository archive assemble async_status authorized_key cron "
    "deb822_repository debconf dpkg_selections expect fetch filesystem find firewalld getent git group_by "
    "hostname include import_playbook include_vars ini_file iptables kernel_blacklist known_hosts locale_gen "
    "mount package_facts parted patch pause raw replace rpm_key script seboolean selinux service_facts set_stats "
    "slurp subversion synchronize sysvinit tempfile timezone unarchive uri validate_argument_spec "
    "wait_for_connection xml yum_repository"
)
ELSEWHERE = frozenset(_ELSEWHERE.split())

#: What may stand as NAME=VALUE in the text of `command:` and its like; all else belongs to the command.
_OPTIONS = "creates|removes|chdir|executable|stdin|stdin_add_newline|strip_empty_ends|warn"
_OPTION = re.compile(rf"(?:{_OPTIONS})=")
_PAIR = re.compile(r"([A-Za-z_]\w*)=(.*)\Z", re.DOTALL)
_OPEN = {"{{": "}}", "{%": "%}", "{#": "#}"}


def is_action(name: Any) -> bool:
    """Tell whether *name* is a module or another action that a task can have."""
    return isinstance(name, str) and (short_name(name) in MODULES or short_name(name) in CONTROL)


def unknown_action(name: str, at: Position | None, keywords: list[str]) -> Problem:
    """Return the Problem for a task whose only candidate for an action is *name*."""
    short = short_name(name)
    if short in ELSEWHERE:
        return Problem("module-unsupported", f"{short} is a module of Ansible that gpuprov does not have yet", at)
    hint = did_you_mean(short, [*MODULES, *CONTROL, *keywords])
    if not hint and "." in name:
        return Problem("module-unsupported", f"gpuprov has no module {name}", at, "gpuprov brings its own modules only")
    hint = hint or f"modules: {', '.join(sorted(MODULES))}"
    return Problem("module-unknown", f"{name} is neither a module nor a task keyword", at, hint)


def read_arguments(
    action: str, value: Any, below: SourceDict | None, at: Position, problems: list[Problem]
) -> SourceDict:
    """Return the arguments of *action*, checked against what the module declares.

    *value* is what stands behind the module's name, *below* is the task's `args:`; the former
    wins. Everything wrong is appended to *problems*.
    """
    spec = load(action).SPEC
    args = SourceDict(position_of(value, at) or at)
    any_name = spec.get("any_name", False)
    given = as_mapping(action, value, at, None if any_name else spec.get("free_form"), problems)
    for part in (below, given):
        if part is not None:
            args.update(part)
            args.keys_at.update(part.keys_at)
    if given is None and value is not None:
        return args  # what is wrong is already said
    if any_name:
        _check_names(action, args, problems)
    _, wrong = check(spec, args, has_template)
    problems += [_problem(action, item, spec, args, at) for item in wrong]
    return args


def as_mapping(
    action: str, value: Any, at: Position, free_form: str | None, problems: list[Problem]
) -> SourceDict | None:
    """Return *value*, mapping or text, as a mapping; text without NAME= goes to argument *free_form*."""
    if value is None or isinstance(value, SourceDict):
        return value
    place = position_of(value, at) or at
    if not isinstance(value, str):
        if free_form is None or isinstance(value, list):
            message = f"the arguments of {action} are a mapping or name=value text, not {_kind(value)}"
            problems.append(Problem("arguments-form", message, place))
            return None
        value = SourceStr(str(value), place)
    if free_form is not None:
        return _free_form(value, place, free_form)
    if value.lstrip().startswith("{{"):
        message = f"the arguments of {action} are one template, which gpuprov does not support"
        problems.append(Problem("arguments-form", message, place, "write the arguments one by one"))
        return None
    return _pairs(action, value, place, problems)


def _free_form(text: str, at: Position, name: str) -> SourceDict:
    args = SourceDict(at)
    spans = _words(text) if _OPTION.search(text) else None
    command = text
    for start, end in reversed(spans or ()):
        if _OPTION.match(text, start):
            option, _, value = text[start:end].partition("=")
            _put(args, option, _unquoted(value), at)
            command = command[:start].rstrip(" ") + command[end:]
    _put(args, name, command.strip(), at)
    return args


def _pairs(action: str, text: str, at: Position, problems: list[Problem]) -> SourceDict | None:
    args = SourceDict(at)
    spans = _words(text)
    if spans is None:
        problems.append(
            Problem("arguments-form", f"a quote or template in the arguments of {action} is not closed", at)
        )
        return None
    for start, end in spans:
        pair = _PAIR.match(text, start, end)
        if pair is None:
            message = f"{text[start:end]!r} in the arguments of {action} is not name=value"
            problems.append(Problem("arguments-form", message, at, "write the arguments as a mapping"))
            return None
        _put(args, pair[1], _unquoted(pair[2]), at)
    return args


def _put(args: SourceDict, name: str, value: str, at: Position) -> None:
    args[name] = SourceStr(value, at)
    args.keys_at[name] = at


def _words(text: str) -> list[tuple[int, int]] | None:
    """Return where the blank-separated words of *text* are; None when a quote or template is left open.

    Blanks in quotes and templates do not separate.
    """
    spans: list[tuple[int, int]] = []
    start, index, closing = -1, 0, ""
    while index < len(text):
        character, pair = text[index], text[index : index + 2]
        if closing:
            if text.startswith(closing, index):
                index += len(closing) - 1
                closing = ""
            elif character == "\\" and closing == '"':
                index += 1
        elif character.isspace():
            if start >= 0:
                spans.append((start, index))
            start = -1
        else:
            start = index if start < 0 else start
            if pair in _OPEN:
                closing = _OPEN[pair]
                index += 1
            elif character in "'\"":
                closing = character
        index += 1
    if start >= 0:
        spans.append((start, len(text)))
    return None if closing else spans


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1].replace(f"\\{value[0]}", value[0])
    return value


def _check_names(action: str, args: SourceDict, problems: list[Problem]) -> None:
    """Report what a module that sets variables by its arguments' names (set_fact) cannot set."""
    if not args:
        problems.append(Problem("argument-missing", f"{action} sets nothing", args.position, "write NAME: VALUE lines"))
    for name in args:
        if not is_variable_name(name) and not has_template(name):
            message = f"{name} cannot be the name of a variable"
            problems.append(
                Problem("variable-name", message, args.keys_at[name], "use letters, digits and underscores")
            )


def _problem(action: str, wrong: Wrong, spec: dict[str, Any], args: SourceDict, at: Position) -> Problem:
    written = [wrong.name, *spec["args"].get(wrong.name, {}).get("aliases", ())]
    name = next((n for n in written if n in args), None)
    if name is None:
        place: Position | None = at
    elif wrong.code in ("argument-unknown", "argument-unsupported", "argument-twice", "arguments-exclude"):
        place = args.keys_at[name]
    else:
        place = place_of(args, name)
    return Problem(wrong.code, f"{action}: {wrong.message}", place, wrong.hint)


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"{value!r}"
