"""All filters beyond Jinja2's own, by name: a table that grows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from jinja2 import pass_context

from gpuprov.templating import filters_environment, filters_lists, filters_numbers, filters_text
from gpuprov.templating.problem import TemplateProblem

if TYPE_CHECKING:
    from collections.abc import Callable

    from jinja2.runtime import Context

    from gpuprov.templating.environment import ScopeContext

#: Ansible has them, gpuprov does not; and what to do instead.
UNSUPPORTED = {
    "json_query": "use selectattr, map and items of Jinja2",
    "password_hash": "give the hash itself as a variable",
    "vault": "keep secrets in vaulted files",
    "unvault": "keep secrets in vaulted files",
    "ipaddr": "give the address itself as a variable",
    "ipv4": "give the address itself as a variable",
    "ipsubnet": "give the network itself as a variable",
}


def _outside(name: str) -> Callable[..., Any]:
    """Return filter *name*, which the controller lends to a Renderer."""

    @pass_context
    def run(context: Context, *args: Any, **options: Any) -> Any:
        scope = cast("ScopeContext", context).scope
        outside = scope.renderer.outside if scope is not None else None
        if outside is None or name not in outside.filters:
            raise TemplateProblem(
                f"filter {name} works on the controller only, and this expression is rendered on the host",
                code="controller-only",
            )
        return outside.filters[name](*args, **options)

    return run


#: Filters that need the controller's files or libraries: a Renderer gets them as `outside.filters`.
CONTROLLER_ONLY = (
    "to_yaml",
    "to_nice_yaml",
    "from_yaml",
    "from_yaml_all",
    "realpath",
    "expanduser",
    "expandvars",
    "fileglob",
    "exists",
)

_OWN: dict[str, Callable[..., Any]] = {
    **filters_text.TABLE,
    **filters_numbers.TABLE,
    **filters_lists.TABLE,
    **filters_environment.TABLE,
    **{name: _outside(name) for name in CONTROLLER_ONLY},
}
#: Under their short names and as Ansible's fully qualified ones.
FILTERS: dict[str, Callable[..., Any]] = {**_OWN, **{"ansible.builtin." + name: f for name, f in _OWN.items()}}
FILTERS["community.general.version_sort"] = _OWN["version_sort"]
