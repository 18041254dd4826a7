"""Facts that are read once, before the plan runs, and which tasks make them old."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuprov.templating.names import ALL_FACTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuprov.model import Task

#: Facts that neither a reboot nor anything that a plan does changes.
LASTING = frozenset(
    [
        *("architecture", "machine", "machine_id", "system", "os_family", "userspace_architecture"),
        *("distribution", "distribution_major_version", "distribution_release", "distribution_version"),
        *("pkg_mgr", "service_mgr", "python", "python_version", "processor", "processor_cores", "processor_count"),
        *("processor_threads_per_core", "processor_vcpus", "virtualization_role", "virtualization_type"),
        *("bios_vendor", "bios_version", "board_name", "product_name", "product_serial", "product_uuid"),
        *("system_vendor", "user_id", "user_uid", "user_gid", "user_dir", "user_shell"),
    ]
)
#: Action -> the facts that it renews; "*" stands for all that may change.
RENEWS: Mapping[str, frozenset[str]] = {
    "setup": frozenset([ALL_FACTS]),
    "gather_facts": frozenset([ALL_FACTS]),
    "reboot": frozenset([ALL_FACTS]),
    "service_facts": frozenset(["services"]),
    "package_facts": frozenset(["packages"]),
    "mount_facts": frozenset(["mount_points"]),
}


def made_stale(task: Task) -> frozenset[str]:
    """Return the facts that are not known ahead any more after *task*."""
    return RENEWS.get(task.action, frozenset())


def names_stale(facts: frozenset[str], names: frozenset[str], stale: frozenset[str]) -> bool:
    """Say whether something that is named is stale.

    *facts* are named as `ansible_facts.x`, *names* may have facts as `ansible_x`.
    """
    if not stale:
        return False
    short = {name.removeprefix("ansible_") for name in names if name.startswith("ansible_") and name != "ansible_facts"}
    return any(_is_stale(fact, stale) for fact in facts) or any(
        _is_stale(f, stale) for f in short if f not in _SETTINGS
    )


def _is_stale(fact: str, stale: frozenset[str]) -> bool:
    return fact in stale or (fact not in LASTING and ALL_FACTS in stale)


#: `ansible_*` names that are settings or magic, not facts.
_SETTINGS = frozenset(
    [
        *("host", "port", "user", "connection", "password", "ssh_pass", "become", "become_user", "become_password"),
        *("become_pass", "become_method", "python_interpreter", "check_mode", "diff_mode", "managed", "version"),
        *("play_name", "play_hosts", "play_hosts_all", "play_batch", "play_role_names", "role_name", "loop_var"),
        *("ssh_private_key_file", "ssh_common_args", "playbook_python", "inventory_sources"),
        *("failed_task", "failed_result"),
    ]
)
