"""Connection variables that are wrong whatever the host: found before anything connects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpuprov.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuprov.load.groups import Draft
    from gpuprov.model import Variable


def _port(value: Any) -> str:
    digits = isinstance(value, int | str) and not isinstance(value, bool) and str(value).isdigit()
    return "" if digits and 1 <= int(value) <= 65535 else "a whole number from 1 to 65535"


def _connection(value: Any) -> str:
    known = ("ssh", "smart", "local", "paramiko", "paramiko_ssh", "ansible.builtin.ssh", "ansible.builtin.local")
    return "" if value in known else "ssh or local"


def _become_method(value: Any) -> str:
    return "" if value in ("sudo", "ansible.builtin.sudo") else "sudo, the only method that gpuprov has"


def _truth(value: Any) -> str:
    return (
        "" if isinstance(value, bool) or str(value).lower() in ("yes", "no", "true", "false", "1", "0") else "yes or no"
    )


#: Variable -> a check that returns what is allowed, "" when the value is right.
CHECKS: dict[str, Callable[[Any], str]] = {
    "ansible_port": _port,
    "ansible_ssh_port": _port,
    "ansible_connection": _connection,
    "ansible_become": _truth,
    "ansible_become_method": _become_method,
}


def check_connection(draft: Draft, problems: list[Problem]) -> None:
    """Report every connection variable whose value cannot be right; templates are left for later."""
    seen: set[int] = set()
    settings = [group.settings for group in draft.groups.values()]
    settings += [host.settings for host in draft.hosts.values()]
    for setting in settings:
        for layer in setting.layers():
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            for name in layer.keys() & CHECKS.keys():
                _check(name, layer[name], problems)


def _check(name: str, variable: Variable, problems: list[Problem]) -> None:
    value = variable.value
    if isinstance(value, str) and "{{" in value:
        return
    allowed = CHECKS[name](value)
    if allowed:
        message = f"{name} is {value!r}; allowed: {allowed}"
        problems.append(Problem("connection-variable", message, variable.position))
