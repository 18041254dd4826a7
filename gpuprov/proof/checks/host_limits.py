"""How much memory processes may lock (pin): network cards reach only what is locked.

What this process itself may lock tells nothing of jobs: it is asked what logins and services are given.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gpuprov.proof.check import check
from gpuprov.proof.checks.host_files import Absent, host_part, names, text
from gpuprov.proof.checks.host_network import for_rdma

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

GIB = 1 << 30
LEAST = 16 * GIB
#: What systemd gives where nobody said anything (since version 246), and logins inherit.
SYSTEMD_DEFAULT = 8 << 20
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_MANAGER = "/etc/systemd/system.conf"


class Limits(NamedTuple):
    """Bytes that may be locked, None for no limit. of services: what DefaultLimitMEMLOCK says."""

    login: int | None
    service: int | None
    needed: bool


def read(context: Context) -> Limits:
    """Return what logins (pam_limits) and services (systemd) may lock."""
    service = _service(context)
    login = login_limit([text(context, path) or "" for path in _limits_files(context)], service)
    return Limits(login, service, for_rdma(context))


def _limits_files(context: Context) -> list[str]:
    folder = "/etc/security/limits.d"
    more = [f"{folder}/{name}" for name in names(context, folder) if name.endswith(".conf")]
    return ["/etc/security/limits.conf", *more]


def _service(context: Context) -> int | None:
    files = [_MANAGER]
    for folder in ("/usr/lib/systemd/system.conf.d", "/etc/systemd/system.conf.d", "/run/systemd/system.conf.d"):
        files += [f"{folder}/{name}" for name in names(context, folder) if name.endswith(".conf")]
    found = [text(context, path) for path in files]
    if not names(context, "/run/systemd/system") and not any(found):
        raise Absent("no systemd runs here: what services may lock is for whoever starts them")
    return service_limit([config or "" for config in found])


def service_limit(configs: list[str]) -> int | None:
    """Return the soft limit that systemd's manager gives to services; the last word holds. Pure."""
    said = [v for config in configs for v in re.findall(r"^\s*DefaultLimitMEMLOCK\s*=\s*(\S+)", config, re.MULTILINE)]
    if not said:
        return SYSTEMD_DEFAULT
    soft = said[-1].partition(":")[0]
    if soft == "infinity":
        return None
    number = re.fullmatch(r"(\d+)([KMGT]?)B?", soft)
    return int(number.group(1)) * _UNITS[number.group(2)] if number else SYSTEMD_DEFAULT


def login_limit(files: list[str], otherwise: int | None) -> int | None:
    """Return the soft limit that pam_limits gives to ordinary users; the last word holds. Pure."""
    limit = otherwise
    for line in "\n".join(files).splitlines():
        words = line.partition("#")[0].split()
        if len(words) == 4 and words[0] == "*" and words[1] in ("soft", "-") and words[2] == "memlock":
            if words[3] in ("unlimited", "infinity", "-1"):
                limit = None
            elif words[3].isdigit():
                limit = int(words[3]) * 1024
    return limit


def judge(found: Limits) -> list[Message]:
    """Judge both limits; they matter where a network card reaches into memory. Pure."""
    if not found.needed:
        reason = "no card for RDMA (InfiniBand, Ethernet of 100 Gb/s): nothing needs much locked memory"
        return [check("limits.locked-memory", "skip", reason, data={"evidence": _lines(found)})]
    checks = []
    ways = {
        "login": "* - memlock unlimited in /etc/security/limits.d",
        "service": "LimitMEMLOCK=infinity in its unit, or DefaultLimitMEMLOCK in /etc/systemd/system.conf",
    }
    for who, way in ways.items():
        limit: int | None = getattr(found, who)
        if limit is not None and limit < LEAST:
            reason = f"a {who} may lock {_size(limit)} of memory, network cards need 16 GiB or no limit: {way}"
            name = f"limits.locked-memory-{who}"
            checks.append(check(name, "warn", reason, limit / GIB, ">= 16", "GiB", action="monitor"))
    good = f"a login may lock {_size(found.login)}, a service {_size(found.service)} of memory"
    return checks or [check("limits.locked-memory", "pass", good, data={"evidence": _lines(found)})]


def _lines(found: Limits) -> list[str]:
    return [f"login: {_size(found.login)}", f"service: {_size(found.service)}"]


def _size(limit: int | None) -> str:
    if limit is None:
        return "any amount"
    return f"{limit / GIB:.3g} GiB" if limit >= GIB else f"{limit / (1 << 20):.3g} MiB"


PARTS = (host_part("limits.locked-memory", read, judge, "/etc/security/limits*, /etc/systemd/system.conf*"),)
