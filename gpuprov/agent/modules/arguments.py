"""Module arguments declared as data, checked by one function on both ends of the wire.

A module file has SPEC:

    SPEC = {
        "summary": "One line for the docs",
        "free_form": "_raw_params",        # only when `module: text` is allowed, and its argument
        "args": {
            "path": {"type": "path", "required": True, "aliases": ["dest", "name"], "doc": "..."},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present", "doc": ".."},
        },
        "exclusive": [["src", "content"]],        # at most one of each list
        "one_of": [["src", "content"]],           # at least one of each list
        "unsupported": {"selevel": "why"},        # Ansible has it, gpuprov does not
        "returns": {"dest": "..."},
        "internal": ["_blob"],                    # set by the controller, never by a user
        "any_name": True,                         # arguments of any other name are kept (set_fact)
    }

Types: str, int, float, bool, path, list (elements any), dict, mode ("0644" or symbolic), raw.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

TRUE = ("yes", "on", "1", "true", "t", "y", "1.0")
FALSE = ("no", "off", "0", "false", "f", "n", "0.0")


class Wrong:
    """One problem with a task's arguments. name is the argument (as written), "" for the whole."""

    __slots__ = ("code", "hint", "message", "name")

    def __init__(self, code: str, name: str, message: str, hint: str = "") -> None:
        self.code = code
        self.name = name
        self.message = message
        self.hint = hint


def check(
    spec: dict[str, Any], given: dict[str, Any], deferred: Callable[[Any], bool] = lambda _: False
) -> tuple[dict[str, Any], list[Wrong]]:
    """Return the arguments under their proper names, with defaults and types, and all that is wrong.

    Pure. A value for which *deferred* says yes is still a template: its type and choices are
    left to the host, which checks again.
    """
    declared = spec["args"]
    names = {alias: name for name, rule in declared.items() for alias in [name, *rule.get("aliases", ())]}
    internal = spec.get("internal", ())
    result: dict[str, Any] = {}
    wrong: list[Wrong] = []
    for key, value in given.items():
        if key in internal:
            result[key] = value
        elif key in names:
            name = names[key]
            if name in result and result[name] != value:
                wrong.append(Wrong("argument-twice", key, "%s and another name of %s are both given" % (key, name)))
            result[name] = value
        elif spec.get("any_name") and key not in spec.get("unsupported", ()):
            result[key] = value
        else:
            wrong.append(_unknown(spec, key, names))
    for name, rule in declared.items():
        if result.get(name) is None:
            result.pop(name, None)
            if "default" in rule:
                result[name] = rule["default"]
            elif rule.get("required"):
                wrong.append(Wrong("argument-missing", "", "argument %s is missing" % name))
        elif not deferred(result[name]):
            result[name] = _typed(name, rule, result[name], wrong)
    _combinations(spec, result, wrong)
    return result, wrong


def _unknown(spec: dict[str, Any], key: str, names: dict[str, str]) -> Wrong:
    why = spec.get("unsupported", {}).get(key)
    if why:
        return Wrong("argument-unsupported", key, "argument %s is not supported: %s" % (key, why))
    import difflib

    near = difflib.get_close_matches(str(key), list(names), 1)
    hint = "did you mean %s?" % near[0] if near else "allowed: %s" % ", ".join(sorted(spec["args"]))
    return Wrong("argument-unknown", key, "unknown argument %s" % key, hint)


def _combinations(spec: dict[str, Any], result: dict[str, Any], wrong: list[Wrong]) -> None:
    for group in spec.get("exclusive", ()):
        both = [name for name in group if result.get(name) is not None]
        if len(both) > 1:
            wrong.append(Wrong("arguments-exclude", both[1], "%s exclude each other" % " and ".join(both)))
    for group in spec.get("one_of", ()):
        if all(result.get(name) is None for name in group):
            wrong.append(Wrong("argument-missing", "", "one of %s is needed" % ", ".join(group)))


def _typed(name: str, rule: dict[str, Any], value: Any, wrong: list[Wrong]) -> Any:
    kind = rule.get("type", "str")
    try:
        value = CONVERT[kind](value)
    except (TypeError, ValueError):
        shown = repr(value)
        wrong.append(Wrong("argument-type", name, "%s is %s, not %s" % (name, shown[:80], NAMES.get(kind, kind))))
        return value
    choices = rule.get("choices")
    if choices and value not in choices:
        import difflib

        near = difflib.get_close_matches(str(value), [str(c) for c in choices], 1)
        allowed = ", ".join(str(c) for c in choices)
        wrong.append(
            Wrong(
                "argument-choice",
                name,
                "%s is %r; allowed: %s" % (name, value, allowed),
                "did you mean %s?" % near[0] if near else "",
            )
        )
    return value


def _string(value: Any) -> str:
    if isinstance(value, (dict, list)):
        raise TypeError
    return "True" if value is True else "False" if value is False else str(value)


def _integer(value: Any) -> int:
    if isinstance(value, (bool, dict, list)) or (isinstance(value, float) and value != int(value)):
        raise TypeError
    return int(value)


def boolean(value: Any) -> bool:
    """Return a YAML 1.1 boolean. Raises ValueError for anything else."""
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    if text in TRUE:
        return True
    if text in FALSE:
        return False
    raise ValueError(value)


def _list(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, dict):
        raise TypeError
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _mode(value: Any) -> str:
    """A mode as text. An integer is what YAML made of 0644 (octal, 420): written back as octal."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError
    if isinstance(value, int):
        return "%04o" % value
    text = value.strip()
    if not text:
        raise ValueError
    return text


CONVERT: dict[str, Callable[[Any], Any]] = {
    "str": _string,
    "int": _integer,
    "float": float,
    "bool": boolean,
    "path": _string,
    "list": _list,
    "dict": _dict,
    "mode": _mode,
    "raw": lambda value: value,
}
NAMES = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "yes or no",
    "path": "a path",
    "dict": "a mapping",
    "mode": 'a mode such as "0644" or "u+x"',
}
