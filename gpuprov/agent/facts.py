"""What a host is, under Ansible's names without the ansible_ prefix. Files and system calls only.

`gather` is what every run needs, in a few milliseconds; facts_more has what costs more and only
the setup module asks for. What cannot be told is left out, never guessed.
"""

from __future__ import annotations

import json
import os
import pwd
import sys
import time

from gpuprov.agent import facts_gpu
from gpuprov.agent.facts_machine import memory, network, processor, virtualization

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.system import System

#: ID or ID_LIKE of /etc/os-release -> Ansible's os_family.
_FAMILIES = (
    ("Debian", ("debian", "ubuntu")),
    ("RedHat", ("rhel", "fedora", "centos", "rocky", "almalinux", "ol", "amzn")),
    ("Suse", ("suse", "sles", "opensuse-leap", "opensuse")),
    ("Archlinux", ("arch",)),
    ("Alpine", ("alpine",)),
)
#: ID of /etc/os-release -> Ansible's distribution.
_DISTRIBUTIONS = {
    "debian": "Debian",
    "ubuntu": "Ubuntu",
    "rhel": "RedHat",
    "centos": "CentOS",
    "rocky": "Rocky",
    "almalinux": "AlmaLinux",
    "fedora": "Fedora",
    "ol": "OracleLinux",
    "amzn": "Amazon",
    "sles": "SLES",
    "opensuse-leap": "openSUSE Leap",
    "alpine": "Alpine",
    "arch": "Archlinux",
}
_PACKAGE_MANAGERS = (("apt-get", "apt"), ("dnf5", "dnf5"), ("dnf", "dnf"), ("yum", "yum"), ("zypper", "zypper"))
FACTS_D = "/etc/ansible/facts.d"


def gather(system: System) -> dict[str, Any]:
    """Return the facts that every run may need. No processes, no network."""
    found: dict[str, Any] = {}
    cpuinfo = system.read_text("/proc/cpuinfo")
    for part in (_kernel, _distribution, memory, _python, _user, _services, _machine, network):
        found.update(part(system))
    found.update(processor(cpuinfo))
    found["virtualization_type"], found["virtualization_role"] = virtualization(system, found, cpuinfo)
    found["date_time"] = _date_time()
    found["env"] = dict(os.environ)
    found["local"] = local(system, FACTS_D)
    found["gpuprov"] = facts_gpu.gather(system)
    return found


def _kernel(system: System) -> dict[str, Any]:
    name = os.uname()
    hostname = name.nodename.split(".")[0]
    fqdn = _fqdn(system, name.nodename)
    return {
        "system": name.sysname,
        "kernel": name.release,
        "kernel_version": name.version,
        "architecture": name.machine,
        "machine": name.machine,
        "userspace_bits": "64" if sys.maxsize > 2**32 else "32",
        "nodename": name.nodename,
        "hostname": hostname,
        "fqdn": fqdn,
        "domain": fqdn.partition(".")[2],
    }


def _fqdn(system: System, nodename: str) -> str:
    """Return the full name by the host's own files: a resolver could block for seconds."""
    if "." in nodename:
        return nodename
    for line in system.read_text("/etc/hosts").splitlines():
        words = line.split("#", 1)[0].split()[1:]
        if nodename in words:
            return next((word for word in words if word.startswith(nodename + ".")), nodename)
    return nodename


def _distribution(system: System) -> dict[str, Any]:
    release = os_release(system.read_text("/etc/os-release") or system.read_text("/usr/lib/os-release"))
    name = release.get("ID", "linux")
    version = release.get("VERSION_ID", "")
    if name == "debian":  # os-release has only "12"
        version = system.read_text("/etc/debian_version").strip() or version
    like = [name, *release.get("ID_LIKE", "").split()]
    family = next((family for family, names in _FAMILIES for one in like if one in names), name.capitalize())
    return {
        "distribution": _DISTRIBUTIONS.get(name, release.get("NAME", name)),
        "distribution_version": version if version[:1].isdigit() else release.get("VERSION_ID", version),
        "distribution_major_version": (release.get("VERSION_ID") or version).split(".")[0],
        "distribution_release": release.get("VERSION_CODENAME", "NA"),
        "os_family": family,
    }


def os_release(text: str) -> dict[str, str]:
    """Return the assignments of an os-release file."""
    found = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not key.startswith("#"):
            found[key.strip()] = value.strip().strip("\"'")
    return found


def _python(system: System) -> dict[str, Any]:  # noqa: ARG001 - one signature for all parts
    keys = ("major", "minor", "micro", "releaselevel", "serial")
    return {
        "python_version": "%d.%d.%d" % sys.version_info[:3],
        "python": {
            "version": dict(zip(keys, sys.version_info)),
            "version_info": list(sys.version_info),
            "executable": sys.executable,
            "type": sys.implementation.name,
            "has_sslcontext": True,
        },
    }


def _user(system: System) -> dict[str, Any]:  # noqa: ARG001
    found: dict[str, Any] = {
        "user_uid": os.getuid(),
        "user_gid": os.getgid(),
        "effective_user_id": os.geteuid(),
        "effective_group_id": os.getegid(),
        "real_user_id": os.getuid(),
        "real_group_id": os.getgid(),
    }
    try:
        entry = pwd.getpwuid(os.geteuid())
    except KeyError:
        return found
    more = {"user_id": entry.pw_name, "user_dir": entry.pw_dir, "user_shell": entry.pw_shell}
    return {**found, **more, "user_gecos": entry.pw_gecos}


def _services(system: System) -> dict[str, Any]:
    init = system.read_text("/proc/1/comm").strip()
    if os.path.isdir("/run/systemd/system"):
        manager = "systemd"
    elif os.path.isdir("/run/openrc"):
        manager = "openrc"
    else:
        manager = {"init": "sysvinit", "upstart": "upstart"}.get(init, init or "service")
    found: dict[str, Any] = {"service_mgr": manager}
    for program, name in _PACKAGE_MANAGERS:
        if system.which(program, "/usr/bin:/bin:/usr/sbin:/sbin"):
            found["pkg_mgr"] = name
            break
    apparmor = os.path.isdir("/sys/kernel/security/apparmor") or os.path.isdir("/sys/module/apparmor")
    found["apparmor"] = {"status": "enabled" if apparmor else "disabled"}
    found["selinux"] = _selinux(system)
    return found


def _selinux(system: System) -> dict[str, str]:
    enforce = system.read_text("/sys/fs/selinux/enforce").strip()
    if not enforce:
        return {"status": "disabled"}
    return {"status": "enabled", "mode": "enforcing" if enforce == "1" else "permissive"}


def _machine(system: System) -> dict[str, Any]:
    found = {
        "boot_id": system.read_text("/proc/sys/kernel/random/boot_id").strip(),
        "machine_id": system.read_text("/etc/machine-id").strip(),
    }
    for name, file in (
        ("product_name", "product_name"),
        ("product_version", "product_version"),
        ("product_serial", "product_serial"),
        ("product_uuid", "product_uuid"),
        ("system_vendor", "sys_vendor"),
        ("board_name", "board_name"),
        ("bios_version", "bios_version"),
        ("bios_date", "bios_date"),
    ):
        found[name] = system.read_text("/sys/class/dmi/id/" + file).strip() or "NA"
    return {**found, "cmdline": _command_line(system)}


def _command_line(system: System) -> dict[str, Any]:
    words = [word.partition("=") for word in system.read_text("/proc/cmdline").split()]
    return {key: value if equals else True for key, equals, value in words}


def _date_time() -> dict[str, str]:
    now = time.time()
    local, utc = time.localtime(now), time.gmtime(now)
    found = {
        name: time.strftime(form, local)
        for name, form in (
            ("year", "%Y"),
            ("month", "%m"),
            ("weekday", "%A"),
            ("weekday_number", "%w"),
            ("weeknumber", "%W"),
            ("day", "%d"),
            ("hour", "%H"),
            ("minute", "%M"),
            ("second", "%S"),
            ("date", "%Y-%m-%d"),
            ("time", "%H:%M:%S"),
            ("tz", "%Z"),
            ("tz_offset", "%z"),
        )
    }
    found["epoch"] = found["epoch_int"] = str(int(now))
    found["iso8601"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", utc)
    found["iso8601_micro"] = "%s.%06dZ" % (time.strftime("%Y-%m-%dT%H:%M:%S", utc), now % 1 * 1_000_000)
    found["iso8601_basic_short"] = time.strftime("%Y%m%dT%H%M%S", local)
    return found


def local(system: System, folder: str) -> dict[str, Any]:
    """Return the site's own facts: *.fact files with JSON or INI. Programs among them are run by facts_more."""
    found: dict[str, Any] = {}
    if not os.path.isdir(folder):
        return found
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.endswith(".fact") and not os.access(path, os.X_OK):
            found[name[: -len(".fact")]] = fact_text(system.read_text(path))
    return found


def fact_text(text: str) -> Any:
    """Return the value of a fact file: JSON, or INI as sections of settings. Pure."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    sections: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}
    for line in (untrimmed.strip() for untrimmed in text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            section = sections.setdefault(line[1:-1], {})
        elif "=" in line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            section[key.strip().lower()] = value.strip()
    return sections or "error loading facts: neither JSON nor INI"
