"""All modules, by name. A module is found here and nowhere else."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

#: Module name -> file in this folder.
MODULES: dict[str, str] = {
    "apt": "apt",
    "assert": "assertion",
    "blockinfile": "blockinfile",
    "command": "command",
    "copy": "copy",
    "debug": "debug",
    "dnf": "dnf",
    "dnf5": "dnf",
    "fail": "fail",
    "file": "file",
    "gather_facts": "setup",
    "get_url": "get_url",
    "gpuprov_applied": "gpuprov_applied",
    "gpuprov_applied_info": "gpuprov_applied_info",
    "gpuprov_driver_check": "gpuprov_driver_check",
    "gpuprov_driver_state": "gpuprov_driver_state",
    "gpuprov_fabric": "gpuprov_fabric",
    "gpuprov_packages": "gpuprov_packages",
    "gpuprov_proof": "gpuprov_proof",
    "gpuprov_repository": "gpuprov_repository",
    "gpuprov_torch": "gpuprov_torch",
    "group": "group",
    "lineinfile": "lineinfile",
    "modprobe": "modprobe",
    "package": "package",
    "ping": "ping",
    "pip": "pip",
    "reboot": "reboot",
    "service": "service",
    "set_fact": "set_fact",
    "setup": "setup",
    "shell": "shell",
    "stat": "stat",
    "sysctl": "sysctl",
    "systemd": "systemd",
    "systemd_service": "systemd",
    "template": "template",
    "user": "user",
    "wait_for": "wait_for",
    "yum": "dnf",
}

#: Modules that need the proof's sources, and whose results have checks.
PROOFS = ("gpuprov_fabric", "gpuprov_proof")

#: Prefixes that Ansible's fully qualified names may have.
COLLECTIONS = ("ansible.builtin.", "ansible.legacy.", "ansible.posix.", "community.general.")


def short_name(name: str) -> str:
    """Return a module's short name ("ansible.builtin.copy" -> "copy")."""
    for prefix in COLLECTIONS:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


def load(name: str) -> ModuleType:
    """Import the file of module *name*: it has SPEC and MODULE. Raises KeyError."""
    from importlib import import_module

    return import_module("gpuprov.agent.modules." + MODULES[name])
