"""Magic variables: what every playbook may name without defining it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gpuprov import __version__

if TYPE_CHECKING:
    from gpuprov.model import Host, Inventory, Play, RoleUse
    from gpuprov.templating.renderer import Renderer

#: What playbooks that ask for Ansible's version are told: the release whose behaviour gpuprov has.
ANSIBLE_VERSION = {"full": "2.19.0", "major": 2, "minor": 19, "revision": 0, "string": "2.19.0"}
MANAGED = "Managed by gpuprov: local changes are overwritten"
#: What was found to fit a host (gpuprov/stack), for those whose tasks name it.
RESOLVED = "gpuprov_resolved_stack"
#: Names that only exist while the controller renders.
CONTROLLER_NAMES = frozenset(["hostvars", "vars"])
#: Magic names whose value depends on the task's place.
PLACE_NAMES = frozenset(["role_name", "role_path", "ansible_role_name", "ansible_parent_role_names"])
#: Names that exist while a rescue part, a loop or a template file runs.
SITUATION_NAMES = frozenset(
    ["ansible_failed_task", "ansible_failed_result", "template_path", "template_host", "template_fullpath"]
)


class Groups(Mapping[str, list[str]]):
    """`groups`: the hosts of each group, in inventory order, found when asked for."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._known: dict[str, list[str]] = {}

    def __getitem__(self, name: str) -> list[str]:
        if name not in self._known:
            if name not in self._inventory.groups:
                raise KeyError(name)
            self._known[name] = list(self._inventory.members(name))
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._inventory.groups)

    def __len__(self) -> int:
        return len(self._inventory.groups)


#: The code of a problem that goes away when the other hosts' facts are known.
FACTS_OF_OTHERS = "facts-of-others"


class HostVariables(Mapping[str, Any]):
    """One host of `hostvars`: its inventory variables rendered, and its facts when they are known."""

    def __init__(self, host: str, renderer: Renderer, facts_known: bool) -> None:
        self._host = host
        self._renderer = renderer
        self._facts_known = facts_known

    def __getitem__(self, name: str) -> Any:
        if name not in self._renderer:
            raise KeyError(name)
        return self._renderer.value(name)

    def why_missing(self, name: str) -> str:
        """Return what an error about undefined *name* says."""
        said = f"hostvars[{self._host!r}] has no {name}"
        if name.startswith("ansible_") and not self._facts_known:
            return f"{said}: the facts of other hosts are not known while a plan is compiled"
        return said

    def __iter__(self) -> Iterator[str]:
        return iter(self._renderer)

    def __len__(self) -> int:
        return len(list(self._renderer))


class HostVars(Mapping[str, HostVariables]):
    """`hostvars`: the variables of every host of the inventory."""

    def __init__(self, inventory: Inventory, of: Callable[[str], HostVariables]) -> None:
        self._inventory = inventory
        self._of = of

    def __getitem__(self, name: str) -> HostVariables:
        if name not in self._inventory.hosts:
            raise KeyError(name)
        return self._of(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._inventory.hosts)

    def __len__(self) -> int:
        return len(self._inventory.hosts)


def run_names(
    inventory: Inventory, playbook: str, run: str, *, check: bool, diff: bool, verbosity: int = 0
) -> dict[str, Any]:
    """Return the magic variables that are the same for every host and play."""
    inventory_path = os.path.abspath(inventory.path)
    is_folder = os.path.isdir(inventory_path)
    return {
        "ansible_check_mode": check,
        "ansible_diff_mode": diff,
        "ansible_verbosity": verbosity,
        "ansible_managed": MANAGED,
        "ansible_version": ANSIBLE_VERSION,
        "ansible_playbook_python": "python3",
        "ansible_inventory_sources": [inventory_path],
        "gpuprov_run": run,
        "gpuprov_version": __version__,
        "inventory_dir": inventory_path if is_folder else os.path.dirname(inventory_path),
        "inventory_file": inventory_path,
        "playbook_dir": os.path.dirname(os.path.abspath(playbook)),
    }


def host_names(host: Host) -> dict[str, Any]:
    """Return the magic variables of one host."""
    return {
        "group_names": list(host.groups),
        "inventory_hostname": host.name,
        "inventory_hostname_short": host.name.split(".", 1)[0],
    }


def play_names(play: Play, members: list[str]) -> dict[str, Any]:
    """Return the magic variables of one play on *members*."""
    return {
        "ansible_play_name": play.name,
        "ansible_play_hosts": members,
        "ansible_play_hosts_all": members,
        "ansible_play_batch": members,
        "play_hosts": members,
        "ansible_play_role_names": [role.name for role in play.roles],
        "role_names": [role.name for role in play.roles],
    }


def role_names(role: RoleUse) -> dict[str, Any]:
    """Return the magic variables of tasks of one role."""
    return {
        "role_name": role.name.rpartition(".")[2],
        "ansible_role_name": role.name,
        "role_path": os.path.abspath(role.path),
    }


ALL_NAMES = frozenset(
    [
        *("ansible_check_mode", "ansible_diff_mode", "ansible_verbosity", "ansible_managed"),
        *("ansible_version", "ansible_facts"),
        *("gpuprov_run", "gpuprov_version", RESOLVED, "inventory_dir", "inventory_file", "playbook_dir"),
        *("group_names", "groups", "inventory_hostname", "inventory_hostname_short"),
        *("play_hosts", "role_names", *CONTROLLER_NAMES, *PLACE_NAMES, *SITUATION_NAMES),
    ]
)
