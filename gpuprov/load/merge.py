"""Which setting of a variable wins on which host: Ansible's order, with everything that lost kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuprov.load.groups import Draft, merge_order
from gpuprov.model import Host

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpuprov.model import Variable

    Merged = tuple[dict[str, Variable], dict[str, tuple[Variable, ...]]]
    Layer = dict[str, Variable]


def merge_hosts(draft: Draft) -> dict[str, Host]:
    """Return every host with its variables merged. Hosts of the same groups share one merge of these."""
    memberships = _memberships(draft)
    order = merge_order(draft)
    shared: dict[frozenset[str], Merged] = {}
    hosts = {}
    for name, host in draft.hosts.items():
        groups = memberships[name]
        if groups not in shared:
            ranked = sorted(groups - {"all"}, key=order.__getitem__)
            shared[groups] = _overlay(({}, {}), _group_layers(draft, ranked))
        variables, overridden = _overlay(shared[groups], host.settings.layers())
        hosts[name] = Host(name, tuple(sorted(groups - {"all"})), variables, overridden, host.position)
    return hosts


def _memberships(draft: Draft) -> dict[str, frozenset[str]]:
    """Return all groups of each host, ancestors and `all` too; equal sets are one object."""
    parents = draft.parents()
    ancestors: dict[str, set[str]] = {}

    def above(group: str) -> set[str]:
        if group not in ancestors:
            ancestors[group] = {group}.union(*(above(parent) for parent in parents[group]))
        return ancestors[group]

    found: dict[str, set[str]] = {name: {"all"} for name in draft.hosts}
    for group in draft.groups.values():
        for host in group.hosts:
            found[host] |= above(group.name)
    return {name: frozenset(groups) for name, groups in found.items()}


def _group_layers(draft: Draft, ranked: list[str]) -> Iterable[Layer]:
    """Yield what groups set, weakest first: inventory files, then group_vars of all, then those of the others."""
    everything = draft.groups["all"].settings
    groups = [draft.groups[name].settings for name in ranked]
    yield from everything.inventory
    for settings in groups:
        yield from settings.inventory
    yield from everything.beside_inventory
    yield from everything.beside_playbook
    for settings in groups:
        yield from settings.beside_inventory
    for settings in groups:
        yield from settings.beside_playbook


def _overlay(base: Merged, layers: Iterable[Layer]) -> Merged:
    variables, overridden = dict(base[0]), dict(base[1])
    for layer in layers:
        for name, variable in layer.items():
            if name in variables:
                overridden[name] = (variables[name], *overridden.get(name, ()))
            variables[name] = variable
    return variables, overridden
